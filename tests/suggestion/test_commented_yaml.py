"""Commented YAML is parsed to the same settings, for any comments."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lab.loading import yaml_text
from lab.suggestion import commented_yaml
from lab.suggestion.commented_yaml import Section

KEYS = st.text(st.characters(categories=["L", "N"], include_characters="._-"), min_size=1)
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(1e-30, 1e30) | st.booleans()
TEXTS = st.text(st.characters(exclude_categories=["C"]))
VALUES = st.recursive(
    NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
SECTIONS = st.recursive(
    st.builds(lambda value, because: Section(value=value, because=because), VALUES, TEXTS),
    lambda inner: st.builds(
        lambda value, because: Section(value=value, because=because),
        st.dictionaries(KEYS, inner, min_size=1, max_size=3),
        TEXTS,
    ),
    max_leaves=6,
)


def same(parsed: Any, expected: Any) -> bool:
    """Return whether two documents are equal; 5e12 may be parsed as an integer."""
    if isinstance(expected, dict):
        return list(parsed) == list(expected) and all(
            same(parsed[key], expected[key]) for key in expected
        )
    if isinstance(expected, list):
        return len(parsed) == len(expected) and all(map(same, parsed, expected))
    return bool(parsed == expected) and isinstance(parsed, bool) == isinstance(expected, bool)


@given(st.dictionaries(KEYS, SECTIONS, min_size=1, max_size=4), TEXTS)
def test_written_document_is_parsed_to_the_same_settings(
    document: dict[str, Section], heading: str
) -> None:
    written = commented_yaml.write_commented(document, heading)
    assert same(yaml_text.parse(written), commented_yaml.to_plain(document))


def test_comments_are_above_their_settings_and_wrapped() -> None:
    inner = {"b": Section(value=5e12, because="word " * 40)}
    written = commented_yaml.write_commented({"a": Section(value=inner, because="Why.")}, "Head.")
    lines = written.splitlines()
    assert lines[:4] == ["# Head.", "", "# Why.", "a:"]
    assert lines[-1] == "  b: 5e12"
    assert all(line.startswith("  # word") and len(line) <= 100 for line in lines[4:-1])
