"""The base of every class that a search space can spell out."""

from typing import ClassVar

from pydantic import ConfigDict


class StrictConfig:
    """A frozen dataclass under this base refuses keys that it does not know."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
