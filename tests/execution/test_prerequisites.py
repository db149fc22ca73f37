"""The mlm runs that a trial starts from: which they are, what they give, and who is charged."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared_text import PreparedText
from safetensors.torch import load_file

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.experiment import Job
from lab.config.init_from import FromMlmRun, FromTrial
from lab.config.metrics import METRICS
from lab.config.objective import (
    AnyObjectiveConfig,
    ElectraConfig,
    FrozenGeneratorConfig,
    MlmConfig,
    RandomReplacementConfig,
)
from lab.config.optimizer import AdamConfig
from lab.config.preparatory_runs import (
    GENERATOR,
    KEPT,
    own_budget,
    preparatory_cost,
    preparatory_runs,
)
from lab.config.results import MetricRow, Outcome, State
from lab.config.trial import Seeds, Trial
from lab.errors import UserError
from lab.execution.preparatory_queue import FailedRun, PreparatoryQueue
from lab.execution.prerequisites import Prerequisites, TrialInputs
from lab.interop.initial_weights import InitialWeights
from lab.interop.trained import open_trained
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.training import weights
from lab.training.objectives import build_objective
from lab.trials.assignment import Assignment
from lab.trials.run import run_trial

SHAPE = EncoderConfig(layers=1, hidden=16, ffn=64, heads=2, embedding=8, init_std=0.1, dropout=0.1)
STEP = 8 * 16  # tokens
MLM = FromMlmRun(kind="mlm", budget=Budget(kind="tokens", amount=6 * STEP), lr=2e-3)
FROZEN = FrozenGeneratorConfig(kind="frozen", width=0.5, init_from=MLM)
ELECTRA = ElectraConfig(kind="electra", generator=GeneratorConfig(width=0.5), sharing="none")
FAST = replace(ELECTRA, generator=FROZEN)
SAME_SIZE = replace(ELECTRA, generator=GeneratorConfig(width=1), sharing="tokens")


def asked(objective: AnyObjectiveConfig = FAST, **changes: Any) -> Trial:
    settings: dict[str, Any] = {
        "encoder": SHAPE,
        "objective": objective,
        "data": DataConfig(share=0.01, held_out=0.1, vocab=400, length=16),
        "batch": 8,
        "budget": Budget(kind="tokens", amount=20 * STEP),
        "evaluations": 2,
    }
    return Trial(**settings | changes)


# Which runs.


def test_trial_that_starts_from_chance_has_no_preparatory_run() -> None:
    assert preparatory_runs(asked(ELECTRA)) == {}
    assert own_budget(asked(ELECTRA)) == asked(ELECTRA).budget


def test_frozen_generator_is_an_mlm_run_of_its_shape_and_mask_rate() -> None:
    wanted = asked(replace(FAST, mask_prob=0.3, masking="code"))
    ((network, run),) = preparatory_runs(wanted).items()
    assert network == GENERATOR
    assert run.encoder == FROZEN.of(SHAPE)
    assert run.objective == MlmConfig(kind="mlm", mask_prob=0.3, masking="code")
    assert (run.budget, run.optim.lr) == (MLM.budget, 2e-3)
    assert (run.data, run.batch, run.seeds) == (wanted.data, wanted.batch, wanted.seeds)


def test_each_network_starts_from_a_run_of_its_own_shape() -> None:
    two = preparatory_runs(asked(ELECTRA, init_from=MLM))
    assert {network: run.encoder.hidden for network, run in two.items()} == {KEPT: 16, GENERATOR: 8}
    one = preparatory_runs(asked(SAME_SIZE, init_from=MLM))
    assert one[KEPT] == one[GENERATOR]
    assert set(preparatory_runs(asked(RandomReplacementConfig(kind="random"), init_from=MLM))) == {
        KEPT
    }


def test_frozen_generator_keeps_its_own_run_beside_a_start_of_the_encoder() -> None:
    longer = replace(MLM, budget=Budget(kind="tokens", amount=9 * STEP))
    runs = preparatory_runs(asked(init_from=longer))
    assert {network: run.budget.amount for network, run in runs.items()} == {
        KEPT: 9 * STEP,
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
def test_trials_that_differ_in_their_own_training_share_one_run(change: dict[str, Any]) -> None:
    assert preparatory_runs(asked(**change)) == preparatory_runs(asked())


@pytest.mark.parametrize(
    "change", [{"seeds": Seeds(init=1)}, {"batch": 16}, {"data": DataConfig(vocab=500)}]
)
def test_trials_of_other_seeds_batches_or_texts_do_not(change: dict[str, Any]) -> None:
    assert preparatory_runs(asked(**change)) != preparatory_runs(asked())


def test_run_without_a_rate_takes_that_of_the_trial() -> None:
    inherits = replace(MLM, lr=None)
    wanted = asked(ELECTRA, init_from=inherits, optim=AdamConfig(lr=7e-4))
    assert preparatory_runs(wanted)[KEPT].optim.lr == 7e-4


# Charges.


@pytest.mark.parametrize("kind", ["flops", "tokens"])
def test_own_training_gets_what_the_runs_leave_and_one_run_is_charged_once(kind: Any) -> None:
    budget = Budget(kind=kind, amount=1e9)
    two, one = (asked(o, init_from=MLM, budget=budget) for o in (ELECTRA, SAME_SIZE))
    for wanted in (two, one):
        spent = getattr(preparatory_cost(wanted), kind)
        assert own_budget(wanted).amount == 1e9 - spent
    assert preparatory_cost(two).tokens == 2 * preparatory_cost(one).tokens == 2 * 6 * STEP


# What they give.


@pytest.fixture
def storage(
    prepared_text: PreparedText,
    held_out: Path,
    few_sentences: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / prepared_text.text.name).symlink_to(prepared_text.text)
    monkeypatch.setattr(Prerequisites, "_text", lambda *_: prepared_text.text)
    monkeypatch.setattr(Prerequisites, "_held_out_file", lambda *_: held_out)
    return tmp_path


def work_of(wanted: Trial, supply: TrialInputs, folder: Path) -> Assignment:
    return Assignment(
        trial=wanted,
        folder=folder,
        text=supply.text,
        held_out=supply.held_out,
        start=supply.start,
        short_text=supply.short_text,
        charged=supply.charged,
        earlier_flops=supply.earlier_flops,
        metric=METRICS["probe/pos/accuracy"],
    )


def prepared(wanted: Trial, storage: Path) -> Assignment:
    """Carry out a trial's preparatory runs, and return its own work."""
    supplies = Prerequisites(storage, LocalOnly())
    for network, folder in supplies.records(wanted).items():
        run = preparatory_runs(wanted)[network]
        if record.read_outcome(folder) is None:
            assert (
                run_trial(work_of(run, supplies.inputs_without_start(run), folder)).state
                == "finished"
            )
    supply = supplies.of(wanted)
    return work_of(wanted, supply, storage / "trials" / wanted.fingerprint(supply.identity))


def begun(work: Assignment) -> weights.Weights:
    """Return the weights with which a trial begins."""
    objective = build_objective(work.trial, torch.ones(400, dtype=torch.int64))
    assert work.start is not None
    weights.load_weights(work.start, objective)
    return weights.collect_weights(objective)


def of_run(wanted: Trial, network: str, storage: Path) -> weights.Weights:
    folder = Prerequisites(storage, LocalOnly()).records(wanted)[network]
    return open_trained(folder, storage / "cache").weights


def same(one: weights.Weights, other: weights.Weights) -> bool:
    return one.keys() == other.keys() and all(one[n].equal(other[n]) for n in one)


def test_frozen_generator_is_the_run_bit_for_bit_from_begin_to_end(storage: Path) -> None:
    work = prepared(asked(), storage)
    run = of_run(work.trial, GENERATOR, storage)
    assert same(weights.weights_below(begun(work), "generator"), run)
    assert run_trial(work).state == "finished"
    kept = open_trained(work.folder, storage / "cache")
    assert same(weights.weights_below(kept.weights, "generator"), run)
    assert kept.shapes.keys() == {"encoder", "generator.encoder"}


@pytest.mark.parametrize("objective", [ELECTRA, SAME_SIZE], ids=["two shapes", "one shape"])
def test_both_networks_start_from_mlm_runs(objective: AnyObjectiveConfig, storage: Path) -> None:
    work = prepared(asked(objective, init_from=MLM), storage)
    found = begun(work)
    encoder = of_run(work.trial, KEPT, storage)
    assert same(weights.weights_below(found, "encoder"), weights.weights_below(encoder, "encoder"))
    assert same(weights.weights_below(found, "generator"), of_run(work.trial, GENERATOR, storage))
    assert run_trial(work).state == "finished"


def test_predictor_s_head_starts_from_the_run_too(storage: Path) -> None:
    work = prepared(asked(MlmConfig(kind="mlm"), init_from=MLM), storage)
    assert same(begun(work), of_run(work.trial, KEPT, storage))


def test_rows_begin_with_what_the_runs_spent_and_end_at_the_budget(storage: Path) -> None:
    work = prepared(asked(init_from=MLM), storage)
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


def test_schedule_runs_over_the_own_part_of_the_budget(storage: Path) -> None:
    """The last steps are taken at a rate near zero, and the first ones of it rise from zero."""
    work = prepared(asked(), storage)
    rates: list[float] = []
    schedule = type(work.trial.schedule).__call__

    def noted(self: Any, progress: float) -> float:
        rates.append(progress)
        return schedule(self, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(work.trial.schedule), "__call__", noted)
        run_trial(work)
    assert rates[0] == 0
    assert len(rates) == 14
    assert rates[-1] == pytest.approx(13 / 14)


def interrupted(after: int) -> Callable[[], Any]:
    wishes: Iterator[str] = iter(["running"] * after + ["interrupted"])
    return lambda: next(wishes)


def without_time(rows: tuple[MetricRow, ...]) -> list[MetricRow]:
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


@pytest.mark.parametrize("after", [2, 8])
def test_trial_that_was_cut_off_goes_on_bitwise(after: int, storage: Path) -> None:
    through = prepared(asked(), storage)
    expected = run_trial(through).rows
    cut = replace(through, folder=storage / "trials" / "cut")
    assert run_trial(cut, wish=interrupted(after)).state == "interrupted"
    assert without_time(run_trial(cut).rows) == without_time(expected)


# Earlier trials.


def test_generator_of_an_earlier_trial_is_taken_and_stays_out_of_the_budget(storage: Path) -> None:
    joint = prepared(asked(ELECTRA), storage)
    spent = run_trial(joint).rows[-1]["spent/flops"]
    earlier = FromTrial(kind="trial", name=joint.folder.name)
    work = prepared(asked(replace(FAST, generator=replace(FROZEN, init_from=earlier))), storage)
    whole = open_trained(joint.folder, storage / "cache").weights
    assert same(
        weights.weights_below(begun(work), "generator"), weights.weights_below(whole, "generator")
    )
    last = run_trial(work).rows[-1]
    assert last["spent/tokens"] == 20 * STEP
    assert last["spent/flops"] == last["spent/marginal_flops"]
    assert last["spent/standalone_flops"] == last["spent/flops"] + spent


def test_encoder_of_an_earlier_mlm_trial_is_a_generator(storage: Path) -> None:
    mlm = prepared(asked(MlmConfig(kind="mlm"), encoder=FROZEN.of(SHAPE)), storage)
    run_trial(mlm)
    earlier = FromTrial(kind="trial", name=mlm.folder.name)
    work = prepared(asked(replace(FAST, generator=replace(FROZEN, init_from=earlier))), storage)
    expected = open_trained(mlm.folder, storage / "cache").weights
    assert same(weights.weights_below(begun(work), "generator"), expected)


def test_one_earlier_trial_for_both_networks_is_counted_once(storage: Path) -> None:
    joint = prepared(asked(ELECTRA), storage)
    spent = run_trial(joint).rows[-1]["spent/flops"]
    earlier = FromTrial(kind="trial", name=joint.folder.name)
    frozen = replace(FAST, generator=replace(FROZEN, init_from=earlier))
    work = prepared(asked(frozen, init_from=earlier), storage)
    assert work.earlier_flops == spent


def test_earlier_trial_that_predicts_nothing_or_is_of_another_shape_is_refused(
    storage: Path, prepared_text: PreparedText
) -> None:
    random, wide = asked(RandomReplacementConfig(kind="random")), asked(MlmConfig(kind="mlm"))
    path = r"base\.objective\.generator\.init_from\.name: {}: "
    for other, says in ((random, "none of its networks predicts tokens"), (wide, "hidden 16, the")):
        work = prepared(other, storage)
        run_trial(work)
        earlier = FromTrial(kind="trial", name=work.folder.name)
        wanted = asked(replace(FAST, generator=replace(FROZEN, init_from=earlier)))
        with pytest.raises(UserError, match=path.format(work.folder.name) + says):
            InitialWeights(storage, LocalOnly()).of(wanted, prepared_text.text)


# Identity.


def test_trial_is_named_by_the_content_of_its_generator(storage: Path) -> None:
    first = prepared(asked(), storage)
    assert first.start is not None
    assert prepared(asked(), storage).folder == first.folder
    other = storage / "trials" / "other"
    run = Prerequisites(storage, LocalOnly()).records(first.trial)[GENERATOR]
    made = open_trained(run, storage / "cache")
    longer = replace(made.trial, budget=Budget(kind="tokens", amount=7 * STEP))
    supply = Prerequisites(storage, LocalOnly()).inputs_without_start(longer)
    run_trial(work_of(longer, supply, other))
    origin = InitialWeights(storage, LocalOnly()).of(first.trial, supply.text, {GENERATOR: other})
    assert origin is not None
    assert origin.file.name != first.start.name
    assert load_file(origin.file).keys() == load_file(first.start).keys()
    assert replace(supply, start=origin.file).identity != replace(supply, start=None).identity


# Waiting.


class Ends:
    """A driver of which runs end when they are told to."""

    def __init__(self, storage: Path) -> None:
        self.storage, self.running = storage, set[Path]()
        self.ended: dict[Path, Outcome] = {}
        self.queue = PreparatoryQueue(self.work, self.ended.get, self.running)

    def work(self, run: Trial) -> Assignment:
        supply = Prerequisites(self.storage, LocalOnly()).inputs_without_start(run)
        folder = self.storage / "trials" / run.fingerprint(supply.identity)
        return work_of(run, supply, folder)

    def end(self, work: Assignment, state: State = "finished") -> None:
        self.running.discard(work.folder)
        self.ended[work.folder] = Outcome(
            state=state, reason="why", rows=({"spent/flops": 5.0},), began=0, seconds=2, busy=1
        )


def job(wanted: Trial, number: int = 0) -> Job:
    return Job(number=number, role="repeat", cell={}, tuned={}, repeat=1, trial=wanted)


def test_jobs_wait_for_the_run_that_they_share_which_is_made_once(storage: Path) -> None:
    ends = Ends(storage)
    queue = ends.queue
    assert not queue.hold_if_unready(job(asked(ELECTRA)))
    one, two = job(asked()), job(asked(curve=5), 1)
    assert queue.hold_if_unready(one)
    assert queue.hold_if_unready(two)
    work = queue.next_run()
    assert work is not None
    ends.running.add(work.folder)
    assert queue.next_run() is None
    assert queue.pop_ready() is None
    ends.end(work)
    assert [*islice(iter(queue.pop_ready, None), 3)] == [one, two]
    assert not queue.waiting
    assert not queue.hold_if_unready(one)
    assert queue.failed_run(one.trial) is None
    assert queue.measures() == {
        "preparatory_runs": 1,
        "preparatory_flops": 5.0,
        "preparatory_slot_seconds": 2,
    }


def test_job_waits_for_both_of_its_runs_which_are_made_side_by_side(storage: Path) -> None:
    ends = Ends(storage)
    waits = job(asked(ELECTRA, init_from=MLM))
    assert ends.queue.hold_if_unready(waits)
    works = []
    while (work := ends.queue.next_run()) is not None:
        works.append(work)
        ends.running.add(work.folder)
    assert len(works) == 2
    ends.end(works[0])
    assert ends.queue.pop_ready() is None
    ends.end(works[1], "diverged")
    assert ends.queue.pop_ready() is waits
    assert ends.queue.failed_run(waits.trial) == FailedRun(works[1].folder.name, "diverged", "why")
