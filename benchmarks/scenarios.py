"""Rows of the table of `benchmarks.whole_search`."""

from typing import Literal

from benchmarks.synthetic_trials import Scenario
from lab.config.experiment import HalvingConfig, SearchConfig

_CELLS = (3, 8, 12)
Sampler = Literal["grid", "qmc", "tpe", "gp"]


def _tuned(sampler: Sampler, trials: int, seeds: int = 4) -> SearchConfig:
    return SearchConfig(sampler=sampler, trials=trials, seeds=seeds)


def _crossed(sampler: Sampler, trials: int, seeds: int = 4) -> SearchConfig:
    return SearchConfig(sampler=sampler, trials=trials, seeds=seeds, repeated="every_setting")


_SEARCHES = {
    "grid": _tuned("grid", 4),
    "qmc": _tuned("qmc", 6),
    "tpe": _tuned("tpe", 8),
    "gp": _tuned("gp", 8),
    "crossed grid": _crossed("grid", 3),
    "crossed qmc": _crossed("qmc", 4),
}

_HALVING = SearchConfig(
    sampler="qmc", trials=8, seeds=4, stopping=HalvingConfig(kind="halving", first_rung=0.25)
)

SCENARIOS = (
    *(Scenario(name="equal cells", cells=cells) for cells in _CELLS),
    *(
        Scenario(name="one cell eight times noisier", cells=cells, seeds=seeds, unequal=True)
        for cells in _CELLS
        for seeds in (3, 4)
    ),
    *(
        Scenario(name="repeats missing, 15 %", cells=cells, failing=0.15, common=1.0)
        for cells in _CELLS
    ),
    *(Scenario(name="repeats diverged, 15 %", cells=cells, diverging=0.15) for cells in _CELLS),
    *(
        Scenario(name="rate searched", cells=cells, search=search)
        for search in _SEARCHES.values()
        for cells in _CELLS
    ),
    *(
        Scenario(name="rate searched, high rates diverge", cells=3, search=search, cliff=True)
        for search in _SEARCHES.values()
    ),
    *(
        Scenario(
            name="rate searched, one cell eight times noisier", cells=3, search=search, unequal=True
        )
        for search in (_SEARCHES["qmc"], _SEARCHES["crossed grid"])
    ),
    *(
        Scenario(
            name="rate searched, 15 % missing, 15 % diverged", cells=3, search=search,
            failing=0.15, diverging=0.15, common=1.0,
        )
        for search in (_SEARCHES["qmc"], _SEARCHES["crossed grid"])
    ),
    *(Scenario(name="rate searched", cells=cells, search=_HALVING) for cells in _CELLS),
)  # fmt: skip
