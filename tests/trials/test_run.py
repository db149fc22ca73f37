"""A trial in this process: its record, its repetition, and how it ends when something breaks."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared_text import PreparedText

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.metrics import METRICS
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import AdamConfig
from lab.config.phases import UpdatedNetworks
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Trial
from lab.storage import record
from lab.training.objectives import Electra
from lab.training.objectives.base import StepLoss
from lab.trials import progress
from lab.trials.assignment import Assignment
from lab.trials.progress import TRAINED, TRAINING, UNTRAINED, PhaseProgress
from lab.trials.run import run_trial

pytestmark = pytest.mark.usefixtures("few_sentences")
STEPS, CURVE = 16, 4
Run = Callable[..., Outcome]


@pytest.fixture
def asked(prepared_text: PreparedText) -> Trial:
    return Trial(
        encoder=EncoderConfig(
            layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, dropout=0.1, norm="pre"
        ),
        objective=ElectraConfig(kind="electra"),
        data=prepared_text.data,
        batch=8,
        budget=Budget(kind="tokens", amount=STEPS * 8 * 16),
        evaluations=CURVE,
    )


@pytest.fixture
def run(prepared_text: PreparedText, held_out: Path) -> Run:
    def run(asked: Trial, folder: Path, **named: Any) -> Outcome:
        work = Assignment(
            trial=asked,
            folder=folder,
            text=prepared_text.text,
            held_out=held_out,
            metric=METRICS["probe/pos/accuracy"],
        )
        return run_trial(work, **named)

    return run


def breaks(monkeypatch: pytest.MonkeyPatch, at: int, how: Callable[[StepLoss], StepLoss]) -> None:
    """Let the objective's loss at step `at` and after be what `how` makes of it."""
    forward = Electra.forward

    def broken(
        self: Electra, batch: Any, step: int, learns: UpdatedNetworks, places: Any
    ) -> StepLoss:
        loss = forward(self, batch, step, learns, places)
        return how(loss) if step >= at else loss

    monkeypatch.setattr(Electra, "forward", broken)


def not_a_number(loss: StepLoss) -> StepLoss:
    return StepLoss(
        loss.total * math.nan, {name: value * math.nan for name, value in loss.parts.items()}
    )


def raises(loss: StepLoss) -> StepLoss:
    raise RuntimeError("out of memory\nand a second line")


def without_time(rows: tuple[MetricRow, ...]) -> list[MetricRow]:
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


def test_run_leaves_a_complete_record(run: Run, asked: Trial, tmp_path: Path) -> None:
    reported: list[MetricRow] = []
    outcome = run(asked, tmp_path / "made", report=reported.append)
    folder = tmp_path / "made"
    assert sorted(file.name for file in folder.iterdir()) == [
        "checkpoints",
        "curve.jsonl",
        "outcome.json",
        "state",
        "trial.json",
    ]
    assert record.read_outcome(folder) == outcome
    assert tuple(reported) == outcome.rows
    said = json.loads((folder / "trial.json").read_text())
    assert said["trial"] == json.loads(json.dumps(asdict(asked)))
    assert record.read_state(folder) == "finished"
    assert (outcome.state, outcome.reason) == ("finished", "")
    assert 0 < outcome.busy <= outcome.seconds


def test_each_phase_of_a_run_can_be_read_while_it_lasts(
    run: Run, asked: Trial, tmp_path: Path
) -> None:
    seen: list[PhaseProgress | None] = []

    def wish() -> State:
        seen.append(progress.read_progress(tmp_path))
        return "running"

    run(asked, tmp_path, report=lambda _: seen.append(progress.read_progress(tmp_path)), wish=wish)
    phases = [each.phase for each in seen if each is not None]
    assert len(phases) == len(seen)
    assert list(dict.fromkeys(phases)) == [UNTRAINED, TRAINING, TRAINED]
    assert [each.phase for each in (seen[0], seen[-1]) if each] == [UNTRAINED, TRAINED]
    assert progress.read_progress(tmp_path) is None


def test_rows_go_from_the_untrained_encoder_to_the_end(
    run: Run, asked: Trial, tmp_path: Path
) -> None:
    rows = run(asked, tmp_path).rows
    assert [row["spent/steps"] for row in rows] == [0, 4, 8, 12, 16]
    assert [row["spent/tokens"] for row in rows] == [n * 8 * 16 for n in (0, 4, 8, 12, 16)]
    scored = [{name for name in row if name in METRICS} for row in rows]
    detection = {name for name in METRICS if name.startswith("detect/")}
    probing = {name for name in METRICS if name.startswith("probe/")}
    training = {"train/loss", "train/generator_loss", "train/discriminator_loss"}
    assert scored[0] == detection | probing
    cheap = detection | {"probe/pos/accuracy"}
    assert all(names == cheap | training for names in scored[1:-1])
    assert scored[-1] == detection | probing | training


@pytest.mark.parametrize("curve", [1, 2, 16])
def test_curve_has_as_many_points_as_asked_for(
    run: Run, asked: Trial, tmp_path: Path, curve: int
) -> None:
    rows = run(replace(asked, evaluations=curve), tmp_path).rows
    assert len(rows) == 1 + curve
    assert rows[-1]["spent/steps"] == STEPS


def test_same_trial_gives_the_same_rows(run: Run, asked: Trial, tmp_path: Path) -> None:
    first, second = run(asked, tmp_path / "a"), run(asked, tmp_path / "b")
    assert without_time(first.rows) == without_time(second.rows)
    other = run(replace(asked, seeds=asked.seeds.repeat(1)), tmp_path / "c")
    assert without_time(other.rows) != without_time(first.rows)


def test_scoring_more_often_does_not_change_the_training(
    run: Run, asked: Trial, tmp_path: Path
) -> None:
    often, once = (
        without_time(run(replace(asked, evaluations=curve), tmp_path / str(curve)).rows)
        for curve in (8, 1)
    )
    same = {name for name in often[-1] if name.startswith(("detect/", "probe/"))}
    assert {name: often[-1][name] for name in same} == {name: once[-1][name] for name in same}


def test_training_helps(run: Run, asked: Trial, tmp_path: Path) -> None:
    longer = replace(
        asked,
        budget=replace(asked.budget, amount=200 * 32 * 16.0),
        batch=32,
        optim=AdamConfig(lr=3e-3, beta1=0.9, beta2=0.999),
        evaluations=2,
    )
    rows = run(longer, tmp_path).rows
    assert rows[-1]["train/generator_loss"] < rows[1]["train/generator_loss"]


def test_mlm_has_no_detection_score(run: Run, asked: Trial, tmp_path: Path) -> None:
    outcome = run(replace(asked, objective=MlmConfig(kind="mlm")), tmp_path)
    assert outcome.state == "finished"
    assert not any(name.startswith("detect/") for row in outcome.rows for name in row)
    assert "probe/pos/accuracy" in outcome.rows[-1]


def test_loss_that_is_no_number_ends_diverged(
    run: Run, asked: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, 6, not_a_number)
    outcome = run(asked, tmp_path)
    assert outcome.state == "diverged"
    assert outcome.reason.startswith("train/loss is not finite at step ")
    assert [row["spent/steps"] for row in outcome.rows] == [0, 4]
    assert record.read_outcome(tmp_path) == outcome


def test_rate_that_makes_the_weights_overflow_ends_diverged(
    run: Run, asked: Trial, tmp_path: Path
) -> None:
    """The generator then says NaN, and its samples are tokens all the same."""
    outcome = run(replace(asked, optim=AdamConfig(lr=1e25)), tmp_path)
    assert outcome.state == "diverged", outcome.reason


@pytest.mark.parametrize("name", ["train/discriminator_loss", "train/mlm_loss"])
def test_loss_beyond_knowing_nothing_ends_diverged(
    run: Run, asked: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Finite all along: what it costs is far more than an answer without any training would."""
    far = torch.tensor(50.0)
    breaks(monkeypatch, 6, lambda loss: StepLoss(loss.total, loss.parts | {name: far}))
    outcome = run(asked, tmp_path)
    assert outcome.state == record.read_state(tmp_path) == "diverged"
    assert outcome.reason.startswith(f"{name} is ")
    assert " at step 8, and knowing nothing costs " in outcome.reason
    assert [row["spent/steps"] for row in outcome.rows] == [0, 4]
    assert record.read_outcome(tmp_path) == outcome


def test_exception_ends_failed_with_one_line(
    run: Run, asked: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, 6, raises)
    outcome = run(asked, tmp_path)
    assert outcome.state == "failed"
    assert outcome.reason == "RuntimeError: out of memory"
    assert [row["spent/steps"] for row in outcome.rows] == [0, 4]
    assert record.read_outcome(tmp_path) == outcome


def test_missing_text_ends_failed(asked: Trial, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    outcome = run_trial(
        Assignment(
            trial=asked,
            folder=tmp_path / "made",
            text=nowhere,
            held_out=nowhere,
            metric=METRICS["probe/pos/accuracy"],
        )
    )
    assert outcome.state == "failed"
    assert outcome.reason.startswith("FileNotFoundError")
    assert outcome.rows == ()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_run_that_is_cut_off_has_no_outcome(
    run: Run, asked: Trial, tmp_path: Path, error: type[BaseException]
) -> None:
    def cut(row: MetricRow) -> None:
        if row["spent/steps"] == 8:
            raise error

    with pytest.raises(error):
        run(asked, tmp_path, report=cut)
    assert record.read_outcome(tmp_path) is None
    assert [row["spent/steps"] for row in record.read_curve(tmp_path)] == [0, 4, 8]


def test_run_replaces_what_one_that_was_cut_off_had_left(
    run: Run, asked: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        breaks(patch, 6, raises)
        run(asked, tmp_path)
    outcome = run(asked, tmp_path)
    assert record.read_outcome(tmp_path) == outcome
    assert len(record.read_curve(tmp_path)) == 1 + CURVE


def kept(folder: Path, trial: Trial) -> Outcome:
    outcome = Outcome(
        state="finished",
        reason="",
        rows=({"spent/steps": 0, "a": 0.1}, {"spent/steps": 3, "a": 1 / 3}),
        began=1e9,
        seconds=2.5,
        busy=2.0,
    )
    record.begin_record(folder, trial)
    for row in outcome.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, outcome)
    return outcome


def test_record_gives_back_what_was_written(asked: Trial, tmp_path: Path) -> None:
    assert record.read_outcome(tmp_path) is None
    outcome = kept(tmp_path, asked)
    assert record.read_outcome(tmp_path) == outcome


@pytest.mark.parametrize("cut", [1, 2, 10, 25])
def test_record_whose_last_line_was_cut_short_reads(asked: Trial, tmp_path: Path, cut: int) -> None:
    outcome = kept(tmp_path, asked)
    curve = tmp_path / "curve.jsonl"
    curve.write_text(curve.read_text()[:-cut])
    # Without its line feed alone, a line is still whole.
    assert record.read_curve(tmp_path) == (outcome.rows if cut == 1 else outcome.rows[:1])
    assert record.read_outcome(tmp_path) == (outcome if cut == 1 else None)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_opening_a_record_again_keeps_the_points_that_are_asked_for(
    asked: Trial, tmp_path: Path, count: int
) -> None:
    outcome = kept(tmp_path, asked)
    record.begin_record(tmp_path, asked)
    assert record.read_outcome(tmp_path) is None
    assert record.keep_rows(tmp_path, count) == record.read_curve(tmp_path) == outcome.rows[:count]


@pytest.mark.parametrize(("value", "name"), [(1.0, None), (math.nan, "b"), (-math.inf, "b")])
def test_a_number_that_is_none_is_named(value: float, name: str | None) -> None:
    assert record.non_finite_metrics({"a": 0.0, "b": value}) == name
