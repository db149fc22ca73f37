"""Growing windows and ramps: settings of a step, the windows it reads, and validation."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from members import (
    COUNTS_V,
    GROWING,
    LENGTH,
    MEMBERS,
    Member,
    Run,
    Weightless,
    each,
    make_objective,
    same,
    text,
    texts,
)
from members import trial as small
from prepared_text import PreparedText
from scipy.stats import chisquare

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.experiment import Experiment
from lab.config.flops import mean_cost
from lab.config.labels import label
from lab.config.metrics import METRICS
from lab.config.objectives.adversarial import AlternationConfig
from lab.config.objectives.generators import SamplingConfig
from lab.config.results import MetricRow
from lab.config.schedules.ramps import CountRamp, ProbabilityRamp, Ramp, value_at
from lab.config.schedules.window_growth import FullWindows, GrowingWindows
from lab.config.trial import Trial
from lab.data import batches, preparation, prepared_files
from lab.data.batches import Batches
from lab.errors import UserError
from lab.evaluation import corruption, scores
from lab.execution.prerequisites import Prerequisites
from lab.loading import search_space
from lab.loading.error_messages import SpaceError
from lab.storage import mirror
from lab.training import optimizer
from lab.training.gradients import Gradients
from lab.training.loop import train_steps
from lab.training.objectives import build_objective
from lab.trials.assignment import Assignment
from lab.trials.run import run_trial

ELECTRA = next(member for member in MEMBERS if member.id == "electra_tokens")
MOVING = next(member for member in MEMBERS if member.id == "electra_moving")


# Settings of a step.


@given(start=st.floats(0.01, 0.99), end=st.floats(0.01, 0.99), progress=st.floats(0, 1))
@settings(deadline=None)
def test_ramp_is_linear_between_its_ends(start: float, end: float, progress: float) -> None:
    if start == end:
        return
    ramp = ProbabilityRamp(start=start, end=end)
    assert value_at(ramp, 0) == start
    assert value_at(ramp, 1) == value_at(ramp, 1.5) == pytest.approx(end)
    share = (value_at(ramp, progress) - start) / (end - start)
    assert share == pytest.approx(progress, abs=1e-6 / abs(end - start))


@given(
    length=st.integers(16, 512),
    start=st.integers(8, 15),
    until=st.floats(0.01, 0.99),
    batch=st.integers(1, 300),
    progress=st.floats(0, 1),
)
@settings(deadline=None)
def test_steps_of_short_and_full_windows_have_equally_many_tokens(
    length: int, start: int, until: float, batch: int, progress: float
) -> None:
    growing = GrowingWindows(kind="growing", start=start, until=until)
    trial = small(ELECTRA, data=DataConfig(length=length), windows=growing, batch=batch)
    step_settings = trial.settings_at(progress)
    assert step_settings.length == (start if progress < until else length)
    assert 0 <= batch * length - step_settings.batch * step_settings.length < start


@given(progress=st.floats(0, 1))
def test_constant_settings_are_the_same_at_any_progress(progress: float) -> None:
    trial = small(ELECTRA)
    assert trial.varying_settings == frozenset()
    assert trial.settings_at(progress) == trial.settings_at(0)
    assert trial.settings_at(progress).disc_weight == ELECTRA.objective.disc_weight


@pytest.mark.parametrize(
    ("varying", "names"),
    [
        ({"batch": CountRamp(start=8, end=4)}, {"batch"}),
        ({"windows": GrowingWindows(kind="growing", start=8)}, {"length", "batch"}),
        (
            {
                "batch": CountRamp(start=8, end=16),  # windows of a step: 16 at start and end
                "windows": GrowingWindows(kind="growing", start=8),
            },
            {"length", "batch"},
        ),
        ({"objective": MOVING.objective}, {"mask_prob", "disc_weight", "temperature"}),
    ],
)
def test_varying_settings_are_named_and_make_a_trial_not_extendable(
    varying: dict[str, Any], names: set[str]
) -> None:
    constant = small(ELECTRA)
    assert constant.extendable
    assert replace(constant, **varying).varying_settings == names
    assert not replace(constant, **varying).extendable


# Losses of a step.


@each(GROWING)
def test_step_with_ramps_has_the_losses_of_a_trial_with_their_values(member: Member) -> None:
    """A ramp has the same effect as a constant of its value at that progress."""
    changes: dict[str, Any] = {"mask_prob": ProbabilityRamp(start=0.5, end=0.1)}
    if hasattr(member.objective, "disc_weight"):
        changes["disc_weight"] = Ramp(start=100.0, end=1.0)
    if hasattr(member.objective, "sampling"):
        changes["sampling"] = SamplingConfig(temperature=Ramp(start=4.0, end=0.5))
    varying_member = replace(member, objective=replace(member.objective, **changes))
    trial = small(varying_member)
    for progress in (0.0, 0.3, 1.0):
        now = trial.settings_at(progress)
        constants: dict[str, Any] = {"mask_prob": now.mask_prob}
        if "disc_weight" in changes:
            constants["disc_weight"] = now.disc_weight
        if "sampling" in changes:
            constants["sampling"] = SamplingConfig(temperature=now.temperature)
        varying = make_objective(varying_member)
        constant = make_objective(replace(member, objective=replace(member.objective, **constants)))
        for updates in member.turns:
            varying.begin(updates, now)
            constant.begin(updates, constant.step_settings)
            actual, expected = (one.eval()(text(), 3, updates) for one in (varying, constant))
            assert actual.total.equal(expected.total)
            assert same(actual.parts, expected.parts)


class RecordingBatches(Batches):
    """Batches that record the ranges of windows that were read."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.read: list[range] = []

    def between(self, start: int, end: int) -> batches.Batch:
        self.read.append(range(start, end))
        return super().between(start, end)


def run_steps(
    trial: Trial, steps: int, objective: Any
) -> tuple[dict[int, RecordingBatches], list[int]]:
    """Run some steps; return the batches read, by window length, and the offset of each step."""
    read = {
        data.length: RecordingBatches(np.full((50, data.length), 9, np.uint16), trial.seeds.order)
        for data in trial.data_configs
    }
    offsets: list[int] = []
    objective.register_forward_pre_hook(lambda _, inputs: offsets.append(inputs[0].offset))
    gradients = Gradients(objective, read, trial)
    run = train_steps(
        gradients, optimizer.build_optimizer(objective, trial.optim), trial=trial, clock=lambda: 0.0
    )
    list(islice(run, steps))
    return read, offsets


@pytest.mark.trains
@pytest.mark.parametrize(
    "batch", [8, CountRamp(start=2, end=9), CountRamp(start=9, end=3)], ids=["fixed", "up", "down"]
)
def test_windows_are_read_in_order_without_repetition(batch: Any) -> None:
    growing = GrowingWindows(kind="growing", start=12, until=0.5)
    budget = Budget(kind="tokens", amount=40 * 6 * LENGTH)
    trial = small(ELECTRA, windows=growing, batch=batch, budget=budget)
    read, _ = run_steps(trial, 1_000, Weightless())
    for length, one in read.items():
        assert len(one.read) > 10, length
        assert all(before.stop == after.start for before, after in pairwise(one.read))
    short, full = read[12].read, read[LENGTH].read
    assert short[0].start == 0
    # Full windows begin after the text that the short windows contained.
    assert full[0].start == short[-1].stop * 12 // LENGTH


@pytest.mark.trains
def test_short_windows_have_offset_zero_in_half_of_the_steps_and_a_random_one_otherwise() -> None:
    growing = GrowingWindows(kind="growing", start=8, until=0.9)
    trial = small(ELECTRA, windows=growing, batch=1)
    trial = replace(trial, budget=Budget(kind="tokens", amount=400 * LENGTH))
    _, offsets = run_steps(trial, 400, Weightless())
    short, full = offsets[:360], offsets[360:]
    assert set(full) == {0}
    frequencies = Counter(short)
    assert set(frequencies) == set(range(LENGTH - 8 + 1))
    expected = [180 + 20] + [20] * (LENGTH - 8)
    counts = [frequencies[offset] for offset in range(LENGTH - 8 + 1)]
    assert chisquare(counts, expected).pvalue > 1e-4
    other_seed = replace(trial, seeds=replace(trial.seeds, mask=9))
    assert run_steps(other_seed, 40, Weightless())[1] != offsets[:40]
    assert run_steps(trial, 40, Weightless())[1] == offsets[:40]


@pytest.mark.trains
def test_both_networks_of_an_alternation_read_short_windows_at_an_offset() -> None:
    member = next(member for member in GROWING if member.objective.kind == "adversarial")
    rule = AlternationConfig(kind="alternation", steps=1)
    objective = replace(member.objective, rule=rule, sharing="none")
    trial = small(replace(member, objective=objective), batch=1)
    trial = replace(trial, budget=Budget(kind="tokens", amount=80 * LENGTH))
    _, offsets = run_steps(trial, 40, Weightless())
    assert any(offsets[::2])
    assert any(offsets[1::2])


@pytest.mark.trains
@each((ELECTRA, next(member for member in MEMBERS if member.id == "electra_gdes")))
def test_short_windows_train_every_position_embedding(member: Member) -> None:
    trial = small(member, windows=GrowingWindows(kind="growing", start=8, until=0.99), batch=4)
    trial = replace(trial, budget=Budget(kind="tokens", amount=100 * 4 * LENGTH))
    objective = build_objective(trial, COUNTS_V)
    tables = {
        name: table
        for name, table in objective.named_parameters()
        if "position" in name and table.ndim == 2
    }
    before = {name: table.detach().clone() for name, table in tables.items()}
    run_steps(trial, 60, objective)
    assert tables
    for name, table in tables.items():
        assert (table != before[name]).any(1).all(), name


# The memory limit is a number of positions, so that a micro-batch fits at either window length.


@pytest.mark.trains
def test_micro_batches_of_short_and_full_windows_have_equally_many_positions() -> None:
    trial = small(ELECTRA, windows=GrowingWindows(kind="growing", start=8, until=0.5))
    whole, divided = Run(trial), build_objective(trial, COUNTS_V)
    sizes: list[tuple[int, ...]] = []
    divided.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].ids_BT.shape)))
    gradients = Gradients(divided, texts(trial), trial, micro_batch_limit=4 * LENGTH)
    steps = train_steps(
        gradients, optimizer.build_optimizer(divided, trial.optim), trial=trial, clock=lambda: 0.0
    )
    losses = [step.parts["train/loss"].item() for step in steps]
    expected = [step.parts["train/loss"].item() for step in whole.steps()]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert set(sizes) == {(8, 8), (4, LENGTH)}
    assert gradients.micro_batch_size == 4


# Complete trials.


@pytest.fixture(scope="module")
def short_text(prepared_text: PreparedText, tmp_path_factory: pytest.TempPathFactory) -> Path:
    short = replace(prepared_text.data, length=8)
    return preparation.prepare_text(short, tmp_path_factory.mktemp("short"))


@pytest.fixture
def work(
    prepared_text: PreparedText, short_text: Path, held_out: Path, tmp_path: Path
) -> Callable[..., Assignment]:
    def work(name: str, **changes: Any) -> Assignment:
        trial = Trial(
            encoder=EncoderConfig(
                layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, norm="pre"
            ),
            objective=MOVING.objective,
            data=prepared_text.data,
            windows=GrowingWindows(kind="growing", start=8, until=0.6),
            batch=8,
            budget=Budget(kind="tokens", amount=20 * 8 * 16),
            evaluations=4,
        )
        return Assignment(
            trial=replace(trial, **changes),
            folder=tmp_path / name,
            text=prepared_text.text,
            short_text=short_text,
            held_out=held_out,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        )

    return work


def without_time(rows: tuple[MetricRow, ...]) -> list[MetricRow]:
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


@pytest.mark.usefixtures("few_sentences")
def test_evaluations_use_full_windows_and_record_the_settings_of_the_preceding_step(
    work: Callable[..., Assignment], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    detect = scores._detect

    def recording(detector: Any, ids_NT: torch.Tensor, *rest: Any) -> Any:
        lengths.append(ids_NT.shape[1])
        return detect(detector, ids_NT, *rest)

    monkeypatch.setattr(scores, "_detect", recording)
    assignment = work("trial")
    outcome = run_trial(assignment)
    rows = outcome.rows
    assert outcome.state == "finished"
    assert [row["spent/steps"] for row in rows] == [0, 5, 10, 15, 20]
    for row in rows:
        expected = assignment.trial.settings_at(max(0, row["spent/steps"] - 1) / 20)
        recorded = {n.removeprefix("schedule/"): v for n, v in row.items() if "schedule/" in n}
        assert recorded == expected._asdict()
    assert [row["schedule/length"] for row in rows] == [8, 8, 8, 16, 16]
    assert [row["schedule/batch"] for row in rows] == [16, 16, 16, 8, 8]
    assert lengths == [16] * 3 * 5


@pytest.mark.usefixtures("few_sentences")
def test_trial_with_constant_settings_records_no_schedule(work: Callable[..., Assignment]) -> None:
    constant = replace(work("trial"), short_text=None)
    constant = replace(
        constant, trial=replace(constant.trial, windows=FullWindows(), objective=ELECTRA.objective)
    )
    rows = run_trial(constant).rows
    assert not [name for row in rows for name in row if name.startswith("schedule/")]


@pytest.mark.usefixtures("few_sentences")
@pytest.mark.parametrize("kind", ["tokens", "flops"])
def test_trial_interrupted_after_every_step_ends_bitwise_as_an_uninterrupted_one(
    work: Callable[..., Assignment], kind: Any
) -> None:
    budget = Budget(kind=kind, amount=1.0)
    step = getattr(mean_cost(work("", budget=budget).trial), kind)
    changes = {"budget": replace(budget, amount=10.0 * step), "evaluations": 2}
    expected = run_trial(work("whole", **changes))
    assert expected.state == "finished", expected.reason
    assert len({row["schedule/length"] for row in expected.rows}) == 2
    resumed = work("resumed", **changes)
    interruptions = 0
    while (
        outcome := run_trial(resumed, requested_state=lambda: "interrupted")
    ).state == "interrupted":
        interruptions += 1
    assert interruptions >= 7
    assert without_time(outcome.rows) == without_time(expected.rows)


# Prepared texts.


@pytest.mark.trains
def test_both_texts_are_prepared_and_part_of_the_trials_identity(
    prepared_text: PreparedText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruption, "_FROZEN_TOKENS", 4_096)
    monkeypatch.setattr(corruption, "_TOKENS", 4_096)
    supplies = Prerequisites(tmp_path, mirror.LocalOnly())
    plain = small(ELECTRA, data=prepared_text.data)
    growing = replace(plain, windows=GrowingWindows(kind="growing", start=8))
    without, supply = supplies.prepare_inputs(plain), supplies.prepare_inputs(growing)
    assert without.short_text is None
    assert supply.short_text is not None
    assert (supply.text, supply.held_out) == (without.text, without.held_out)
    assert supply.text.name == prepared_text.text.name
    full, short = map(batches.open_corpus, (supply.text, supply.short_text))
    assert (full.train_NT.shape[1], short.train_NT.shape[1]) == (16, 8)
    assert full.vocabulary.fingerprint() == short.vocabulary.fingerprint()
    assert supply.identity != without.identity
    assert supply.short_text.name in supplies.describe_texts()["data"]
    tokenizer = supply.short_text / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lowercase": true', '"lowercase": false'))
    facts = prepared_files.read_facts(supply.short_text)
    prepared_files.write_facts(
        supply.short_text, {name: fact for name, fact in facts.items() if name != "files"}
    )
    with pytest.raises(UserError, match="their tokenizers differ"):
        supplies.prepare_inputs(growing)


# Validation of search spaces.

GOOD = """\
question: When should windows grow?
metric: detect/bigram/auroc
base:
  encoder: {size: nano}
  objective: {kind: electra}
  data: {length: 64}
  windows: {kind: full}
  batch: 32
  budget: {kind: flops, amount: 1e12}
"""


def load(tmp_path: Path, *overrides: str) -> Experiment:
    file = tmp_path / "windows.yaml"
    file.write_text(GOOD)
    return search_space.load_experiment(file, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("base.windows=16", "base.windows: must be a mapping with kind, start, until, not 16"),
        ("base.windows={kind: short}", "base.windows.kind: must be one of full, growing"),
        (
            "base.windows={kind: growing, start: 64}",
            "base.windows.start: must be below base.data.length, 64, not 64",
        ),
        ("base.windows={kind: growing, start: 7}", "base.windows.start: must be at least 8, not 7"),
        ("base.windows={kind: growing, until: 1}", "base.windows.until: must be below 1, not 1"),
        ("base.windows={kind: growing, until: 0}", "base.windows.until: must be above 0, not 0"),
        (
            "base.windows={kind: growing, until: 0.001}",
            "base.budget.amount: 1e+12 flops are ",
        ),
        (
            "base.objective.mask_prob={start: 0.4}",
            "base.objective.mask_prob.end: required, but missing",
        ),
        (
            "base.objective.mask_prob={start: 0.4, end: 1}",
            "base.objective.mask_prob.end: must be below 1, not 1",
        ),
        (
            "base.objective.mask_prob={start: 0.4, end: 0.4}",
            "base.objective.mask_prob: start and end are both 0.4; write a single number",
        ),
        (
            "base.objective.mask_prob={from: 0.4, end: 0.2}",
            "base.objective.mask_prob.from: unknown key; allowed: start, end",
        ),
        (
            "base.objective.disc_weight={start: 0, end: 50}",
            "base.objective.disc_weight.start: must be at least 1e-06, not 0",
        ),
        (
            "base.objective.disc_weight=high",
            "base.objective.disc_weight: must be a number or a mapping with start, end, not 'high'",
        ),
        (
            "base.objective.sampling.temperature={start: 2, end: cold}",
            "base.objective.sampling.temperature.end: must be a number, not 'cold'",
        ),
        ("base.batch={start: 0, end: 8}", "base.batch.start: must be at least 1, not 0"),
        ("base.batch={start: 8, end: 9.5}", "base.batch.end: must be a whole number, not 9.5"),
        (
            "compare.objective.mask_prob=[0.15, {start: 2, end: 0.1}]",
            "compare.objective.mask_prob.start: must be below 1, not 2",
        ),
    ],
)
def test_error_is_reported_with_its_path_and_the_allowed_values(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        load(tmp_path, override)
    assert str(caught.value).startswith(f"{tmp_path / 'windows.yaml'}: {message}")


def test_numbers_and_ramps_can_be_compared(tmp_path: Path) -> None:
    experiment = load(
        tmp_path,
        "compare.objective.mask_prob=[0.15, {start: 0.4, end: 0.15}]",
        "compare.windows=[{kind: full}, {kind: growing, start: 16, until: 0.85}]",
        "tune.objective.disc_weight={choices: [50, {start: 50, end: 5}]}",
    )
    cells = [
        search_space.build_trial(experiment.base, cell)
        for cell in search_space.expand_cells(experiment)
    ]
    assert [len(cell.varying_settings) for cell in cells] == [0, 2, 1, 3]
    assert {label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)} == {
        "mask_prob 0.15, full",
        "mask_prob 0.15, growing",
        "mask_prob 0.4 → 0.15, full",
        "mask_prob 0.4 → 0.15, growing",
    }


def test_settings_of_ramps_and_windows_can_be_compared_and_tuned(tmp_path: Path) -> None:
    experiment = load(
        tmp_path,
        "base.objective.mask_prob={start: 0.4, end: 0.15}",
        "base.windows={kind: growing}",
        "compare.windows.until=[0.6, 0.85]",
        "tune.objective.mask_prob.start={low: 0.2, high: 0.6}",
    )
    cells = [
        search_space.build_trial(experiment.base, cell)
        for cell in search_space.expand_cells(experiment)
    ]
    assert [cell.settings_at(0.7).length for cell in cells] == [64, 16]


@pytest.mark.parametrize(
    "override",
    [
        "base.windows={kind: growing}",
        "base.batch={start: 8, end: 32}",
        "base.objective.mask_prob={start: 0.4, end: 0.15}",
        "base.objective.disc_weight={start: 50, end: 5}",
        "base.objective.sampling.temperature={start: 2, end: 1}",
    ],
)
def test_halving_is_rejected_if_a_setting_varies(tmp_path: Path, override: str) -> None:
    halving = (
        "search.stopping={kind: halving, first_rung: 0.5}",
        "base.schedule={kind: constant, warmup: 0}",
        "base.evaluations=2",
    )
    load(tmp_path, *halving)
    message = r"search.stopping: .* no other setting that varies during the run; here .* vary"
    with pytest.raises(SpaceError, match=message):
        load(tmp_path, *halving, override)


def test_workers_must_not_exceed_the_smallest_batch_of_a_ramp(tmp_path: Path) -> None:
    load(tmp_path, "base.batch={start: 3, end: 32}", "resources.workers=3")
    message = r"resources.workers: must be at most the smallest batch, 3 windows, not 4"
    with pytest.raises(SpaceError, match=message):
        load(tmp_path, "base.batch={start: 32, end: 3}", "resources.workers=4")


@pytest.mark.parametrize("metric", ["train/generator_loss", "train/discriminator_loss"])
def test_training_losses_cannot_rank_trials_of_different_window_lengths(
    tmp_path: Path, metric: str
) -> None:
    compared = "compare.windows=[{kind: full}, {kind: growing}]"
    load(tmp_path, compared)
    with pytest.raises(SpaceError, match="cannot rank trials that differ in windows"):
        load(tmp_path, compared, f"metric={metric}")
