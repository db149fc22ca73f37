"""Describe a prepared text by its counts and settings (`text.json`)."""

from pathlib import Path as File
from typing import Any

from pydantic import TypeAdapter

from lab.config.data import TokenizerConfig
from lab.data.prepared_files import read_facts
from lab.data.tokenization import coverage
from lab.data.tokenization.coverage import Coverage
from lab.data.tokenization.marks import MarkSurvey


def is_decontaminated(facts: dict[str, Any], overlap: dict[str, Any]) -> bool:
    """Return whether lines that overlap with a task were removed after they were counted.

    Args:
        facts: counts and settings, as `read_facts` returns them.
        overlap: one of `facts["overlaps"]`.
    """
    return overlap["task"] in facts["data"]["decontaminate"]


def describe_text(folder: File) -> str:
    """Return a one-line description of a prepared text, for the report."""
    facts = read_facts(folder)
    train = facts["train"]
    overlaps = ", ".join(
        f"{overlap['found']:,} of {overlap['questions'] - overlap['short']:,} of {overlap['task']}"
        + (" (before these lines were removed)" if is_decontaminated(facts, overlap) else "")
        for overlap in facts["overlaps"]
    )
    return (
        f"{folder.name}: {train['windows']:,} windows of {facts['length']} tokens, "
        f"{train['tokens_in_windows']:,} tokens, {train['unknown_rate']:.2%} unknown "
        f"({lost_characters(facts):.2%} of the characters), "
        f"{train['padded_share']:.2%} of positions padded; {facts['duplicates']:,} duplicate "
        f"documents dropped, and {train['without_window']:,} too short for a "
        f"window; evaluation examples that share 13 consecutive tokens with the text: "
        f"{overlaps}."
    )


def text_warnings(folder: File) -> list[str]:
    """Return warnings about the vocabulary of a prepared text, one line each."""
    facts = read_facts(folder)
    settings: TokenizerConfig = TypeAdapter(TokenizerConfig).validate_python(
        facts["data"]["tokenizer"]
    )
    surveyed = read_marks(facts)
    return [
        *coverage.coverage_warnings(settings, read_coverage(facts)),
        *([] if surveyed is None else surveyed.warnings()),
    ]


def read_marks(facts: dict[str, Any]) -> MarkSurvey | None:
    """Return the survey of marks of a prepared text; None if its tokenizer has no option.

    Args:
        facts: counts and settings, as `read_facts` returns them.
    """
    return None if facts["marks"] is None else MarkSurvey(**facts["marks"])


def read_coverage(facts: dict[str, Any]) -> list[Coverage]:
    """Return the coverage of each part of a prepared text.

    Args:
        facts: counts and settings, as `read_facts` returns them.
    """
    return [Coverage(**part) for part in facts["coverage"]]


def lost_characters(facts: dict[str, Any]) -> float:
    """Return the share of the characters in unknown tokens, parts of a mixture by their weight.

    Args:
        facts: counts and settings, as `read_facts` returns them.
    """
    parts, weights = read_coverage(facts), facts["weights"]
    lost = sum(part.lost * weight for part, weight in zip(parts, weights, strict=True))
    return float(lost / sum(weights))
