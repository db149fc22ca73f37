"""Texts of a report as Markdown, in which names and questions are shown and never interpreted."""

import re


def escape_text(text: object) -> str:
    """Return a text in one line, without HTML tags, links, images and code of Markdown."""
    safe = (
        " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    )
    return safe.replace("`", r"\`").replace("](", r"]\(")


def escape_cell(text: object) -> str:
    """Return a text in one line for a cell of a table."""
    return escape_text(text).replace("|", r"\|")


def escape_lines(text: object) -> str:
    """Return a text for a cell of a table, with its line breaks."""
    return "<br>".join(map(escape_cell, str(text).splitlines()))


def format_code(text: object) -> str:
    """Return a text in one line as code, in a cell of a table."""
    line = " ".join(str(text).split()).replace("|", r"\|")
    fence = "`" * (_longest_run(line) + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def format_block(text: object) -> str:
    """Return a text as a block of code, with a fence that it does not contain."""
    fence = "`" * max(4, _longest_run(str(text)) + 1)
    return f"{fence}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
