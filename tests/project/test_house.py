"""Rules beyond the linter's: no path of a single machine, no code loaded from data files."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import ROOT

LAB = ROOT / "lab"
FILES = sorted(LAB.rglob("*.py"))
SHIPPED = [*FILES, *sorted(LAB.rglob("*.jinja"))]


def relative_name(file: Path) -> str:
    return str(file.relative_to(LAB))


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a file with the dotted name that it calls."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("file", SHIPPED, ids=relative_name)
def test_no_file_contains_an_absolute_path_of_a_machine(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])(/home/|/root/|/Users/|/mnt/|[A-Z]:\\)", text) == []
    assert str(ROOT) not in text


def test_templates_are_among_the_checked_files() -> None:
    assert {file.suffix for file in SHIPPED} == {".py", ".jinja"}


@pytest.mark.parametrize("file", FILES, ids=relative_name)
def test_no_file_executes_data(file: Path) -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
    for name, call in calls(file):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in forbidden
        assert not re.search(r"(^|\.)(c?pickle|dill|joblib|marshal|shelve)\.", name.lower())
        match name:
            case "torch.load":
                assert keywords.get("weights_only") == "True"
            case "np.load" | "numpy.load":
                assert keywords.get("allow_pickle", "False") == "False"
            case "yaml.load" | "yaml.load_all":
                assert keywords.get("Loader") in {"_Loader", "yaml.SafeLoader", "yaml.CSafeLoader"}
            case "yaml.unsafe_load" | "yaml.full_load":
                pytest.fail(f"{name} can execute code from a file")
        assert keywords.get("shell") in {None, "False"}
        assert keywords.get("trust_remote_code") in {None, "False"}


def test_search_spaces_are_loaded_by_a_safe_yaml_loader() -> None:
    import yaml

    from lab.loading import yaml_text
    from lab.loading.error_messages import SpaceError

    assert issubclass(yaml_text._Loader, yaml.SafeLoader)
    with pytest.raises(SpaceError, match="not YAML"):
        yaml_text.parse("!!python/object/apply:os.getcwd []")


@pytest.mark.parametrize("top", ["lab", "tests", "benchmarks"])
def test_a_folder_has_at_most_20_modules(top: str) -> None:
    for folder in [ROOT / top, *(path for path in (ROOT / top).rglob("*") if path.is_dir())]:
        modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(modules) <= 20, folder
