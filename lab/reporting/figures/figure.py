"""A figure of a report with its texts."""

from dataclasses import dataclass

from lab.reporting.figures import svg


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: name of its file, without suffix, and its id in the HTML page.
        title: title of the figure.
        caption: text that describes the figure.
        svg: content of the figure.
        files: names of the CSV files with its numbers.
    """

    name: str
    title: str
    caption: str
    svg: str
    files: tuple[str, ...] = ()

    @property
    def inline(self) -> str:
        """Content of the figure for a page with several figures."""
        return svg.inline_svg(self.svg, self.name)
