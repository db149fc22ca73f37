"""Render the documents of a report: the HTML page, the Markdown text and the files of the figures.

All documents have one set of templates (`templates/`), in Jinja.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path as File
from typing import Any

import jinja2

from lab.control_characters import make_visible
from lab.reporting.documents import markdown
from lab.reporting.figures import svg
from lab.reporting.interactive import fitting
from lab.reporting.interactive import page as interactive

PAGE, TEXT = "report.html", "report.md"


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """Return the HTML page of a report, with its scripts.

    Its interactive figures are reduced until it has less than `fitting.MOST_BYTES`.

    Args:
        template: name of the template without `.html.jinja`.
        context: values of the template; `interactive` has lists of figures by section.
    """
    page = ""
    for figures in fitting.list_smaller(context["interactive"]):
        text = _render(f"{template}.html.jinja", {**context, "interactive": figures})
        # Texts of the template have no `<` of their own.
        page = text.replace(interactive.SCRIPTS, interactive.script_elements(), 1)
        if len(page.encode()) < fitting.MOST_BYTES:
            break
    return page


def write_documents(folder: File, template: str, context: Mapping[str, Any]) -> None:
    """Write `report.html`, `report.md` and `figures/` to an existing folder.

    Args:
        folder: folder of the report.
        template: name of the two templates without `.html.jinja` and `.md.jinja`.
        context: values of the templates; `figures` has lists of figures by section.
    """
    (folder / PAGE).write_text(render_page(template, context), encoding="utf-8")
    (folder / TEXT).write_text(_render(f"{template}.md.jinja", context), encoding="utf-8")
    (folder / "figures").mkdir()
    for figure in (figure for section in context["figures"].values() for figure in section):
        content = make_visible(svg.standalone_svg(figure.svg))
        (folder / "figures" / f"{figure.name}.svg").write_text(content, encoding="utf-8")


def _render(name: str, context: Mapping[str, Any]) -> str:
    return make_visible(_environment().get_template(name).render(context))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(File(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": markdown.escape_cell, "code": markdown.format_code}
    environment.filters["lines"] = markdown.escape_lines
    environment.filters |= {"text": markdown.escape_text, "block": markdown.format_block}
    return environment
