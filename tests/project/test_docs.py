"""The documentation agrees with the code: reference, links, search spaces, commands, targets."""

import argparse
import importlib
import importlib.util
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from project import ROOT

from lab.loading.markdown import slug
from lab.loading.reference import write_reference
from lab.loading.schema import json_schema
from lab.loading.search_space import load_experiment
from lab.loading.task_table import load_task

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
MAX_README_WORDS = 1_300

FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
HEREDOC = re.compile(r"<<'END'\n(.*?)^END\n", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
KEYS = {"question", "metric", "base"}  # a block with all of these is a whole search space


class CommandParsedError(Exception):
    """Raised in place of running a command whose arguments were accepted."""


def named(file: Path) -> str:
    return file.name


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings; a repeated heading gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(FENCE.sub("", read(page))):
        anchor = slug(re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading))
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, block in FENCE.findall(read(page)):
        if language in languages:
            yield block


def yaml_blocks() -> Iterator[tuple[str, str]]:
    """Yield the page and the text of each YAML block and of each file that a shell block writes."""
    for page in PAGES:
        for block in blocks(page, "yaml"):
            yield page.name, block
        for block in blocks(page, "sh"):
            for text in HEREDOC.findall(block):
                yield page.name, text


def shell_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the page and the words of each command of a shell block."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in HEREDOC.sub("\n", block).splitlines():
                words = shlex.split(line, comments=True)
                for command in " \0 ".join(words).split(" \0 && \0 "):
                    yield page.name, command.split(" \0 ")


def lab_commands() -> list[tuple[str, list[str]]]:
    """Return the page, and the words after `python -m`, of each command of a module."""
    return [
        (page, command[2:])
        for page, command in shell_commands()
        if Path(command[0]).name == "python" and command[1] == "-m"
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", read(ROOT / "Makefile"), re.MULTILINE))


def test_search_space_reference_equals_the_output_of_its_command() -> None:
    assert read(DOCS / "search-space.md") == write_reference(), (
        "run: python -m lab.loading.reference > docs/search-space.md"
    )


def test_reference_has_every_key_of_the_schema() -> None:
    reference = write_reference()
    definitions: dict[str, Any] = json_schema()["$defs"]
    shapes = [each for name, each in definitions.items() if "Ramp" not in name]
    keys = {
        key for shape in shapes for key, node in shape["properties"].items() if "const" not in node
    }
    assert {key for key in keys if f"| `{key}` |" not in reference} == set()


def test_readme_has_at_most_1300_words() -> None:
    assert len(read(README).split()) <= MAX_README_WORDS


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_to_a_file_and_an_anchor(page: Path) -> None:
    broken = []
    for link in LINK.findall(without_code(read(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=named)
def test_documentation_links_stay_inside_of_the_documentation(page: Path) -> None:
    for link in LINK.findall(without_code(read(page))):
        assert re.match(r"https?:", link) or (page.parent / link).resolve().is_relative_to(DOCS)


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = yaml.safe_load(read(ROOT / "mkdocs.yml"))["nav"]
    listed = [page for entry in navigation for page in entry.values()]
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


@pytest.mark.parametrize(
    ("page", "text"), [each for each in yaml_blocks() if set(yaml.safe_load(each[1])) >= KEYS]
)
def test_every_whole_search_space_loads(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_experiment(file).question


@pytest.mark.parametrize(
    ("page", "text"), [each for each in yaml_blocks() if "evaluation" in yaml.safe_load(each[1])]
)
def test_every_task_file_loads(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_task(str(file)).name == "task"


@pytest.mark.parametrize(("page", "words"), lab_commands())
def test_every_command_is_accepted_by_its_parser(
    page: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *arguments = words
    if not name.startswith("lab.") or ">" in arguments:
        assert importlib.util.find_spec(name) is not None
        return
    accept = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, given: Any = None) -> NoReturn:
        accept(parser, given)
        raise CommandParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(CommandParsedError):
        importlib.import_module(name).main(arguments)


def test_every_make_target_that_is_named_exists() -> None:
    texts = "\n".join(map(read, PAGES))
    inline = re.findall(r"`make ([\w-]+)`", texts)
    commands = [words[1] for _, words in shell_commands() if words[0] == "make"]
    assert set(inline) | set(commands) <= make_targets()
    assert {"sweep", "test"} <= set(commands)
