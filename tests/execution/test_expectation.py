"""The expectation: every part of a sweep is in it, and what the storage holds counts as done."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from members import Member, each
from members import trial as of_member
from prepared_text import PreparedText

from lab.config import trial as spec
from lab.config.experiment import Experiment, FinetuneConfig, Resources, SearchConfig
from lab.config.metrics import METRICS
from lab.config.results import Outcome
from lab.execution import expectation, pace
from lab.execution.prerequisites import Prerequisites
from lab.loading import search_space
from lab.loading.task_table import TASKS, load_task
from lab.search import plan
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tasks import examples
from lab.tasks import size as task_size
from lab.tracking.client import default_uri

BASE = {
    "encoder": {"layers": 1, "hidden": 16, "ffn": 16, "heads": 1, "embedding": 16, "dropout": 0},
    "objective": {"kind": "electra", "generator": {"width": 1}},
    "data": {"share": 0.01, "held_out": 0.1, "vocab": 400, "length": 16},
    "batch": 8,
    "budget": {"kind": "flops", "amount": 1e10},
}


def experiment(**changes: object) -> Experiment:
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


def phases(asked: Experiment, storage: Path | None, slots: int = 1) -> dict[str, float | None]:
    uri = default_uri(storage or Path("none"))
    expected = expectation.estimate_sweep(asked, storage, slots, uri)
    return {phase.name: phase.seconds for phase in expected.phases}


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time as few and as small steps as there can be."""
    monkeypatch.setattr(pace, "_SECONDS", 0.0)
    monkeypatch.setattr(pace, "_BATCH_FLOPS", 1e8)


@pytest.fixture
def storage(tmp_path: Path, prepared_text: PreparedText, held_out: Path) -> Path:
    """Return a storage that holds the prepared text and its corruptions."""
    shutil.copytree(prepared_text.text, tmp_path / "cache" / prepared_text.text.name)
    shutil.copy(held_out, tmp_path / "cache")
    return tmp_path


def test_every_part_of_a_sweep_has_its_time(tmp_path: Path) -> None:
    asked = experiment(finetune=FinetuneConfig(tasks=("sentiment",), seeds=2))
    known = phases(asked, tmp_path)
    assert list(known) == [
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
    assert all(seconds is not None and seconds > 0 for seconds in known.values())
    assert not list(tmp_path.iterdir())


def test_prepared_text_and_corruptions_take_no_more_time(storage: Path) -> None:
    known = phases(experiment(), storage)
    assert known["text, 400 tokens, windows of 16"] == 0
    assert known["frozen masked language model"] == 0
    assert known["training"]


def test_text_on_the_hub_is_unknown_and_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked_for(*_: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("lab.data.hub.resolve_commit", asked_for)
    source = {"kind": "hub", "name": "some/text", "split": "train", "column": "text"}
    asked = experiment(base=BASE | {"data": {"source": source, "vocab": 400, "length": 16}})
    assert phases(asked, tmp_path)["text, 400 tokens, windows of 16"] is None


def test_two_slots_halve_what_trials_take_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 1e9)
    one, two = (phases(experiment(), tmp_path, slots) for slots in (1, 2))
    shared = {"training", "scoring"}
    for name in one:
        seconds = one[name] / 2 if name in shared else one[name]
        assert two[name] == pytest.approx(seconds, rel=1e-3)  # cells differ by part of a step


def test_budget_in_seconds_is_what_training_takes(tmp_path: Path) -> None:
    asked = experiment(base=BASE | {"budget": {"kind": "seconds", "amount": 20}})
    known = phases(asked, tmp_path)
    assert known["training"] == pytest.approx(2 * 3 * 20)


MLM = {"kind": "mlm", "budget": {"kind": "flops", "amount": 2e9}, "lr": 1e-3}
SEPARATE = {"kind": "electra", "generator": {"width": 1}, "sharing": "none"}


def from_mlm_runs(**changes: object) -> Experiment:
    """Return a question in which one of two cells starts from mlm runs, one for both networks."""
    encoder = BASE["encoder"] | {"ffn": 4 * BASE["encoder"]["hidden"]}  # as its generator has it
    return experiment(
        base=BASE | {"encoder": encoder, "objective": SEPARATE},
        compare={"init_from": ({"kind": "scratch"}, MLM)},
        **changes,
    )


def test_preparatory_runs_are_timed_and_leave_less_to_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 1e9)
    monkeypatch.setattr(expectation, "_scoring_flops", lambda _: 0.0)
    known = phases(from_mlm_runs(), tmp_path)
    assert known["preparatory runs"] == pytest.approx(3 * 2, rel=0.1)  # of each seed
    assert known["training"] == pytest.approx(3 * 10 + 3 * 8, rel=0.1)
    assert "preparatory runs" not in phases(experiment(), tmp_path)


def test_preparatory_run_that_has_ended_takes_no_more_time(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure_flops_per_second", lambda *_: 1e9)
    asked = from_mlm_runs()
    before = phases(asked, storage)["preparatory runs"]
    run = next(iter(plan.preparatory_phase(asked)))
    supply = Prerequisites(storage, LocalOnly()).inputs_without_start(run)
    folder = storage / "trials" / run.fingerprint(supply.identity)
    record.write_queued(folder, run)
    row = {"spent/steps": 1.0}
    ended = Outcome(state="finished", reason="", rows=(row,), began=0, seconds=1, busy=1)
    record.append_row(folder, row)
    record.write_outcome(folder, ended)
    assert phases(asked, storage)["preparatory runs"] == pytest.approx(before * 2 / 3, rel=1e-3)


def test_gpus_are_estimated_and_not_timed() -> None:
    asked = experiment(resources=Resources(gpus_per_worker=1))
    trial = search_space.build_trial(asked.base, {})
    speeds = pace.SlotSpeeds([trial], asked.resources)
    assert "A100" in speeds.basis
    assert speeds.flops_per_second(trial) == pace._GPU_FLOPS


def test_what_is_too_large_to_time_is_estimated_from_a_product() -> None:
    large = {"encoder": {"size": "large"}, "data": {"length": 512, "vocab": 30_522}, "batch": 2_048}
    large["budget"] = {"kind": "flops", "amount": 1e20}
    trial = search_space.build_trial(BASE | large, {})
    speeds = pace.SlotSpeeds([trial], Resources())
    assert "matrix product" in speeds.basis
    assert speeds.flops_per_second(trial) > 0


def test_no_more_than_a_few_shapes_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[spec.Trial] = []

    def noted(trial: spec.Trial, threads: int | None = None) -> float:
        timed.append(trial)
        return 1e9

    monkeypatch.setattr(pace, "measure_flops_per_second", noted)
    trials = [search_space.build_trial(BASE, {"batch": batch}) for batch in range(1, 50)]
    same = [search_space.build_trial(BASE, {"optim.lr": lr}) for lr in (1e-3, 2e-3)]
    pace.SlotSpeeds([*trials, *same], Resources())
    assert len(timed) == 6
    assert {trial.batch for trial in timed} >= {1, 49}


@each()
def test_every_objective_can_be_timed(member: Member) -> None:
    assert pace.measure_flops_per_second(of_member(member), 1) > 0


def test_timing_leaves_the_number_of_threads_as_it_is() -> None:
    threads = torch.get_num_threads()
    pace.measure_flops_per_second(search_space.build_trial(BASE, {}), threads + 1)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["sentiment", "pos"])
def test_sizes_of_the_embedded_tasks_are_those_that_are_read(name: str) -> None:
    size, read = task_size.task_size(name), examples.read_examples(load_task(name))
    assert (size.train, size.evaluation) == (len(read.train), len(read.evaluation))


def test_every_task_of_the_table_has_a_size() -> None:
    assert set(task_size._KNOWN) == set(TASKS)


def test_size_of_a_tasks_file_is_that_of_its_rows(tmp_path: Path) -> None:
    rows = [{"text": "four words stand here", "label": str(n % 2)} for n in range(8)]
    for split, part in (("train", rows), ("evaluation", rows[:4])):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    task = tmp_path / "mine.yaml"
    task.write_text("kind: classification\ntrain: train.jsonl\nevaluation: evaluation.jsonl\n")
    size = task_size.task_size(str(task))
    assert (size.train, size.evaluation, size.tokens) == (8, 4, 8)
