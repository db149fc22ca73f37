"""Expected duration: it has every phase of a sweep, and counts finished work in the storage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from members import Member, each
from members import trial as of_member
from prepared_text import PreparedText, copy_held_out

from lab.config.data import WordPieceFile
from lab.config.experiment import Experiment, FinetuneConfig, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import Outcome
from lab.config.trial import Trial
from lab.data.batches import open_corpus
from lab.data.tokenizers import BERT, build_vocabulary
from lab.execution import expectation, pace
from lab.execution.prerequisites import Prerequisites
from lab.finetuning import features
from lab.loading import search_space
from lab.loading.task_table import TASKS, load_task
from lab.search import plan
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tasks import examples
from lab.tasks import size as task_size
from lab.tasks.rows import read_rows
from lab.tracking.client import default_uri

BASE = {
    "encoder": {"layers": 1, "hidden": 16, "ffn": 16, "heads": 1, "embedding": 16, "dropout": 0},
    "objective": {"kind": "electra", "generator": {"width": 1}},
    "data": {"share": 0.01, "held_out": 0.1, "vocab": 400, "length": 16},
    "batch": 8,
    "budget": {"kind": "flops", "amount": 1e10},
}


def build_experiment(**changes: object) -> Experiment:
    fields: dict[str, object] = {
        "name": "expected",
        "question": "Does it?",
        "metric": METRICS["probe/pos/accuracy"],
        "base": BASE,
        "compare": {"objective.mask_prob": (0.15, 0.3)},
        "tune": {},
        "search": SearchConfig(seeds=3),
        "resources": Resources(),
    }
    return Experiment(**(fields | changes))  # type: ignore[arg-type]


def seconds_by_phase(
    experiment: Experiment, storage: Path | None, slots: int = 1
) -> dict[str, float | None]:
    uri = default_uri(storage or Path("none"))
    expected = expectation.estimate_sweep(experiment, storage, slots, uri)
    return {phase.name: phase.seconds for phase in expected.phases}


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time the smallest possible number of steps, of the smallest possible size."""
    monkeypatch.setattr(pace, "_SECONDS", 0.0)
    monkeypatch.setattr(pace, "_BATCH_FLOPS", 1e8)


@pytest.fixture
def storage(tmp_path: Path, prepared_text: PreparedText, held_out: Path) -> Path:
    """Return a storage with the prepared text and its held-out corruptions."""
    shutil.copytree(prepared_text.text, tmp_path / "cache" / prepared_text.text.name)
    copy_held_out(held_out, tmp_path / "cache")
    return tmp_path


def test_trials_that_read_the_text_more_than_four_times_are_warned_about(
    storage: Path, prepared_text: PreparedText, tmp_path: Path
) -> None:
    epoch = open_corpus(prepared_text.text).epoch_tokens
    uri = default_uri(storage)
    for times, warned in ((3.5, False), (6.0, True)):
        budgets = {"budget.amount": (epoch, times * epoch)}
        base = BASE | {"budget": {"kind": "tokens", "amount": epoch}}
        experiment = build_experiment(base=base, compare=budgets)
        found = expectation.estimate_sweep(experiment, storage, 1, uri).warnings
        assert len(found) == warned
    (text,) = found
    assert text.startswith("3 of 6 trials read the text more than 4 times, up to 6")
    assert f"of a text of about {epoch:.3g})" in text
    source = {"kind": "files", "paths": [str(tmp_path / "own.txt")]}
    (tmp_path / "own.txt").write_text("Of unknown length in tokens.\n" * 9)
    unread = build_experiment(base=base | {"data": {"source": source}}, compare=budgets)
    assert expectation.estimate_sweep(unread, None, 1, uri).warnings == ()


@pytest.mark.reported
def test_every_phase_of_a_sweep_has_a_duration(tmp_path: Path) -> None:
    experiment = build_experiment(finetune=FinetuneConfig(tasks=("sentiment",), seeds=2))
    seconds = seconds_by_phase(experiment, tmp_path)
    assert list(seconds) == [
        "start",
        "tasks",
        "text, 400 tokens, windows of 16",
        "frozen masked language model",
        "Ray",
        "training",
        "scoring",
        "fine-tuning",
        "report and model",
    ]
    assert all(each is not None and each > 0 for each in seconds.values())
    assert not list(tmp_path.iterdir())


def test_prepared_text_and_held_out_corruptions_take_no_time(storage: Path) -> None:
    seconds = seconds_by_phase(build_experiment(), storage)
    assert seconds["text, 400 tokens, windows of 16"] == 0
    assert seconds["frozen masked language model"] == 0
    assert seconds["training"]


def test_duration_for_a_hub_text_is_unknown_without_a_request_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise AssertionError("a request was sent to the hub")

    monkeypatch.setattr("lab.data.hub.resolve_commit", fail)
    source = {"kind": "hub", "name": "some/text", "split": "train", "column": "text"}
    experiment = build_experiment(
        base=BASE | {"data": {"source": source, "vocab": 400, "length": 16}}
    )
    assert seconds_by_phase(experiment, tmp_path)["text, 400 tokens, windows of 16"] is None


def test_two_slots_halve_the_duration_of_trials_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 1e9)
    one, two = (seconds_by_phase(build_experiment(), tmp_path, slots) for slots in (1, 2))
    shared = {"training", "scoring"}
    for name in one:
        expected = one[name] / 2 if name in shared else one[name]
        assert two[name] == pytest.approx(expected, rel=1e-3)  # cells differ by less than a step


def test_budget_in_seconds_is_the_duration_of_training(tmp_path: Path) -> None:
    experiment = build_experiment(base=BASE | {"budget": {"kind": "seconds", "amount": 20}})
    seconds = seconds_by_phase(experiment, tmp_path)
    assert seconds["training"] == pytest.approx(2 * 3 * 20)


MLM = {"kind": "mlm", "budget": {"kind": "flops", "amount": 2e9}, "lr": 1e-3}
SEPARATE = {"kind": "electra", "generator": {"width": 1}, "sharing": "none"}


def experiment_from_mlm_runs(**changes: object) -> Experiment:
    """Return an experiment with one cell of two from mlm runs, one run for both networks."""
    # The generator has an ffn of 4 times its hidden size, so the encoder of equal shape needs one.
    encoder = BASE["encoder"] | {"ffn": 4 * BASE["encoder"]["hidden"]}
    return build_experiment(
        base=BASE | {"encoder": encoder, "objective": SEPARATE},
        compare={"init_from": ({"kind": "scratch"}, MLM)},
        **changes,
    )


def test_preparatory_runs_have_a_duration_and_shorten_their_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 1e9)
    monkeypatch.setattr(expectation, "_scoring_flops", lambda _: 0.0)
    seconds = seconds_by_phase(experiment_from_mlm_runs(), tmp_path)
    assert seconds["preparatory runs"] == pytest.approx(3 * 2, rel=0.1)  # one run per seed
    assert seconds["training"] == pytest.approx(3 * 10 + 3 * 8, rel=0.1)
    assert "preparatory runs" not in seconds_by_phase(build_experiment(), tmp_path)


def test_parts_of_trunks_have_a_duration_and_branches_that_of_their_cooldowns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 1e9)
    monkeypatch.setattr(expectation, "_scoring_flops", lambda _: 0.0)
    base = BASE | {"schedule": {"kind": "trunk", "warmup": 1e9}}
    experiment = build_experiment(base=base, compare={"budget.amount": (1e10, 2e10)})
    seconds = seconds_by_phase(experiment, tmp_path)
    assert seconds["preparatory runs"] == pytest.approx(3 * 0.8 * 20, rel=0.03)
    assert seconds["training"] == pytest.approx(3 * 0.2 * (10 + 20), rel=0.05)


def test_preparatory_run_that_has_ended_takes_no_time(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 1e9)
    experiment = experiment_from_mlm_runs()
    before = seconds_by_phase(experiment, storage)["preparatory runs"]
    run = next(iter(plan.preparatory_phase(experiment)))
    inputs = Prerequisites(storage, LocalOnly()).inputs_without_start(run)
    folder = storage / "trials" / run.fingerprint(inputs.identity)
    record.write_queued(folder, run)
    row = {"spent/steps": 1.0}
    ended = Outcome(state="finished", reason="", rows=(row,), started_at=0, seconds=1, busy=1)
    record.append_row(folder, row)
    record.write_outcome(folder, ended)
    assert seconds_by_phase(experiment, storage)["preparatory runs"] == pytest.approx(
        before * 2 / 3, rel=1e-3
    )


def test_gpus_are_estimated_and_not_timed() -> None:
    experiment = build_experiment(resources=Resources(gpus_per_worker=1))
    trial = search_space.build_trial(experiment.base, {})
    speeds = pace.SlotSpeeds([trial], experiment.resources)
    assert "A100" in speeds.basis
    assert speeds.flops_per_second(trial) == pace._GPU_FLOPS


def test_steps_too_large_to_time_are_estimated_from_a_matrix_product() -> None:
    large = {"encoder": {"size": "large"}, "data": {"length": 512, "vocab": 30_522}, "batch": 2_048}
    large["budget"] = {"kind": "flops", "amount": 1e20}
    trial = search_space.build_trial(BASE | large, {})
    speeds = pace.SlotSpeeds([trial], Resources())
    assert "matrix product" in speeds.basis
    assert speeds.flops_per_second(trial) > 0


def test_at_most_six_shapes_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Trial] = []

    def record_trial(trial: Trial, threads: int | None = None) -> float:
        timed.append(trial)
        return 1e9

    monkeypatch.setattr(pace, "measure_flops_per_second", record_trial)
    trials = [search_space.build_trial(BASE, {"batch": batch}) for batch in range(1, 50)]
    same = [search_space.build_trial(BASE, {"optim.lr": lr}) for lr in (1e-3, 2e-3)]
    pace.SlotSpeeds([*trials, *same], Resources())
    assert len(timed) == 6
    assert {trial.batch for trial in timed} >= {1, 49}


@each()
def test_every_objective_can_be_timed(member: Member) -> None:
    assert pace.measure_flops_per_second(of_member(member), 1) > 0


def test_timing_restores_the_number_of_threads() -> None:
    threads = torch.get_num_threads()
    pace.measure_flops_per_second(search_space.build_trial(BASE, {}), threads + 1)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["sentiment", "pos"])
def test_sizes_of_the_embedded_tasks_equal_their_numbers_of_rows(name: str) -> None:
    size, task = task_size.task_size(name), load_task(name).config
    rows = [len(read_rows(split, name)) for split in (task.train, task.evaluation)]
    assert [size.train, size.evaluation] == rows


@pytest.mark.parametrize("name", ["sentiment", "pos"])
def test_expected_number_of_windows_is_near_that_of_fine_tuning(name: str) -> None:
    vocabulary = build_vocabulary(WordPieceFile(kind="wordpieces", file=BERT), 30_522, list)
    task = examples.read_examples(load_task(name))
    rows = task.evaluation[:1_000]
    texts = examples.evaluation_texts(replace(task, evaluation=rows))
    tokens = sum(map(len, vocabulary.encode(texts))) // len(rows) + 2
    size = task_size.task_size(name)._replace(tokens=tokens)
    for length in (16, 32, 128):
        windows, _ = features.make_features(task, rows, vocabulary, length)
        assert size.windows_per_row(length) == pytest.approx(len(windows) / len(rows), rel=0.15)


def test_every_task_of_the_table_has_a_size() -> None:
    assert set(task_size._KNOWN) == set(TASKS)


def test_size_of_a_task_file_is_read_from_its_rows(tmp_path: Path) -> None:
    rows = [{"text": f"four words stand {n}", "label": str(n % 2)} for n in range(12)]
    for split, part in (("train", rows[:8]), ("evaluation", rows[8:])):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    task = tmp_path / "mine.yaml"
    task.write_text("kind: classification\ntrain: train.jsonl\nevaluation: evaluation.jsonl\n")
    size = task_size.task_size(str(task))
    assert (size.train, size.evaluation, size.tokens) == (8, 4, 8)
