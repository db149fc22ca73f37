"""Damage of each file of a record is read as missing content, and named; no number changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from damage import DAMAGE

from lab.config.results import MetricRow, Outcome, State
from lab.errors import UserError
from lab.loading.search_space import build_trial
from lab.storage import provenance, record, record_damage
from lab.storage.record import Origin

pytestmark = pytest.mark.reported

TRIAL = build_trial(
    {
        "encoder": {"size": "tiny"},
        "objective": {"kind": "electra"},
        "budget": {"kind": "flops", "amount": 1e12},
    },
    {},
)
ROWS: tuple[MetricRow, ...] = tuple({"spent/steps": float(n), "a/b": n / 3} for n in range(4))
BLOCKS = {"a/b": [0.25, -0.5, 0.25]}
FILES = ("trial.json", "state", "curve.jsonl", "blocks.json", "provenance.json", "outcome.json")


def write_record(folder: Path, state: State) -> Outcome:
    """Write a record that has ended; an interrupted one has fewer points."""
    record.write_queued(folder, TRIAL, "lineage", "text")
    record.begin_record(folder, TRIAL)
    provenance.add_provenance(folder, provenance.current_provenance())
    rows = ROWS if state == "finished" else ROWS[:3]
    for row in rows:
        record.append_row(folder, row)
    record.write_blocks(folder, BLOCKS)
    outcome = Outcome(state=state, reason="", rows=rows, started_at=1e9, seconds=5.0, busy=4.0)
    return record.write_outcome(folder, outcome)


@pytest.mark.parametrize("state", ["finished", "interrupted"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_no_reader_raises_or_returns_other_numbers(
    tmp_path: Path, name: str, damage: Callable[[Path], None], state: State
) -> None:
    outcome = write_record(tmp_path, state)
    whole = (tmp_path / name).read_bytes()
    assert record_damage.find_damage(tmp_path) == []
    damage(tmp_path / name)
    assert record.read_outcome(tmp_path) in (None, outcome)
    assert record.read_last_outcome(tmp_path) in (
        None,
        replace(outcome, rows=record.read_curve(tmp_path)),
    )
    assert record.read_curve(tmp_path) == ROWS[: len(record.read_curve(tmp_path))]
    assert record.read_blocks(tmp_path) in ({}, BLOCKS)
    assert len(provenance.read_provenance(tmp_path)) <= 1
    assert record.read_facts(tmp_path).get("lineage") in (None, "lineage")
    assert record.read_origin(tmp_path) == Origin()
    found = record_damage.find_damage(tmp_path)
    # An interrupted trial writes blocks and provenance again, and needs no outcome to continue.
    rewritten = {"blocks.json", "provenance.json", "outcome.json"}
    if state == "finished" or name not in rewritten:
        assert [each.partition(" ")[0] for each in found] == [name]
    assert all(len(each.splitlines()) == 1 for each in found)
    (tmp_path / name).write_bytes(whole)
    assert record.read_outcome(tmp_path) == outcome


@pytest.mark.parametrize("damage", [DAMAGE[name] for name in DAMAGE if name != "removed"])
def test_damaged_charges_are_refused_in_one_line_and_named(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Read as missing, they would change the FLOPs for which trials are charged."""
    write_record(tmp_path, "finished")
    record.write_origin(tmp_path, Origin(name="shorter", charged_flops=5.0))
    record.write_charged(tmp_path, "branch")
    assert record_damage.find_damage(tmp_path) == []
    assert record.read_charged(tmp_path) == "branch"
    readers = {record.ORIGIN: record.read_origin, record.CHARGED: record.read_charged}
    for name, read in readers.items():
        damage(tmp_path / name)
        with pytest.raises(
            UserError, match=rf"{name}: damaged: .*--fresh {tmp_path.name}"
        ) as error:
            read(tmp_path)
        assert len(str(error.value).splitlines()) == 1
    found = record_damage.find_damage(tmp_path)
    assert [each.partition(" ")[0] for each in found] == list(readers)


@pytest.mark.parametrize("content", ["[1]", '{"name": 5}', '{"charged_flops": "5"}'])
def test_origin_with_other_content_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / record.ORIGIN).write_text(content)
    with pytest.raises(UserError, match="damaged"):
        record.read_origin(tmp_path)


@pytest.mark.parametrize("state", ["finished", "interrupted", "running"])
def test_each_changed_bit_of_the_curve_is_found(tmp_path: Path, state: State) -> None:
    write_record(tmp_path, "interrupted" if state == "running" else state)
    if state == "running":
        record.begin_record(tmp_path, TRIAL)
    file = tmp_path / "curve.jsonl"
    whole = file.read_bytes()
    complete = whole.rindex(b"\n", 0, -1)  # the last line of an open record may be incomplete
    for position in range(0, complete if state != "finished" else len(whole) - 1, 5):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        rows = record.read_curve(tmp_path)
        assert rows == ROWS[: len(rows)]
        assert len(rows) < whole.count(b"\n")
        assert any(each.startswith("curve.jsonl") for each in record_damage.find_damage(tmp_path))


@pytest.mark.parametrize("content", ['{"a/b": "text"}', '{"a/b": null}', '{"a/b": true}', "[1]"])
def test_a_line_without_numbers_is_no_point(tmp_path: Path, content: str) -> None:
    write_record(tmp_path, "finished")
    lines = (tmp_path / "curve.jsonl").read_text().splitlines()
    lines[1] = content
    (tmp_path / "curve.jsonl").write_text("\n".join(lines))
    assert record.read_curve(tmp_path) == ROWS[:1]
    assert record.read_outcome(tmp_path) is None


def test_points_of_earlier_versions_without_seals_are_read(tmp_path: Path) -> None:
    outcome = write_record(tmp_path, "finished")
    lines = (f'{{"spent/steps": {n}.0, "a/b": {n / 3!r}}}\n' for n in range(4))
    (tmp_path / "curve.jsonl").write_text("".join(lines))
    assert record.read_outcome(tmp_path) == outcome
    assert record_damage.find_damage(tmp_path) == []


def test_a_folder_without_a_record_and_an_open_record_are_not_damaged(tmp_path: Path) -> None:
    assert record_damage.find_damage(tmp_path / "missing") == []
    assert record_damage.find_damage(tmp_path) == []
    record.write_queued(tmp_path, TRIAL)
    assert record_damage.find_damage(tmp_path) == []
    record.append_row(tmp_path, ROWS[0])
    with (tmp_path / "curve.jsonl").open("a") as curve:
        curve.write('{"spent/st')  # the process was killed
    assert record_damage.find_damage(tmp_path) == []


def test_a_damaged_trial_is_refused_in_one_line_with_the_remedy(tmp_path: Path) -> None:
    write_record(tmp_path, "finished")
    file = tmp_path / "trial.json"
    file.write_text(file.read_text().replace('"hidden": 1', '"hidden": 2'))
    with pytest.raises(UserError, match=r"trial.json: damaged: .* run the trial's sweep again"):
        record.read_trial(tmp_path)


def test_a_record_that_cannot_be_deleted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial would continue from the checkpoints, although it was to run again."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    write_record(tmp_path / "trial", "finished")
    monkeypatch.setattr("lab.storage.record.shutil.rmtree", refuse)
    with pytest.raises(UserError, match=r"trial: cannot be deleted, .*: permission denied"):
        record.delete_record(tmp_path / "trial")


def test_a_link_to_a_record_is_deleted_and_its_target_is_kept(tmp_path: Path) -> None:
    write_record(tmp_path / "elsewhere", "finished")
    (tmp_path / "trial").symlink_to(tmp_path / "elsewhere")
    record.delete_record(tmp_path / "trial")
    assert not (tmp_path / "trial").exists()
    assert record.read_state(tmp_path / "elsewhere") == "finished"
