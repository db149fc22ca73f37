"""`--dry-run`: the plan equals the work of the sweep, and planning writes nothing."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT

from lab.config.budget import Budget, Spent
from lab.config.experiment import Experiment, Range, Resources, SearchConfig
from lab.config.flops import step_cost
from lab.config.metrics import METRICS
from lab.config.trial import Trial
from lab.execution import pace
from lab.loading import search_space
from lab.search import plan
from lab.sweep import main

WIDTH = "objective.generator.width"

SPACE = """\
question: How large should the generator be?
metric: mlm/nats_per_character
base:
  encoder: {size: tiny}
  objective: {kind: electra}
  budget: {kind: flops, amount: 1e11}
compare:
  objective.generator.width: [0.25, 0.5, 1.0]
tune:
  optim.lr: {low: 1e-4, high: 1e-2, log: true}
search: {trials: 4, seeds: 3}
resources: {slots: 2}
"""


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time the smallest possible number of steps, of the smallest possible size."""
    monkeypatch.setattr(pace, "_SECONDS", 0.0)
    monkeypatch.setattr(pace, "_BATCH_FLOPS", 1e8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "space" / "sizes.yaml"
    written.parent.mkdir()
    written.write_text(SPACE, encoding="utf-8")
    return written


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_dry_run_prints_cells_trials_steps_flops_memory_and_the_duration_of_each_phase(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file), "--dry-run"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "How large should the generator be?" in output
    assert "mlm/nats_per_character" in output
    for width in ("0.25", "0.5", "1"):
        assert re.search(rf"width {width}: 7 trials of [\d,]+ steps, [\d.e+]+ FLOPs\n", output)
    assert re.search(r"cells: 3 +trials: 21 +FLOPs: [\d.e+]+ +slots: [12]  .*GiB a trial", output)
    text = "text, 2,048 tokens, windows of 16"
    parts = ("start", text, "frozen masked language model", "Ray", "training", "scoring",
             "report and model", "total")  # fmt: skip
    for part in parts:
        assert re.search(rf"^{part} +(\d+ h )?(\d+ min ?)?(\d+ s)?  \w", output, re.MULTILINE), part
    assert "21 trials, " in output
    assert "optimizer steps timed here for 3 of 3 shapes" in output
    assert re.search(r"\nexpected: about .* on [12] slots?; first score after about ", output)
    assert "power:    with 3 seeds, a difference of " in output


def test_dry_run_writes_nothing(file: Path, cwd: Path) -> None:
    before = file.stat().st_mtime_ns
    assert main([str(file), "--dry-run", "--storage", "runs", "--reports", "reports"]) == 0
    assert list(cwd.iterdir()) == []
    assert [path.name for path in file.parent.iterdir()] == ["sizes.yaml"]
    assert file.stat().st_mtime_ns == before


def test_plan_is_printed_before_slow_libraries_are_imported(file: Path, cwd: Path) -> None:
    slow = {"torch", "ray", "mlflow", "optuna", "transformers", "pandas", "scipy", "datasets"}
    code = f"""
import os, sys
from lab import sweep
def estimate(*_):
    print("slow:", sorted({slow!r} & set(sys.modules)), flush=True)
    os._exit(0)
sweep._estimate = estimate
sweep.main(sys.argv[1:])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(file), "--dry-run"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    before, imported, _ = done.stdout.partition("slow: []\n")
    assert imported
    assert "question: How large should the generator be?" in before
    assert "cells: 3   trials: 21" in before


@pytest.mark.parametrize(
    ("overrides", "warns"),
    [
        (["search.seeds=1"], True),
        (["search.seeds=2"], False),
        (["search.seeds=1", "compare={}"], False),
        (["search.seeds=1", "compare.objective.generator.width=[0.5]"], False),
        (["search.seeds=1", "answer=path"], False),
    ],
)
def test_comparison_with_too_few_repeats_is_planned_with_a_warning(
    overrides: list[str], warns: bool, file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    neutral = ["metric=probe/pos/accuracy", *overrides]
    options = [part for override in neutral for part in ("--set", override)]
    assert main([str(file), *options, "--dry-run"]) == 0
    errors = capsys.readouterr().err
    assert errors.startswith("lab.sweep: warning: search.seeds: 1 ") is warns
    assert errors.count("\n") == warns


def test_confounded_metric_is_planned_with_a_warning(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--set",
        "metric=probe/pos/accuracy",
        "--set",
        "compare={encoder.embedding: [8, 16]}",
    ]
    assert main([str(file), *options, "--dry-run"]) == 0
    errors = capsys.readouterr().err
    assert errors.startswith(
        "lab.sweep: warning: metric: probe/pos/accuracy is confounded with encoder.embedding, in "
    )
    assert errors.count("\n") == 1


def test_metric_that_is_not_neutral_is_planned_with_a_warning(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--set", "metric=detect/mlm/auroc", "--dry-run"]
    assert main([str(file), *options, "--set", "search.seeds=2"]) == 0
    errors = capsys.readouterr().err
    assert errors.startswith(
        "lab.sweep: warning: metric: detect/mlm/auroc is not neutral between trials that differ in "
        "objective.generator.width: "
    )
    assert errors.count("\n") == 1


def test_plan_lists_the_masked_tokens(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = "compare={objective.mask_prob: [0.15, 0.4]}"
    assert main([str(file), "--set", masks, "--dry-run"]) == 0
    assert (
        "masked tokens of a full window:\n"
        "  mask_prob 0.15: 2 of 14 tokens (14.3 %)\n"
        "  mask_prob 0.4: 6 of 14 tokens (42.9 %)\n"
    ) in capsys.readouterr().out


def test_default_number_of_repeats_is_enough_for_an_interval() -> None:
    assert SearchConfig().seeds >= 3


def build_experiment(**changes: object) -> Experiment:
    experiment = Experiment(
        name="planned",
        question="Does it?",
        metric=METRICS["mlm/nats_per_character"],
        base={
            "encoder": {"size": "tiny"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": 1e11},
        },
        compare={WIDTH: (0.25, 0.5, 1.0)},
        tune={},
        search=SearchConfig(seeds=3),
        resources=Resources(),
    )
    return replace(experiment, **changes)


def steps_taken(trial: Trial) -> int:
    """Count steps as the training loop does: stop where one more step increases the distance."""
    cost, spent = step_cost(trial), Spent()

    def distance(spent: Spent) -> float:
        return abs(trial.budget.fraction(spent) - 1)

    while distance(spent.plus(cost, 0.0)) < distance(spent):
        spent = spent.plus(cost, 0.0)
    return spent.steps


@pytest.mark.parametrize("amount", [2.6e9, 1e10, 1e11, 3.7e11])
def test_number_of_steps_is_nearest_to_the_budget(amount: float) -> None:
    base = build_experiment().base | {"budget": {"kind": "flops", "amount": amount}, "batch": 16}
    for cell in plan.plan_cells(build_experiment(base=base)):
        trial = search_space.build_trial(base, cell.settings)
        assert cell.steps == steps_taken(trial)
        assert cell.flops == cell.steps * step_cost(trial).flops
        assert abs(cell.flops - amount) <= step_cost(trial).flops / 2


def test_number_of_steps_is_exact_for_a_budget_in_tokens() -> None:
    base = build_experiment().base | {
        "budget": {"kind": "tokens", "amount": 10 * 16 * 32},
        "batch": 16,
    }
    base |= {"data": {"length": 32}, "windows": {"kind": "full"}}
    assert [cell.steps for cell in plan.plan_cells(build_experiment(base=base))] == [10, 10, 10]


def test_number_of_steps_is_unknown_for_a_budget_in_seconds() -> None:
    base = build_experiment().base | {"budget": {"kind": "seconds", "amount": 90}}
    experiment = build_experiment(base=base)
    cells = plan.plan_cells(experiment)
    assert [(cell.steps, cell.flops) for cell in cells] == [(None, None)] * 3
    assert "as many steps as fit" in plan.plan_heading(experiment, cells, 1)


def test_larger_networks_need_more_memory() -> None:
    base = build_experiment().base | {"budget": {"kind": "flops", "amount": 1e13}}
    sizes = tuple({"size": size} for size in ("tiny", "mini", "small"))
    experiment = build_experiment(base=base, compare={"encoder": sizes})
    memory = [cell.memory for cell in plan.plan_cells(experiment)]
    assert memory == sorted(memory)
    assert 2**20 < memory[0] < memory[-1] < 2**36


def test_number_of_runs_equals_that_of_the_search() -> None:
    lr = Range(low=1e-4, high=1e-2, log=True)
    width = Range(low=1, high=3)
    tuned = {"optim.lr": lr, "objective.disc_weight": width}
    for sampler, runs in (("qmc", 11 + 2), ("grid", 9 + 2)):  # 3 x 3 is the largest grid below 11
        search = SearchConfig(sampler=sampler, trials=11, seeds=2)
        experiment = build_experiment(tune=tuned, search=search)
        assert [cell.runs for cell in plan.plan_cells(experiment)] == [runs] * 3
        every = replace(search, sampler="grid", seeds=4, repeated="every_setting")
        experiment = build_experiment(tune=tuned, search=every)
        assert [cell.runs for cell in plan.plan_cells(experiment)] == [9 * 4] * 3


def test_budget_computes_the_number_of_steps() -> None:
    trial = search_space.build_trial(build_experiment().base, {})
    assert trial.budget == Budget(kind="flops", amount=1e11)
    assert trial.budget.steps(step_cost(trial)) == steps_taken(trial)


@given(
    jobs=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1e4)), min_size=1, max_size=6),
    slots=st.integers(1, 5),
)
def test_makespan_has_no_idle_slots_while_a_job_waits(
    jobs: list[tuple[int, float]], slots: int
) -> None:
    total = sum(count * seconds for count, seconds in jobs)
    longest = max((seconds for count, seconds in jobs if count), default=0.0)
    makespan = plan.estimate_makespan(jobs, slots)
    assert makespan >= max(longest, total / slots) * (1 - 1e-9)
    assert makespan <= (total / slots + longest) * (1 + 1e-9)


def test_makespan_is_the_sum_on_one_slot_and_the_longest_job_on_many() -> None:
    assert plan.estimate_makespan([(3, 2.0), (1, 5.0)], 1) == 11.0
    assert plan.estimate_makespan([(3, 2.0), (1, 5.0)], 4) == 5.0
    assert plan.estimate_makespan([(5, 1.0)], 2) == 3.0


def test_expectation_is_the_sum_of_its_phases_and_names_phases_without_an_estimate() -> None:
    known = plan.Phase(name="training", seconds=600.0, why="12 trials")
    unknown = plan.Phase(name="text", seconds=None, why="on the hub")
    expected = plan.Expectation(phases=(known, unknown), slots=2, first_score=61.0, basis="timed")
    assert expected.seconds == 600.0
    assert expected.line() == (
        "expected: about 10 min on 2 slots, and text; first score after about 60 s"
    )
    assert re.search(r"^text +unknown  on the hub$", plan.plan_table(expected), re.MULTILINE)


@given(seconds=st.floats(1, 1e7))
def test_rounded_duration_is_within_a_tenth_or_five_seconds(seconds: float) -> None:
    number, unit = plan.format_about(seconds).replace(",", "").split()
    rounded = float(number) * {"s": 1, "min": 60, "h": 3_600}[unit]
    assert abs(rounded - seconds) <= max(0.1 * seconds, 5)


STANDALONE = r"^FLOPs: ([\d.e+]+) stand-alone, ([\d.e+]+) marginal \("


def test_plan_of_trunks_has_the_compute_with_and_without_sharing() -> None:
    experiment = search_space.load_experiment(ROOT / "search_spaces" / "trunk.yaml")
    cells = plan.plan_cells(experiment)
    runs = plan.preparatory_phase(experiment)
    amounts = [2.5e11, 5e11, 1e12, 2e12]
    assert [cell.flops for cell in cells] == pytest.approx(amounts, rel=0.01)
    own = [cell.branch_flops for cell in cells]
    assert own == pytest.approx([0.2 * amount for amount in amounts], rel=0.03)
    assert sum(runs.values()) == pytest.approx(3 * 0.8 * 2e12, rel=0.001)
    assert len(runs) == 3 * 4
    heading = plan.plan_heading(experiment, cells, 1)
    assert re.search(
        r"^parts of trunks, each trained once: 12, 4\.[\d]+e\+12 FLOPs$", heading, re.M
    )
    ((alone, marginal),) = re.findall(STANDALONE, heading, re.M)
    (total,) = re.findall(r"trials: 12   FLOPs: ([\d.e+]+) ", heading)
    assert float(alone) == pytest.approx(3 * sum(amounts), rel=0.01)
    assert float(total) == pytest.approx(3 * (0.8 * 2e12 + 0.2 * sum(amounts)), rel=0.01)
    assert marginal == total


def test_plan_of_mlm_runs_has_the_compute_with_and_without_sharing() -> None:
    experiment = search_space.load_experiment(ROOT / "search_spaces" / "frozen.yaml")
    heading = plan.plan_heading(experiment, plan.plan_cells(experiment), 1)
    ((alone, marginal),) = re.findall(STANDALONE, heading, re.M)
    (total,) = re.findall(r"   FLOPs: ([\d.e+]+) ", heading)
    assert float(alone) > float(total)
    assert marginal == total


def test_plan_without_shared_runs_has_one_amount_of_compute() -> None:
    experiment = build_experiment()
    assert "stand-alone" not in plan.plan_heading(experiment, plan.plan_cells(experiment), 1)
