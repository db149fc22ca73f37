"""Run a trial in this process: its record, reproducibility, and outcomes after errors."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from prepared_text import PreparedText
from small_disk import fill, mount_small_disk

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.metrics import METRICS, untrained_name
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import AdamConfig
from lab.config.results import MetricRow, Outcome, State
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.trial import Trial
from lab.evaluation.corruption import open_held_out
from lab.score_blocks import document_blocks
from lab.storage import provenance, record
from lab.training.objectives import Electra
from lab.training.objectives.base import StepLoss
from lab.trials import progress
from lab.trials.assignment import Assignment
from lab.trials.progress import TRAINED, TRAINING, UNTRAINED, PhaseProgress
from lab.trials.run import run_trial

pytestmark = pytest.mark.usefixtures("few_sentences")
STEPS, CURVE = 16, 4
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def trial(prepared_text: PreparedText) -> Trial:
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


@pytest.fixture(scope="module")
def run(prepared_text: PreparedText, held_out: Path) -> Run:
    def run(trial: Trial, folder: Path, **named: Any) -> Outcome:
        work = Assignment(
            trial=trial,
            folder=folder,
            text=prepared_text.text,
            held_out=held_out,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        )
        return run_trial(work, **named)

    return run


class CompleteRun(NamedTuple):
    """A finished run of `trial`, which tests share and do not change."""

    folder: Path
    outcome: Outcome
    reported: tuple[MetricRow, ...]


@pytest.fixture(scope="module")
def complete(
    run: Run, trial: Trial, few_sentences: None, tmp_path_factory: pytest.TempPathFactory
) -> CompleteRun:
    folder, reported = tmp_path_factory.mktemp("complete") / "trial", list[MetricRow]()
    outcome = run(trial, folder, report=reported.append)
    return CompleteRun(folder, outcome, tuple(reported))


def of_four_steps(trial: Trial, evaluations: int = 1) -> Trial:
    return replace(trial, budget=Budget(kind="tokens", amount=4 * 8 * 16), evaluations=evaluations)


def change_loss(
    monkeypatch: pytest.MonkeyPatch, first_step: int, change: Callable[[StepLoss], StepLoss]
) -> None:
    """Apply `change` to the objective's loss from step `first_step` on."""
    forward = Electra.forward

    def forward_and_change(
        self: Electra, batch: Any, step: int, updates: UpdatedNetworks, places: Any
    ) -> StepLoss:
        loss = forward(self, batch, step, updates, places)
        return change(loss) if step >= first_step else loss

    monkeypatch.setattr(Electra, "forward", forward_and_change)


def make_nan(loss: StepLoss) -> StepLoss:
    return StepLoss(
        loss.total * math.nan, {name: value * math.nan for name, value in loss.parts.items()}
    )


def raise_error(loss: StepLoss) -> StepLoss:
    raise RuntimeError("out of memory\nand a second line")


def without_time(rows: tuple[MetricRow, ...]) -> list[MetricRow]:
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


def test_run_leaves_a_complete_record(complete: CompleteRun, trial: Trial) -> None:
    folder, outcome, reported = complete
    assert sorted(file.name for file in folder.iterdir()) == [
        "blocks.json",
        "checkpoints",
        "curve.jsonl",
        "outcome.json",
        "provenance.json",
        "state",
        "trial.json",
    ]
    assert record.read_outcome(folder) == outcome
    assert reported == outcome.rows
    content = json.loads((folder / "trial.json").read_text())
    assert content["trial"] == json.loads(json.dumps(asdict(trial)))
    assert record.read_state(folder) == "finished"
    assert (outcome.state, outcome.reason) == ("finished", "")
    assert 0 < outcome.busy <= outcome.seconds


def test_record_has_the_blocks_of_every_score_of_the_test_sets(
    complete: CompleteRun, held_out: Path
) -> None:
    folder, end, _ = complete
    blocks = record.read_blocks(folder)
    families = ("detect/", "probe/", "mlm/", "pairs/")
    tested = {name for name in end.rows[-1] if name.startswith(families)}
    assert set(blocks) == tested | set(map(untrained_name, tested))
    documents = int(document_blocks(open_held_out(held_out).document_N).max()) + 1
    for name in tested:
        if name.startswith(("detect/", "probe/sentiment")):
            assert len(blocks[name]) == (documents if name.startswith("detect/") else 100)
        assert len(blocks[untrained_name(name)]) == len(blocks[name])
    assert all(abs(sum(values)) < 1e-3 for values in blocks.values())
    # Few pairs of a category may all be right.
    varied = [values for name, values in blocks.items() if "pairs/" not in name]
    assert all(max(map(abs, values)) > 1e-6 for values in varied)


def test_continued_run_keeps_the_blocks_of_the_untrained_encoder(
    run: Run, trial: Trial, complete: CompleteRun, tmp_path: Path
) -> None:
    states: list[State] = ["running"] * 6 + ["interrupted"]
    left = iter(states)
    assert run(trial, tmp_path, requested_state=lambda: next(left)).state == "interrupted"
    assert run(trial, tmp_path).state == "finished"
    assert record.read_untrained_blocks(tmp_path)
    assert record.read_blocks(tmp_path) == record.read_blocks(complete.folder)


def test_progress_file_has_each_phase_during_the_run(
    run: Run, trial: Trial, tmp_path: Path
) -> None:
    seen: list[PhaseProgress | None] = []

    def read_and_continue() -> State:
        seen.append(progress.read_progress(tmp_path))
        return "running"

    run(
        trial,
        tmp_path,
        report=lambda _: seen.append(progress.read_progress(tmp_path)),
        requested_state=read_and_continue,
    )
    phases = [each.phase for each in seen if each is not None]
    assert len(phases) == len(seen)
    assert list(dict.fromkeys(phases)) == [UNTRAINED, TRAINING, TRAINED]
    assert [each.phase for each in (seen[0], seen[-1]) if each] == [UNTRAINED, TRAINED]
    assert progress.read_progress(tmp_path) is None


def test_rows_cover_the_run_from_the_untrained_encoder_to_the_end(
    complete: CompleteRun,
) -> None:
    rows = complete.outcome.rows
    assert [row["spent/steps"] for row in rows] == [0, 4, 8, 12, 16]
    assert [row["spent/tokens"] for row in rows] == [n * 8 * 16 for n in (0, 4, 8, 12, 16)]
    scored = [{name for name in row if name in METRICS} for row in rows]
    detection = {name for name in METRICS if name.startswith("detect/")}
    probing = {name for name in METRICS if name.startswith("probe/")}
    words = {"mlm/nats_per_character"}
    pairs = {name for name in METRICS if name.startswith("pairs/")}
    training = {"train/loss", "train/generator_loss", "train/discriminator_loss"}
    assert scored[0] == detection | probing | words | pairs
    cheap = detection | words | pairs | {"probe/pos/accuracy", "probe/pos/nats"}
    assert all(names == cheap | training for names in scored[1:-1])
    assert scored[-1] == detection | probing | words | pairs | training


def test_first_and_last_point_have_the_baselines_of_the_held_out_text(
    complete: CompleteRun, held_out: Path
) -> None:
    first, *interim, last = complete.outcome.rows
    baselines = open_held_out(held_out).baselines
    assert baselines
    assert baselines.items() <= first.items()
    assert baselines.items() <= last.items()
    assert not any(name in row for row in interim for name in baselines)


@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_curve_has_the_requested_number_of_points(
    run: Run, trial: Trial, tmp_path: Path, evaluations: int
) -> None:
    rows = run(of_four_steps(trial, evaluations), tmp_path).rows
    assert len(rows) == 1 + evaluations
    assert rows[-1]["spent/steps"] == 4


def test_same_trial_gives_the_same_rows(
    run: Run, trial: Trial, complete: CompleteRun, tmp_path: Path
) -> None:
    first, second = complete.outcome, run(trial, tmp_path / "b")
    assert without_time(first.rows) == without_time(second.rows)
    other = run(replace(trial, seeds=trial.seeds.repeat(1)), tmp_path / "c")
    assert without_time(other.rows) != without_time(first.rows)


def test_scoring_more_often_does_not_change_the_training(
    run: Run, trial: Trial, complete: CompleteRun, tmp_path: Path
) -> None:
    often, once = complete.outcome.rows, run(replace(trial, evaluations=1), tmp_path).rows
    same = {name for name in often[-1] if name.startswith(("detect/", "probe/", "mlm/"))}
    assert {name: often[-1][name] for name in same} == {name: once[-1][name] for name in same}


def test_training_lowers_the_generator_loss(run: Run, trial: Trial, tmp_path: Path) -> None:
    longer = replace(
        trial,
        budget=replace(trial.budget, amount=100 * 32 * 16.0),
        batch=32,
        optim=AdamConfig(lr=3e-3, beta1=0.9, beta2=0.999),
        evaluations=4,
    )
    rows = run(longer, tmp_path).rows
    assert rows[-1]["train/generator_loss"] < rows[1]["train/generator_loss"]


def test_mlm_has_no_detection_score(run: Run, trial: Trial, tmp_path: Path) -> None:
    outcome = run(replace(trial, objective=MlmConfig(kind="mlm")), tmp_path)
    assert outcome.state == "finished"
    assert not any(name.startswith("detect/") for row in outcome.rows for name in row)
    assert "probe/pos/accuracy" in outcome.rows[-1]
    scored = ["mlm/own_head/nats_per_character" in row for row in outcome.rows]
    assert scored == [True] + [False] * (CURVE - 1) + [True]


def test_nan_loss_ends_diverged(
    run: Run, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_loss(monkeypatch, 6, make_nan)
    outcome = run(trial, tmp_path)
    assert outcome.state == "diverged"
    assert outcome.reason.startswith("train/loss is not finite at step ")
    assert [row["spent/steps"] for row in outcome.rows] == [0, 4]
    assert record.read_outcome(tmp_path) == outcome


def test_learning_rate_that_makes_the_weights_overflow_ends_diverged(
    run: Run, trial: Trial, tmp_path: Path
) -> None:
    """The generator's logits become NaN, but its samples are still valid tokens."""
    outcome = run(replace(trial, optim=AdamConfig(lr=1e25)), tmp_path)
    assert outcome.state == "diverged", outcome.reason


@pytest.mark.parametrize("name", ["train/discriminator_loss", "train/mlm_loss"])
def test_loss_far_above_that_of_an_uninformed_predictor_ends_diverged(
    run: Run, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The loss stays finite."""
    far = torch.tensor(50.0)
    change_loss(monkeypatch, 6, lambda loss: StepLoss(loss.total, loss.parts | {name: far}))
    outcome = run(trial, tmp_path)
    assert outcome.state == record.read_state(tmp_path) == "diverged"
    assert outcome.reason.startswith(f"{name} is ")
    assert " at step 8; that of an uninformed predictor is " in outcome.reason
    assert [row["spent/steps"] for row in outcome.rows] == [0, 4]
    assert record.read_outcome(tmp_path) == outcome


def test_exception_ends_failed_with_a_one_line_reason(
    run: Run, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_loss(monkeypatch, 6, raise_error)
    outcome = run(trial, tmp_path)
    assert outcome.state == "failed"
    assert outcome.reason == "RuntimeError: out of memory"
    assert outcome.traceback.startswith("Traceback (most recent call last):")
    assert "in raise_error" in outcome.traceback
    assert (tmp_path / "traceback.txt").read_text().strip() == outcome.traceback.strip()
    assert [row["spent/steps"] for row in outcome.rows] == [0, 4]
    assert record.read_outcome(tmp_path) == outcome


def test_missing_text_ends_failed(trial: Trial, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    outcome = run_trial(
        Assignment(
            trial=trial,
            folder=tmp_path / "trial",
            text=nowhere,
            held_out=nowhere,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        )
    )
    assert outcome.state == "failed"
    assert outcome.reason.startswith(f"DamagedFileError: {nowhere}/text.json")
    assert outcome.rows == ()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_process_leaves_no_outcome(
    run: Run, trial: Trial, tmp_path: Path, error: type[BaseException]
) -> None:
    def interrupt(row: MetricRow) -> None:
        if row["spent/steps"] == 8:
            raise error

    with pytest.raises(error):
        run(trial, tmp_path, report=interrupt)
    assert record.read_outcome(tmp_path) is None
    assert [row["spent/steps"] for row in record.read_curve(tmp_path)] == [0, 4, 8]


def test_repeated_run_replaces_the_record_of_a_failed_one(
    run: Run, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        change_loss(patch, 6, raise_error)
        run(trial, tmp_path)
    outcome = run(trial, tmp_path)
    assert record.read_outcome(tmp_path) == outcome
    assert len(record.read_curve(tmp_path)) == 1 + CURVE


def test_run_continued_at_another_commit_has_both_commits(
    run: Run, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = provenance.current_provenance()
    for commit, states in (("a", ["running", "running", "interrupted"]), ("b", [])):
        entry = replace(own, commit=commit)
        monkeypatch.setattr(provenance, "current_provenance", lambda entry=entry: entry)
        left = iter(states)
        outcome = run(
            of_four_steps(trial),
            tmp_path,
            requested_state=lambda left=left: next(left, "running"),
        )
    assert outcome.state == "finished"
    assert [entry.commit for entry in provenance.read_provenance(tmp_path)] == ["a", "b"]


def test_run_continued_with_other_threads_has_both_numbers(
    run: Run, trial: Trial, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    try:
        for threads, states in ((2, ["interrupted"]), (1, [])):
            torch.set_num_threads(threads)
            left = iter(states)
            run(
                of_four_steps(trial),
                tmp_path,
                requested_state=lambda left=left: next(left, "running"),
            )
    finally:
        torch.set_num_threads(before)
    assert [entry.threads for entry in provenance.read_provenance(tmp_path)] == [2, 1]


def test_process_with_other_code_than_the_sweep_trains_nothing(
    run: Run, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter(("before", "after"))
    monkeypatch.setattr("lab.trials.assignment.code_digest", lambda _: next(digests))
    outcome = run(trial, tmp_path)
    assert outcome.state == "failed"
    assert "the code on this machine (digest after) is not the code that the" in outcome.reason
    assert outcome.rows == provenance.read_provenance(tmp_path) == ()


def write_record(folder: Path, trial: Trial) -> Outcome:
    outcome = Outcome(
        state="finished",
        reason="",
        rows=({"spent/steps": 0, "a": 0.1}, {"spent/steps": 3, "a": 1 / 3}),
        started_at=1e9,
        seconds=2.5,
        busy=2.0,
    )
    record.begin_record(folder, trial)
    for row in outcome.rows:
        record.append_row(folder, row)
    record.write_outcome(folder, outcome)
    return outcome


def test_record_reads_as_it_was_written(trial: Trial, tmp_path: Path) -> None:
    assert record.read_outcome(tmp_path) is None
    outcome = write_record(tmp_path, trial)
    assert record.read_outcome(tmp_path) == outcome


@pytest.mark.parametrize("cut", [1, 2, 10, 25])
def test_curve_with_an_incomplete_last_line_can_be_read(
    trial: Trial, tmp_path: Path, cut: int
) -> None:
    outcome = write_record(tmp_path, trial)
    curve = tmp_path / "curve.jsonl"
    curve.write_text(curve.read_text()[:-cut])
    # A line that lacks only its line feed is complete.
    assert record.read_curve(tmp_path) == (outcome.rows if cut == 1 else outcome.rows[:1])
    assert record.read_outcome(tmp_path) == (outcome if cut == 1 else None)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_reopened_record_keeps_the_first_points(trial: Trial, tmp_path: Path, count: int) -> None:
    outcome = write_record(tmp_path, trial)
    record.begin_record(tmp_path, trial)
    assert record.read_outcome(tmp_path) is None
    assert (
        record.truncate_curve(tmp_path, count)
        == record.read_curve(tmp_path)
        == outcome.rows[:count]
    )


@pytest.mark.parametrize(("value", "name"), [(1.0, None), (math.nan, "b"), (-math.inf, "b")])
def test_non_finite_entry_is_named(value: float, name: str | None) -> None:
    assert record.non_finite_metrics({"a": 0.0, "b": value}) == name


@pytest.mark.reported
def test_a_full_disk_interrupts_a_trial_and_it_continues_when_there_is_room(
    run: Run, trial: Trial, complete: CompleteRun, tmp_path: Path
) -> None:
    with mount_small_disk(tmp_path / "disk", 2**23) as disk:

        def fill_disk(row: MetricRow) -> None:
            if row["spent/steps"]:
                fill(disk / "ballast")

        outcome = run(trial, disk / "trial", report=fill_disk)
        assert (outcome.state, outcome.traceback) == ("interrupted", "")
        assert outcome.reason.startswith(f"no space left in {disk / 'trial'}")
        assert outcome.reason.endswith(" missing")
        assert record.read_state(disk / "trial") == "interrupted"
        (disk / "ballast").unlink()
        again = run(trial, disk / "trial")
    assert again.state == "finished"
    assert without_time(again.rows) == without_time(complete.outcome.rows)


def test_a_trial_is_marked_as_interrupted_on_a_disk_without_any_room(
    run: Run, trial: Trial, tmp_path: Path
) -> None:
    with mount_small_disk(tmp_path / "disk", 2**22) as disk:
        folder = disk / "trial"
        outcome = run(trial, folder)
        record.write_queued(folder, trial)
        fill(disk / "ballast")
        assert record.write_outcome(folder, outcome).state == "interrupted"
        assert record.read_state(folder) == "interrupted"
