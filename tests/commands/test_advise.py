"""`python -m lab.advise`: advice from a sweep's trials, refusals with one line, and its files."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from frames.scaling_frames import BUDGETS, LAW, METRIC, RATE, SIZES, scaling_frames

from lab import advise, sweep
from lab.advice import own_runs
from lab.advice.comparisons import read_comparison
from lab.advice.evidence import Evidence, RateEvidence
from lab.advice.own_runs import Sweeps, read_evidence
from lab.advice.stored_rates import read_rates
from lab.errors import UserError
from lab.execution import pace
from lab.loading import search_space
from lab.scaling.law import Law
from lab.tracking import frames, tags
from lab.tracking.frames import SweepFrames

Run = Callable[..., tuple[int, str, str]]
RATES = (5e-4, 1e-3, 2e-3)
WIDTH = "objective.generator.width"
BASE = {"encoder": {"size": "nano", "layers": 2}}


def tuned_loss(parameters: float, tokens: float, rate: float) -> float:
    """Return the loss of the law, which rises with the distance from the best learning rate."""
    best = 1e-3 * (parameters / 1e5) ** -0.1
    law = float(LAW.loss(np.array(parameters), np.array(tokens)))
    return law * (1 + 0.1 * math.log(rate / best) ** 2)


def with_space(sweep: SweepFrames, base: dict[str, object], name: str = "scaling") -> SweepFrames:
    """Return frames with the search space that the store keeps."""
    space = {
        "question": "Which size?",
        "metric": METRIC,
        "base": base | {"budget": {"kind": "flops", "amount": 1e12}},
        "compare": sweep.compare,
        "tune": {RATE: {"low": 5e-4, "high": 2e-3, "log": True}} if sweep.tune else {},
    }
    return dataclasses.replace(sweep, name=name, texts={tags.SPACE_FILE: json.dumps(space)})


@pytest.fixture(scope="module")
def scaling() -> SweepFrames:
    base = BASE | {"objective": {"kind": "mlm"}, "batch": 64}
    return with_space(scaling_frames(tuned_loss, base=base, rates=RATES), base)


@pytest.fixture(scope="module")
def evidence(scaling: SweepFrames) -> Evidence:
    return read_evidence(Sweeps(law=[scaling]))


@pytest.fixture
def run(
    scaling: SweepFrames,
    evidence: Evidence,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Return a function that runs the command on a store with the sweep `scaling` only.

    Its law is fitted once.
    """

    def load(uri: str, name: str, *, storage: str) -> SweepFrames:
        if name != "scaling":
            raise frames.FramesError(f"{name}: the tracking store has no sweep of this name")
        return scaling

    def read(sweeps: Sweeps) -> Evidence:
        alone = len(sweeps.law) == 1 and sweeps.group is sweeps.rates is None
        return evidence if alone else read_evidence(sweeps)

    monkeypatch.setattr(frames, "load_frames", load)
    monkeypatch.setattr(own_runs, "read_evidence", read)
    monkeypatch.chdir(tmp_path)

    def call(*options: str) -> tuple[int, str, str]:
        status = advise.main(list(options))
        output, error = capsys.readouterr()
        return status, output, error

    return call


def test_advice_of_a_sweep_is_printed_and_written_as_a_search_space(
    run: Run, tmp_path: Path
) -> None:
    status, output, error = run("--flops", "1e13", "--output", "advised.yaml")
    assert status == 0, error
    assert "2.5 times the largest budget of scaling" in output
    assert "measured: 10 own runs of" in output
    assert "next:    python -m lab.sweep advised.yaml --dry-run" in output
    experiment = search_space.load_experiment(tmp_path / "advised.yaml")
    trial = search_space.build_trial(experiment.base, {})
    assert (trial.objective.kind, trial.batch, trial.budget.amount) == ("mlm", 64, 1e13)
    assert experiment.metric.name == METRIC
    before = (tmp_path / "advised.yaml").read_bytes()
    status, output, error = run("--flops", "1e13", "--output", "advised.yaml")
    assert (status, output) == (2, "")
    assert "already exists" in error
    assert (tmp_path / "advised.yaml").read_bytes() == before


@pytest.mark.trains
def test_plan_of_the_advised_search_space_is_one_trial_of_the_advised_steps(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pace, "_SECONDS", 0.0)  # as few timed steps as possible
    status, output, _ = run("--flops", "1e13", "--output", "advised.yaml")
    assert status == 0
    (steps,) = re.findall(r"^steps +([\d,]+)", output, re.MULTILINE)
    assert sweep.main(["advised.yaml", "--dry-run", "--storage", "runs"]) == 0
    plan, error = capsys.readouterr()
    assert f"one cell: 1 trials of {steps} steps" in plan
    assert "expected: about" in plan
    assert error == ""


def test_hours_on_a_device_become_flops(run: Run) -> None:
    speed = BUDGETS[-1] / 9.0  # of the largest runs, which take nine seconds
    status, output, _ = run("--gpu-hours", "0.005", "--device", "cpu")
    assert status == 0
    heading = output.splitlines()[0]
    flops = float(heading.split()[2])
    assert flops <= 0.005 * 3600 * speed
    assert "0.005 h on cpu" in heading


@pytest.mark.reported
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--flops", "1e15"), r"run one of 3.33e+13 FLOPs or more first"),
        (("--flops", "1e13", "--sweep", "isoflop"), "--priors prints published settings"),
        (("--flops", "1e13", "--group", "objective mlm"), "scaling has no such runs"),
        (("--flops", "1e13", "--output", "advised.txt"), "ends with .yaml"),
        (("--gpu-hours", "1", "--priors"), "needs --device"),
        (("--gpu-hours", "1e30", "--device", "cpu"), "more than 1e+30 FLOPs on cpu"),
        (("--flops", "1e13", "--priors", "--sweep", "scaling"), "--sweep: has no effect"),
        (("--flops", "1e13", "--priors", "--rates", "scaling"), "--rates: has no effect"),
        (("--gpu-hours", "1", "--priors", "--device", "cpu"), "known from own runs only"),
        (("--flops", "1e13", "--compared", "widths"), "no sweep of this name"),
        (("--flops", "1e13", "--rates", "rates"), "no sweep of this name"),
        (("--flops", "1e13", "--compared", "scaling"), "must compare one of"),
    ],
)
def test_bad_requests_end_with_one_line_and_status_2(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    status, output, error = run(*options)
    assert (status, output) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_priors_need_no_store(run: Run, tmp_path: Path) -> None:
    status, output, _ = run("--flops", "1e18", "--priors", "--output", "p.yaml")
    assert status == 0
    assert "no value is from own runs" in output
    assert search_space.load_experiment(tmp_path / "p.yaml").question


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e31", "much"])
def test_budget_that_is_no_positive_number_is_refused(run: Run, text: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("--flops", text)


def test_evidence_has_the_trials_of_the_law_and_the_trend_of_the_rates(
    evidence: Evidence,
) -> None:
    assert len(evidence.trials) == len(evidence.fit.points) == 2 * len(SIZES) * len(BUDGETS)
    assert {trial.encoder.layers for trial in evidence.trials} == {2}
    assert {trial.budget.amount for trial in evidence.trials} == set(BUDGETS)
    assert {trial.optim.lr for trial in evidence.trials} <= set(RATES)
    assert evidence.rates is not None
    assert evidence.epoch_tokens == pytest.approx(8e6)
    assert evidence.metric == METRIC
    assert isinstance(evidence.fit.law, Law)


def test_runs_of_another_sweep_with_the_same_settings_are_added_to_the_law() -> None:
    base = BASE | {"objective": {"kind": "mlm"}, "batch": 64}
    own = with_space(scaling_frames(tuned_loss, base=base), base)
    compare = {"encoder.size": ("tiny",), "budget.amount": (8e12,)}
    more = with_space(scaling_frames(tuned_loss, base=base, compare=compare), base, "next")
    found = read_evidence(Sweeps(law=[own, more]))
    assert found.sweep == "scaling + next"
    assert found.largest_budget == 8e12
    assert len(found.trials) == len(found.fit.points) == 2 * len(SIZES) * len(BUDGETS) + 2
    assert [trial.budget.amount for trial in found.trials[-2:]] == [8e12, 8e12]
    other = base | {"batch": 32}
    changed = with_space(scaling_frames(tuned_loss, base=other, compare=compare), other, "next")
    with pytest.raises(UserError, match="--sweep next: its runs must have the metric"):
        read_evidence(Sweeps(law=[own, changed]))


def test_sweep_of_one_size_has_no_law() -> None:
    base = BASE | {"objective": {"kind": "mlm"}}
    one = scaling_frames(tuned_loss, base=base, compare={"budget.amount": BUDGETS})
    with pytest.raises(UserError, match=r"scaling: no law of size and tokens: 1 sizes"):
        read_evidence(Sweeps(law=[with_space(one, base)]))


def test_trend_of_the_rates_of_another_sweep_with_several_batches_is_read() -> None:
    base = BASE | {"objective": {"kind": "mlm"}}
    compare = {"encoder.size": SIZES[::2], "budget.amount": BUDGETS[:2], "batch": (32, 64)}
    tuned = scaling_frames(tuned_loss, base=base, compare=compare, rates=RATES, seeds=1)
    tuned = with_space(tuned, base, "rates")
    found = read_rates(tuned, {}, "mlm")
    assert isinstance(found, RateEvidence)
    assert (found.sweep, found.largest_budget) == ("rates", BUDGETS[1])
    assert found.trend.names[0] == "parameters"
    centers = dict(zip(found.trend.names, found.trend.centers, strict=True))
    truth = 1e-3 * (centers["parameters"] / 1e5) ** -0.1
    assert found.trend.rate(**centers).value == pytest.approx(truth, rel=0.05)
    assert (
        read_rates(tuned, {}, "electra") == "its objective is mlm, and that of the law is electra"
    )


def test_sweep_without_tuned_rates_has_no_trend() -> None:
    base = BASE | {"objective": {"kind": "mlm"}, "optim": {"lr": {"rate": 1e-3}}}
    fixed = with_space(scaling_frames(tuned_loss, base=base, seeds=1), base)
    assert read_rates(fixed, {}, "mlm") == "the learning rate was not varied"


def test_compared_width_is_read_with_its_ties_and_only_for_the_same_objective() -> None:
    base = BASE | {"objective": {"kind": "electra", "generator": {"width": 0.5}}}
    compare = {WIDTH: (0.25, 0.5, 1.0)}
    widths = scaling_frames(lambda *_: 2.0, base=base, compare=compare, seeds=4, noise=1e-4)
    scores = widths.trials["score"] + 0.2 * (widths.trials[WIDTH] == 1.0)
    worse = dataclasses.replace(
        widths, name="widths", trials=widths.trials.assign(score=scores, **{METRIC: scores})
    )
    found = read_comparison(worse, "electra")
    assert set(found.tied) == {0.25, 0.5}
    assert (found.path, found.trials, found.budget) == (WIDTH, 12, 1e12)
    with pytest.raises(UserError, match="has objective electra"):
        read_comparison(worse, "mlm")
    untrained = dataclasses.replace(worse, trials=worse.trials.assign(untrained=1.0))
    with pytest.raises(UserError, match="above its untrained"):
        read_comparison(untrained, "electra")
