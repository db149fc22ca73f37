"""The learning curves of docs/sizes.md are those of the committed reports."""

from project import ROOT

from benchmarks import learning_curves


def test_table_of_the_documentation_is_what_the_command_prints() -> None:
    reports = [ROOT / learning_curves.FOLDER / name for name in learning_curves.SIZES]
    page = (ROOT / "docs" / "sizes.md").read_text(encoding="utf-8")
    assert page.endswith(f"\n{learning_curves.table(reports)}\n")
