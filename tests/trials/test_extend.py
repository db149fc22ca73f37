"""Extension: a longer run that goes on from a shorter one is the run that it would have been."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prepared_text import PreparedText
from safetensors.torch import load_file
from torch import Tensor

from lab.config import trial as spec
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
from lab.config.schedule import Schedule
from lab.config.trial import Trial
from lab.storage import record
from lab.trials import extend, run
from lab.trials.assignment import Assignment

STEPS, CURVE = 8, 4
FLAT = Schedule(kind="constant", warmup=0)
SHAPE = EncoderConfig(
    layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, dropout=0.1, norm="pre"
)
RUNGS: dict[str, AnyObjectiveConfig] = {
    "electra": ElectraConfig(kind="electra"),
    "gdes": ElectraConfig(kind="electra", sharing="gdes"),
    "alternation": AdversarialConfig(
        kind="adversarial", sharing="none", rule=AlternationConfig(kind="alternation", steps=3)
    ),
    "mlm": MlmConfig(kind="mlm"),
}
TEXT = "text"


def asked(times: float = 1, rung: str = "electra", **changes: Any) -> Trial:
    made = Trial(
        encoder=SHAPE,
        objective=RUNGS[rung],
        data=DataConfig(share=0.01, held_out=0.1, vocab=400, length=16),
        batch=8,
        schedule=FLAT,
        budget=Budget(kind="tokens", amount=times * STEPS * 8 * 16),
        evaluations=CURVE,
    )
    return replace(made, **changes)


# What is computed.


@pytest.fixture
def work(prepared_text: PreparedText, held_out: Path, tmp_path: Path) -> Callable[..., Assignment]:
    def work(name: str, trial: Trial) -> Assignment:
        return Assignment(
            trial=trial,
            folder=tmp_path / name,
            text=prepared_text.text,
            held_out=held_out,
            metric=METRICS["probe/pos/accuracy"],
        )

    return work


def opened(work: Assignment) -> Assignment:
    """Do as the driver does with a trial that it hands out."""
    record.write_queued(work.folder, work.trial, work.trial.lineage(TEXT))
    extend.extend_from_shorter_run(work.folder, work.trial, work.trial.lineage(TEXT))
    return work


def final(work: Assignment) -> tuple[str, dict[str, Tensor]]:
    newest = max((work.folder / "checkpoints").iterdir())
    return newest.name, load_file(newest / "state.safetensors")


def without_time(row: MetricRow) -> MetricRow:
    return {name: value for name, value in row.items() if "second" not in name}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Hear of every step that is trained."""
    made: list[int] = []
    train = run.train_steps

    def heard(*given: Any, **named: Any) -> Any:
        for step in train(*given, **named):
            made.append(step.spent.steps)
            yield step

    monkeypatch.setattr(run, "train_steps", heard)
    return made


@pytest.mark.usefixtures("few_sentences")
@pytest.mark.parametrize("rung", RUNGS)
def test_extended_run_ends_bitwise_as_the_long_run_done_at_once(
    rung: str, work: Callable[..., Assignment], steps: list[int]
) -> None:
    whole, donor, longer = (
        work(name, asked(times, rung)) for name, times in (("whole", 2), ("donor", 1), ("it", 2))
    )
    expected = run.run_trial(whole)
    short = run.run_trial(opened(donor))
    steps.clear()
    outcome = run.run_trial(opened(longer))
    assert steps == list(range(STEPS + 1, 2 * STEPS + 1)), "only the second half"
    assert outcome.state == "finished"
    assert outcome.reason == "went on from donor"
    (name, tensors), (end, wanted) = final(longer), final(whole)
    assert name == end == f"{2 * STEPS:012d}"
    assert tensors.keys() == wanted.keys()
    assert all(value.equal(wanted[name]) for name, value in tensors.items())
    assert without_time(outcome.rows[-1]) == without_time(expected.rows[-1])
    assert outcome.rows[: len(short.rows)] == short.rows
    assert [row["spent/steps"] for row in outcome.rows] == [0, 2, 4, 6, 8, 12, 16]


@pytest.mark.usefixtures("few_sentences")
def test_extended_run_that_is_interrupted_goes_on_and_still_says_where_from(
    work: Callable[..., Assignment],
) -> None:
    whole, donor, longer = (
        work(name, asked(times)) for name, times in (("whole", 2), ("donor", 1), ("it", 2))
    )
    expected = run.run_trial(whole)
    run.run_trial(opened(donor))
    assert run.run_trial(opened(longer), wish=lambda: "interrupted").state == "interrupted"
    outcome = run.run_trial(opened(longer))
    assert outcome.reason == "went on from donor"
    assert all(value.equal(final(whole)[1][name]) for name, value in final(longer)[1].items())
    assert without_time(outcome.rows[-1]) == without_time(expected.rows[-1])


# What is taken over.


def left(folder: Path, trial: Trial, state: State = "finished", text: str = TEXT) -> Path:
    """Leave what a run of the trial would have left."""
    record.write_queued(folder, trial, trial.lineage(text))
    record.append_row(folder, {"spent/steps": 0.0})
    (folder / "checkpoints" / "000000000008").mkdir(parents=True)
    (folder / "checkpoints" / "000000000008" / "state.json").write_text(folder.name)
    if state in {"queued", "running"}:
        record.begin_record(folder, trial)
    else:
        rows = record.read_curve(folder)
        ended = Outcome(state=state, reason="", rows=rows, began=0.0, seconds=1.0, busy=1.0)
        record.write_outcome(folder, ended)
    return folder


def taken(folder: Path, trial: Trial) -> str:
    """Return which run a trial goes on from; its record holds that run's state, or none."""
    record.write_queued(folder, trial, trial.lineage(TEXT))
    extend.extend_from_shorter_run(folder, trial, trial.lineage(TEXT))
    name = record.read_origin(folder)
    states = sorted((folder / "checkpoints").glob("*/state.json"))
    assert [state.read_text() for state in states] == ([name] if name else [])
    assert len(record.read_curve(folder)) == len(states)
    return name


@pytest.mark.parametrize("rung", RUNGS)
def test_finished_shorter_run_is_taken_over(tmp_path: Path, rung: str) -> None:
    left(tmp_path / "donor", asked(1, rung))
    assert taken(tmp_path / "it", asked(1.5, rung)) == "donor"
    assert record.read_outcome(tmp_path / "donor") is not None


def test_longest_of_the_shorter_runs_is_taken_over(tmp_path: Path) -> None:
    for times in (2, 1, 3, 8):
        left(tmp_path / f"x{times}", asked(times))
    assert taken(tmp_path / "it", asked(4)) == "x3"


TWO_STAGE = TwoStageConfig(kind="two_stage")
OTHERS: dict[str, dict[str, Any]] = {
    "batch": {"batch": 16},
    "evaluations": {"evaluations": 8},
    "encoder": {"encoder": replace(SHAPE, layers=2)},
    "order": {"seeds": spec.Seeds(order=1)},
    "init": {"seeds": spec.Seeds(init=1)},
    "mask": {"seeds": spec.Seeds(mask=1)},
    "rate": {"optim": AdamConfig(lr=2e-3)},
    "objective": {"objective": ElectraConfig(kind="electra", mask_prob=0.3)},
    "unit": {"budget": Budget(kind="flops", amount=10.0)},
    "schedule": {"schedule": Schedule(kind="linear", warmup=0)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_run_of_another_trial_is_not_taken_over(tmp_path: Path, other: str) -> None:
    left(tmp_path / "donor", asked(1, **OTHERS[other]))
    assert taken(tmp_path / "it", asked(2)) == ""


def test_run_on_another_text_is_not_taken_over(tmp_path: Path) -> None:
    left(tmp_path / "donor", asked(1), text="another text")
    assert taken(tmp_path / "it", asked(2)) == ""


@pytest.mark.parametrize("times", [2, 2.5, 10])
def test_run_that_is_no_shorter_is_not_taken_over(tmp_path: Path, times: float) -> None:
    left(tmp_path / "donor", asked(times))
    assert taken(tmp_path / "it", asked(2)) == ""


@pytest.mark.parametrize(
    "state", ["queued", "running", "interrupted", "stopped", "diverged", "failed"]
)
def test_run_that_has_not_finished_is_not_taken_over(tmp_path: Path, state: State) -> None:
    left(tmp_path / "donor", asked(1), state)
    assert taken(tmp_path / "it", asked(2)) == ""


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
def test_schedule_that_knows_its_end_is_not_extended(tmp_path: Path, schedule: Schedule) -> None:
    left(tmp_path / "donor", asked(1, schedule=schedule))
    assert taken(tmp_path / "it", asked(2, schedule=schedule)) == ""


def test_two_stages_are_not_extended(tmp_path: Path) -> None:
    left(tmp_path / "donor", asked(1, objective=TWO_STAGE))
    assert taken(tmp_path / "it", asked(2, objective=TWO_STAGE)) == ""


def test_record_with_a_state_of_its_own_is_left_alone(tmp_path: Path) -> None:
    left(tmp_path / "donor", asked(1))
    own = left(tmp_path / "it", asked(2), "interrupted")
    extend.extend_from_shorter_run(own, asked(2), asked(2).lineage(TEXT))
    assert record.read_origin(own) == ""
    assert (own / "checkpoints" / "000000000008" / "state.json").read_text() == "it"


def test_donor_without_a_state_or_with_a_damaged_record_is_passed_over(tmp_path: Path) -> None:
    for name in ("gone", "damaged", "good"):
        left(tmp_path / name, asked({"good": 1}.get(name, 1.5)))
    (tmp_path / "gone" / "checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / "damaged" / "trial.json").write_text('{"trial": {')
    assert taken(tmp_path / "it", asked(2)) == "good"


@pytest.mark.parametrize(
    "kill",
    ["curve", "copytree", "half", "all"],
)
def test_take_over_that_is_cut_off_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: str
) -> None:
    left(tmp_path / "donor", asked(1))

    def killed(*given: Any, **named: Any) -> None:
        if kill == "half":
            (tmp_path / "it" / "checkpoints.partial").mkdir()
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
            taken(tmp_path / "it", asked(2))
    assert taken(tmp_path / "it", asked(2)) == "donor"


def test_what_was_taken_over_has_no_score_of_fine_tuning(tmp_path: Path) -> None:
    """The shorter run's encoder was tuned; where nobody tunes the longer one's, it has no score."""
    left(tmp_path / "donor", asked(1))
    plain = record.read_curve(tmp_path / "donor")
    record.amend_last_row(tmp_path / "donor", {"finetune/cola": 0.5, "finetune/cola/low": 0.4})
    taken(tmp_path / "it", asked(2))
    assert record.read_curve(tmp_path / "it") == plain
