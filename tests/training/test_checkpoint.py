"""Checkpoints: what goes on from one is bitwise what would have been, and a damaged one is seen."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from prepared_text import PreparedText
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.init_from import FromMlmRun
from lab.config.metrics import METRICS
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig, AlternationConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.generators import FrozenGeneratorConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.optimizer import AdamConfig, AnyOptimizerConfig, MuonConfig
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Trial
from lab.storage import record
from lab.trials import run
from lab.trials.assignment import Assignment

pytestmark = pytest.mark.usefixtures("few_sentences")
STEPS, CURVE = 16, 4
SHAPE = EncoderConfig(
    layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, dropout=0.1, norm="pre"
)
RUNGS: dict[str, AnyObjectiveConfig] = {
    "electra": ElectraConfig(kind="electra"),
    "gdes": ElectraConfig(kind="electra", sharing="gdes"),
    "two_stage": TwoStageConfig(kind="two_stage"),
    "alternation": AdversarialConfig(
        kind="adversarial", sharing="none", rule=AlternationConfig(kind="alternation", steps=3)
    ),
    "frozen": ElectraConfig(
        kind="electra",
        sharing="none",
        generator=FrozenGeneratorConfig(
            kind="frozen",
            init_from=FromMlmRun(kind="mlm", budget=Budget(kind="tokens", amount=8 * 16)),
        ),
    ),
    "mlm": MlmConfig(kind="mlm", masking="bert"),
    "random": RandomReplacementConfig(kind="random"),
}


class Stop:
    """Says stop after so many steps."""

    def __init__(self, after: int, says: State = "interrupted") -> None:
        self._left, self._says = after, says

    def __call__(self) -> State:
        self._left -= 1
        return self._says if self._left < 0 else "running"


@pytest.fixture(scope="module")
def work_in(prepared_text: PreparedText, held_out: Path) -> Callable[..., Assignment]:
    def work_in(folder: Path, rung: str = "electra", **changes: Any) -> Assignment:
        asked = Trial(
            encoder=SHAPE,
            objective=RUNGS[rung],
            data=prepared_text.data,
            batch=8,
            budget=Budget(kind="tokens", amount=STEPS * 8 * 16),
            evaluations=CURVE,
        )
        return Assignment(
            trial=replace(asked, **changes),
            folder=folder,
            text=prepared_text.text,
            held_out=held_out,
            metric=METRICS["probe/pos/accuracy"],
        )

    return work_in


@pytest.fixture
def work(work_in: Callable[..., Assignment], tmp_path: Path) -> Callable[..., Assignment]:
    return lambda name, *arguments, **changes: work_in(tmp_path / name, *arguments, **changes)


class Whole(NamedTuple):
    """A run that was never interrupted."""

    outcome: Outcome
    final: dict[str, Tensor]


@pytest.fixture(scope="module")
def whole(
    work_in: Callable[..., Assignment],
    few_sentences: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Whole:
    it = work_in(tmp_path_factory.mktemp("whole") / "it")
    return Whole(run.run_trial(it), final(it))


@pytest.fixture(scope="module")
def cut_off(
    work_in: Callable[..., Assignment],
    few_sentences: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the folder of a run that was interrupted twice, to be copied."""
    it = work_in(tmp_path_factory.mktemp("cut_off") / "it")
    interrupted(it, 5)
    interrupted(it, 3)
    return it.folder


def without_time(rows: tuple[MetricRow, ...]) -> list[MetricRow]:
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


def checkpoints(work: Assignment) -> list[Path]:
    return sorted((work.folder / "checkpoints").iterdir())


def final(work: Assignment) -> dict[str, Tensor]:
    return load_file(checkpoints(work)[-1] / "state.safetensors")


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(value.equal(other[name]) for name, value in one.items())


def interrupted(work: Assignment, after: int) -> Outcome:
    outcome = run.run_trial(work, wish=Stop(after))
    assert outcome.state == "interrupted"
    return outcome


ADAM, MUON = AdamConfig(), MuonConfig(kind="muon")


@pytest.mark.parametrize(
    ("rung", "optim"),
    [(rung, ADAM) for rung in RUNGS] + [("electra", MUON), ("alternation", MUON)],
    ids=lambda value: getattr(value, "kind", value),
)
def test_interrupted_run_goes_on_bitwise_as_if_it_never_stopped(
    rung: str, optim: AnyOptimizerConfig, work: Callable[..., Assignment]
) -> None:
    whole, parts = (work(name, rung, optim=optim) for name in ("whole", "parts"))
    expected = run.run_trial(whole)
    interrupted(parts, 2)
    torch.rand(100)  # what a new process would have done
    interrupted(parts, 5)
    outcome = run.run_trial(parts)
    assert outcome.state == "finished"
    assert without_time(outcome.rows) == without_time(expected.rows)
    assert record.read_outcome(parts.folder) == outcome
    assert_same(final(parts), final(whole))


def test_interrupted_outcome_says_where(work: Callable[..., Assignment]) -> None:
    outcome = interrupted(work("it"), 2)
    assert outcome.reason == "at step 3, 18.8% of its budget; its state is saved"
    assert len(outcome.rows) == 1


def test_stopped_run_goes_on_bitwise_as_if_it_never_stopped(
    work: Callable[..., Assignment], whole: Whole
) -> None:
    parts = work("parts")
    stopped = run.run_trial(parts, wish=Stop(6, "stopped"))
    assert stopped.state == record.read_state(parts.folder) == "stopped"
    assert stopped.reason == "at step 9, 56.2% of its budget; its state is saved"
    assert int(checkpoints(parts)[-1].name) == 9
    assert record.read_outcome(parts.folder) == stopped
    outcome = run.run_trial(parts)
    assert (outcome.state, outcome.reason) == ("finished", "")
    assert without_time(outcome.rows) == without_time(whole.outcome.rows)
    assert_same(final(parts), whole.final)


def test_seconds_add_up_over_interruptions_and_a_kill_between(
    work: Callable[..., Assignment],
) -> None:
    it = work("it")
    interrupted(it, 2)
    file = it.folder / "outcome.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"seconds": 1_000.0, "busy": 900.0}))

    def killed(_: MetricRow) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run_trial(it, report=killed)
    assert (record.read_state(it.folder), record.read_outcome(it.folder)) == ("running", None)
    began = time.perf_counter()
    outcome = run.run_trial(it)
    wall = time.perf_counter() - began
    assert outcome.state == "finished"
    assert 1_000 < outcome.seconds <= 1_000 + wall
    assert 900 < outcome.busy <= 900 + wall


def test_run_that_was_cut_off_before_it_could_say_so_ends_without_a_step(
    work: Callable[..., Assignment],
) -> None:
    """Killed between its last checkpoint and its outcome."""
    it = work("it")
    expected = run.run_trial(it)
    before = final(it)
    (it.folder / "outcome.json").unlink()
    record.begin_record(it.folder, it.trial)
    seen: list[MetricRow] = []
    outcome = run.run_trial(it, report=seen.append)
    assert seen == []
    assert (outcome.state, outcome.rows) == ("finished", expected.rows)
    assert_same(final(it), before)


def test_run_that_goes_on_does_not_take_its_points_again(work: Callable[..., Assignment]) -> None:
    it, seen = work("it"), []
    interrupted(it, 6)  # steps that were scored are not asked
    run.run_trial(it, report=seen.append)
    steps = [row["spent/steps"] for row in seen]
    assert 0 not in steps
    assert steps[-1] == STEPS
    assert len(record.read_curve(it.folder)) == 1 + CURVE


def test_points_recorded_after_the_checkpoint_are_taken_again(
    work: Callable[..., Assignment], whole: Whole
) -> None:
    it = work("it")
    interrupted(it, 6)
    record.append_row(it.folder, {"spent/steps": 99.0})  # then the process was killed
    with (it.folder / "curve.jsonl").open("a") as curve:
        curve.write('{"spent/st')
    assert without_time(run.run_trial(it).rows) == without_time(whole.outcome.rows)


def truncate(folder: Path) -> None:
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def tamper(folder: Path) -> None:
    file = folder / "state.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.startswith("weight/"))
    tensors[name] = tensors[name] + 1
    save_file(tensors, file)


def advance(folder: Path) -> None:
    file = folder / "state.json"
    body = json.loads(file.read_text())
    body["place"]["spent"]["steps"] += 1
    file.write_text(json.dumps(body))


def empty(folder: Path) -> None:
    (folder / "state.json").write_text("")


def lose(folder: Path) -> None:
    (folder / "state.safetensors").unlink()


def listed(folder: Path) -> None:
    (folder / "state.json").write_text("[]")


@pytest.mark.parametrize("damage", [truncate, tamper, advance, empty, lose, listed])
@pytest.mark.parametrize("how_many", [1, 9])
def test_damaged_checkpoint_is_found_out_and_the_one_before_it_taken(
    damage: Callable[[Path], None],
    how_many: int,
    work: Callable[..., Assignment],
    whole: Whole,
    cut_off: Path,
) -> None:
    it = work("it")
    shutil.copytree(cut_off, it.folder)
    assert len(checkpoints(it)) > 1
    for folder in checkpoints(it)[-how_many:]:
        damage(folder)
    outcome = run.run_trial(it)
    assert without_time(outcome.rows) == without_time(whole.outcome.rows)
    assert_same(final(it), whole.final)


Body = dict[str, Any]
OTHER_FORMS: dict[str, Callable[[Body], Body]] = {
    "no place": lambda body: {"sha256": body["sha256"]},
    "no digest": lambda body: {"place": body["place"]},
    "a key less": lambda body: body | {"place": {"spent": body["place"]["spent"]}},
    "a key more": lambda body: body | {"place": body["place"] | {"chance": [1, 2]}},
    "nothing spent": lambda body: body | {"place": body["place"] | {"spent": None}},
    "more spent": lambda body: (
        body | {"place": body["place"] | {"spent": body["place"]["spent"] | {"joules": 1.0}}}
    ),
    "a place that is none": lambda body: body | {"place": []},
}


@pytest.mark.parametrize("form", OTHER_FORMS.values(), ids=OTHER_FORMS.keys())
def test_checkpoint_of_another_form_is_left_for_the_one_before_it(
    form: Callable[[Body], Body], work: Callable[..., Assignment], cut_off: Path
) -> None:
    """As another version of the lab may have written it: whole, and sealed."""
    it = work("it")
    shutil.copytree(cut_off, it.folder)
    before, newest = checkpoints(it)[-2:]
    file = newest / "state.json"
    body = json.loads(file.read_text())
    del body["seal"]
    body = form(body)
    text = json.dumps(body, sort_keys=True)  # what the seal is of
    file.write_text(json.dumps(body | {"seal": hashlib.sha256(text.encode()).hexdigest()}))
    seen: list[MetricRow] = []
    outcome = run.run_trial(it, report=seen.append)
    assert (outcome.state, outcome.reason) == ("finished", "")
    assert seen[0]["spent/steps"] > int(before.name), "it began anew"


def test_another_trials_checkpoint_is_not_taken(
    work: Callable[..., Assignment], whole: Whole
) -> None:
    it, other = work("it"), work("other", "mlm")
    interrupted(other, 5)
    it.folder.mkdir()
    (other.folder / "checkpoints").rename(it.folder / "checkpoints")
    record.begin_record(it.folder, it.trial)
    record.append_row(it.folder, {"spent/steps": 0.0})
    record.append_row(it.folder, {"spent/steps": 4.0})
    assert without_time(run.run_trial(it).rows) == without_time(whole.outcome.rows)


def best(rows: tuple[MetricRow, ...]) -> int:
    top = max(rows, key=lambda row: (row["probe/pos/accuracy"], row["spent/steps"]))
    return int(top["spent/steps"])


def test_last_two_and_the_best_checkpoint_are_kept_on_the_way(
    work: Callable[..., Assignment],
) -> None:
    it = work("it", evaluations=8)
    rows = interrupted(it, 6).rows[1:]
    (*_, last) = (int(row["spent/steps"]) for row in rows)
    steps = [int(folder.name) for folder in checkpoints(it)]
    assert steps == sorted({last, last + 1, best(rows)})


def test_newest_and_the_best_checkpoint_are_kept_in_the_end(
    work: Callable[..., Assignment],
) -> None:
    it = work("it", evaluations=8)
    rows = run.run_trial(it).rows[1:]
    steps = [int(folder.name) for folder in checkpoints(it)]
    assert steps == sorted({STEPS, best(rows)})


def test_checkpoint_holds_each_shared_table_once_and_no_pickle(
    work: Callable[..., Assignment],
) -> None:
    it = work("it")
    run.run_trial(it)
    folder = checkpoints(it)[-1]
    assert sorted(file.name for file in folder.iterdir()) == ["state.json", "state.safetensors"]
    tables = [name for name in final(it) if "word_embeddings" in name]
    assert tables == ["weight/encoder.embeddings.word_embeddings.weight"]


def test_save_that_breaks_leaves_the_one_before(
    work: Callable[..., Assignment], whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = work("it")
    interrupted(it, 5)
    before = checkpoints(it)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lab.training.checkpoint.save_file", full)
        outcome = run.run_trial(it)
    assert outcome.state == "failed"
    assert "No space left" in outcome.reason
    assert checkpoints(it) == before
    assert without_time(run.run_trial(it).rows) == without_time(whole.outcome.rows)
