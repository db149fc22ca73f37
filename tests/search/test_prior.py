"""Settings of earlier sweeps are proposed first, and a search that continues keeps them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from simulated.search import (
    FFN,
    RATE,
    build_experiment,
    carry_out,
    trials_of,
    with_role,
)

from lab.config.costs.constraints import Constraints
from lab.config.experiment import Experiment, Job, Range, SearchConfig
from lab.config.metrics import METRICS
from lab.config.trial import Path as Dotted
from lab.config.trial import Trial, Value
from lab.errors import UserError
from lab.search.point_notes import read_notes
from lab.search.search import Search

Point = dict[Dotted, Value]


def score(trial: Trial) -> float:
    return float(0.9 - abs(np.log10(trial.optim.lr) + 3) / 10 + trial.encoder.ffn / 10_000)


def earlier(**changes: object) -> Experiment:
    return build_experiment("earlier", **changes)


def later(trials: int = 10, **changes: object) -> Experiment:
    search = SearchConfig(sampler="tpe", trials=trials, seeds=1, seed=1, prior=("earlier",))
    return build_experiment(**({"search": search} | changes))


def points(jobs: list[Job]) -> list[Point]:
    return [job.tuned for job in with_role(jobs, "search")]


def best_first(jobs: list[Job]) -> list[Point]:
    return [j.tuned for j in sorted(with_role(jobs, "search"), key=lambda j: -score(j.trial))]


@pytest.fixture
def storage() -> BaseStorage:
    return InMemoryStorage()


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_best_settings_of_the_earlier_sweep_come_first(
    storage: BaseStorage, tmp_path: Path, sampler: str
) -> None:
    before = carry_out(earlier(), storage, tmp_path, score)
    search = SearchConfig(sampler=sampler, trials=10, seeds=1, seed=1, prior=("earlier",))  # type: ignore[arg-type]
    jobs = carry_out(later(search=search), storage, tmp_path, score)
    assert points(jobs)[:5] == best_first(before)[:5], "at most half of the search's settings"
    proposed = [job.proposed_by for job in with_role(jobs, "search")]
    assert proposed == ["earlier"] * 5 + [""] * 5
    assert not any(tuned in points(before) for tuned in points(jobs)[5:])


def test_trials_of_the_earlier_sweep_are_none_of_the_new_one(
    storage: BaseStorage, tmp_path: Path
) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    jobs = carry_out(later(), storage, tmp_path, lambda trial: score(trial) - 0.2)
    assert len(trials_of(storage, "earlier")) == 8
    own = trials_of(storage)
    assert len(own) == len(with_role(jobs, "search")) == 10
    assert [t.user_attrs.get("proposed_by") for t in own] == ["earlier"] * 5 + [None] * 5
    assert max(t.value for t in own if t.value is not None) < 0.9 - 0.2 + 0.03, "own scores only"


def grow(storage: BaseStorage, notes: Path) -> None:
    """Continue the earlier sweep with settings that are better than all before."""
    more = SearchConfig(sampler="qmc", trials=20, seeds=2)
    carry_out(earlier(search=more), storage, notes, score)


def test_continued_search_keeps_its_settings_although_the_earlier_sweep_has_grown(
    storage: BaseStorage, tmp_path: Path
) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    first = carry_out(later(), storage, tmp_path, score, most=2)
    grow(storage, tmp_path)
    again = carry_out(later(), storage, tmp_path, score)
    assert again[:2] == first
    fresh = carry_out(replace(later(), name="fresh"), storage, tmp_path / "other", score)
    assert points(fresh)[:5] != points(again)[:5], "the earlier sweep has better settings now"


def test_lost_study_is_rebuilt_with_the_settings_that_were_proposed(
    storage: BaseStorage, tmp_path: Path
) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    first = carry_out(later(), storage, tmp_path, score)
    again = carry_out(later(), InMemoryStorage(), tmp_path, score)
    assert again == first


def test_settings_are_fixed_before_the_first_one_is_asked_for(
    storage: BaseStorage, tmp_path: Path
) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    Search(later(), storage, tmp_path)
    grow(storage, tmp_path)
    (notes,) = (n for n in tmp_path.glob("*.jsonl") if '"earlier"' in n.read_text())
    noted = [note.tuned for note in read_notes(notes).values()]
    jobs = carry_out(later(), storage, tmp_path, score)
    assert points(jobs)[:5] == noted


def test_fresh_search_chooses_again(storage: BaseStorage, tmp_path: Path) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    before = points(carry_out(later(), storage, tmp_path, score))[:5]
    grow(storage, tmp_path)
    search = Search(later(), storage, tmp_path, fresh=True)
    job = search.ask()
    assert job is not None
    assert job.tuned not in before


def test_settings_outside_of_the_ranges_are_left_out(storage: BaseStorage, tmp_path: Path) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    narrow = {"encoder.ffn": FFN, "optim.lr": Range(low=5e-4, high=2e-3, log=True)}
    jobs = carry_out(later(tune=narrow), storage, tmp_path, score)
    proposed = [job for job in jobs if job.proposed_by]
    assert 0 < len(proposed) < 5
    assert all(5e-4 <= job.trial.optim.lr <= 2e-3 for job in proposed)


def test_settings_that_violate_a_constraint_are_left_out(
    storage: BaseStorage, tmp_path: Path
) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    jobs = carry_out(later(constraints=Constraints(parameters=80_000)), storage, tmp_path, score)
    assert [job.infeasible for job in jobs if job.proposed_by] == [""] * sum(
        bool(job.proposed_by) for job in jobs
    )


def test_settings_of_the_same_cell_are_preferred(storage: BaseStorage, tmp_path: Path) -> None:
    cells = {"batch": (32, 64)}
    before = carry_out(earlier(compare=cells), storage, tmp_path, score)
    jobs = carry_out(later(compare=cells), storage, tmp_path, score)
    for cell in ({"batch": 32}, {"batch": 64}):
        own = [[job for job in each if job.cell == cell] for each in (before, jobs)]
        assert points(own[1])[:5] == best_first(own[0])[:5]


def test_another_comparison_takes_the_best_of_each_cell_in_turn(
    storage: BaseStorage, tmp_path: Path
) -> None:
    before = carry_out(earlier(compare={"batch": (32, 64)}), storage, tmp_path, score)
    jobs = carry_out(later(search=replace(later().search, trials=12)), storage, tmp_path, score)
    by_cell = [best_first([j for j in before if j.cell == {"batch": b}]) for b in (32, 64)]
    in_turn = [tuned for pair in zip(*by_cell, strict=True) for tuned in pair]
    distinct = [tuned for n, tuned in enumerate(in_turn) if tuned not in in_turn[:n]]
    assert points(jobs)[:6] == distinct[:6]


def test_of_a_sweep_with_two_objectives_its_front_is_proposed(
    storage: BaseStorage, tmp_path: Path
) -> None:
    before = carry_out(earlier(cost="parameters"), storage, tmp_path, score)
    front = {str(job.tuned) for job in with_role(before, "repeat")}
    jobs = carry_out(later(trials=16), storage, tmp_path, score)
    assert {str(job.tuned) for job in jobs if job.proposed_by} == front


def test_study_of_an_earlier_version_is_read(storage: BaseStorage, tmp_path: Path) -> None:
    """It has the attribute `cell` alone, and another code digest in its name."""
    study = optuna.create_study(
        storage=storage, study_name="earlier 0123456789ab", direction="minimize"
    )
    study.set_user_attr("cell", {})
    for rate, loss in ((1e-3, 0.5), (2e-3, 0.4), (5e-3, 0.7)):
        distributions = (
            Search(later(search=SearchConfig()), InMemoryStorage(), tmp_path)
            ._searches[0]
            ._distributions
        )
        study.add_trial(
            optuna.trial.create_trial(
                value=loss,
                params={"encoder.ffn": 64, "optim.lr": rate},
                distributions=distributions,
                user_attrs={"index": 0, "state": "finished"},
            )
        )
    jobs = carry_out(later(), storage, tmp_path, score)
    rates = [job.tuned["optim.lr"] for job in jobs if job.proposed_by]
    assert rates == [2e-3, 1e-3, 5e-3]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("unknown", {}, "has no search of sweep unknown; its searches: earlier"),
        ("earlier", {"tune": {"optim.lr": RATE}}, "no finished search trial of the paths under"),
    ],
)
def test_sweep_that_can_propose_nothing_is_refused(
    storage: BaseStorage, tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    search = replace(later().search, prior=(name,))
    with pytest.raises(UserError, match=message):
        Search(later(search=search, **changes), storage, tmp_path)


def test_scores_of_an_earlier_sweep_may_have_another_metric(
    storage: BaseStorage, tmp_path: Path
) -> None:
    before = carry_out(earlier(), storage, tmp_path, score)
    experiment = later(metric=METRICS["pairs/order/accuracy"])
    search = Search(experiment, storage, tmp_path)
    job = search.ask()
    assert job is not None
    assert job.tuned == best_first(before)[0]


def test_notes_of_a_search_with_a_prior_survive_an_incomplete_line(
    storage: BaseStorage, tmp_path: Path
) -> None:
    carry_out(earlier(), storage, tmp_path, score)
    first = carry_out(later(), storage, tmp_path, score, most=6)
    copy = Path(shutil.copytree(tmp_path, tmp_path / "copy"))
    for file in copy.glob("*.jsonl"):
        with file.open("a") as opened:
            opened.write('\n[9, {"optim.l')
    again = carry_out(later(), InMemoryStorage(), copy, score)
    assert again[:6] == first
