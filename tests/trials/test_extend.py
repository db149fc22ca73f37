"""Extension: a run that continues from a shorter one equals a run of the full length."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prepared_text import PreparedText
from safetensors.torch import load_file
from torch import Tensor

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.metrics import METRICS
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig, AlternationConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.optimizer import AdamConfig
from lab.config.results import MetricRow, Outcome, State
from lab.config.schedules.learning_rate import Schedule
from lab.config.trial import Seeds, Trial
from lab.storage import record
from lab.trials import extend, run, training
from lab.trials.assignment import Assignment

STEPS, CURVE = 8, 2
FLAT = Schedule(kind="constant", warmup=0)
SHAPE = EncoderConfig(
    layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, dropout=0.1, norm="pre"
)
OBJECTIVES: dict[str, AnyObjectiveConfig] = {
    "electra": ElectraConfig(kind="electra"),
    "gdes": ElectraConfig(kind="electra", sharing="gdes"),
    "alternation": AdversarialConfig(
        kind="adversarial", sharing="none", rule=AlternationConfig(kind="alternation", steps=3)
    ),
    "mlm": MlmConfig(kind="mlm"),
}
TEXT = "text"


def make_trial(times: float = 1, objective_name: str = "electra", **changes: Any) -> Trial:
    """Return a trial with a budget of `times` times `STEPS` steps."""
    trial = Trial(
        encoder=SHAPE,
        objective=OBJECTIVES[objective_name],
        data=DataConfig(share=0.01, held_out=0.1, vocab=400, length=16),
        batch=8,
        schedule=FLAT,
        budget=Budget(kind="tokens", amount=times * STEPS * 8 * 16),
        evaluations=CURVE,
    )
    return replace(trial, **changes)


# Equality with the run of the full length


@pytest.fixture(scope="module")
def work(
    prepared_text: PreparedText, held_out: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Assignment]:
    folder = tmp_path_factory.mktemp("trials")

    def work(name: str, trial: Trial) -> Assignment:
        return Assignment(
            trial=trial,
            folder=folder / name,
            text=prepared_text.text,
            held_out=held_out,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        )

    return work


def open_record(work: Assignment) -> Assignment:
    """Open the record of a trial as the driver does, and return the assignment."""
    work = replace(work, lineage=work.trial.lineage(TEXT))
    record.write_queued(work.folder, work.trial, work.lineage)
    extend.extend_from_shorter_run(work)
    return work


def assign(folder: Path, trial: Trial) -> Assignment:
    """Return an assignment without the files that training needs."""
    return Assignment(
        trial=trial,
        folder=folder,
        text=folder,
        held_out=folder,
        pairs=None,
        metric=METRICS["probe/pos/accuracy"],
        lineage=trial.lineage(TEXT),
    )


def read_newest_checkpoint(work: Assignment) -> tuple[str, dict[str, Tensor]]:
    """Return the name and the tensors of the newest checkpoint."""
    newest = max((work.folder / "checkpoints").iterdir())
    return newest.name, load_file(newest / "state.safetensors")


def without_costs(row: MetricRow) -> MetricRow:
    """Return a row without its times, and without the compute that the trial itself has used."""
    left_out = ("second", "marginal")
    return {name: row[name] for name in row if not any(part in name for part in left_out)}


class Finished(NamedTuple):
    """A run of the full length, and the shorter run, `donor`, in the same folder."""

    whole: Assignment
    expected: Outcome
    short: Outcome


@pytest.fixture(scope="module")
def finished(work: Callable[..., Assignment], few_sentences: None) -> Callable[[str], Finished]:
    """Return a function that runs both trials of an objective, in a folder of its name, once."""

    @cache
    def finished(objective: str) -> Finished:
        whole, donor = (
            work(f"{objective}/{name}", make_trial(times, objective))
            for name, times in (("whole", 2), ("donor", 1))
        )
        return Finished(whole, run.run_trial(whole), run.run_trial(open_record(donor)))

    return finished


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every trained step is appended."""
    trained: list[int] = []
    train = training.train_steps

    def train_and_record(*arguments: Any, **options: Any) -> Any:
        for step in train(*arguments, **options):
            trained.append(step.spent.steps)
            yield step

    monkeypatch.setattr(training, "train_steps", train_and_record)
    return trained


@pytest.mark.usefixtures("few_sentences")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_extended_run_is_bitwise_equal_to_the_run_of_the_full_length(
    objective: str,
    work: Callable[..., Assignment],
    finished: Callable[[str], Finished],
    steps: list[int],
) -> None:
    whole, expected, short = finished(objective)
    longer = work(f"{objective}/longer", make_trial(2, objective))
    steps.clear()
    outcome = run.run_trial(open_record(longer))
    assert steps == list(range(STEPS + 1, 2 * STEPS + 1)), "only the second half is trained"
    assert outcome.state == "finished"
    assert outcome.reason == "continued from donor"
    name, tensors = read_newest_checkpoint(longer)
    expected_name, expected_tensors = read_newest_checkpoint(whole)
    assert name == expected_name == f"{2 * STEPS:012d}"
    assert tensors.keys() == expected_tensors.keys()
    assert all(value.equal(expected_tensors[name]) for name, value in tensors.items())
    assert without_costs(outcome.rows[-1]) == without_costs(expected.rows[-1])
    copied = outcome.rows[: len(short.rows)]
    assert [*map(without_costs, copied)] == [*map(without_costs, short.rows)]
    shared = short.rows[-1]["spent/flops"]
    for row in outcome.rows:
        assert row["spent/marginal_flops"] == max(0.0, row["spent/flops"] - shared)
    assert [row["spent/steps"] for row in outcome.rows] == [0, 4, 8, 16]
    assert record.read_untrained_blocks(longer.folder)
    assert record.read_blocks(longer.folder) == record.read_blocks(whole.folder)


@pytest.mark.usefixtures("few_sentences")
def test_interrupted_extended_run_continues_and_still_records_its_origin(
    work: Callable[..., Assignment], finished: Callable[[str], Finished]
) -> None:
    whole, expected, _ = finished("electra")
    longer = work("electra/interrupted", make_trial(2))
    assert (
        run.run_trial(open_record(longer), requested_state=lambda: "interrupted").state
        == "interrupted"
    )
    outcome = run.run_trial(open_record(longer))
    assert outcome.reason == "continued from donor"
    _, tensors = read_newest_checkpoint(longer)
    _, expected_tensors = read_newest_checkpoint(whole)
    assert all(value.equal(expected_tensors[name]) for name, value in tensors.items())
    assert without_costs(outcome.rows[-1]) == without_costs(expected.rows[-1])


# Choice of the run to extend


def leave_record(folder: Path, trial: Trial, state: State = "finished", text: str = TEXT) -> Path:
    """Write the record that a run of the trial would have left, and return its folder."""
    record.write_queued(folder, trial, trial.lineage(text))
    record.append_row(folder, {"spent/steps": 0.0})
    (folder / "checkpoints" / "000000000008").mkdir(parents=True)
    (folder / "checkpoints" / "000000000008" / "state.json").write_text(folder.name)
    if state in {"queued", "running"}:
        record.begin_record(folder, trial)
    else:
        rows = record.read_curve(folder)
        outcome = Outcome(state=state, reason="", rows=rows, started_at=0.0, seconds=1.0, busy=1.0)
        record.write_outcome(folder, outcome)
    return folder


def extend_and_read_origin(folder: Path, trial: Trial) -> str:
    """Return the name of the run that a trial was extended from; check its copied files."""
    record.write_queued(folder, trial, trial.lineage(TEXT))
    extend.extend_from_shorter_run(assign(folder, trial))
    name = record.read_origin(folder).name
    states = sorted((folder / "checkpoints").glob("*/state.json"))
    assert [state.read_text() for state in states] == ([name] if name else [])
    assert len(record.read_curve(folder)) == len(states)
    return name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_finished_shorter_run_is_extended(tmp_path: Path, objective: str) -> None:
    leave_record(tmp_path / "donor", make_trial(1, objective))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(1.5, objective)) == "donor"
    assert record.read_outcome(tmp_path / "donor") is not None


def test_longest_of_the_shorter_runs_is_extended(tmp_path: Path) -> None:
    for times in (2, 1, 3, 8):
        leave_record(tmp_path / f"x{times}", make_trial(times))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(4)) == "x3"


TWO_STAGE = TwoStageConfig(kind="two_stage")
OTHERS: dict[str, dict[str, Any]] = {
    "batch": {"batch": 16},
    "evaluations": {"evaluations": 8},
    "encoder": {"encoder": replace(SHAPE, layers=2)},
    "order": {"seeds": Seeds(order=1)},
    "init": {"seeds": Seeds(init=1)},
    "mask": {"seeds": Seeds(mask=1)},
    "rate": {"optim": AdamConfig(lr=2e-3)},
    "objective": {"objective": ElectraConfig(kind="electra", mask_prob=0.3)},
    "unit": {"budget": Budget(kind="flops", amount=10.0)},
    "schedule": {"schedule": Schedule(kind="linear", warmup=0)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_run_of_another_trial_is_not_extended(tmp_path: Path, other: str) -> None:
    leave_record(tmp_path / "donor", make_trial(1, **OTHERS[other]))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == ""


def test_run_on_another_text_is_not_extended(tmp_path: Path) -> None:
    leave_record(tmp_path / "donor", make_trial(1), text="another text")
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == ""


@pytest.mark.parametrize("times", [2, 2.5, 10])
def test_run_of_equal_or_larger_budget_is_not_extended(tmp_path: Path, times: float) -> None:
    leave_record(tmp_path / "donor", make_trial(times))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == ""


@pytest.mark.parametrize(
    "state", ["queued", "running", "interrupted", "stopped", "diverged", "failed"]
)
def test_run_that_has_not_finished_is_not_extended(tmp_path: Path, state: State) -> None:
    leave_record(tmp_path / "donor", make_trial(1), state)
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == ""


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(kind="constant", warmup=0.1),
        Schedule(kind="linear", warmup=0),
        Schedule(kind="cosine", warmup=0),
        Schedule(kind="stable", warmup=0),
        Schedule(),
    ],
    ids=lambda schedule: f"{schedule.kind} {schedule.warmup}",
)
def test_run_with_a_schedule_that_depends_on_the_budget_is_not_extended(
    tmp_path: Path, schedule: Schedule
) -> None:
    leave_record(tmp_path / "donor", make_trial(1, schedule=schedule))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2, schedule=schedule)) == ""


def test_two_stages_are_not_extended(tmp_path: Path) -> None:
    leave_record(tmp_path / "donor", make_trial(1, objective=TWO_STAGE))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2, objective=TWO_STAGE)) == ""


def test_record_with_checkpoints_is_not_changed(tmp_path: Path) -> None:
    leave_record(tmp_path / "donor", make_trial(1))
    own = leave_record(tmp_path / "longer", make_trial(2), "interrupted")
    extend.extend_from_shorter_run(assign(own, make_trial(2)))
    assert record.read_origin(own).name == ""
    assert (own / "checkpoints" / "000000000008" / "state.json").read_text() == "longer"


def test_runs_without_checkpoints_or_with_a_damaged_record_are_skipped(tmp_path: Path) -> None:
    for name in ("gone", "damaged", "good"):
        leave_record(tmp_path / name, make_trial({"good": 1}.get(name, 1.5)))
    (tmp_path / "gone" / "checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / "damaged" / "trial.json").write_text('{"trial": {')
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == "good"


@pytest.mark.reported
@pytest.mark.parametrize(
    "content", ["[1]", '{"lineage": 5}', "null", '{"lineage": "LINEAGE", "trial": {}}']
)
def test_run_with_other_content_in_its_record_is_skipped(tmp_path: Path, content: str) -> None:
    leave_record(tmp_path / "good", make_trial(1))
    damaged = leave_record(tmp_path / "damaged", make_trial(1.5))
    content = content.replace("LINEAGE", make_trial(1.5).lineage(TEXT))
    (damaged / "trial.json").write_text(content)
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == "good"


@pytest.mark.reported
def test_run_with_a_damaged_curve_is_skipped(tmp_path: Path) -> None:
    leave_record(tmp_path / "donor", make_trial(1))
    file = tmp_path / "donor" / "curve.jsonl"
    file.write_text(file.read_text().replace("0.0", "1.0"))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == ""


@pytest.mark.parametrize(
    "kill",
    ["curve", "copytree", "half", "all"],
)
def test_interrupted_extension_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: str
) -> None:
    leave_record(tmp_path / "donor", make_trial(1))

    def killed(*arguments: Any, **options: Any) -> None:
        if kill == "half":
            (arguments[1] / "000000000001").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        match kill:
            case "all":
                patch.setattr(record, "write_origin", killed)
            case "curve":
                patch.setattr(record, "write_rows", killed)
            case _:
                patch.setattr("lab.trials.extend.shutil.copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            extend_and_read_origin(tmp_path / "longer", make_trial(2))
    assert extend_and_read_origin(tmp_path / "longer", make_trial(2)) == "donor"


def test_fine_tuning_scores_of_the_shorter_run_are_not_copied(tmp_path: Path) -> None:
    """They belong to the shorter run's encoder."""
    leave_record(tmp_path / "donor", make_trial(1))
    plain = record.read_curve(tmp_path / "donor")
    record.amend_last_row(tmp_path / "donor", {"finetune/cola": 0.5, "finetune/cola/low": 0.4})
    extend_and_read_origin(tmp_path / "longer", make_trial(2))
    assert record.read_curve(tmp_path / "longer") == plain
