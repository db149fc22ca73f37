"""Preparatory mlm runs of a trial: their settings, weights, charges, identity and queue."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import hard_texts
import pytest
import torch
from experiments import BASE, experiment
from prepared_text import PreparedText
from safetensors.torch import load_file, save_file
from sweep_in_process import OneScore

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig, TextFiles, WordPieceFile
from lab.config.experiment import Job
from lab.config.init_from import FromMlmRun, FromTrial
from lab.config.metrics import METRICS
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.generators import FrozenGeneratorConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.optimizer import AdamConfig
from lab.config.preparatory_runs import (
    ENCODER,
    GENERATOR,
    preparatory_cost,
    preparatory_runs,
    training_budget,
)
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Seeds, Trial
from lab.errors import UserError
from lab.evaluation import prepared_pairs
from lab.execution.preparatory_queue import FailedRun, PreparatoryQueue
from lab.execution.prerequisites import Prerequisites, TrialInputs
from lab.interop.initial_weights import InitialWeights
from lab.interop.shape_checks import WeightsOrigin, check_shapes
from lab.interop.trained import open_trained
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tasks.minimal_pairs import MinimalPair
from lab.tracking import tags
from lab.training import weights
from lab.training.objectives import build_objective
from lab.trials import run
from lab.trials.assignment import Assignment
from lab.trials.run import run_trial
from lab.trials.scorers import AllScores

SHAPE = EncoderConfig(layers=1, hidden=16, ffn=64, heads=2, embedding=8, init_std=0.1, dropout=0.1)
STEP = 8 * 16  # tokens
MLM = FromMlmRun(kind="mlm", budget=Budget(kind="tokens", amount=6 * STEP), lr=2e-3)
FROZEN = FrozenGeneratorConfig(kind="frozen", width=0.5, init_from=MLM)
ELECTRA = ElectraConfig(kind="electra", generator=GeneratorConfig(width=0.5), sharing="none")
FAST = replace(ELECTRA, generator=FROZEN)
SAME_SIZE = replace(ELECTRA, generator=GeneratorConfig(width=1), sharing="tokens")


def build_trial(objective: AnyObjectiveConfig = FAST, **changes: Any) -> Trial:
    settings: dict[str, Any] = {
        "encoder": SHAPE,
        "objective": objective,
        "data": DataConfig(share=0.01, held_out=0.1, vocab=400, length=16),
        "batch": 8,
        "budget": Budget(kind="tokens", amount=20 * STEP),
        "evaluations": 2,
    }
    return Trial(**settings | changes)


# Settings of the runs.


def test_stored_overlap_says_whether_lines_were_removed(
    held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prerequisites, "_held_out_file", lambda *_: held_out)
    prerequisites = Prerequisites(tmp_path, LocalOnly())
    data = replace(build_trial().data, decontaminate=("sentiment",))
    prerequisites.inputs_without_start(build_trial(data=data))
    (overlaps,) = json.loads(prerequisites.describe_texts()[tags.OVERLAPS]).values()
    assert {overlap["task"]: overlap["removed"] for overlap in overlaps} == {
        "pos": False,
        "sentiment": True,
        "pairs": False,
    }


@pytest.mark.reported
def test_vocabulary_of_another_script_is_warned_about_before_any_trial_starts(
    held_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Prerequisites, "_held_out_file", lambda *_: held_out)
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(hard_texts.documents(hard_texts.words([*"абвгдеийклмно"], 200))))
    data = DataConfig(
        source=TextFiles(kind="files", paths=(str(file),)),
        tokenizer=WordPieceFile(kind="wordpieces", file="bert-uncased"),
        vocab=30_522,
    )
    for _ in range(2):  # also for a text that has been prepared before
        Prerequisites(tmp_path, LocalOnly()).inputs_without_start(build_trial(data=data))
        warning = capsys.readouterr().err
        assert warning.startswith("lab.sweep: warning: base.data.tokenizer: ")
        assert "characters a token" in warning


def test_frozen_generator_must_have_all_positions(tmp_path: Path) -> None:
    """It is not trained, so further positions would keep random values."""
    trial = build_trial()
    short = replace(trial, data=replace(trial.data, length=8))
    file = tmp_path / "start.safetensors"
    names = weights.collect_weights(build_objective(short, torch.ones(400, dtype=torch.int64)))
    chosen = {n: v.contiguous() for n, v in names.items() if n.startswith("generator.")}
    save_file(chosen, file)
    origin = WeightsOrigin(
        file=file,
        heads={"generator.encoder": FROZEN.derive_shape(SHAPE).heads},
        sources={"generator.encoder": "it"},
        earlier_flops=0,
    )
    check_shapes(origin, short)
    with pytest.raises(UserError, match=r"it: positions 8, .* 16 \(base.data.length\)"):
        check_shapes(origin, trial)


def test_trial_with_too_few_epochs_is_refused_before_any_trial_starts(storage: Path) -> None:
    objective = {"kind": "adversarial", "rule": {"kind": "epoch_alternation"}}
    data = {"share": 0.01, "held_out": 0.1, "vocab": 400, "length": 16}
    short = experiment("epochs", base=BASE | {"data": data, "objective": objective}, compare={})
    budget = {"kind": "tokens", "amount": 80_000}
    prerequisites = Prerequisites(storage, LocalOnly())
    short = replace(short, base=short.base | {"budget": budget})
    with pytest.raises(UserError, match=r"^base.objective.rule: .* 1 x 87,344 tokens"):
        prerequisites.prepare(short)
    budget["amount"] = 100_000
    prerequisites.prepare(short)


def test_pairs_of_the_user_are_prepared_and_belong_to_the_identity_of_the_inputs(
    storage: Path,
) -> None:
    file = storage / "mine.jsonl"
    pair = {"good": "They are here.", "bad": "They is here.", "category": "verb"}
    file.write_text(json.dumps(pair))
    identities, hashes = set(), set()
    for path in (None, str(file)):
        prerequisites = Prerequisites(storage, LocalOnly())
        base = {"encoder": {"size": "nano32"}, "objective": {"kind": "mlm"}}
        base |= {"budget": {"kind": "tokens", "amount": 9_999}}
        prerequisites.prepare(experiment("e", base=base, compare={}, minimal_pairs=path))
        inputs = prerequisites.inputs_without_start(build_trial())
        identities.add(inputs.identity)
        described = prerequisites.describe_texts()
        assert inputs.pairs.name in described[tags.DATA]
        hashes.add(json.loads(described[tags.EXAMPLES])["pairs"])
    assert len(identities) == len(hashes) == 2
    assert prepared_pairs.open_pairs(inputs.pairs).pairs == (MinimalPair(**pair),)


def test_trial_with_random_initial_weights_has_no_preparatory_run() -> None:
    assert preparatory_runs(build_trial(ELECTRA)) == {}
    assert training_budget(build_trial(ELECTRA)) == build_trial(ELECTRA).budget


def test_preparatory_run_of_a_frozen_generator_has_its_shape_and_mask_rate() -> None:
    trial = build_trial(replace(FAST, mask_prob=0.3, masking="code"))
    ((network, run),) = preparatory_runs(trial).items()
    assert network == GENERATOR
    assert run.encoder == FROZEN.derive_shape(SHAPE)
    assert run.objective == MlmConfig(kind="mlm", mask_prob=0.3, masking="code")
    assert (run.budget, run.optim.lr) == (MLM.budget, 2e-3)
    assert (run.data, run.batch, run.seeds) == (trial.data, trial.batch, trial.seeds)


@pytest.mark.parametrize(
    ("masking", "expected"), [("paper", "paper"), ("code", "code"), ("bernoulli", "paper")]
)
def test_preparatory_run_of_random_replacement_writes_masks(masking: Any, expected: str) -> None:
    objective = RandomReplacementConfig(kind="random", masking=masking)
    (run,) = preparatory_runs(build_trial(objective, init_from=MLM)).values()
    assert run.objective.masking == expected


def test_each_network_starts_from_a_preparatory_run_of_its_own_shape() -> None:
    two = preparatory_runs(build_trial(ELECTRA, init_from=MLM))
    assert {network: run.encoder.hidden for network, run in two.items()} == {
        ENCODER: 16,
        GENERATOR: 8,
    }
    one = preparatory_runs(build_trial(SAME_SIZE, init_from=MLM))
    assert one[ENCODER] == one[GENERATOR]
    assert set(
        preparatory_runs(build_trial(RandomReplacementConfig(kind="random"), init_from=MLM))
    ) == {ENCODER}


def test_frozen_generator_has_its_own_run_where_the_encoder_has_another() -> None:
    longer = replace(MLM, budget=Budget(kind="tokens", amount=9 * STEP))
    runs = preparatory_runs(build_trial(init_from=longer))
    assert {network: run.budget.amount for network, run in runs.items()} == {
        ENCODER: 9 * STEP,
        GENERATOR: 6 * STEP,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"budget": Budget(kind="tokens", amount=40 * STEP)},
        {"evaluations": 5},
        {"optim": AdamConfig(lr=3e-3, generator_lr=0.5)},
        {"encoder": replace(SHAPE, ffn=96)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_trials_that_differ_in_their_own_training_only_share_a_run(change: dict[str, Any]) -> None:
    assert preparatory_runs(build_trial(**change)) == preparatory_runs(build_trial())


@pytest.mark.parametrize(
    "change", [{"seeds": Seeds(init=1)}, {"batch": 16}, {"data": DataConfig(vocab=500)}]
)
def test_trials_of_other_seeds_batches_or_texts_share_no_run(change: dict[str, Any]) -> None:
    assert preparatory_runs(build_trial(**change)) != preparatory_runs(build_trial())


def test_run_without_a_learning_rate_takes_that_of_the_trial() -> None:
    inherits = replace(MLM, lr=None)
    trial = build_trial(ELECTRA, init_from=inherits, optim=AdamConfig(lr=7e-4))
    assert preparatory_runs(trial)[ENCODER].optim.lr == 7e-4


# Charges.


@pytest.mark.parametrize("kind", ["flops", "tokens"])
def test_budget_is_charged_with_each_preparatory_run_once(kind: Any) -> None:
    budget = Budget(kind=kind, amount=1e9)
    two, one = (build_trial(o, init_from=MLM, budget=budget) for o in (ELECTRA, SAME_SIZE))
    for trial in (two, one):
        spent = getattr(preparatory_cost(trial), kind)
        assert training_budget(trial).amount == 1e9 - spent
    assert preparatory_cost(two).tokens == 2 * preparatory_cost(one).tokens == 2 * 6 * STEP


# Weights.


@pytest.fixture
def storage(
    prepared_text: PreparedText,
    held_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return a storage with the prepared text. Its trials take no real score."""
    monkeypatch.setattr(run, "AllScores", OneScore)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / prepared_text.text.name).symlink_to(prepared_text.text)
    monkeypatch.setattr(Prerequisites, "_text", lambda *_: prepared_text.text)
    monkeypatch.setattr(Prerequisites, "_held_out_file", lambda *_: held_out)
    return tmp_path


def assignment_of(trial: Trial, inputs: TrialInputs, folder: Path) -> Assignment:
    return Assignment(
        trial=trial,
        folder=folder,
        text=inputs.text,
        held_out=inputs.held_out,
        pairs=None,
        start=inputs.start,
        short_text=inputs.short_text,
        charged=inputs.charged,
        earlier_flops=inputs.earlier_flops,
        metric=METRICS["probe/pos/accuracy"],
    )


def prepare_assignment(trial: Trial, storage: Path) -> Assignment:
    """Run a trial's preparatory runs, and return the trial's assignment."""
    prerequisites = Prerequisites(storage, LocalOnly())
    for network, folder in prerequisites.records(trial).items():
        run = preparatory_runs(trial)[network]
        if record.read_outcome(folder) is None:
            assert (
                run_trial(assignment_of(run, prerequisites.inputs_without_start(run), folder)).state
                == "finished"
            )
    inputs = prerequisites.prepare_inputs(trial)
    return assignment_of(trial, inputs, storage / "trials" / trial.fingerprint(inputs.identity))


def initial_weights(work: Assignment) -> weights.Weights:
    """Return the weights of a trial before its first step."""
    objective = build_objective(work.trial, torch.ones(400, dtype=torch.int64))
    assert work.start is not None
    weights.load_weights(work.start, objective)
    return weights.collect_weights(objective)


def weights_of_run(trial: Trial, network: str, storage: Path) -> weights.Weights:
    """Return the final weights of the preparatory run that a network starts from."""
    folder = Prerequisites(storage, LocalOnly()).records(trial)[network]
    return open_trained(folder, storage / "cache").weights


def equal(one: weights.Weights, other: weights.Weights) -> bool:
    return one.keys() == other.keys() and all(one[n].equal(other[n]) for n in one)


def test_frozen_generator_has_the_weights_of_its_run_before_and_after_training(
    storage: Path,
) -> None:
    work = prepare_assignment(build_trial(), storage)
    run = weights_of_run(work.trial, GENERATOR, storage)
    assert equal(weights.weights_below(initial_weights(work), "generator"), run)
    assert run_trial(work).state == "finished"
    kept = open_trained(work.folder, storage / "cache")
    assert equal(weights.weights_below(kept.weights, "generator"), run)
    assert kept.shapes.keys() == {"encoder", "generator.encoder"}


@pytest.mark.parametrize("objective", [ELECTRA, SAME_SIZE], ids=["two shapes", "one shape"])
def test_both_networks_start_from_mlm_runs(objective: AnyObjectiveConfig, storage: Path) -> None:
    work = prepare_assignment(build_trial(objective, init_from=MLM), storage)
    first_weights = initial_weights(work)
    encoder = weights_of_run(work.trial, ENCODER, storage)
    assert equal(
        weights.weights_below(first_weights, "encoder"), weights.weights_below(encoder, "encoder")
    )
    assert equal(
        weights.weights_below(first_weights, "generator"),
        weights_of_run(work.trial, GENERATOR, storage),
    )
    assert run_trial(work).state == "finished"


def test_mlm_head_starts_from_the_preparatory_run(storage: Path) -> None:
    work = prepare_assignment(build_trial(MlmConfig(kind="mlm"), init_from=MLM), storage)
    assert equal(initial_weights(work), weights_of_run(work.trial, ENCODER, storage))


def test_spent_compute_starts_at_that_of_the_runs_and_ends_at_the_budget(storage: Path) -> None:
    work = prepare_assignment(build_trial(init_from=MLM), storage)
    rows = run_trial(work).rows
    before = [
        record.read_curve(folder)[-1]
        for folder in Prerequisites(storage, LocalOnly()).records(work.trial).values()
    ]
    expected = preparatory_cost(work.trial)
    assert len(before) == 2
    for unit in ("tokens", "flops", "paper_flops", "six_n", "seconds"):
        spent = sum(row[f"spent/{unit}"] for row in before)
        assert rows[0][f"spent/{unit}"] == spent
        assert unit == "seconds" or spent == getattr(expected, unit)
    assert rows[0]["spent/steps"] == rows[0]["spent/marginal_flops"] == 0
    assert rows[-1]["spent/tokens"] == 20 * STEP
    for row in rows:
        assert row["spent/flops"] == row["spent/standalone_flops"]
        assert row["spent/flops"] - row["spent/marginal_flops"] == expected.flops


def test_schedule_covers_the_part_of_the_budget_for_own_training(storage: Path) -> None:
    """Progress is 0 at the first own step, and one step before 1 at the last."""
    work = prepare_assignment(build_trial(), storage)
    progress_of_steps: list[float] = []
    schedule = type(work.trial.schedule).__call__

    def record_progress(self: Any, progress: float) -> float:
        progress_of_steps.append(progress)
        return schedule(self, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(work.trial.schedule), "__call__", record_progress)
        run_trial(work)
    assert progress_of_steps[0] == 0
    assert len(progress_of_steps) == 14
    assert progress_of_steps[-1] == pytest.approx(13 / 14)


def interrupted(after: int) -> Callable[[], Any]:
    """Return a stop signal that interrupts a trial after some calls."""
    states: Iterator[str] = iter(["running"] * after + ["interrupted"])
    return lambda: next(states)


def without_time(rows: tuple[MetricRow, ...]) -> list[MetricRow]:
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


def test_interrupted_trial_continues_bitwise(
    storage: Path, few_sentences: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = prepare_assignment(build_trial(), storage)
    monkeypatch.setattr(run, "AllScores", AllScores)
    expected = run_trial(uninterrupted).rows
    for after in (2, 8):
        cut = replace(uninterrupted, folder=storage / "trials" / f"cut-{after}")
        assert run_trial(cut, requested_state=interrupted(after)).state == "interrupted"
        assert without_time(run_trial(cut).rows) == without_time(expected)


# Earlier trials.


def test_generator_of_an_earlier_trial_is_used_and_not_charged_to_the_budget(
    storage: Path,
) -> None:
    joint = prepare_assignment(build_trial(ELECTRA), storage)
    spent = run_trial(joint).rows[-1]["spent/flops"]
    earlier = FromTrial(kind="trial", name=joint.folder.name)
    work = prepare_assignment(
        build_trial(replace(FAST, generator=replace(FROZEN, init_from=earlier))), storage
    )
    whole = open_trained(joint.folder, storage / "cache").weights
    assert equal(
        weights.weights_below(initial_weights(work), "generator"),
        weights.weights_below(whole, "generator"),
    )
    last = run_trial(work).rows[-1]
    assert last["spent/tokens"] == 20 * STEP
    assert last["spent/flops"] == last["spent/marginal_flops"]
    assert last["spent/standalone_flops"] == last["spent/flops"] + spent


def test_encoder_of_an_earlier_mlm_trial_is_used_as_generator(storage: Path) -> None:
    mlm = prepare_assignment(
        build_trial(MlmConfig(kind="mlm"), encoder=FROZEN.derive_shape(SHAPE)), storage
    )
    run_trial(mlm)
    earlier = FromTrial(kind="trial", name=mlm.folder.name)
    work = prepare_assignment(
        build_trial(replace(FAST, generator=replace(FROZEN, init_from=earlier))), storage
    )
    expected = open_trained(mlm.folder, storage / "cache").weights
    assert equal(weights.weights_below(initial_weights(work), "generator"), expected)


def test_earlier_trial_that_both_networks_start_from_is_counted_once(storage: Path) -> None:
    joint = prepare_assignment(build_trial(ELECTRA), storage)
    spent = run_trial(joint).rows[-1]["spent/flops"]
    earlier = FromTrial(kind="trial", name=joint.folder.name)
    frozen = replace(FAST, generator=replace(FROZEN, init_from=earlier))
    work = prepare_assignment(build_trial(frozen, init_from=earlier), storage)
    assert work.earlier_flops == spent


def test_earlier_trial_without_a_token_predictor_or_of_another_shape_is_rejected(
    storage: Path, prepared_text: PreparedText
) -> None:
    random, wide = (
        build_trial(RandomReplacementConfig(kind="random")),
        build_trial(MlmConfig(kind="mlm")),
    )
    path = r"base\.objective\.generator\.init_from\.name: {}: "
    for other, message in (
        (random, "none of its networks predicts tokens"),
        (wide, "hidden 16, the"),
    ):
        work = prepare_assignment(other, storage)
        run_trial(work)
        earlier = FromTrial(kind="trial", name=work.folder.name)
        trial = build_trial(replace(FAST, generator=replace(FROZEN, init_from=earlier)))
        with pytest.raises(UserError, match=path.format(work.folder.name) + message):
            InitialWeights(storage, LocalOnly()).resolve(trial, prepared_text.text)


# Identity.


def test_name_of_a_trial_depends_on_the_weights_of_its_generator(storage: Path) -> None:
    first = prepare_assignment(build_trial(), storage)
    assert first.start is not None
    assert prepare_assignment(build_trial(), storage).folder == first.folder
    other = storage / "trials" / "other"
    run = Prerequisites(storage, LocalOnly()).records(first.trial)[GENERATOR]
    trained = open_trained(run, storage / "cache")
    longer = replace(trained.trial, budget=Budget(kind="tokens", amount=7 * STEP))
    inputs = Prerequisites(storage, LocalOnly()).inputs_without_start(longer)
    run_trial(assignment_of(longer, inputs, other))
    origin = InitialWeights(storage, LocalOnly()).resolve(
        first.trial, inputs.text, {GENERATOR: other}
    )
    assert origin is not None
    assert origin.file.name != first.start.name
    assert load_file(origin.file).keys() == load_file(first.start).keys()
    assert replace(inputs, start=origin.file).identity != replace(inputs, start=None).identity


# Queue of waiting jobs.


class FakeDriver:
    """Driver with a queue, which ends a preparatory run when `end` is called."""

    def __init__(self, storage: Path) -> None:
        self.storage, self.running = storage, set[Path]()
        self.ended: dict[Path, Outcome] = {}
        self.queue = PreparatoryQueue(self.work, self.ended.get, self.running, {"repeat": ()})

    def work(self, run: Trial) -> Assignment:
        inputs = Prerequisites(self.storage, LocalOnly()).inputs_without_start(run)
        folder = self.storage / "trials" / run.fingerprint(inputs.identity)
        return assignment_of(run, inputs, folder)

    def end(self, work: Assignment, state: State = "finished") -> None:
        self.running.discard(work.folder)
        self.ended[work.folder] = Outcome(
            state=state, reason="why", rows=({"spent/flops": 5.0},), started_at=0, seconds=2, busy=1
        )


def job(trial: Trial, number: int = 0) -> Job:
    return Job(number=number, role="repeat", cell={}, tuned={}, repeat=1, trial=trial)


def test_jobs_wait_for_their_common_run_which_runs_once(storage: Path) -> None:
    driver = FakeDriver(storage)
    queue = driver.queue
    assert not queue.hold_if_unready(job(build_trial(ELECTRA)))
    one, two = job(build_trial()), job(build_trial(evaluations=5), 1)
    assert queue.hold_if_unready(one)
    assert queue.hold_if_unready(two)
    work = queue.next_run()
    assert work is not None
    driver.running.add(work.folder)
    assert queue.next_run() is None
    assert queue.pop_ready() is None
    driver.end(work)
    assert [*islice(iter(queue.pop_ready, None), 3)] == [one, two]
    assert not queue.waiting
    assert not queue.hold_if_unready(one)
    assert queue.failed_run(one) is None
    assert queue.measures() == {
        "preparatory_runs": 1,
        "preparatory_flops": 5.0,
        "preparatory_slot_seconds": 2,
    }


def test_job_waits_for_both_of_its_runs_which_may_run_at_the_same_time(storage: Path) -> None:
    driver = FakeDriver(storage)
    waiting_job = job(build_trial(ELECTRA, init_from=MLM))
    assert driver.queue.hold_if_unready(waiting_job)
    works = []
    while (work := driver.queue.next_run()) is not None:
        works.append(work)
        driver.running.add(work.folder)
    assert len(works) == 2
    driver.end(works[0])
    assert driver.queue.pop_ready() is None
    driver.end(works[1], "diverged")
    assert driver.queue.pop_ready() is waiting_job
    assert driver.queue.failed_run(waiting_job) == FailedRun(
        works[1].folder.name, "diverged", "why"
    )
