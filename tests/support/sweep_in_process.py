"""Run the command of a sweep in this process, with a score that needs no computation."""

import shutil
from pathlib import Path

import pytest
from prepared_text import PreparedText, copy_held_out

from lab.display import live
from lab.display.board import Board
from lab.execution.driver import Driver
from lab.execution.site import Site
from lab.loading import search_space
from lab.storage import record
from lab.storage.mirror import Mirror
from lab.tracking import frames
from lab.tracking.client import default_uri
from lab.tracking.frames import SweepFrames
from lab.tracking.store import MlflowStore
from lab.trials import run
from lab.trials.scorers import Scorer


class OneScore(Scorer):
    """Takes one score without any computation, so that a trial takes milliseconds."""

    def score_end(self, objective: object) -> dict[str, float]:  # noqa: ARG002
        return {"probe/pos/accuracy": 0.5}

    score_interim = score_end


def make_storage(storage: Path, prepared_text: PreparedText, held_out: Path) -> Path:
    """Return a new storage with the prepared text and the held-out corruptions of the trials."""
    shutil.copytree(prepared_text.text, storage / "cache" / prepared_text.text.name)
    copy_held_out(held_out, storage / "cache")
    return storage


class SweepInProcess:
    """The command of a sweep in this process; its trials run one after another.

    Args:
        storage: storage of the sweep; holds the prepared text and the held-out corruptions.
        mirror: synchronization of the storage.
        space: search space, in YAML.
        scorer: scores of the trials.

    Attributes:
        storage: storage of the sweep.
        trained: description and number of own steps of each run, in order.
    """

    def __init__(
        self, storage: Path, mirror: Mirror, space: str, scorer: type[Scorer] = OneScore
    ) -> None:
        self.storage, self._mirror, self._space = storage, mirror, space
        self._scorer = scorer
        self.trained: list[str] = []

    def _run_in_this_process(self, driver: Driver, began: float) -> dict[str, float]:
        del began
        driver._board.slots = 2
        while (work := driver.next()) is not None:
            rows = record.read_curve(work.folder)
            driver.on_start(work)
            outcome = run.run_trial(work.localize("process"))
            driver.on_end(work, None)
            start = rows[-1]["spent/steps"] if rows else 0
            kind = "trunk" if work.trial.extendable else work.trial.objective.kind
            end = outcome.rows[-1]["spent/steps"]
            self.trained.append(f"{kind} {start:.0f}-{end:.0f}")
        return {}

    def __call__(self, space: str = "", *, fresh: bool = False, again: str = "") -> SweepFrames:
        """Run the sweep and return its frames.

        Args:
            space: another search space, in YAML.
            fresh: whether all trials run again.
            again: name of a trial that runs again; "" for none.
        """
        file = self.storage / "sweep.yaml"
        file.write_text(space or self._space)
        self.trained.clear()
        experiment = search_space.load_experiment(file)
        store = MlflowStore(default_uri(self.storage), self.storage / "artifacts")
        names = frozenset([self.storage / "trials" / again] if again else ())
        site = Site(storage=self.storage, mirror=self._mirror, ray="", fresh=fresh, again=names)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "AllScores", self._scorer)
            patch.setattr(Driver, "_carry_out", lambda *args: self._run_in_this_process(*args))
            with live.open_view(Board(experiment.metric)) as view:
                Driver(experiment, site, store, view).run("test")
        return frames.load_frames(default_uri(self.storage), "sweep")
