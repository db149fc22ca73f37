"""Checkpoints: bitwise resumption, and detection of damaged checkpoints."""

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
from lab.config.optimizer import AdamConfig, AdamWConfig, AnyOptimizerConfig, MuonConfig
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Trial
from lab.storage import record, sealed
from lab.trials import run
from lab.trials.assignment import Assignment

pytestmark = pytest.mark.usefixtures("few_sentences")
STEPS, EVALUATIONS = 16, 4
SHAPE = EncoderConfig(
    layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, dropout=0.1, norm="pre"
)
OBJECTIVES: dict[str, AnyObjectiveConfig] = {
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


class StopAfter:
    """Returns `running` for the first `calls` calls, and `interrupted` after them."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def __call__(self) -> State:
        self._left -= 1
        return "interrupted" if self._left < 0 else "running"


@pytest.fixture(scope="module")
def assignment_in(prepared_text: PreparedText, held_out: Path) -> Callable[..., Assignment]:
    """Return a function that builds an assignment in a folder."""

    def assignment_in(folder: Path, objective: str = "electra", **changes: Any) -> Assignment:
        trial = Trial(
            encoder=SHAPE,
            objective=OBJECTIVES[objective],
            data=prepared_text.data,
            batch=8,
            budget=Budget(kind="tokens", amount=STEPS * 8 * 16),
            evaluations=EVALUATIONS,
        )
        return Assignment(
            trial=replace(trial, **changes),
            folder=folder,
            text=prepared_text.text,
            held_out=held_out,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        )

    return assignment_in


@pytest.fixture
def assign(assignment_in: Callable[..., Assignment], tmp_path: Path) -> Callable[..., Assignment]:
    """Return a function that builds an assignment in a named folder."""
    return lambda name, *arguments, **changes: assignment_in(tmp_path / name, *arguments, **changes)


class UninterruptedRun(NamedTuple):
    """Results of a run that was not interrupted."""

    assignment: Assignment
    outcome: Outcome
    final: dict[str, Tensor]

    def copy(self, folder: Path) -> Assignment:
        """Return an assignment in a copy of the run's folder."""
        shutil.copytree(self.assignment.folder, folder)
        return replace(self.assignment, folder=folder)


@pytest.fixture(scope="module")
def whole(
    assignment_in: Callable[..., Assignment],
    few_sentences: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> UninterruptedRun:
    assignment = assignment_in(tmp_path_factory.mktemp("whole") / "trial")
    return UninterruptedRun(assignment, run.run_trial(assignment), final(assignment))


@pytest.fixture(scope="module")
def interrupted_folder(
    assignment_in: Callable[..., Assignment],
    few_sentences: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the folder of a run that was interrupted twice, for tests to copy."""
    assignment = assignment_in(tmp_path_factory.mktemp("interrupted") / "trial")
    interrupt(assignment, 5)
    interrupt(assignment, 3)
    return assignment.folder


def without_time(rows: tuple[MetricRow, ...]) -> list[MetricRow]:
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


def checkpoints(assignment: Assignment) -> list[Path]:
    return sorted((assignment.folder / "checkpoints").iterdir())


def final(assignment: Assignment) -> dict[str, Tensor]:
    return load_file(checkpoints(assignment)[-1] / "state.safetensors")


def assert_bitwise_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(value.equal(other[name]) for name, value in one.items())


def interrupt(assignment: Assignment, checks: int) -> Outcome:
    """Run a trial, and interrupt it when it checks for a stop signal after `checks` checks."""
    outcome = run.run_trial(assignment, requested_state=StopAfter(checks))
    assert outcome.state == "interrupted"
    return outcome


ADAM, ADAMW, MUON = AdamConfig(), AdamWConfig(kind="adamw"), MuonConfig(kind="muon")


@pytest.mark.parametrize(
    ("objective", "optim"),
    [(objective, ADAM) for objective in OBJECTIVES]
    + [("alternation", ADAMW), ("electra", MUON), ("alternation", MUON)],
    ids=lambda value: getattr(value, "kind", value),
)
def test_run_resumed_after_interruptions_is_bitwise_equal_to_an_uninterrupted_run(
    objective: str, optim: AnyOptimizerConfig, assign: Callable[..., Assignment]
) -> None:
    whole, parts = (
        assign(name, objective, optim=optim, evaluations=2) for name in ("whole", "parts")
    )
    expected = run.run_trial(whole)
    interrupt(parts, 2)
    torch.rand(100)  # as a new process would change torch's generator
    interrupt(parts, 5)
    outcome = run.run_trial(parts)
    assert outcome.state == "finished"
    assert without_time(outcome.rows) == without_time(expected.rows)
    assert record.read_outcome(parts.folder) == outcome
    assert_bitwise_equal(final(parts), final(whole))


def test_interrupted_outcome_has_the_step_as_its_reason(assign: Callable[..., Assignment]) -> None:
    outcome = interrupt(assign("trial"), 2)
    assert outcome.reason == "at step 3, 18.8% of its budget; its state is saved"
    assert len(outcome.rows) == 1


def test_seconds_add_up_over_an_interruption_and_a_kill(
    assign: Callable[..., Assignment],
) -> None:
    assignment = assign("trial")
    interrupt(assignment, 2)
    file = assignment.folder / "outcome.json"
    sealed.write(file, sealed.read(file) | {"seconds": 1_000.0, "busy": 900.0})

    def kill(_: MetricRow) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run_trial(assignment, report=kill)
    assert (record.read_state(assignment.folder), record.read_outcome(assignment.folder)) == (
        "running",
        None,
    )
    started = time.perf_counter()
    outcome = run.run_trial(assignment)
    wall = time.perf_counter() - started
    assert outcome.state == "finished"
    assert 1_000 < outcome.seconds <= 1_000 + wall
    assert 900 < outcome.busy <= 900 + wall


def test_run_killed_before_it_wrote_its_outcome_ends_without_another_step(
    whole: UninterruptedRun, tmp_path: Path
) -> None:
    """The process was killed after the last checkpoint and before the outcome."""
    assignment = whole.copy(tmp_path / "trial")
    (assignment.folder / "outcome.json").unlink()
    record.begin_record(assignment.folder, assignment.trial)
    reported: list[MetricRow] = []
    outcome = run.run_trial(assignment, report=reported.append)
    assert reported == []
    assert (outcome.state, outcome.rows) == ("finished", whole.outcome.rows)
    assert_bitwise_equal(final(assignment), whole.final)


def test_resumed_run_does_not_repeat_evaluations(
    assign: Callable[..., Assignment], interrupted_folder: Path
) -> None:
    assignment, reported = assign("trial"), []
    shutil.copytree(interrupted_folder, assignment.folder)
    run.run_trial(assignment, report=reported.append)
    steps = [row["spent/steps"] for row in reported]
    assert steps == [STEPS]
    assert len(record.read_curve(assignment.folder)) == 1 + EVALUATIONS


def test_evaluations_recorded_after_the_checkpoint_are_repeated(
    assign: Callable[..., Assignment], whole: UninterruptedRun, interrupted_folder: Path
) -> None:
    assignment = assign("trial")
    shutil.copytree(interrupted_folder, assignment.folder)
    record.append_row(assignment.folder, {"spent/steps": 99.0})  # the process was killed after this
    with (assignment.folder / "curve.jsonl").open("a") as curve:
        curve.write('{"spent/st')
    assert without_time(run.run_trial(assignment).rows) == without_time(whole.outcome.rows)


def truncate_tensors(folder: Path) -> None:
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def change_tensor(folder: Path) -> None:
    file = folder / "state.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.startswith("weight/"))
    tensors[name] = tensors[name] + 1
    save_file(tensors, file)


def change_step(folder: Path) -> None:
    file = folder / "state.json"
    body = json.loads(file.read_text())
    body["place"]["spent"]["steps"] += 1
    file.write_text(json.dumps(body))


def empty_json(folder: Path) -> None:
    (folder / "state.json").write_text("")


def delete_tensors(folder: Path) -> None:
    (folder / "state.safetensors").unlink()


def replace_json_by_list(folder: Path) -> None:
    (folder / "state.json").write_text("[]")


DAMAGES = (
    truncate_tensors,
    change_tensor,
    change_step,
    empty_json,
    delete_tensors,
    replace_json_by_list,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_run_resumes_before_a_damaged_checkpoint(
    damage: Callable[[Path], None],
    assign: Callable[..., Assignment],
    whole: UninterruptedRun,
    interrupted_folder: Path,
) -> None:
    assignment = assign("trial")
    shutil.copytree(interrupted_folder, assignment.folder)
    before, newest = checkpoints(assignment)[-2:]
    damage(newest)
    reported: list[MetricRow] = []
    outcome = run.run_trial(assignment, report=reported.append)
    assert reported[0]["spent/steps"] > int(before.name), "training restarted from the first step"
    assert without_time(outcome.rows) == without_time(whole.outcome.rows)
    assert_bitwise_equal(final(assignment), whole.final)


def test_run_without_an_undamaged_checkpoint_starts_again(
    assign: Callable[..., Assignment], whole: UninterruptedRun, interrupted_folder: Path
) -> None:
    """All checkpoints are damaged, each in another way."""
    assignment = assign("trial")
    shutil.copytree(interrupted_folder, assignment.folder)
    assert len(checkpoints(assignment)) > 1
    for damage, folder in zip(DAMAGES, checkpoints(assignment), strict=False):
        damage(folder)
    reported: list[MetricRow] = []
    outcome = run.run_trial(assignment, report=reported.append)
    assert reported[0]["spent/steps"] == 0
    assert without_time(outcome.rows) == without_time(whole.outcome.rows)
    assert_bitwise_equal(final(assignment), whole.final)


Body = dict[str, Any]
UNEXPECTED: dict[str, Callable[[Body], Body]] = {
    "no position": lambda body: {"sha256": body["sha256"]},
    "no digest": lambda body: {"place": body["place"]},
    "missing key": lambda body: body | {"place": {"spent": body["place"]["spent"]}},
    "unknown key": lambda body: body | {"place": body["place"] | {"chance": [1, 2]}},
    "spent is null": lambda body: body | {"place": body["place"] | {"spent": None}},
    "unknown key in spent": lambda body: (
        body | {"place": body["place"] | {"spent": body["place"]["spent"] | {"joules": 1.0}}}
    ),
    "position is a list": lambda body: body | {"place": []},
}


@pytest.mark.parametrize("change", UNEXPECTED.values(), ids=UNEXPECTED.keys())
def test_run_resumes_before_a_checkpoint_with_unexpected_keys(
    change: Callable[[Body], Body], assign: Callable[..., Assignment], interrupted_folder: Path
) -> None:
    """Another version of the lab may write other keys, with a valid `seal`."""
    assignment = assign("trial")
    shutil.copytree(interrupted_folder, assignment.folder)
    before, newest = checkpoints(assignment)[-2:]
    file = newest / "state.json"
    body = json.loads(file.read_text())
    del body["seal"]
    body = change(body)
    text = json.dumps(body, sort_keys=True)  # the content that `seal` is the hash of
    file.write_text(json.dumps(body | {"seal": hashlib.sha256(text.encode()).hexdigest()}))
    reported: list[MetricRow] = []
    outcome = run.run_trial(assignment, report=reported.append)
    assert (outcome.state, outcome.reason) == ("finished", "")
    assert reported[0]["spent/steps"] > int(before.name), "training restarted from the first step"


def test_checkpoint_of_another_trial_is_not_loaded(
    assign: Callable[..., Assignment], whole: UninterruptedRun
) -> None:
    assignment, other = assign("trial"), assign("other", "mlm")
    interrupt(other, 5)
    assignment.folder.mkdir()
    (other.folder / "checkpoints").rename(assignment.folder / "checkpoints")
    record.begin_record(assignment.folder, assignment.trial)
    record.append_row(assignment.folder, {"spent/steps": 0.0})
    record.append_row(assignment.folder, {"spent/steps": 4.0})
    assert without_time(run.run_trial(assignment).rows) == without_time(whole.outcome.rows)


def best_step(rows: tuple[MetricRow, ...]) -> int:
    top = max(rows, key=lambda row: (row["probe/pos/accuracy"], row["spent/steps"]))
    return int(top["spent/steps"])


def test_last_two_and_the_best_checkpoint_are_kept_during_a_run_and_newest_and_best_after_it(
    assign: Callable[..., Assignment],
) -> None:
    assignment = assign("trial", evaluations=8)
    rows = interrupt(assignment, 6).rows[1:]
    (*_, last) = (int(row["spent/steps"]) for row in rows)
    steps = [int(folder.name) for folder in checkpoints(assignment)]
    assert steps == sorted({last, last + 1, best_step(rows)})
    rows = run.run_trial(assignment).rows[1:]
    steps = [int(folder.name) for folder in checkpoints(assignment)]
    assert steps == sorted({STEPS, best_step(rows)})


def test_checkpoint_has_each_shared_table_once_and_no_pickle(whole: UninterruptedRun) -> None:
    folder = checkpoints(whole.assignment)[-1]
    assert sorted(file.name for file in folder.iterdir()) == ["state.json", "state.safetensors"]
    tables = [name for name in whole.final if "word_embeddings" in name]
    assert tables == ["weight/encoder.embeddings.word_embeddings.weight"]


def test_failed_save_keeps_the_previous_checkpoints(
    assign: Callable[..., Assignment],
    whole: UninterruptedRun,
    interrupted_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assignment = assign("trial")
    shutil.copytree(interrupted_folder, assignment.folder)
    before = checkpoints(assignment)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lab.training.checkpoint.save_file", fail)
        outcome = run.run_trial(assignment)
    assert outcome.state == "interrupted"  # a full disk
    assert "no space left in" in outcome.reason
    assert checkpoints(assignment) == before
    assert without_time(run.run_trial(assignment).rows) == without_time(whole.outcome.rows)
