"""A branch equals a run from scratch; each part of a trunk is trained and charged once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
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
from lab.config.optimizer import AdamWConfig, AnyOptimizerConfig, MuonConfig
from lab.config.results import MetricRow, Outcome
from lab.config.schedules.trunk import TrunkSchedule
from lab.config.schedules.trunks import branch_points, trunk_parts
from lab.config.trial import Seeds, Trial
from lab.interop.source_weights import _standalone_flops
from lab.interop.trained import open_trained
from lab.storage import record
from lab.training import loop, optimizer
from lab.trials import extend, run, training
from lab.trials.assignment import Assignment
from lab.trials.scorers import NoScores

STEP = 4 * 16  # tokens
SHAPE = EncoderConfig(layers=1, hidden=8, ffn=16, heads=2, embedding=8, init_std=0.1, dropout=0.1)
SCHEDULE = TrunkSchedule(kind="trunk", warmup=3 * STEP, decay=0.2)
# Budgets in steps; the cooldowns begin after 8, 16 and 24 of them.
BUDGETS = (10, 20, 30)
TEXT = "text"

Cases = dict[str, tuple[AnyObjectiveConfig, AnyOptimizerConfig]]
CASES: Cases = {
    "mlm, muon": (MlmConfig(kind="mlm"), MuonConfig(kind="muon", lr=2e-3)),
    "electra, adamw": (ElectraConfig(kind="electra"), AdamWConfig(kind="adamw", lr=2e-3)),
    "alternation, muon": (
        AdversarialConfig(
            kind="adversarial", sharing="none", rule=AlternationConfig(kind="alternation", steps=3)
        ),
        MuonConfig(kind="muon", lr=2e-3),
    ),
}


def make_trial(steps: float, case: str = "mlm, muon", **changes: Any) -> Trial:
    objective, optim = CASES[case]
    trial = Trial(
        encoder=SHAPE,
        objective=objective,
        data=DataConfig(share=0.01, held_out=0.1, vocab=400, length=16),
        batch=4,
        optim=optim,
        schedule=SCHEDULE,
        budget=Budget(kind="tokens", amount=steps * STEP),
        seeds=Seeds(init=3, order=4, mask=5),
        evaluations=10,
    )
    return replace(trial, **changes)


POINTS = branch_points(map(make_trial, BUDGETS))

MakeWork = Callable[[str, Trial], Assignment]


@pytest.fixture(autouse=True)
def no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score nothing, so that a run takes milliseconds; scores are functions of the weights."""
    monkeypatch.setattr(run, "AllScores", NoScores)


@pytest.fixture
def work(prepared_text: PreparedText, tmp_path: Path) -> MakeWork:
    def work(name: str, trial: Trial) -> Assignment:
        return Assignment(
            trial=trial,
            folder=tmp_path / name,
            text=prepared_text.text,
            held_out=tmp_path,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
            lineage=trial.lineage(TEXT),
        )

    return work


class Step(NamedTuple):
    """What a run did in one step: its losses, and the multiplier of the learning rate."""

    parts: dict[str, float]
    rate: float


class Steps:
    """Steps of the runs since the last call of `take`, by number."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.done: dict[int, Step] = {}

    def take(self) -> dict[int, Step]:
        done, self.done = self.done, {}
        return done


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    recorded = Steps()
    train, set_rate = training.train_steps, optimizer.set_rate

    def record_rate(optim: optimizer.Adam, multiplier: float) -> None:
        recorded.rates.append(multiplier)
        set_rate(optim, multiplier)

    def train_and_record(*arguments: Any, **options: Any) -> Iterator[loop.CompletedStep]:
        for step in train(*arguments, **options):
            parts = {name: value.item() for name, value in step.parts.items()}
            recorded.done[step.spent.steps] = Step(parts, recorded.rates[-1])
            yield step

    monkeypatch.setattr(loop, "set_rate", record_rate)
    monkeypatch.setattr(training, "train_steps", train_and_record)
    return recorded


def train(work: Assignment, **options: Any) -> Outcome:
    """Run a trial after its record was opened as the driver does."""
    record.write_queued(work.folder, work.trial, work.lineage)
    extend.extend_from_shorter_run(work)
    return run.run_trial(work, **options)


def train_parts(work: MakeWork, trial: Trial) -> list[Outcome]:
    """Train the parts of a trial's trunk; the record of a part is named by its steps."""
    parts = trunk_parts(trial, POINTS)
    return [train(work(f"trunk {round(p.budget.amount / STEP)}", p)) for p in parts]


def read_newest_checkpoint(work: Assignment) -> tuple[str, dict[str, Tensor]]:
    newest = max((work.folder / "checkpoints").iterdir())
    return newest.name, load_file(newest / "state.safetensors")


def assert_equal_state(one: Assignment, other: Assignment) -> None:
    """Assert that two runs ended with the same weights and moments after the same step."""
    (name, tensors), (other_name, others) = map(read_newest_checkpoint, (one, other))
    assert name == other_name
    assert tensors.keys() == others.keys()
    assert all(value.equal(others[name]) for name, value in tensors.items())


def without_costs(row: MetricRow) -> MetricRow:
    left_out = ("second", "marginal")
    return {name: row[name] for name in row if not any(part in name for part in left_out)}


@pytest.mark.parametrize("case", CASES)
def test_branch_is_bitwise_equal_to_the_run_from_scratch(
    case: str, work: MakeWork, steps: Steps
) -> None:
    alone, branch = (work(name, make_trial(20, case)) for name in ("alone", "branch"))
    expected = train(alone)
    expected_steps = steps.take()
    assert record.read_origin(alone.folder).name == ""
    train_parts(work, branch.trial)
    assert sorted(steps.done) == [*range(1, 17)], "each step of the trunk is trained once"
    outcome = train(branch)
    assert steps.done == expected_steps, "same losses and rates of all 20 steps"
    assert outcome.reason == "continued from trunk 16"
    assert_equal_state(branch, alone)
    own = [row for row in outcome.rows if row["spent/steps"] > 16]
    assert [row["spent/steps"] for row in own] == [18, 20]
    assert [*map(without_costs, own)] == [*map(without_costs, expected.rows[-2:])]
    assert without_costs(outcome.rows[0]) == without_costs(expected.rows[0])


def test_learning_rate_rises_over_the_warm_up_is_constant_and_decays_from_the_branch_on(
    work: MakeWork, steps: Steps
) -> None:
    train_parts(work, make_trial(20))
    train(work("branch", make_trial(20)))
    rates = [steps.done[step].rate for step in range(1, 21)]
    assert rates[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert rates[3:17] == [1.0] * 14  # the first step of the cooldown begins at its start
    assert rates[17:] == pytest.approx([1 - (n / 4) ** 0.5 for n in (1, 2, 3)])


def test_interrupted_trunk_and_branch_continue_bitwise(work: MakeWork, steps: Steps) -> None:
    trial = make_trial(20)
    alone, branch = work("alone", trial), work("branch", trial)
    train(alone)
    expected_steps = steps.take()
    (first, second) = trunk_parts(trial, POINTS)
    for part in (work("trunk 8", first), work("trunk 16", second), branch):
        assert train(part, requested_state=lambda: "interrupted").state == "interrupted"
        assert train(part).state == "finished"
    assert steps.done == expected_steps
    assert_equal_state(branch, alone)


def test_marginal_compute_of_all_branches_is_the_compute_that_was_used(
    work: MakeWork, steps: Steps
) -> None:
    del steps
    trials = [make_trial(steps) for steps in BUDGETS]
    parts = train_parts(work, trials[-1])
    flops = parts[0].rows[-1]["spent/flops"] / 8  # of one step
    assert [part.rows[-1]["spent/marginal_flops"] / flops for part in parts] == [8, 8, 8]
    ends = [train(work(f"{n}", trial)).rows[-1] for n, trial in enumerate(trials)]
    assert [end["spent/standalone_flops"] / flops for end in ends] == [10, 20, 30]
    assert [end["spent/flops"] / flops for end in ends] == [10, 20, 30]
    assert [end["spent/marginal_flops"] / flops for end in ends] == [8 + 2, 8 + 4, 8 + 6]


def test_branch_is_charged_for_all_parts_of_the_trunk_that_no_other_trial_paid(
    work: MakeWork,
) -> None:
    flops = train_parts(work, make_trial(20))[0].rows[-1]["spent/flops"] / 8
    longer, shorter = work("longer", make_trial(20)), work("shorter", make_trial(10))
    again = work("again", make_trial(20, evaluations=5))
    marginal = [train(each).rows[-1]["spent/marginal_flops"] for each in (longer, shorter, again)]
    assert [each / flops for each in marginal] == [20, 2, 4]
    record.delete_record(longer.folder)
    outcome = train(longer)
    assert outcome.rows[-1]["spent/marginal_flops"] == marginal[0], "it pays once, also if repeated"
    curve = [row["spent/marginal_flops"] / flops for row in outcome.rows]
    assert curve == [0, 8, 16, 18, 20]


def test_trial_that_starts_from_a_branch_counts_its_stand_alone_compute(
    work: MakeWork, prepared_text: PreparedText
) -> None:
    train_parts(work, make_trial(20))
    train(work("shorter", make_trial(10)))
    end = train(work("longer", make_trial(20))).rows[-1]
    longer = work("longer", make_trial(20))
    record.write_queued(longer.folder, longer.trial, text=prepared_text.text.name)
    trained = open_trained(longer.folder, prepared_text.text.parent)
    assert end["spent/marginal_flops"] < end["spent/standalone_flops"]
    assert _standalone_flops(trained) == end["spent/standalone_flops"]


def test_branch_whose_copy_of_the_trunk_is_damaged_is_trained_from_scratch(
    work: MakeWork, steps: Steps
) -> None:
    trial = make_trial(10)
    alone, branch = work("alone", trial), work("branch", trial)
    expected = train(alone).rows
    train_parts(work, trial)
    steps.take()
    record.write_queued(branch.folder, branch.trial, branch.lineage)
    extend.extend_from_shorter_run(branch)
    for state in branch.folder.glob("checkpoints/*/state.json"):
        state.write_text("{}")
    outcome = run.run_trial(branch)
    assert sorted(steps.done) == [*range(1, 11)]
    assert outcome.reason == ""
    assert outcome.rows[-1]["spent/marginal_flops"] == expected[-1]["spent/flops"]
    assert_equal_state(branch, alone)


# Choice of the part to continue from


def leave_part(folder: Path, trial: Trial) -> None:
    """Write the record that the last part of a trial's trunk would have left."""
    trunk = trial.trunk
    assert trunk is not None
    record.write_queued(folder, trunk, trunk.lineage(TEXT))
    record.append_row(folder, {"spent/steps": 1.0, "spent/flops": 1.0})
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "mark").write_text(folder.name)
    rows = record.read_curve(folder)
    ended = Outcome(state="finished", reason="", rows=rows, started_at=0, seconds=1, busy=1)
    record.write_outcome(folder, ended)


def find_origin(folder: Path, trial: Trial) -> str:
    """Return the name of the record that a trial continues from."""
    work = Assignment(
        trial=trial,
        folder=folder,
        text=folder,
        held_out=folder,
        pairs=None,
        metric=METRICS["probe/pos/accuracy"],
        lineage=trial.lineage(TEXT),
    )
    record.write_queued(folder, trial, work.lineage)
    extend.extend_from_shorter_run(work)
    return record.read_origin(folder).name


def test_branch_continues_from_the_longest_trunk_that_ends_before_its_cooldown(
    tmp_path: Path,
) -> None:
    for steps in BUDGETS:
        leave_part(tmp_path / f"trunk of {steps}", make_trial(steps))
    assert find_origin(tmp_path / "a", make_trial(20)) == "trunk of 20"
    assert find_origin(tmp_path / "b", make_trial(25)) == "trunk of 20"
    assert find_origin(tmp_path / "c", make_trial(9)) == ""


OTHERS: dict[str, dict[str, Any]] = {
    "warm-up": {"schedule": replace(SCHEDULE, warmup=2 * STEP)},
    "batch": {"batch": 8},
    "rate": {"optim": MuonConfig(kind="muon", lr=1e-3)},
    "seed": {"seeds": Seeds(init=3, order=4, mask=6)},
    "unit": {"budget": Budget(kind="flops", amount=20.0 * STEP)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_trunk_of_another_trial_is_not_used(tmp_path: Path, other: str) -> None:
    leave_part(tmp_path / "trunk", make_trial(20, **OTHERS[other]))
    assert find_origin(tmp_path / "branch", make_trial(20)) == ""


def test_trunk_is_shared_across_cooldowns_and_numbers_of_evaluations(tmp_path: Path) -> None:
    leave_part(tmp_path / "trunk", make_trial(20, schedule=replace(SCHEDULE, decay=0.3)))
    assert find_origin(tmp_path / "branch", make_trial(20, evaluations=2)) == "trunk"


def test_finished_branch_is_no_trunk_although_it_has_the_lineage_of_one(tmp_path: Path) -> None:
    branch = make_trial(10)
    leave_part(tmp_path / "branch", branch)
    record.write_queued(tmp_path / "branch", branch, branch.lineage(TEXT))
    (tmp_path / "branch" / "state").write_text("finished")
    assert find_origin(tmp_path / "longer", make_trial(20)) == ""
