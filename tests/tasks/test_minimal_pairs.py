"""Files of minimal pairs: valid rows are read, and invalid ones are named in one line."""

import json
from pathlib import Path

import pytest
from project import ROOT

from lab import sweep
from lab.config.metrics import METRICS, PAIR_CATEGORIES, find_metric
from lab.errors import UserError
from lab.tasks.minimal_pairs import MinimalPair, embedded_pairs, list_categories, read_pairs

GOOD = {"good": "They are here.", "bad": "They is here.", "category": "agreement"}


def write(folder: Path, *rows: object) -> str:
    file = folder / "mine.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(file)


def test_rows_are_read_in_order_without_their_other_keys(tmp_path: Path) -> None:
    second = {"good": "A b", "bad": "B a", "category": "word-order_2"}
    read = read_pairs(write(tmp_path, GOOD | {"pair_id": 3}, "", second))
    assert read == (MinimalPair(**GOOD), MinimalPair(**second))


@pytest.mark.reported
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"good": "a", "category": "c"}, "no column 'bad'; columns: good, category"),
        (GOOD | {"good": 3}, "good: must be text, not 3"),
        (GOOD | {"category": None}, "category: must be text, not null"),
        (GOOD | {"bad": " "}, "bad: must not be empty"),
        (GOOD | {"bad": "They  are here."}, "bad: must differ from good"),
        (
            GOOD | {"category": "a/b"},
            "category: must have 1 to 100 letters (a to z), digits, - or _, not 'a/b'",
        ),
        (
            GOOD | {"category": ""},
            "category: must have 1 to 100 letters (a to z), digits, - or _, not ''",
        ),
        (GOOD | {"category": "c" * 101}, "category: must have 1 to 100 letters"),
        ([1], "not a JSON object"),
        ("{", "not JSON: "),
    ],
)
def test_invalid_row_is_named_with_what_is_allowed(
    row: object, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, GOOD, row)
    with pytest.raises(UserError) as refused:
        read_pairs(path)
    assert str(refused.value).startswith(f"{path}:2: {message}")
    assert "\n" not in str(refused.value)


def test_file_that_is_missing_empty_or_no_json_lines_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing.jsonl: no such file"):
        read_pairs(str(tmp_path / "missing.jsonl"))
    with pytest.raises(UserError, match=r"mine.jsonl: no rows"):
        read_pairs(write(tmp_path))
    with pytest.raises(UserError, match=r"pairs.csv: must be a file of JSON Lines \(\*.jsonl\)"):
        read_pairs("pairs.csv")


def test_ranking_metric_of_a_category_that_the_file_lacks_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    for name in ("pairs/accuracy", "pairs/agreement/accuracy", "probe/pos/accuracy"):
        read_pairs(path, find_metric(name))
    with pytest.raises(UserError, match=r"must be one of pairs/accuracy, pairs/agreement/accurac"):
        read_pairs(path, METRICS["pairs/order/accuracy"])


@pytest.mark.parametrize("bad", [{"good": "a", "bad": "a", "category": "c"}, "{"])
def test_dry_run_ends_with_status_2_and_one_line_for_an_invalid_row(
    bad: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, GOOD, bad)
    space = str(ROOT / "search_spaces" / "smoke.yaml")
    assert sweep.main([space, "--set", f"minimal_pairs={path}", "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}:2: " in line


def test_metric_of_a_category_of_the_users_file_may_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space, name = str(ROOT / "search_spaces" / "smoke.yaml"), "pairs/word-order/accuracy"
    metric = ["--set", f"metric={name}", "--dry-run"]
    assert sweep.main([space, *metric]) == 2
    assert f"not '{name}'" in capsys.readouterr().err
    path = write(tmp_path, GOOD)
    assert sweep.main([space, "--set", f"minimal_pairs={path}", *metric]) == 2
    assert "must be one of pairs/accuracy, pairs/agreement" in capsys.readouterr().err


def test_categories_of_the_package_are_those_of_the_metrics() -> None:
    assert list_categories(embedded_pairs()) == PAIR_CATEGORIES
    assert {f"pairs/{name}/accuracy" for name in PAIR_CATEGORIES} < METRICS.keys()
