"""Search runs of MLflow."""

from collections.abc import Iterable
from typing import Any

from lab.tracking import tags

_PAGE = 1_000  # runs per response of a search


def search_runs(client: Any, experiment: str, query: str) -> list[Any]:
    """Return all runs of an experiment that match a query, `_PAGE` runs per request.

    Args:
        client: MLflow client.
        experiment: identity of the experiment.
        query: filter in MLflow's search syntax.
    """
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], query, max_results=_PAGE, page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def drop_duplicates(runs: Iterable[Any]) -> list[Any]:
    """Return the child runs of a sweep with one run for each number and fingerprint of a trial.

    Processes on two machines that continue the same remote storage at the same time can both create
    a run for a trial. A finished run is kept rather than another one, then the earliest one.
    """
    kept: dict[tuple[str, ...], Any] = {}
    for run in sorted(runs, key=_order):
        kept.setdefault(_trial(run), run)
    return list(kept.values())


def _order(run: Any) -> tuple[bool, int, str]:
    state = run.data.tags.get(tags.full_name(tags.STATE))
    return state != "finished", run.info.start_time, run.info.run_id


def _trial(run: Any) -> tuple[str, ...]:
    names = (tags.NUMBER, tags.FINGERPRINT, tags.CODE)
    return tuple(run.data.tags.get(tags.full_name(name), "") for name in names)
