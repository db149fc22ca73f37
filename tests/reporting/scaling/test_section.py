"""The section on scaling: numbers of the law, refusals in words, and what it leaves out."""

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from frames.scaling_frames import (
    BUDGETS,
    LAW,
    METRIC,
    SIZES,
    follow_law,
    prefer_rate,
    scaling_frames,
)
from pages import contrast

from lab.config.schedules.rate_trend import RateTrendConfig
from lab.loading.schema import validate_rate_trend
from lab.loading.yaml_text import parse
from lab.reporting.figures import svg
from lab.reporting.figures.scaling_plots import plot_rates
from lab.reporting.page import write_report
from lab.reporting.scaling.analysis import FittedGroup, RefusedGroup
from lab.reporting.scaling.csv_tables import BEST_RATES, END_POINTS, list_frames
from lab.reporting.scaling.design_checks import check_design
from lab.reporting.scaling.end_points import group_end_points
from lab.reporting.scaling.estimates import UNLIMITED, format_estimate
from lab.reporting.scaling.generator_ratio import LABEL, RatioTrend, analyze_ratios
from lab.reporting.scaling.interval_contents import expected_largest
from lab.reporting.scaling.law_tables import join_ranges
from lab.reporting.scaling.rate_tables import write_setting
from lab.reporting.scaling.rates import analyze_rates
from lab.reporting.scaling.section import ScalingSection, scaling_section
from lab.reporting.verification.recomputation import verify_with_own_files
from lab.reporting.verification.report_file import NAME, read_report_file
from lab.scaling.profiles import Estimate
from lab.scaling.rate_trend import RateTrend
from lab.tracking.frames import SweepFrames

THREE = {"encoder.size": SIZES[::2], "budget.amount": BUDGETS[1:4]}


@pytest.fixture(scope="module")
def frames() -> SweepFrames:
    compare = {"encoder.size": SIZES, "budget.amount": BUDGETS[1:]}
    return scaling_frames(follow_law(), compare=compare, seed=4)


@pytest.fixture(scope="module")
def written(frames: SweepFrames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(frames, tmp_path_factory.mktemp("reports")).parent


def section_of(frames: SweepFrames) -> ScalingSection:
    found = scaling_section(frames)
    assert found is not None
    return found


def test_report_has_the_parameters_of_the_law_that_the_losses_follow(written: Path) -> None:
    text = (written / "report.md").read_text()
    scaling = text[text.index("\n## Scaling\n") : text.index("\n## All scores\n")]
    for symbol, truth in (("E", LAW.E), ("α", LAW.alpha), ("β", LAW.beta)):
        row = next(line for line in scaling.splitlines() if line.startswith(f"| {symbol} |"))
        low, high = row.partition("[")[2].partition("]")[0].split(", ")
        assert float(low) <= truth <= float(high), row
    assert "encoder without embeddings" in scaling
    assert "the cheapest budget to trust" in text.lower()
    assert (written / "figures" / "isoflop-1.svg").is_file()


def test_runs_of_the_interactive_profiles_are_hidden_by_their_cells(
    written: Path, frames: SweepFrames
) -> None:
    text = (written / "report.html").read_text()
    (spec,) = re.findall(
        r'(?s) id="live-isoflop-1".*?<script type="application/json">(.*?)</script>', text
    )
    cells = dict(zip(frames.trials["number"], frames.trials["cell"], strict=True))
    dots = [trace for trace in json.loads(spec)["traces"] if "customdata" in trace]
    assert dots
    for trace in dots:
        numbers = [int(text.split()[1]) for text in trace["text"]]  # trial 3 (search, finished)
        assert trace["cells"] == [cells[number] for number in numbers]


def test_marks_of_the_figures_contrast_with_both_backgrounds_of_the_page(written: Path) -> None:
    tuned = scaling_frames(
        prefer_rate(1.4e-3), compare=THREE, rates=(1e-3, 2e-3, 4e-3), seeds=1, noise=1e-4
    )
    trend = analyze_rates(group_end_points(tuned))
    assert isinstance(trend, RateTrend)
    files = [written / "figures" / f"{name}-1.svg" for name in ("isoflop", "residuals")]
    for text in (*(file.read_text() for file in files), svg.render_svg(plot_rates(trend))):
        marks = list(contrast.svg_marks(text))
        assert len(marks) > 20
        assert contrast.faint_marks(marks) == []


def test_report_has_a_small_static_figure_of_each_compared_path(
    written: Path, frames: SweepFrames
) -> None:
    page, text = ((written / name).read_text() for name in ("report.html", "report.md"))
    files = sorted((written / "figures").glob("isolation-*.svg"))
    assert [file.stem.removeprefix("isolation-") for file in files] == sorted(frames.compare)
    for file in files:
        assert f"](figures/{file.name})" in text
        assert f'<figure id="{file.stem}">' in page
        assert file.stat().st_size < 20_000


def test_table_of_end_points_has_every_compared_run(written: Path, frames: SweepFrames) -> None:
    rows = list(csv.DictReader((written / END_POINTS).read_text().splitlines()))
    assert [int(row["number"]) for row in rows] == list(frames.trials["number"])
    for row in rows:
        law = LAW.loss(np.array(float(row["parameters"])), np.array(float(row["tokens"])))
        assert float(row["law"]) == pytest.approx(float(law), rel=0.01)
        assert row["excluded"] == ""


def read_rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_files_have_the_lines_and_the_optima_of_the_law(written: Path) -> None:
    truth = {"E": LAW.E, "alpha": LAW.alpha, "beta": LAW.beta}
    parameters = {row["parameter"]: row for row in read_rows(written / "law.csv")}
    for name, value in truth.items():
        assert float(parameters[name]["low"]) <= value <= float(parameters[name]["high"])
    lines = pd.read_csv(written / "isoflop.csv")
    optima = pd.read_csv(written / "optima.csv").query("not extrapolated").set_index("budget")
    assert sorted(set(lines["budget"])) == list(optima.index)
    for budget, line in lines.groupby("budget"):
        best = line.loc[line["law"].idxmin()]
        step = line["parameters"].iloc[1] / line["parameters"].iloc[0]
        inside = line["parameters"].min() < optima["parameters"][budget] < line["parameters"].max()
        assert not inside or 1 / step < best["parameters"] / optima["parameters"][budget] < step
        assert optima["loss_low"][budget] < optima["loss"][budget] < optima["loss_high"][budget]
        if inside:
            assert best["law"] == pytest.approx(optima["loss"][budget], rel=1e-3)


def test_cells_of_the_matrix_link_their_trials(written: Path, frames: SweepFrames) -> None:
    text = (written / "report.html").read_text()
    row = re.search(r"<tr><td>size nano32</td>(.*)</tr>", text)
    assert row is not None
    cells = re.findall(r"<td>\S+ ± \S+ \((\d+)\)<br>(.*?)</td>", row[1])
    trials = frames.trials[frames.trials["encoder.size"] == "nano32"]
    assert len(cells) == len(BUDGETS[1:])
    for (count, links), budget in zip(cells, BUDGETS[1:], strict=True):
        numbers = trials.loc[trials["budget.amount"] == budget, "number"].tolist()
        assert re.findall(r'href="#trial-(\d+)">\1<', links) == list(map(str, numbers))
        assert int(count) == len(numbers)


def test_verification_finds_changed_numbers_of_the_section_and_nothing_else(
    written: Path, tmp_path: Path
) -> None:
    report = Path(shutil.copytree(written, tmp_path / "scaling"))
    text, table = report / "report.md", report / END_POINTS
    text.write_text(text.read_text().replace("| β | 0.", "| β | 9.", 1))
    table.write_text(table.read_text().replace(",1,", ",2,", 1))
    found = verify_with_own_files(report, read_report_file(report / NAME))
    assert {difference.file for difference in found} == {"report.md", END_POINTS}


def test_sweep_without_three_sizes_or_without_a_held_out_loss_has_no_section() -> None:
    few = {"encoder.size": SIZES[:2], "budget.amount": BUDGETS}
    assert scaling_section(scaling_frames(follow_law(), compare=few)) is None
    frames = scaling_frames(follow_law(), compare=THREE)
    sweep = frames.sweep | {"metric": "pairs/accuracy"}
    trials = frames.trials.assign(**{"pairs/accuracy": 0.5})
    ranked = dataclasses.replace(frames, sweep=sweep, trials=trials)
    assert section_of(ranked).laws[0].result.group.metric.name == METRIC
    without = dataclasses.replace(ranked, trials=trials.drop(columns=METRIC))
    assert scaling_section(without) is None
    seconds = dataclasses.replace(frames, trials=frames.trials.assign(**{"budget.kind": "seconds"}))
    assert scaling_section(seconds) is None


def test_refusal_is_a_sentence_and_has_no_number_of_a_law() -> None:
    frames = scaling_frames(lambda _, tokens, __: 2 + 1e6 / tokens, compare=THREE, seeds=1)
    (law,) = section_of(frames).laws
    assert isinstance(law.result, RefusedGroup)
    assert law.text.startswith("No law is reported: no law L(N, D)")
    assert [table.head for table in law.tables] == [("reason", "trials", "numbers")]


def test_runs_past_four_epochs_before_the_plateau_or_not_cooled_down_are_named() -> None:
    frames = scaling_frames(follow_law())
    trials = frames.trials.copy()
    trials["detect/bigram/auroc"] = 0.5
    trials.loc[trials["number"] == 0, "spent/epochs"] = 5.0
    trials.loc[trials["number"] == 1, "schedule.kind"] = "constant"
    learned = {number: 0.5 if number == 2 else 0.7 for number in trials["number"]}
    middle = frames.curves[frames.curves["step"] > 0]
    middle = middle.assign(step=1, **{"spent/tokens": middle["spent/tokens"] / 2})
    curves = pd.concat([frames.curves, middle])
    curves["detect/bigram/auroc"] = curves["number"].map(learned)
    found = section_of(dataclasses.replace(frames, trials=trials, curves=curves))
    rows = {row[2]: row[0] for row in found.laws[0].tables[-1].rows}
    assert rows["0"].startswith("5.0 epochs")
    assert rows["1"].startswith("not cooled down")
    assert rows["2"] == "has not left its plateau"


def test_warnings_name_what_the_design_leaves_open() -> None:
    same = scaling_frames(follow_law(), base={"optim": {"lr": 1e-3}}, seeds=1)
    texts = " ".join(section_of(same).laws[0].warnings)
    assert "all runs have the learning rate 0.001" in texts
    assert "each size and budget has one run" in texts
    assert "objective.mask_prob" in texts
    assert "optimal size is outside" in texts


def test_runs_with_far_fewer_tokens_per_parameter_than_optimal_are_warned_about() -> None:
    frames = scaling_frames(follow_law(), compare=THREE)
    (law,) = section_of(frames).laws
    assert isinstance(law.result, FittedGroup)
    ratios = [end.run.tokens / end.run.parameters for end in law.result.ends]
    for times, warned in ((3, False), (5, True)):
        optima = tuple(
            dataclasses.replace(
                optimum,
                allocation=dataclasses.replace(
                    optimum.allocation, parameters=1.0, tokens=times * float(np.median(ratios))
                ),
            )
            for optimum in law.result.optima
        )
        texts = check_design(frames, dataclasses.replace(law.result, optima=optima))
        found = [text for text in texts if "tokens per parameter" in text]
        assert len(found) == warned
    (text,) = found
    shown = re.findall(r"[\d.]+", text)
    expected = (np.median(ratios), min(ratios), max(ratios), 5 * np.median(ratios))
    assert [float(each.rstrip(".")) for each in shown] == pytest.approx(expected, rel=0.01)


def test_section_says_which_errors_the_intervals_contain(frames: SweepFrames) -> None:
    text = section_of(frames).laws[0].text
    assert "but not the sampling error of the test set, whose blocks are not known" in text
    assert "None of the 40 runs at these settings diverged." in text
    assert "winner's curse" not in text
    rng, trials = np.random.default_rng(0), frames.trials.copy()
    trials.loc[trials["number"].isin([0, 2]), ["state", "reason", "score", METRIC]] = [
        "diverged", "loss is nan", np.nan, np.nan
    ]  # fmt: skip
    blocks = {(number, METRIC): list(rng.standard_normal(20)) for number in trials["number"]}
    changed = dataclasses.replace(frames, trials=trials, blocks=blocks)
    text = section_of(changed).laws[0].text
    assert "sampling error of the test set, from its 20 blocks: it widens them by" in text
    assert "2 of the 40 runs at these settings diverged and are not fitted" in text


@pytest.mark.parametrize("tuned", [True, False])
def test_section_says_how_the_learning_rates_were_chosen(tuned: bool) -> None:
    rates = (5e-4, 1e-3, 2e-3)
    if tuned:
        frames = scaling_frames(follow_law(), compare=THREE, rates=rates, noise=0.001)
    else:
        frames = scaling_frames(follow_law(), compare=THREE | {"optim.lr": rates}, noise=0.001)
    text = section_of(frames).laws[0].text
    if tuned:
        assert "is the best of 3 by one run each. The law is fitted to repeats" in text
    else:
        assert "is the best of 3 by the runs that are fitted" in text


@pytest.mark.parametrize(
    ("count", "expected"), [(2, 1 / np.sqrt(np.pi)), (3, 1.5 / np.sqrt(np.pi))]
)
def test_expected_largest_normal_value_is_the_closed_form(count: int, expected: float) -> None:
    assert expected_largest(count) == pytest.approx(expected, abs=1e-6)


def test_choice_by_one_run_costs_at_most_what_the_section_says() -> None:
    """For any losses of the settings: here from equal ones to those that are far apart."""
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.5, 1.0, 2.0, 8.0):
        losses = spread * rng.standard_normal((20_000, 4))
        seen = losses + rng.standard_normal(losses.shape)
        best = seen.argmin(axis=1)
        cost = losses[np.arange(len(losses)), best] - losses.min(axis=1)
        luck = losses[np.arange(len(losses)), best] - seen.min(axis=1)
        assert cost.mean() <= expected_largest(4)
        assert luck.mean() <= expected_largest(4) * 1.02


def test_one_beta2_and_weight_decay_for_all_batches_is_warned_about() -> None:
    batches = THREE | {"batch": (32, 128)}
    frames = scaling_frames(
        prefer_rate(1.4e-3), compare=batches, rates=(1e-3, 2e-3, 4e-3), seeds=1, noise=1e-4
    )
    (part,) = section_of(frames).rates
    assert isinstance(part.result, RateTrend)
    assert part.text.startswith("Warning: the runs have 512 to 2,048 tokens a step but the same")
    assert not any(
        "tokens a step" in text for law in section_of(frames).laws for text in law.warnings
    )
    one = scaling_frames(prefer_rate(1.4e-3), compare=THREE, rates=(1e-3, 2e-3, 4e-3), seeds=1)
    assert [part.text for part in section_of(one).rates] == [""]
    law = scaling_frames(follow_law())
    trials = law.trials.assign(batch=np.where(law.trials["encoder.size"] == "nano32", 32, 64))
    (part,) = section_of(dataclasses.replace(law, trials=trials)).laws
    assert any("tokens a step but the same optim.beta2" in text for text in part.warnings)


def test_trend_is_written_as_a_setting_that_gives_the_same_rates() -> None:
    frames = scaling_frames(
        prefer_rate(1.4e-3), compare=THREE | {"batch": (32, 128)}, rates=(5e-4, 1e-3, 2e-3, 4e-3),
        seeds=1, noise=1e-4,
    )  # fmt: skip
    (part,) = section_of(frames).rates
    trend = part.result
    assert isinstance(trend, RateTrend)
    assert trend.names == ("parameters", "tokens", "batch")
    setting = validate_rate_trend(parse(write_setting(trend)), "base.optim.lr")
    assert isinstance(setting, RateTrendConfig)
    at = {"parameters": 1e5, "tokens": 1e6, "batch": 1024.0}
    assert setting.rate_at(**at) == pytest.approx(trend.rate(**at).value, rel=0.01)
    assert setting.rate_at(**at) == pytest.approx(1.4e-3, rel=0.05)
    table = list_frames(section_of(frames))[BEST_RATES]
    assert list(table["rate"]) == [optimum.rate for optimum in trend.optima]
    assert (table["low"] < table["trend"]).all()
    assert (table["trend"] < table["high"]).all()


RATIOS = (0.125, 0.25, 0.375, 0.5, 1.0)


def ratio_frames(sizes: Sequence[str], exponent: float = 0.0) -> SweepFrames:
    """Return frames of runs with a best ratio of .3 at 1e12 FLOPs that is a power of the budget."""
    compare = {
        "encoder.size": sizes, "budget.amount": BUDGETS[1:4], "objective.generator.width": RATIOS
    }  # fmt: skip
    frames = scaling_frames(
        follow_law(), compare=compare, base={"objective": {"kind": "electra"}}, rates=(1e-3, 2e-3),
        seeds=1,
    )  # fmt: skip
    trials, rng = frames.trials.copy(), np.random.default_rng(1)
    best = 0.3 * (trials["budget.amount"].astype(float) / 1e12) ** exponent
    apart = np.log(trials["objective.generator.width"].astype(float) / best)
    # Runs of one size and budget have the tokens of the best ratio, up to the cost of the others.
    score = LAW.loss(trials["encoder.hidden"].astype(float) ** 2 * 24, trials["spent/tokens"])
    of_corner = pd.Series(score).groupby([trials["encoder.hidden"], trials["budget.amount"]])
    score = of_corner.transform("mean") * np.exp(0.02 * apart**2)
    score *= np.exp(0.001 * rng.standard_normal(len(trials)))
    return dataclasses.replace(frames, trials=trials.assign(score=score, **{METRIC: score}))


def test_generator_ratio_has_a_line_of_its_own_at_one_size() -> None:
    frames = ratio_frames(("nano",), exponent=-0.1)
    groups = group_end_points(frames)
    found = analyze_ratios(groups, tuned=True)
    assert isinstance(found, RatioTrend)
    assert found.term.exponent.low < -0.1 < found.term.exponent.high
    best = found.term.best(1e12)
    assert best.low < 0.3 < best.high
    section = section_of(frames)
    assert section.ratio is not None
    assert "enters no L(N, D): 1 sizes have enough ratios" in section.ratio.text
    assert len(section.ratio.table.rows) == 3
    untuned = analyze_ratios(groups, tuned=False)
    assert isinstance(untuned, str)
    assert "The rates were not tuned" in untuned
    fewer = analyze_ratios([g for g in groups if "0.375" not in g.label], tuned=True)
    assert isinstance(fewer, str)
    assert "3 budgets with 4 ratios each" in fewer


def test_generator_ratio_enters_the_law_from_three_sizes(tmp_path: Path) -> None:
    frames = ratio_frames(SIZES[:4])
    section = section_of(frames)
    law = section.laws[-1]
    assert law.title == LABEL
    assert isinstance(law.result, FittedGroup)
    assert len(law.result.fit.points) == 4 * 3 * len(RATIOS)
    assert not any("objective.generator.width" in warning for warning in law.warnings)
    assert section.ratio is not None
    assert "L(N, D, r) = (E + A / N^α + B / D^β)" in section.ratio.text
    text = write_report(frames, tmp_path).with_name("report.md").read_text()
    assert f"### {LABEL}" in text
    assert section.ratio.table.head == ("budget", "best ratio r*")


def test_objectives_have_laws_of_their_own() -> None:
    compare = THREE | {"objective": ({"kind": "mlm"}, {"kind": "random"})}
    frames = scaling_frames(follow_law(), compare=compare)
    titles = [law.title for law in section_of(frames).laws]
    assert titles == ["mlm", "random"]
    assert json.loads(frames.sweep["compare"])["objective"]


def test_values_are_never_without_limits() -> None:
    def shown(low: float, high: float) -> str:
        return format_estimate(Estimate(value=0.5, low=low, high=high, level=0.9))

    assert shown(0.4, 0.6) == "0.5 [0.4, 0.6]"
    assert shown(0.0, 0.6) == "at most 0.6"
    assert shown(0.4, np.inf) == "at least 0.4"
    assert shown(0.0, np.inf) == shown(-np.inf, np.inf) == UNLIMITED
    assert join_ranges([1, 2, 3, 5, 8, 9]) == "1–3, 5, 8–9"
