"""Advice from runs of a known law and trend: right within intervals, with sources, refused far."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_runs import LARGEST, LAW, SPEED, own_runs, spent_tokens, true_rate, without_trend

from lab.advice.comparisons import Comparison
from lab.advice.costs import cost_values
from lab.advice.devices import DEVICES, Speeds, find_speeds
from lab.advice.document import plain_settings, write_document
from lab.advice.from_runs import Request, advise_for_hours, advise_from_runs, price_shapes
from lab.advice.shapes import shape_range
from lab.advice.text import describe_advice, next_command
from lab.advice.values import Advice, AdvisedValue
from lab.config.costs.memory import estimate_memory
from lab.config.flops import encoder_weights
from lab.config.schedules.rate_trend import RateDependence, RateTrendConfig
from lab.errors import UserError
from lab.loading import search_space
from lab.scaling.optimum import optimal_sizes
from lab.scaling.profiles import Estimate

CPU = DEVICES["cpu"]
H100 = find_speeds(DEVICES["h100"], ())


def advise(flops: float, speeds: Speeds | None = None) -> Advice:
    return advise_from_runs(own_runs(), Request(flops=flops, speeds=speeds))


@pytest.fixture(scope="module")
def far() -> Advice:
    """Return the advice for 30 times the largest budget."""
    return advise(30 * LARGEST, find_speeds(CPU, own_runs().timings))


def value(advice: Advice, name: str) -> AdvisedValue:
    (found,) = [one for one in advice.values if one.name == name]
    return found


def ends(one: AdvisedValue) -> tuple[float, float]:
    low, high = re.findall(r"[\d.]+(?:e[+-]?\d+)?", one.interval.replace(",", ""))[:2]
    return float(low), float(high)


@pytest.mark.parametrize("factor", [0.5, 5.0, 30.0])
def test_optimal_size_of_the_true_law_is_inside_of_the_interval(factor: float) -> None:
    flops = factor * LARGEST
    advised = advise(flops)
    law = {name: np.array([value]) for name, value in vars(LAW).items()}
    _, per_token = price_shapes(own_runs().shapes, advised.trial)
    (truth,) = optimal_sizes(law, flops, per_token)
    low, high = ends(value(advised, "optimal size (parameters)"))
    assert low < truth < high
    assert per_token(np.array([float(encoder_weights(advised.trial.encoder))])) == pytest.approx(
        flops / spent_tokens(advised.trial)
    )


def test_loss_of_the_advised_shape_is_the_smallest_of_all_shapes_by_the_true_law(
    far: Advice,
) -> None:
    def loss(width: int, layers: int) -> float:
        encoder = replace(
            far.trial.encoder, hidden=width, layers=layers, ffn=4 * width, heads=2, embedding=width
        )
        size = np.array([float(encoder_weights(encoder))])
        tokens = spent_tokens(replace(far.trial, encoder=encoder))
        return float(LAW.loss(size, np.array([tokens]))[0])

    advised = loss(far.trial.encoder.hidden, far.trial.encoder.layers)
    others = [loss(width, 2) for width in range(32, 160, 16)]
    assert advised <= min(others) * 1.001


def test_rate_of_the_true_trend_is_inside_of_its_interval(far: Advice) -> None:
    truth = true_rate(encoder_weights(far.trial.encoder), spent_tokens(far.trial))
    low, high = ends(value(far, "learning rate of the encoder"))
    assert low < truth < high
    assert far.trial.optim.lr == pytest.approx(truth, rel=0.2)


def test_budget_beyond_thirty_times_the_largest_one_is_refused_with_the_budget_to_run() -> None:
    with pytest.raises(UserError, match=r"--flops: .* run one of 4\.13e\+12 FLOPs or more first"):
        advise(31 * LARGEST)


def test_budget_beyond_thirty_times_that_of_the_tuned_rates_is_refused() -> None:
    rates = own_runs().rates
    assert rates is not None
    tuned_small = replace(own_runs(), rates=replace(rates, largest_budget=LARGEST / 40))
    advise_from_runs(tuned_small, Request(flops=0.7 * LARGEST))
    with pytest.raises(UserError, match=r"--flops \(learning rate\)"):
        advise_from_runs(tuned_small, Request(flops=LARGEST))


def test_budget_below_a_step_is_refused() -> None:
    with pytest.raises(UserError, match="less than one step"):
        advise(1e5)


def test_every_value_has_a_source_and_an_interval_unless_it_follows_from_the_advised_shape(
    far: Advice,
) -> None:
    assert {one.source.kind for one in far.values} == {"own runs", "fitted trend", "computed"}
    for one in far.values:
        assert one.source.text
        assert one.interval or one.name in ("parameters of this shape", "training time (cpu)")
        assert (one.interval == "not compared") == (one.source.kind == "own runs")
        assert (one.source.factor is None) == (one.source.kind == "computed")
    factors = [one.source.factor for one in far.values if one.source.factor is not None]
    assert factors == pytest.approx([30.0] * len(factors))


def test_costs_have_the_interval_of_the_size() -> None:
    """Their ends are the costs of the shapes nearest to the ends of the interval of the size."""
    trial = own_runs().model
    shapes, _ = price_shapes(own_runs().shapes, trial)
    small, large = shapes[0], shapes[4]
    low, high = 1.01 * encoder_weights(small), 0.99 * encoder_weights(large)
    size = Estimate(value=encoder_weights(trial.encoder), low=low, high=high, level=0.9)
    costs = {one.name: one for one in cost_values(trial, None, shape_range(shapes, size))}
    trials = [replace(trial, encoder=shape) for shape in (large, small)]
    tokens = [spent_tokens(one) for one in trials]
    assert ends(costs["tokens"]) == pytest.approx(tokens, rel=0.01)
    of_step = trial.batch * trial.data.length
    assert ends(costs["steps"]) == pytest.approx([end / of_step for end in tokens], rel=0.01)
    assert ends(costs["text needed (tokens)"]) == pytest.approx([t / 4 for t in tokens], rel=0.01)
    memory = [estimate_memory(one) / 2**30 for one in reversed(trials)]
    assert ends(costs["memory (GiB, without libraries)"]) == pytest.approx(memory, rel=0.01)


def test_costs_are_open_where_the_runs_do_not_limit_the_size() -> None:
    trial = own_runs().model
    shapes, _ = price_shapes(own_runs().shapes, trial)
    known = float(encoder_weights(shapes[1]))
    size = Estimate(value=known, low=0.0, high=known, level=0.9)
    costs = cost_values(trial, None, shape_range(shapes, size))
    intervals = {one.name: one.interval for one in costs}
    assert intervals["tokens"].endswith(" to open (90%)")
    assert intervals["memory (GiB, without libraries)"].startswith("open to ")


def test_text_names_each_value_its_source_and_the_next_trial(far: Advice) -> None:
    text = describe_advice(far)
    for one in far.values:
        assert one.name in text
        assert one.text in text
    flat = " ".join(text.split())
    assert "40 runs of 1e+11 to 4e+12 FLOPs" in flat
    assert "best rates of artificial at 20 points" in flat
    assert "most informative next trial" in flat


def test_written_search_space_loads_to_the_advised_trial(far: Advice, tmp_path: Path) -> None:
    file = tmp_path / "advised.yaml"
    text = write_document(far, "python -m lab.advise --flops 1.2e14")
    file.write_text(text, encoding="utf-8")
    experiment = search_space.load_experiment(file)
    assert search_space.build_trial(experiment.base, {}) == far.trial
    assert experiment.search.seeds == 1
    comments = " ".join(
        line.strip().removeprefix("# ") for line in text.splitlines() if "#" in line
    )
    for one in far.values:
        if one.path:
            assert f"{one.source.kind}: {one.source.text}" in comments


def test_command_of_the_next_trial_is_accepted(far: Advice, tmp_path: Path) -> None:
    file = tmp_path / "advised.yaml"
    file.write_text(write_document(far, "command"), encoding="utf-8")
    assert far.next_trial is not None
    words = next_command(file, far.next_trial)
    overrides = re.findall(r"--set (?:'([^']*)'|(\S+))", words)
    experiment = search_space.load_experiment(file, tuple(one or other for one, other in overrides))
    assert search_space.build_trial(experiment.base, {}) == far.next_trial.trial
    assert experiment.search.seeds == far.next_trial.runs.runs
    assert far.next_trial.runs.error_after < far.next_trial.runs.error


def test_plain_settings_are_equal_to_the_trial_for_every_named_size() -> None:
    for size in ("nano32", "mini", "base"):
        base = {
            "encoder": {"size": size},
            "objective": {"kind": "electra", "mask_prob": {"start": 0.2, "end": 0.3}},
            "data": {"length": 64},
            "budget": {"kind": "flops", "amount": 1e18},
        }
        trial = search_space.build_trial(base, {})
        assert search_space.build_trial(plain_settings(trial), {}) == trial


def test_size_memory_and_time_do_not_fall_with_the_budget() -> None:
    advised = [advise(factor * LARGEST) for factor in (0.03, 0.3, 3.0, 30.0)]
    sizes = [encoder_weights(one.trial.encoder) for one in advised]
    memory = [float(value(one, "memory (GiB, without libraries)").text) for one in advised]
    assert sizes == sorted(sizes)
    assert memory == sorted(memory)
    speed = find_speeds(CPU, own_runs().timings).of_largest()
    assert speed.flops_per_second == SPEED
    times = [cost_values(one.trial, speed)[-1].text for one in advised[1:]]
    assert times == ["1 min 00 s", "10 min 00 s", "1 h 40 min"]


def test_hours_are_those_of_the_advised_size() -> None:
    """Own runs of small sizes are slow: fewer FLOPs fit into the time than the largest runs say."""
    runs = own_runs()
    largest = max(timing.parameters for timing in runs.timings)
    timings = tuple(
        replace(one, flops_per_second=SPEED * one.parameters / largest) for one in runs.timings
    )
    speeds = find_speeds(CPU, timings)
    hours = LARGEST / SPEED / 3600
    advised = advise_for_hours(runs, hours, speeds, ())
    own = speeds.at(encoder_weights(advised.trial.encoder)).flops_per_second
    assert own < SPEED
    assert advised.trial.budget.amount == pytest.approx(3600 * hours * own, rel=0.01)
    assert f"({hours:g} h on cpu, measured: " in advised.heading


def test_settings_that_vary_between_own_runs_are_called_so() -> None:
    runs = own_runs()
    varied = tuple(
        replace(one, batch=32) if one.encoder.hidden < 64 else one for one in runs.trials
    )
    advised = advise_from_runs(replace(runs, trials=varied), Request(flops=LARGEST))
    batch = value(advised, "batch (windows)")
    assert batch.text == "64"
    assert "40 runs have 2 values" in batch.source.text
    assert "not compared" in value(advised, "mask probability").source.text


def compared(*tied: float, budget: float = LARGEST) -> Comparison:
    path = "objective.generator.width"
    return Comparison(sweep="widths", path=path, tied=tied, trials=12, budget=budget)


def test_setting_that_another_sweep_compares_is_its_best_value_with_a_warning() -> None:
    request = Request(flops=2 * LARGEST, comparisons=(compared(0.25, 0.375, budget=1e12),))
    advised = advise_from_runs(own_runs(), request)
    width = value(advised, "generator width / encoder width")
    assert (width.text, width.interval) == ("0.25", "0.25 to 0.375 (not separable)")
    alone = Request(flops=2 * LARGEST, comparisons=(compared(0.25, budget=1e12),))
    found = value(advise_from_runs(own_runs(), alone), "generator width / encoder width")
    assert found.interval == "separable from all others"
    assert width.source.kind == "own runs"
    assert width.source.factor == pytest.approx(8.0)
    assert width.source.text == (
        "best of widths: 0.25, not separable from 0.375; 12 trials of up to 1e+12 FLOPs"
    )
    assert advised.trial.objective.generator_shape(advised.trial.encoder).hidden == round(
        0.25 * advised.trial.encoder.hidden
    )
    assert any("generator width / encoder width 0.25 is from widths" in w for w in advised.warnings)
    assert advised.next_trial is None


def test_setting_of_the_law_is_kept_if_another_sweep_cannot_tell_it_from_the_best() -> None:
    request = Request(flops=0.5 * LARGEST, comparisons=(compared(0.25, 0.5),))
    advised = advise_from_runs(own_runs(), request)
    assert value(advised, "generator width / encoder width").text == "0.5"
    assert advised.trial == advise(0.5 * LARGEST).trial
    assert advised.warnings == ()


def test_comparison_at_a_fortieth_of_the_budget_is_refused() -> None:
    request = Request(flops=LARGEST, comparisons=(compared(0.25, budget=LARGEST / 40),))
    with pytest.raises(UserError, match=r"--compared widths"):
        advise_from_runs(own_runs(), request)


def test_rate_without_a_trend_is_that_of_the_nearest_size_and_warned_about() -> None:
    advised = advise_from_runs(without_trend(), Request(flops=LARGEST))
    rate = value(advised, "learning rate of the encoder")
    assert rate.text == "0.001"
    assert (rate.interval, rate.source.kind) == ("no interval: no trend", "own runs")
    assert any("no trend: the learning rate was not varied" in text for text in advised.warnings)


def test_rate_without_a_trend_is_that_of_the_power_law_of_the_search_space() -> None:
    config = RateTrendConfig(rate=2e-3, parameters=RateDependence(at=1e5, exponent=-0.2))
    runs = replace(without_trend(), rate_config=config)
    advised = advise_from_runs(runs, Request(flops=LARGEST))
    size = encoder_weights(advised.trial.encoder)
    assert advised.trial.optim.lr == pytest.approx(2e-3 * (size / 1e5) ** -0.2, rel=1e-2)
    rate = value(advised, "learning rate of the encoder")
    assert rate.source.kind == "own runs"
    assert "base.optim.lr" in rate.source.text
    assert any("--rates names a sweep" in text for text in advised.warnings)


def test_more_passes_than_four_over_the_text_are_warned_about(far: Advice) -> None:
    (warning,) = far.warnings
    assert "passes over it" in warning
    assert advise(0.3 * LARGEST).warnings == ()


def test_run_on_a_gpu_asks_for_one_and_a_small_memory_is_warned_about() -> None:
    advised = advise(LARGEST, H100)
    assert "gpus_per_worker: 1" in write_document(advised, "command")
    assert "resources" not in write_document(advise(LARGEST), "command")
    small = replace(H100, device=replace(H100.device, memory=1e6))
    tight = advise(LARGEST, small)
    assert any("micro-batch" in warning for warning in tight.warnings)
