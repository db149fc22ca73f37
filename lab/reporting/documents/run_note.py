"""Summary of a report in Markdown, the description of the sweep's run in MLflow."""

from collections.abc import Sequence

from lab.reporting.conclusion import Headline
from lab.reporting.documents.markdown import escape_lines, escape_text


def write_note(question: str, headline: Headline, facts: Sequence[tuple[str, str]]) -> str:
    """Return question, answer, doubts, and the lines of the summary, in Markdown.

    Args:
        question: question of the sweep.
        headline: conclusion of the report.
        facts: lines of the summary (`conclusion.list_facts`).
    """
    parts = [f"# {escape_text(question)}", f"**{escape_text(headline.answer)}**"]
    parts += map(escape_text, headline.doubts)
    if facts:
        parts.append(
            "\n".join(f"- *{escape_text(key)}*: {escape_lines(text)}" for key, text in facts)
        )
    return "\n\n".join(parts)
