"""`--dry-run`: what would be done is what is done, and saying so does nothing."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab import plan, space, spec
from lab.budget import Budget, Spent
from lab.flops import step_cost
from lab.metrics import METRICS
from lab.sweep import main

ROOT = Path(__file__).parent.parent
WIDTH = "objective.generator.width"

SPACE = """\
question: How large should the generator be?
metric: detect/bigram/auroc
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


def test_dry_run_says_cells_trials_steps_compute_time_and_memory(
    file: Path, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file), "--dry-run"]) == 0
    said, errors = capsys.readouterr()
    assert errors == ""
    assert "How large should the generator be?" in said
    assert "detect/bigram/auroc" in said
    for width in ("0.25", "0.5", "1"):
        assert re.search(rf"width {width}: 7 trials of [\d,]+ steps, [\d.e+]+ FLOPs, ", said)
    assert re.search(r"cells: 3 +trials: 21 +FLOPs: [\d.e+]+ +slots: 2", said)
    assert re.search(r"estimate: [\d.e-]+ hours, [\d.e-]+ GiB a trial", said)


def test_dry_run_writes_nothing(file: Path, cwd: Path) -> None:
    before = file.stat().st_mtime_ns
    assert main([str(file), "--dry-run", "--storage", "runs", "--reports", "reports"]) == 0
    assert list(cwd.iterdir()) == []
    assert [found.name for found in file.parent.iterdir()] == ["sizes.yaml"]
    assert file.stat().st_mtime_ns == before


def test_dry_run_imports_nothing_heavy(file: Path, cwd: Path) -> None:
    heavy = {"torch", "ray", "mlflow", "optuna", "transformers", "pandas", "matplotlib", "datasets"}
    code = (
        "import sys; from lab.sweep import main; status = main(sys.argv[1:]); "
        f"print('heavy:', sorted({heavy!r} & set(sys.modules))); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(file), "--dry-run"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


def experiment(**changes: object) -> spec.Experiment:
    asked = spec.Experiment(
        name="planned",
        question="Does it?",
        metric=METRICS["detect/bigram/auroc"],
        base={
            "encoder": {"size": "tiny"},
            "objective": {"kind": "electra"},
            "budget": {"kind": "flops", "amount": 1e11},
        },
        compare={WIDTH: (0.25, 0.5, 1.0)},
        tune={},
        search=spec.Search(seeds=3),
        resources=spec.Resources(),
    )
    return replace(asked, **changes)


def steps_taken(trial: spec.Trial) -> int:
    """Walk the loop's own rule, without its arithmetic: stop where one step more is further off."""
    cost, spent = step_cost(trial), Spent()

    def off(spent: Spent) -> float:
        return abs(trial.budget.fraction(spent) - 1)

    while off(spent.plus(cost, 0.0)) < off(spent):
        spent = spent.plus(cost, 0.0)
    return spent.steps


@pytest.mark.parametrize("amount", [2.6e9, 1e10, 1e11, 3.7e11])
def test_steps_are_those_that_come_nearest_to_the_budget(amount: float) -> None:
    base = experiment().base | {"budget": {"kind": "flops", "amount": amount}, "batch": 16}
    for cell in plan.estimate(experiment(base=base)):
        trial = space.trial(base, cell.settings)
        assert cell.steps == steps_taken(trial)
        assert cell.flops == cell.steps * step_cost(trial).flops
        assert abs(cell.flops - amount) <= step_cost(trial).flops / 2


def test_steps_of_tokens_are_exact() -> None:
    base = experiment().base | {"budget": {"kind": "tokens", "amount": 10 * 16 * 32}, "batch": 16}
    base |= {"data": {"length": 32}}
    assert [cell.steps for cell in plan.estimate(experiment(base=base))] == [10, 10, 10]


def test_steps_of_seconds_are_the_clocks() -> None:
    base = experiment().base | {"budget": {"kind": "seconds", "amount": 90}}
    cells = plan.estimate(experiment(base=base))
    assert [(cell.steps, cell.flops, cell.seconds) for cell in cells] == [(None, None, 90.0)] * 3
    assert "as many steps as fit" in plan.text(experiment(base=base), cells, 1)


def test_larger_networks_need_more_memory() -> None:
    base = experiment().base | {"budget": {"kind": "flops", "amount": 1e13}}
    sizes = tuple({"size": size} for size in ("tiny", "mini", "small"))
    asked = experiment(base=base, compare={"encoder": sizes})
    memory = [cell.memory for cell in plan.estimate(asked)]
    assert memory == sorted(memory)
    assert 2**20 < memory[0] < memory[-1] < 2**36


def test_runs_are_those_that_the_search_hands_out() -> None:
    lr = spec.Range(low=1e-4, high=1e-2, log=True)
    width = spec.Range(low=1, high=3)
    tuned = {"optim.lr": lr, "objective.disc_weight": width}
    for sampler, runs in (("qmc", 11 + 2), ("grid", 9 + 2)):  # 3 x 3 is the largest grid below 11
        search = spec.Search(sampler=sampler, trials=11, seeds=2)
        asked = experiment(tune=tuned, search=search)
        assert [cell.runs for cell in plan.estimate(asked)] == [runs] * 3


def test_budget_says_how_many_steps_without_a_plan() -> None:
    trial = space.trial(experiment().base, {})
    assert trial.budget == Budget(kind="flops", amount=1e11)
    assert trial.budget.steps(step_cost(trial)) == steps_taken(trial)
