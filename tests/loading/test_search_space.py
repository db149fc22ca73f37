"""Search spaces: every kind of error gives one line with the file, the path and the reason."""

import json
import operator
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from project import ROOT

from lab.config.architecture import SIZES
from lab.config.experiment import Choices, Experiment, HalvingConfig, Range
from lab.config.labels import label
from lab.config.metrics import METRICS
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import AdamConfig, MuonConfig
from lab.config.schedules.window_growth import FullWindows, GrowingWindows
from lab.loading import schema, search_space, size_defaults, yaml_text
from lab.loading.error_messages import SpaceError

SHIPPED = sorted((ROOT / "search_spaces").rglob("*.yaml"))
SCHEMA = ROOT / "search_spaces" / "schema.json"

GOOD = """\
question: How large should the generator be?
metric: detect/mlm/auroc
base:
  encoder: {size: tiny}
  objective: {kind: electra}
  budget: {kind: flops, amount: 1e12}
compare:
  objective.generator.width: [0.25, 0.5, 1.0]
tune:
  optim.lr: {low: 1e-4, high: 1e-2, log: true}
search: {trials: 4, seeds: 3}
"""

Load = Callable[..., Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(*overrides: str, text: str = GOOD) -> Experiment:
        file = tmp_path / "generator_size.yaml"
        file.write_text(text, encoding="utf-8")
        return search_space.load_experiment(file, overrides)

    return load


@pytest.fixture
def rejection(load: Load, tmp_path: Path) -> Callable[..., str]:
    """Return the error message of an invalid file, without the file's name."""

    def rejection(*overrides: str, text: str = GOOD) -> str:
        with pytest.raises(SpaceError) as caught:
            load(*overrides, text=text)
        line = str(caught.value)
        assert "\n" not in line
        file, separator, rest = line.partition(": ")
        assert (file, separator) == (str(tmp_path / "generator_size.yaml"), ": ")
        return rest

    return rejection


def test_valid_file_gives_an_experiment(load: Load) -> None:
    experiment = load()
    assert experiment.name == "generator_size"
    assert experiment.metric is METRICS["detect/mlm/auroc"]
    assert experiment.compare == {"objective.generator.width": (0.25, 0.5, 1.0)}
    assert experiment.tune == {"optim.lr": Range(low=1e-4, high=1e-2, log=True)}
    assert experiment.search.seeds == 3


# One example of each kind of error: the override, the reported path, and a part of the message.
WRONG: dict[str, tuple[str, str, str]] = {
    "unknown key at the top": ("colour=1", "colour", "unknown key; allowed: question, metric"),
    "unknown key below": ("base.optim.rate=1", "base.optim.rate", "unknown key; allowed: lr,"),
    "unknown key in a union": (
        "base.objective.genwidth=1",
        "base.objective.genwidth",
        "unknown key; allowed: mask_prob, masking, gen_weight, generator, sharing, sampling, "
        "disc_weight, auxiliary, kind",
    ),
    "unknown key two deep": (
        "base.objective.generator.size=1",
        "base.objective.generator.size",
        "unknown key; allowed: width, depth",
    ),
    "unknown key in an encoder": ("base.encoder.h=1", "base.encoder.h", "allowed: size, layers"),
    "unknown key in a union in a union": (
        "base.objective={kind: adversarial, sharing: none, rule: {kind: alternation, stepz: 3}}",
        "base.objective.rule.stepz",
        "unknown key; allowed: first, kind, steps",
    ),
    "unknown key in what a union holds": (
        "base.objective={kind: two_stage, sampling: {heat: 2}}",
        "base.objective.sampling.heat",
        "unknown key; allowed: temperature, dropout, disallow_correct",
    ),
    "key of another member": (
        "base.objective={kind: mlm, generator: {width: 0.5}}",
        "base.objective.generator",
        "unknown key; allowed: mask_prob, masking, kind",
    ),
    "key that is also a kind": (
        "base.objective.electra=1",
        "base.objective.electra",
        "unknown key; allowed: mask_prob",
    ),
    "unknown compared path": ("compare.optim.rate=[1]", "compare.optim.rate", "unknown key"),
    "unknown key of a range": (
        "tune.batch={lo: 1, high: 2}",
        "tune.batch.lo",
        "allowed: low, high",
    ),
    "missing question": ("question=", "question", "must be text, not null"),
    "empty question": ("question=''", "question", "must not be empty"),
    "missing budget": ("base={encoder: {size: tiny}}", "base.objective", "required, but missing"),
    "missing kind": (
        "base.objective={}",
        "base.objective.kind",
        "missing; must be one of adversarial, all_tokens_mlm, electra, electra_15, mlm, random, ",
    ),
    "missing end": ("tune.batch={low: 1}", "tune.batch.high", "required, but missing"),
    "word for a whole number": (
        "base.batch=a",
        "base.batch",
        "a whole number or a mapping with start, end, not 'a'",
    ),
    "fraction for a whole number": (
        "base.batch=1.5",
        "base.batch",
        "or a mapping with start, end, not 1.5",
    ),
    "truth for a whole number": (
        "base.batch=true",
        "base.batch",
        "or a mapping with start, end, not true",
    ),
    "list for a number": ("base.optim.lr=[1]", "base.optim.lr", "must be a number, not a list"),
    "word for a number": ("base.optim.lr=fast", "base.optim.lr", "must be a number, not 'fast'"),
    "quoted number": ("base.optim.lr='1e-3'", "base.optim.lr", "must be a number, not '1e-3'"),
    "number for a word": ("question=3", "question", "must be text, not 3"),
    "word for a truth": (
        "tune.optim.lr={low: 1, high: 2, log: base}",
        "tune.optim.lr.log",
        "must be true or false, not 'base'",
    ),
    "number for a mapping": ("base.optim=3", "base.optim", "must be a mapping with lr, "),
    "number for a list": ("compare.batch=3", "compare.batch", "must be a list, not 3"),
    "number for a range": ("tune.batch=3", "tune.batch", "low, high, log, step, integer, choices"),
    "number for choices": (
        "tune.batch={choices: 3}",
        "tune.batch.choices",
        "must be a list, not 3",
    ),
    "word for an objective": (
        "base.objective=electra",
        "base.objective",
        "must be a mapping with",
    ),
    "word for a schedule": ("base.schedule=flat", "base.schedule", "must be a mapping with kind, "),
    "nothing for a text": ("base.data=null", "base.data", "must be a mapping with source, "),
    "nothing for an optimizer": ("base.optim=null", "base.optim", "must be a mapping with lr, "),
    "unknown optimizer": (
        "base.optim.kind=sgd",
        "base.optim.kind",
        "must be one of adam, adamw, muon, not 'sgd'",
    ),
    "list for an optimizer": (
        "base.optim.kind=[muon]",
        "base.optim.kind",
        "must be one of adam, adamw, muon, not ",
    ),
    "unknown optimizer in a grid": (
        "compare={optim.kind: [adam, sgd]}",
        "compare.optim.kind",
        "must be one of adam, adamw, muon, not 'sgd'",
    ),
    "setting of another optimizer": (
        "base.optim={kind: adam, hidden_lr: 2}",
        "base.optim.hidden_lr",
        "unknown key; allowed: lr, ",
    ),
    "too small": ("base.batch=0", "base.batch", "must be at least 1, not 0"),
    "not above": ("base.optim.lr=0", "base.optim.lr", "must be at least 1e-10, not 0"),
    "not below": ("base.schedule.warmup=1", "base.schedule.warmup", "must be below 1, not 1"),
    "too large": ("base.data.length=8192", "base.data.length", "must be at most 4096, not 8192"),
    "infinite": ("base.optim.lr=.inf", "base.optim.lr", "must be a number, not '.inf'"),
    "not a number": ("base.optim.lr=.nan", "base.optim.lr", "must be a number, not '.nan'"),
    "beyond floats": ("base.budget.amount=1e999", "base.budget.amount", "a number, not '1e999'"),
    "beyond compute": ("base.encoder.layers=1e308", "base.encoder.layers", "at most 1e+06"),
    "unknown word": (
        "base.schedule.kind=step",
        "base.schedule.kind",
        "must be one of linear, cosine, stable, constant, trunk, not 'step'",
    ),
    "unknown kind": (
        "base.objective.kind=bert",
        "base.objective.kind",
        "must be one of electra, electra_15, replace_mlm, all_tokens_mlm, mlm, two_stage, ",
    ),
    "unknown kind in a union": (
        "base.objective={kind: adversarial, rule: {kind: wgan}}",
        "base.objective.rule.kind",
        "must be one of reinforce, alternation, epoch_alternation, not 'wgan'",
    ),
    "missing kind in a union": (
        "base.objective={kind: adversarial, rule: {steps: 2}}",
        "base.objective.rule.kind",
        "required, but missing; must be one of alternation, epoch_alternation, reinforce",
    ),
    "wrong value in a union in a union": (
        "base.objective={kind: adversarial, sharing: none, rule: {kind: alternation, steps: 0}}",
        "base.objective.rule.steps",
        "must be at least 1, not 0",
    ),
    "unknown sharing": (
        "base.objective.sharing=tables",
        "base.objective.sharing",
        "must be one of none, tokens, all, gdes, not 'tables'",
    ),
    "masking of another member": (
        "base.objective={kind: electra, masking: bernoulli}",
        "base.objective.masking",
        "must be one of paper, code, bert or a mapping with mask, random, not 'bernoulli'",
    ),
    "number for a masking": (
        "base.objective={kind: electra, masking: 0.8}",
        "base.objective.masking",
        "must be one of paper, code, bert or a mapping with mask, random, not 0.8",
    ),
    "masks without a generator": (
        "base.objective={kind: random, masking: bert}",
        "base.objective.masking",
        "must be one of paper, code, bernoulli, not 'bert'",
    ),
    "unknown share of the input": (
        "base.objective={kind: electra, masking: {mask: 0.8, random: 0.1, keep: 0.1}}",
        "base.objective.masking.keep",
        "unknown key; allowed: mask, random",
    ),
    "missing share of the input": (
        "base.objective={kind: mlm, masking: {mask: 0.8}}",
        "base.objective.masking.random",
        "required, but missing",
    ),
    "shares above one": (
        "base.objective={kind: electra, masking: {mask: 0.8, random: 0.3}}",
        "base.objective.masking",
        "the shares mask and random must add up to at most 1, not 1.1",
    ),
    "share above one": (
        "base.objective={kind: electra, masking: {mask: 1.8, random: 0}}",
        "base.objective.masking.mask",
        "must be at most 1, not 1.8",
    ),
    "unknown reward": (
        "base.objective={kind: adversarial, reward: slots}",
        "base.objective.reward",
        "must be one of own_token, all_tokens, not 'slots'",
    ),
    "unknown first network": (
        "base.objective={kind: adversarial, rule: {kind: alternation, first: encoder}}",
        "base.objective.rule.first",
        "must be one of discriminator, generator, not 'encoder'",
    ),
    "steps of epochs": (
        "base.objective={kind: adversarial, rule: {kind: epoch_alternation, steps: 2}}",
        "base.objective.rule.steps",
        "unknown key; allowed: first, kind, epochs",
    ),
    "number for an auxiliary loss": (
        "base.objective={kind: electra, auxiliary: 0.1}",
        "base.objective.auxiliary",
        "must be a mapping with kind, weight, not 0.1",
    ),
    "no weight of an auxiliary loss": (
        "base.objective={kind: electra, auxiliary: {kind: mlm, weight: 0}}",
        "base.objective.auxiliary.weight",
        "must be at least 1e-06, not 0",
    ),
    "auxiliary loss of another member": (
        "base.objective={kind: two_stage, auxiliary: {kind: mlm}}",
        "base.objective.auxiliary",
        "unknown key; allowed: mask_prob, masking, kind, switch, sampling",
    ),
    "adversarial generator that samples without dropout": (
        "base.objective={kind: adversarial, sampling: {dropout: false}}",
        "base.objective",
        "sampling.dropout must be true",
    ),
    "all weights of two sizes": (
        "base.objective={kind: electra, sharing: all, generator: {width: 0.5}}",
        "base.objective.generator",
        "sharing all requires a generator of the encoder's size",
    ),
    "stage without a share": (
        "base.objective={kind: two_stage, switch: 1}",
        "base.objective.switch",
        "must be below 1, not 1",
    ),
    "temperature of zero": (
        "base.objective.sampling.temperature=0",
        "base.objective.sampling.temperature",
        "must be at least 1e-06, not 0",
    ),
    "unknown size": (
        "base.encoder.size=huge",
        "base.encoder.size",
        "must be one of nano32, nano48, nano, nano96, tiny",
    ),
    "unknown metric": ("metric=glue", "metric", "must be one of detect/unigram/auroc"),
    "empty grid": ("compare.batch=[]", "compare.batch", "needs at least one value"),
    "duplicate value": ("compare.batch=[8, 8]", "compare.batch", "duplicate value"),
    "wrong value in a grid": ("compare.batch=[8, a]", "compare.batch", "with start, end, not 'a'"),
    "empty choices": ("tune.batch={choices: []}", "tune.batch.choices", "must not be empty"),
    "duplicate choice": ("tune.batch={choices: [8, 8]}", "tune.batch.choices", "duplicate value"),
    "reversed range": (
        "tune.batch={low: 9, high: 8}",
        "tune.batch",
        "low must be less than high; 9 is not below 8",
    ),
    "log range from zero": (
        "tune.optim.lr={low: 0, high: 1, log: true}",
        "tune.optim.lr",
        "a log range must have low above 0",
    ),
    "range beyond the limit of its setting": (
        "tune.optim.beta1={low: 0.5, high: 1}",
        "tune.optim.beta1",
        "below 1",
    ),
    "equal cells": ("compare={optim.clip: [1, 1.0]}", "compare", "two cells are equal"),
    "compared evaluations": (
        "compare={evaluations: [1, 2]}",
        "compare.evaluations",
        "cannot be compared: scores at different evaluation counts",
    ),
    "endless range": ("tune.optim.lr={low: 0, high: 1, step: 1e-9}", "tune.optim.lr", "more than"),
    "endless seeds": ("search.seeds=1e9", "search.seeds", "at most"),
    "endless budget": ("base.budget.amount=1e300", "base.budget.amount", "at most"),
    "integer range with a fractional end": (
        "tune.batch={low: 1.5, high: 3, integer: true}",
        "tune.batch",
        "with integer, low, high and step must be whole numbers",
    ),
    "shape without step": (
        "tune.encoder.hidden={low: 64, high: 256, integer: true}",
        "tune.encoder.hidden",
        "a shape setting needs a step",
    ),
    "step of a range that is not a multiple of the heads": (
        "tune.encoder.hidden={low: 64, high: 68, step: 1, integer: true}",
        "base.encoder",
        "hidden 65 is not a multiple of its 4 heads",
    ),
    "encoder that is not a multiple of its heads": (
        "base.encoder={layers: 2, hidden: 100, ffn: 64, heads: 3, embedding: 64}",
        "base.encoder",
        "hidden 100 is not a multiple of its 3 heads",
    ),
    "tuned seed": (
        "tune.seeds.init={low: 1, high: 2}",
        "tune.seeds.init",
        "cannot be tuned: the best score would only reflect a lucky seed",
    ),
    "tuned budget": (
        "tune.budget.amount={low: 1, high: 2}",
        "tune.budget.amount",
        "cannot be tuned",
    ),
    "compared and tuned": (
        "compare.optim.lr=[1e-3]",
        "tune.optim.lr",
        "overlaps with compare.optim.lr; a setting is either compared or tuned",
    ),
    "trials without tuning": ("tune={}", "search.trials", "not 4, because tune is empty"),
    "former key of cores": (
        "resources.cpus=2",
        "resources.cpus",
        "unknown key; allowed: workers, ",
    ),
    "former key of GPUs": (
        "resources.gpus=1",
        "resources.gpus",
        "unknown key; allowed: workers, ",
    ),
    "GPUs of one worker": (
        "resources.gpus_per_worker=2",
        "resources.gpus_per_worker",
        "must be at most 1, not 2",
    ),
    "no worker": ("resources.workers=0", "resources.workers", "must be at least 1, not 0"),
    "more workers than windows": (
        "resources.workers=65",
        "resources.workers",
        "must be at most the smallest batch, 64 windows, not 65",
    ),
    "halving with warm-up": (
        "search.stopping={kind: halving, first_rung: 0.5}",
        "search.stopping",
        "base.schedule {kind: constant, warmup: 0}",
    ),
    "halving by one": (
        "search.stopping={kind: halving, first_rung: 0.5, factor: 1}",
        "search.stopping.factor",
        "must be at least 2, not 1",
    ),
    "halving without a first rung": (
        "search.stopping={kind: halving}",
        "search.stopping.first_rung",
        "required",
    ),
    "halving with an adaptive sampler": (
        "search={sampler: gp, stopping: {kind: halving, first_rung: 0.5}}",
        "search.stopping",
        "does not adapt to scores (grid, random or qmc), not gp",
    ),
    "every setting repeated with an adaptive sampler": (
        "search={sampler: tpe, repeated: every_setting}",
        "search.repeated",
        "does not adapt to scores (grid, random or qmc), not tpe",
    ),
    "every setting repeated, too many trials": (
        "search={trials: 1000, seeds: 1000, repeated: every_setting}",
        "search",
        "1000 search trials on 1000 seeds",
    ),
    "budget below one step": (
        "base.budget.amount=1e3",
        "base.budget.amount",
        "1000 flops are less than one step",
    ),
}


def test_nothing_tuned_has_no_settings_to_repeat(load: Load) -> None:
    with pytest.raises(SpaceError, match=r"search\.repeated: .* at least one setting under tune"):
        load("tune={}", "search={trials: 1, repeated: every_setting}")


HALVING = (
    "search.stopping={kind: halving, first_rung: 0.25}",
    "base.schedule={kind: constant, warmup: 0}",
)


@pytest.mark.parametrize("metric", ["detect/mlm/auroc", "probe/sentiment/accuracy"])
def test_halving_is_accepted_with_a_constant_learning_rate(load: Load, metric: str) -> None:
    """Also with a metric that is computed at the end of a run only."""
    assert load(*HALVING, f"metric={metric}").search.stopping == HalvingConfig(
        kind="halving", first_rung=0.25, factor=2
    )


@pytest.mark.parametrize(
    ("first", "factor", "shares"),
    [(0.25, 2, (0.25, 0.5)), (0.25, 4, (0.25,)), (0.3, 2, (0.3, 0.6)), (0.111, 3, (0.111, 0.333))],
)
def test_rungs_are_growing_shares_of_the_budget(
    load: Load, first: float, factor: int, shares: tuple[float, ...]
) -> None:
    halving = HalvingConfig(kind="halving", first_rung=first, factor=factor)
    trial = search_space.build_trial(load(*HALVING).base, {})
    amounts = [rung.budget.amount / trial.budget.amount for rung in halving.rungs(trial)]
    assert amounts == pytest.approx(shares)
    assert halving.shares == pytest.approx(shares)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("base.schedule={kind: constant, warmup: 0.1}", "{kind: constant, warmup: 0}"),
        ("base.schedule={kind: stable, warmup: 0}", "or {kind: trunk}"),
        ("base.schedule={kind: linear, warmup: 0}", "{kind: constant, warmup: 0}"),
        ("base.objective={kind: two_stage}", "without stages"),
        ("compare.schedule.warmup=[0, 0.1]", "{kind: constant, warmup: 0}"),
        (
            "tune.schedule.kind={choices: [constant, cosine]}",
            "{kind: constant, warmup: 0}",
        ),
    ],
)
def test_halving_is_rejected_if_a_run_does_not_begin_as_a_shorter_one(
    rejection: Callable[..., str], override: str, reason: str
) -> None:
    line = rejection("compare={batch: [64, 128]}", *HALVING, override)
    assert line.startswith("search.stopping: ")
    assert reason in line


def test_halving_is_rejected_with_a_score_of_fine_tuning(rejection: Callable[..., str]) -> None:
    tasks = "finetune={tasks: [sentiment]}"
    line = rejection(*HALVING, tasks, "metric=finetune/sentiment")
    assert line.startswith("search.stopping: finetune/sentiment needs fine-tuning, ")


def test_halving_is_rejected_if_a_rung_is_less_than_a_step(rejection: Callable[..., str]) -> None:
    line = rejection(*HALVING, "search.stopping.first_rung=0.000001")
    assert line.startswith(
        "search.stopping.first_rung: the trials at the rung of 1e-06 of the budget are not valid: "
        "base.budget.amount: "
    )


def test_workers_must_not_exceed_the_smallest_batch(
    rejection: Callable[..., str], load: Load
) -> None:
    batches = "compare={batch: [4, 8]}"
    assert load(batches, "resources.workers=4").resources.workers == 4
    assert rejection(batches, "resources.workers=5") == (
        "resources.workers: must be at most the smallest batch, 4 windows, not 5"
    )
    tuned = "tune={batch: {low: 2, high: 64, step: 2, integer: true}}"
    assert rejection(tuned, "resources.workers=3") == (
        "resources.workers: must be at most the smallest batch, 2 windows, not 3"
    )


def test_budget_in_seconds_is_rejected_on_a_shared_gpu(
    rejection: Callable[..., str], load: Load
) -> None:
    seconds = "base.budget={kind: seconds, amount: 60}"
    for whole in ("0", "1"):
        load(seconds, f"resources.gpus_per_worker={whole}")
    load("resources.gpus_per_worker=0.5")
    line = rejection(seconds, "resources.gpus_per_worker=0.5")
    assert line.startswith(
        "base.budget.kind: seconds are not comparable on a GPU that trials share"
    )


@pytest.mark.reported
@pytest.mark.parametrize("case", WRONG)
def test_error_is_reported_at_its_path(case: str, rejection: Callable[..., str]) -> None:
    override, path, reason = WRONG[case]
    line = rejection(override)
    assert line.startswith(f"{path}: ")
    assert reason in line


def test_incomparable_metric_is_rejected_with_the_metrics_reason(
    rejection: Callable[..., str],
) -> None:
    line = rejection("metric=train/loss", "tune={}", "search.trials=1")
    assert line.startswith("metric: train/loss cannot rank trials that differ in objective.gen")
    assert f": {METRICS['train/loss'].reason}; comparable here: " in line


def test_metric_is_incomparable_between_whole_objectives_as_between_their_settings(
    rejection: Callable[..., str],
) -> None:
    line = rejection(
        "metric=train/loss",
        "compare={objective: [{kind: electra}, {kind: mlm}]}",
        "tune={}",
        "search.trials=1",
    )
    assert "cannot rank trials that differ in objective:" in line


@pytest.mark.parametrize(
    ("compare", "path"),
    [
        ("objective.kind: [electra, random]", "objective.generator.width, which objective sets"),
        ("objective: [{kind: electra}, {kind: random}]", "objective"),
        ("objective.generator.width: [0.25, 0.5]", "objective.generator.width"),
        (
            "objective: [{kind: random}, {kind: random, replacement_distribution: uniform}]",
            "objective",
        ),
        ("encoder.size: [nano, tiny]", "encoder.size"),
    ],
)
def test_unigram_detection_cannot_rank_settings_that_differ_in_their_replacements(
    compare: str, path: str, rejection: Callable[..., str]
) -> None:
    only = ("tune={}", "search.trials=1", f"compare={{{compare}}}")
    line = rejection("metric=detect/unigram/auroc", *only)
    assert line.startswith(
        f"metric: detect/unigram/auroc cannot rank trials that differ in {path}: "
    )
    assert f": {METRICS['detect/unigram/auroc'].reason}; comparable here: " in line


def test_unigram_detection_can_rank_objectives_with_the_same_generator(load: Load) -> None:
    compare = "compare={objective.kind: [electra, electra_15]}"
    loaded = load("metric=detect/unigram/auroc", "tune={}", "search.trials=1", compare)
    assert loaded.metric.name == "detect/unigram/auroc"


def test_metric_of_a_sweep_that_ranks_nothing_may_be_incomparable(load: Load) -> None:
    loaded = load("metric=detect/unigram/auroc", "tune={}", "search.trials=1", "answer=path")
    assert loaded.answer == "path"


def test_detection_metric_needs_a_discriminator(rejection: Callable[..., str]) -> None:
    line = rejection("compare={}", "base.objective.kind=mlm")
    assert line.startswith("metric: detect/mlm/auroc needs a discriminator")
    assert "probe/" in line


@pytest.mark.parametrize("kind", ["mlm", "replace_mlm", "all_tokens_mlm"])
def test_detection_metric_needs_a_discriminator_in_every_compared_objective(
    kind: str, rejection: Callable[..., str]
) -> None:
    grid = f"compare={{objective: [{{kind: electra}}, {{kind: {kind}}}]}}"
    line = rejection(grid)
    assert line.startswith("metric: detect/mlm/auroc needs a discriminator")
    assert f"objective {kind} has none" in line


@pytest.mark.parametrize("kind", ["electra_15", "two_stage", "adversarial", "random"])
def test_detection_metric_ranks_every_objective_with_a_discriminator(kind: str, load: Load) -> None:
    experiment = load(f"compare={{objective: [{{kind: electra}}, {{kind: {kind}}}]}}")
    assert [cell["objective"]["kind"] for cell in search_space.expand_cells(experiment)] == [
        "electra",
        kind,
    ]


def test_invalid_compared_objective_is_reported_under_compare(
    rejection: Callable[..., str],
) -> None:
    whole = "[{kind: adversarial}, {kind: adversarial, sampling: {dropout: false}}]"
    assert rejection(f"compare={{objective: {whole}}}").startswith("compare.objective: the REINFOR")
    part = rejection("base.objective.kind=adversarial", "compare={objective.sharing: [none, some]}")
    assert part.startswith("compare.objective.sharing: must be one of none, tokens")


def test_objectives_of_the_same_kind_have_different_labels(load: Load) -> None:
    kinds = "{kind: electra}, {kind: electra, mask_prob: 0.4}, {kind: electra, sharing: gdes}"
    rules = "{kind: adversarial}, {kind: adversarial, sharing: none, rule: {kind: alternation}}"
    experiment = load(f"compare={{objective: [{kinds}, {rules}]}}")
    labels = [label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)]
    assert labels == [
        "electra",
        "electra, mask_prob 0.4",
        "electra, sharing gdes",
        "adversarial",
        "adversarial, sharing none, rule alternation",
    ]


def test_inputs_of_the_masked_language_model_have_different_labels(load: Load) -> None:
    maskings = "paper, code, {mask: 0.5, random: 0.3}, {mask: 0.5, random: 0.2}"
    kinds = ", ".join(
        f"{{kind: electra, masking: {masking}}}" for masking in ("code", "{mask: 0.5, random: 0}")
    )
    experiment = load(f"compare={{objective.masking: [{maskings}]}}")
    labels = [label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)]
    assert labels == [
        "masking paper",
        "masking code",
        'masking {"mask": 0.5, "random": 0.3}',
        'masking {"mask": 0.5, "random": 0.2}',
    ]
    experiment = load(f"compare={{objective: [{kinds}]}}")
    labels = [label(cell, experiment.compare) for cell in search_space.expand_cells(experiment)]
    assert labels == ["electra, masking code", "electra, mask 0.5, random 0"]


def test_generator_that_is_not_a_multiple_of_its_heads_is_rejected(
    rejection: Callable[..., str],
) -> None:
    width = 200 / 768
    line = rejection("base.encoder.size=base", "base.budget.amount=1e18", "compare={}",
                   f"base.objective.generator.width={width}")  # fmt: skip
    assert line.startswith("base.objective.generator: ")
    assert "hidden size 200, which is not a multiple of its 3 heads" in line


def test_tuned_width_needs_a_step(load: Load, rejection: Callable[..., str]) -> None:
    path = "tune.objective.generator.width"
    assert "needs a step" in rejection("compare={}", path + "={low: 0.25, high: 1}")
    assert load("compare={}", path + "={low: 0.25, high: 1, step: 0.25}").tune


def test_widths_between_the_ends_of_a_range_are_checked(rejection: Callable[..., str]) -> None:
    line = rejection(
        "base.encoder.size=base",
        "base.budget.amount=1e18",
        "compare={}",
        "tune.objective.generator.width={low: 0.25, high: 0.5, step: 0.01}",
    )
    assert "not a multiple of its 3 heads" in line


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    with pytest.raises(SpaceError) as caught:
        search_space.load_experiment(file)
    assert str(caught.value) == f"{file}: no such file or directory"


def test_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="is a directory"):
        search_space.load_experiment(tmp_path)


@pytest.mark.parametrize("text", ["", "- a list", "a word", "3"])
def test_file_without_a_mapping_is_rejected(text: str, rejection: Callable[..., str]) -> None:
    assert rejection(text=text).startswith("a search space is a mapping")


def test_file_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "bytes.yaml"
    file.write_bytes(b"question: \xff")
    with pytest.raises(SpaceError, match=r"bytes\.yaml: not UTF-8 text"):
        search_space.load_experiment(file)


@pytest.mark.parametrize(
    ("line", "text"),
    [(2, "question: q\nmetric: ["), (2, "question: q\n  metric: m"), (1, "question: *none")],
)
def test_invalid_yaml_is_rejected_with_its_line(
    line: int, text: str, rejection: Callable[..., str]
) -> None:
    assert rejection(text=text + "\n").startswith(
        (f"line {line}, column", f"line {line + 1}, column")
    )


@pytest.mark.parametrize("text", ["a: !!python/none x", "a: \x07", "? {b: 1}\n: 2"])
def test_unsupported_yaml_is_rejected(text: str, rejection: Callable[..., str]) -> None:
    assert "not YAML" in rejection(text=text)


@pytest.mark.reported
def test_yaml_without_a_json_equivalent_is_rejected(rejection: Callable[..., str]) -> None:
    assert "contains itself through an alias" in rejection(text="question: &a [*a]")


@pytest.mark.reported
def test_duplicate_key_is_rejected_with_its_line(rejection: Callable[..., str]) -> None:
    assert rejection(text=GOOD + "metric: train/loss\n") == "line 12: metric: duplicate key"
    assert "lr: duplicate key" in rejection(text=GOOD + "x: {lr: 1, lr: 2}\n")


def test_merged_key_may_be_overridden(load: Load) -> None:
    grid = "compare:\n  encoder: [&two {<<: {size: tiny, layers: 1}, layers: 2}]\n"
    text = grid + GOOD.partition("compare:")[0].replace("{size: tiny}", "{<<: *two, layers: 3}")
    experiment = load(text=text)
    assert search_space.build_trial(experiment.base, {}).encoder.layers == 3
    assert experiment.compare == {"encoder": ({"size": "tiny", "layers": 2},)}


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), (".5", 0.5), ("1.5e-4", 1.5e-4), ("2", 2), ("5e-1", 0.5)],
)
def test_numbers_follow_yaml_1_2(written: str, number: float, load: Load) -> None:
    experiment = load(f"base.optim.lr={written}", "tune={}", "search.trials=1")
    assert search_space.build_trial(experiment.base, {}).optim.lr == number


def test_whole_number_may_be_written_with_an_exponent(load: Load) -> None:
    assert search_space.build_trial(load("base.batch=1e2").base, {}).batch == 100


@pytest.mark.parametrize("override", ["base.batch", "=3", "", "base.batch=[", "base.batch=a: b: c"])
def test_invalid_override_is_named(override: str, rejection: Callable[..., str]) -> None:
    assert rejection(override).startswith(f"--set {override}: ")


def test_path_through_a_number_is_rejected(rejection: Callable[..., str]) -> None:
    line = rejection("base.batch=64", "base.batch.size=1")
    assert line == "base.batch.size: batch must be a mapping, not 64"
    line = rejection("base.batch=64", "compare={batch.size: [1]}")
    assert line == "compare.batch.size: batch must be a mapping, not 64"


@pytest.mark.parametrize("path", ["objective.generator.width", "optim.lr"])
def test_base_must_be_valid_even_if_every_cell_overrides_it(
    path: str, rejection: Callable[..., str]
) -> None:
    assert rejection(f"base.{path}=wide").startswith(f"base.{path}: must be a number, not 'wide'")


def test_overrides_are_applied_in_order(load: Load) -> None:
    experiment = load("base.optim.lr=1e-3", "base.optim.lr=2e-3", "search.seeds=7", "tune={}",
                      "search.trials=1")  # fmt: skip
    assert search_space.build_trial(experiment.base, {}).optim.lr == 2e-3
    assert experiment.search.seeds == 7


def test_overrides_replace_compared_values_and_ranges(load: Load) -> None:
    experiment = load("compare.objective.generator.width=[0.5]", "tune.optim.lr={choices: [1e-3]}")
    assert experiment.compare == {"objective.generator.width": (0.5,)}
    assert experiment.tune == {"optim.lr": Choices(choices=(1e-3,))}


def test_overrides_add_missing_keys(load: Load) -> None:
    experiment = load("compare.objective.mask_prob=[0.15, 0.25]", "base.seeds.init=3")
    assert set(experiment.compare) == {"objective.generator.width", "objective.mask_prob"}
    assert search_space.build_trial(experiment.base, {}).seeds.init == 3


def test_cells_are_all_combinations_of_compared_values(load: Load) -> None:
    experiment = load("compare.batch=[64, 128]")
    cells = search_space.expand_cells(experiment)
    assert len(cells) == 6
    assert len({json.dumps(cell) for cell in cells}) == 6
    assert search_space.expand_cells(load("compare={}")) == ({},)


def test_fields_override_those_of_a_named_size(load: Load) -> None:
    base = load("base.encoder.layers=3").base
    built = search_space.build_trial(base, {"encoder.size": "mini"})
    assert built.encoder.layers == 3
    assert built.encoder.hidden == SIZES["mini"].hidden


def test_build_trial_does_not_modify_its_arguments(load: Load) -> None:
    base = load().base
    before, settings = deepcopy(base), {"encoder": {"size": "mini"}, "encoder.layers": 3}
    assert search_space.build_trial(base, settings).encoder.layers == 3
    assert base == before
    assert settings == {"encoder": {"size": "mini"}, "encoder.layers": 3}


@pytest.mark.parametrize("is_reversed", [False, True])
def test_setting_overrides_that_of_its_section_in_any_order(is_reversed: bool, load: Load) -> None:
    pairs = [("objective", {"kind": "electra", "mask_prob": 0.4}), ("objective.mask_prob", 0.2)]
    built = search_space.build_trial(load().base, dict(reversed(pairs) if is_reversed else pairs))
    assert built.objective == ElectraConfig(kind="electra", mask_prob=0.2)


def test_whole_objectives_can_be_compared(load: Load) -> None:
    experiment = load(
        "compare={objective: [{kind: electra}, {kind: mlm}]}", "metric=probe/pos/accuracy"
    )
    kinds = [
        search_space.build_trial(experiment.base, cell).objective
        for cell in search_space.expand_cells(experiment)
    ]
    share = size_defaults.DEFAULTS["tiny"].settings["objective.mask_prob"]
    assert kinds == [
        ElectraConfig(kind="electra", mask_prob=share),
        MlmConfig(kind="mlm", mask_prob=share),
    ]


@pytest.mark.parametrize("size", size_defaults.DEFAULTS)
def test_defaults_of_a_size_do_not_replace_given_settings(load: Load, size: str) -> None:
    paths = size_defaults.DEFAULTS[size].settings
    experiment = load(
        f"base={{encoder: {{size: {size}}}, objective: {{kind: electra}}, "
        "budget: {kind: tokens, amount: 1e9}}",
        "compare={}",
    )
    built = asdict(search_space.build_trial(experiment.base, {}))
    for path, value in paths.items():
        assert reduce(operator.getitem, path.split("."), built) == value
    own = search_space.build_trial(
        experiment.base, {"data.length": 32, "optim.lr": 0.5, "optim.kind": "adam"}
    )
    assert (own.data.length, own.optim.lr, own.optim.kind) == (32, 0.5, "adam")


@pytest.mark.parametrize("length", [16, 31, 32, 128])
def test_long_windows_grow_from_the_length_of_the_size_with_equal_tokens_per_step(
    load: Load, length: int
) -> None:
    built = search_space.build_trial(
        load("base.encoder.size=nano", f"base.data.length={length}").base, {}
    )
    grows = length >= 32
    assert built.windows == (GrowingWindows(kind="growing") if grows else FullWindows())
    assert built.batch == (64 * 16 // length if grows else 64)


def test_given_windows_and_batch_are_not_replaced_by_defaults(load: Load) -> None:
    base = load("base.data.length=64", "base.windows={kind: full}", "base.batch=48").base
    built = search_space.build_trial(base, {})
    assert (built.windows, built.batch) == (FullWindows(), 48)


def test_sizes_of_the_paper_have_full_windows(load: Load) -> None:
    built = search_space.build_trial(
        load("base.encoder.size=small", "base.budget.amount=1e18").base, {}
    )
    assert built.windows == FullWindows()


def test_compared_optimizers_have_the_default_learning_rates_of_the_size(load: Load) -> None:
    experiment = load(
        "compare={optim: [{kind: adam}, {kind: muon}, {clip: 0.5}, {kind: adam, lr: 0.5}]}",
        "tune={}",
        "search.trials=1",
    )
    cells = [
        search_space.build_trial(experiment.base, cell).optim
        for cell in search_space.expand_cells(experiment)
    ]
    own = size_defaults.DEFAULTS["tiny"].optim
    muon = MuonConfig(kind="muon", **own["muon"])
    assert cells == [
        AdamConfig(**own["adam"]),
        muon,
        replace(muon, clip=0.5),
        replace(AdamConfig(**own["adam"]), lr=0.5),
    ]


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
def test_each_optimizer_has_its_own_default_learning_rate(load: Load, kind: str) -> None:
    built = search_space.build_trial(load(f"base.optim.kind={kind}").base, {})
    assert built.optim.kind == kind
    assert built.optim.lr == size_defaults.DEFAULTS["tiny"].optim[kind]["lr"]


def test_default_optimizer_of_an_encoder_without_a_size_is_adam(load: Load) -> None:
    shape = asdict(SIZES["nano"])
    built = search_space.build_trial(
        load(f"base.encoder={json.dumps(shape)}", "base.optim={lr: 0.01}").base, {}
    )
    assert built.optim == AdamConfig(lr=0.01)


def test_sizes_with_incomparable_default_text_are_rejected(load: Load) -> None:
    sizes = "compare={encoder.size: [tiny, small]}"
    with pytest.raises(SpaceError, match=r"differ in data\.(length|vocab), which encoder\.size"):
        load(sizes, "metric=detect/bigram/auroc")
    tuned = "tune={encoder.size: {choices: [tiny, small]}}"
    with pytest.raises(SpaceError, match=r"differ in data\.(length|vocab), which encoder\.size"):
        load("compare={}", tuned, "metric=detect/bigram/auroc")
    fixed = "base.data={length: 16, vocab: 2048}"
    for varied in (sizes, tuned):
        assert load("compare={}", varied, fixed, "metric=detect/bigram/auroc")


def test_detection_can_rank_sizes_with_other_default_mask_probabilities(load: Load) -> None:
    sizes = "compare={encoder.size: [base, large]}", "base.budget.amount=1e20"
    for score in ("auroc", "calibrated_loss"):
        assert load(*sizes, f"metric=detect/bigram/{score}")


def test_whole_numbers_and_initial_scale_can_be_tuned(load: Load) -> None:
    assert load("tune.batch={low: 32, high: 128, integer: true}").tune
    assert load("tune.batch={low: 32, high: 128, step: 32, integer: true}").tune
    assert load("tune.encoder.init_std={low: 1e-2, high: 1e-1, log: true}").tune
    assert load("tune.encoder.dropout={low: 0, high: 0.2}").tune


words = st.sampled_from([*WRONG]).map(lambda case: WRONG[case][0].partition("=")[2])
values = words | st.text(max_size=8) | st.integers().map(str) | st.floats().map(str)
paths = st.sampled_from(
    [*(override.partition("=")[0] for override, _, _ in WRONG.values()), "compare", "base", "a\nb"]
)


@pytest.mark.reported
@given(overrides=st.lists(st.builds("{}={}".format, paths, values), max_size=3))
@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_override_is_accepted_or_rejected_in_one_line(overrides: list[str], load: Load) -> None:
    try:
        load(*overrides)
    except SpaceError as error:
        line = str(error)
    else:
        return
    assert len(line.splitlines()) == 1
    assert "generator_size.yaml: " in line


def valid(document: dict[str, Any]) -> bool:
    return bool(Draft202012Validator(schema.json_schema()).is_valid(document))


def test_schema_is_valid_and_accepts_a_valid_file() -> None:
    Draft202012Validator.check_schema(schema.json_schema())
    assert valid(plain(GOOD))


@pytest.mark.parametrize(
    "path",
    ["x", "base.x", "base.encoder.x", "base.objective.x", "base.objective.generator.x",
     "tune.optim.lr.x", "search.x"],
)  # fmt: skip
def test_schema_rejects_unknown_keys(path: str) -> None:
    document = plain(GOOD)
    document["base"]["objective"]["generator"] = {}
    *parents, last = path.replace("optim.lr", "optim/lr").split(".")
    inner = document
    for parent in parents:
        inner = inner[parent.replace("/", ".")]
    assert valid(document)
    inner[last] = 1
    assert not valid(document)


def test_schema_requires_a_size_or_every_field_of_an_encoder() -> None:
    document = plain(GOOD)
    document["base"]["encoder"] = {"layers": 2}
    assert not valid(document)
    shape = {"layers": 2, "hidden": 64, "ffn": 64, "heads": 1, "embedding": 64}
    document["base"]["encoder"] = shape
    assert valid(document)


def plain(text: str) -> Any:
    """Read YAML as plain JSON data, with the numbers of YAML 1.2."""
    return json.loads(json.dumps(yaml_text.parse(text)))


def test_shipped_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == json.dumps(schema.json_schema(), indent=2) + "\n"


def test_command_prints_the_schema() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab.loading.schema"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == SCHEMA.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_search_spaces_load_and_match_the_schema(file: Path) -> None:
    assert search_space.load_experiment(file).name == file.stem
    validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    validator.validate(plain(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_dumped_experiment_loads_as_the_same_experiment(file: Path, tmp_path: Path) -> None:
    experiment = search_space.load_experiment(file, ("base.batch=64",))
    dumped = tmp_path / file.name
    dumped.write_text(search_space.dump_experiment(experiment), encoding="utf-8")
    assert search_space.load_experiment(dumped) == experiment


@pytest.mark.parametrize(
    ("metric", "kind", "network"),
    [
        ("train/mlm_loss", "electra", "predictor"),
        ("train/generator_loss", "mlm", "generator"),
        ("train/generator_loss", "random", "generator"),
        ("train/discriminator_loss", "all_tokens_mlm", "discriminator"),
    ],
)
def test_metric_of_a_network_that_the_objective_lacks_is_rejected(
    metric: str, kind: str, network: str, rejection: Callable[..., str]
) -> None:
    line = rejection(
        f"metric={metric}", "compare={}", "tune={}", "search.trials=1", "search.sampler=qmc",
        f"base.objective={{kind: {kind}}}",
    )  # fmt: skip
    assert line.startswith(f"metric: {metric} needs a {network} and objective {kind} has none")


def test_run_too_short_to_update_every_network_is_rejected(rejection: Callable[..., str]) -> None:
    line = rejection(
        "compare={}", "tune={}", "search.trials=1", "base.budget={kind: tokens, amount: 40960}",
        "base.objective={kind: two_stage, switch: 0.999}",
    )  # fmt: skip
    assert line.startswith("base.budget.amount: 40960 tokens are ")
    assert "at least 3000" in line


FROZEN = "{kind: frozen, init_from: {kind: mlm, budget: {kind: flops, amount: 1e11}}}"
MLM = "{kind: mlm, budget: {kind: flops, amount: %s}}"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            (f"base.objective.generator={FROZEN}",),
            "base.objective: a frozen generator cannot share weights with a network that is "
            "trained: sharing must be none, not tokens",
        ),
        (
            (f"base.objective={{kind: electra, gen_weight: 2, sharing: none, generator: {FROZEN}}}",
            ),
            "base.objective: gen_weight: must be omitted, because a frozen generator has no loss",
        ),
        (
            (f"base.objective={{kind: adversarial, sharing: none, generator: {FROZEN}}}",),
            "base.objective: an adversarial generator is trained, so it cannot be frozen",
        ),
        (
            ("base.objective.generator={kind: frozen}",),
            "base.objective.generator.init_from: required, but missing",
        ),
        (
            ("base.objective.generator={kind: frozen, init_from: {kind: scratch}}",),
            "base.objective.generator.init_from.kind: must be one of mlm, trial, not 'scratch'",
        ),
        (
            ("base.init_from={kind: mlm, budget: {kind: seconds, amount: 9}}",),
            "base.init_from: the budget of an mlm run must be in flops or tokens, not in seconds",
        ),
        (
            (f"base.init_from={MLM % 1}", "base.objective.sharing=none"),
            "base.init_from.budget.amount: 1 flops are less than one step of the encoder's mlm run",
        ),
        (
            (f"base.objective={{kind: electra, sharing: none, generator: {FROZEN}}}",
             "base.objective.generator.init_from.budget.amount=1"),
            "base.objective.generator.init_from.budget.amount: 1 flops are less than one step of "
            "the generator's mlm run",
        ),
        (
            (f"base.init_from={MLM % '1e11'}", "base.objective.sharing=none",
             "base.budget={kind: seconds, amount: 60}"),
            "base.budget.kind: must be flops or tokens, not seconds, for a trial that starts from "
            "mlm runs, because the budget includes these runs",
        ),
        (
            (f"base.init_from={MLM % '1e11'}",),
            "base.init_from: encoder and generator of different shapes start from separate mlm "
            "runs with different embeddings, but base.objective.sharing: tokens requires equal "
            "ones; use sharing none or gdes, or a generator of width 1 and depth 1",
        ),
        (
            (f"base.objective={{kind: electra, sharing: none, generator: {FROZEN}}}",
             "base.init_from={kind: transformers, discriminator: d, generator: g}"),
            "base.init_from.generator: must be omitted, because the frozen generator is that of "
            "base.objective.generator.init_from",
        ),
    ],
    ids=lambda value: value.partition(": ")[2][:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_invalid_initial_weights_are_rejected_at_their_path(
    overrides: tuple[str, ...], reason: str, rejection: Callable[..., str]
) -> None:
    assert rejection("compare={}", "tune={}", "search={seeds: 1}", *overrides) == reason


def test_preparatory_runs_must_leave_a_part_of_the_budget(rejection: Callable[..., str]) -> None:
    line = rejection(f"base.init_from={MLM % '6e11'}", "base.objective.sharing=none")
    assert re.match(
        r"base\.budget\.amount: 1e\+12 flops, less the 1\.\d+e\+12 of its preparatory mlm runs, "
        r"are less than one step, which costs ",
        line,
    )


def test_trained_and_frozen_generators_can_be_compared(load: Load) -> None:
    compare = f"compare={{objective.generator: [{{width: 0.25}}, {FROZEN}]}}"
    experiment = load("base.objective.sharing=none", compare)
    kinds = [
        type(search_space.build_trial(experiment.base, cell).objective.generator).__name__
        for cell in search_space.expand_cells(experiment)
    ]
    assert kinds == ["GeneratorConfig", "FrozenGeneratorConfig"]
