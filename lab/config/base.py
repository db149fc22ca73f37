"""Base class of every section of a search space."""

from typing import ClassVar

from pydantic import ConfigDict


class StrictConfig:
    """Base of the frozen configuration dataclasses; validation rejects unknown keys."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
