"""The driver of a sweep: asks the search, hands work to the runner, records how it ends.

It is the one writer of the store and of the search's studies. A trial's own record is written
where the trial runs; the driver copies it on, so whatever dies, nothing that ended is lost.
"""

import json
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File

from lab import corruption, data, live, provenance, record, space
from lab.search import Search
from lab.spec import Data, Experiment, Job, Outcome, State, content_hash
from lab.store import Store
from lab.work import Work, slots

# A failed trial may have been the machine's fault; these two say something about the setting.
_SETTLED: tuple[State, ...] = ("finished", "diverged")


class Driver:
    """Runs an experiment; `next`, `done`, `scored` and `ended` make it the runner's source.

    Args:
        experiment: what is asked.
        storage: absolute folder of records and caches, seen by all machines of a cluster.
        store: opened on the tracking URI.
    """

    def __init__(self, experiment: Experiment, storage: File, store: Store) -> None:
        self._experiment = experiment
        self._storage = storage
        self._store = store
        self._search = Search(experiment, f"sqlite:///{storage}/optuna.db", storage / "searches")
        self._slots = slots(experiment.resources)
        self._board = live.Board(experiment.metric, self._search.jobs, self._slots)
        self._view = live.view(self._board)
        self._texts: dict[Data, tuple[File, File]] = {}
        self._out: dict[File, list[Job]] = {}
        self._first: Work | None = None
        self._busy = 0.0
        self._before: dict[File, float] = {}
        self.stop_file = storage / f"stop-{uuid.uuid4().hex}"

    def run(self, command: str) -> None:
        """Run every job that has not ended in this sweep or another, and record all of them.

        Args:
            command: what a person would type to do it again; kept with the results.
        """
        began = time.monotonic()
        datas = {
            space.trial(self._experiment.base, cell).data for cell in space.cells(self._experiment)
        }
        for each in sorted(datas, key=repr):
            self._prepared(each)
        self._begin(command)
        state: State = "interrupted"
        measures: dict[str, float] = {}
        try:
            with self._view:
                self._first = self.next()
                if self._first is not None:
                    from lab import runner  # ray takes seconds to import

                    ready = time.monotonic()
                    with self._stops_gently():
                        runner.run(self, self._experiment.resources, self._storage / "ray")
                    wall = time.monotonic() - ready
                    measures = {
                        "slots": self._slots,
                        "setup_seconds": ready - began,
                        "wall_seconds": wall,
                        "slot_share": self._busy / (self._slots * wall),
                    }
                    if self.stop_file.exists():
                        raise KeyboardInterrupt
            state = "finished"
        finally:
            self._interrupt()
            self.stop_file.unlink(missing_ok=True)
            self._store.close(state, measures)

    def next(self) -> Work | None:
        """Return the next trial to run; one whose record is complete is recorded on the way."""
        if self._first is not None:
            work, self._first = self._first, None
            return work
        if self.stop_file.exists():
            return None
        while (job := self._search.ask()) is not None:
            text, held_out = self._prepared(job.trial.data)
            identity = job.trial.fingerprint(content_hash([text.name, held_out.name]))
            work = Work(
                trial=job.trial,
                folder=self._storage / "trials" / identity,
                text=text,
                held_out=held_out,
                metric=self._experiment.metric,
            )
            outcome = record.read(work.folder)
            if outcome is not None and outcome.state in _SETTLED:
                self._end(job, work.folder, outcome)
            elif work.folder in self._out:  # two settings that came out the same: run once
                self._out[work.folder].append(job)
            else:
                self._out[work.folder] = [job]
                self._before[work.folder] = outcome.busy if outcome else 0.0
                self._store.start(job, work.folder.name)
                self._board.start(job)
                self._view.changed(f"started {live.settings(job)}")
                return work
        return None

    def done(self) -> bool:
        """Return whether every job has ended, or no more are wanted and none is out."""
        return self._search.done or (self.stop_file.exists() and not self._out)

    def scored(self, work: Work) -> None:
        """Log the points that a running trial has added to its record."""
        rows = record.curve(work.folder)
        if rows:
            self._store.log(work.folder.name, rows)
            self._board.row(self._out[work.folder][0], rows[-1])

    def ended(self, work: Work, error: str | None) -> None:
        """Record how a trial ended."""
        outcome = record.read(work.folder)
        if outcome is None:
            outcome = _cut_off("failed", error or "it left no outcome", work.folder)
        self._busy += max(0.0, outcome.busy - self._before.pop(work.folder))
        for job in self._out.pop(work.folder):
            self._end(job, work.folder, outcome)

    def _end(self, job: Job, folder: File, outcome: Outcome) -> None:
        self._store.start(job, folder.name)
        self._store.end(folder.name, outcome)
        if outcome.state != "interrupted":  # it goes on another time; the search still waits
            self._search.tell(job, outcome)
        self._board.end(job, outcome)
        score = outcome.rows[-1].get(self._experiment.metric.name) if outcome.rows else None
        shown = f" {self._experiment.metric.name} {score:.4f}" if score is not None else ""
        why = f": {outcome.reason}" if outcome.reason else ""
        left = self._board.left()
        self._view.changed(
            f"{outcome.state} {live.settings(job)}{shown} in {live.duration(outcome.seconds)}{why}"
            + (f", {left}" if left else "")
        )

    @contextmanager
    def _stops_gently(self) -> Iterator[None]:
        """Let the first Ctrl-C ask running trials to save and end, and the second end at once."""

        def asked(*_: object) -> None:
            if self.stop_file.exists():
                raise KeyboardInterrupt
            self.stop_file.touch()
            self._view.changed("stopping: running trials save their state; Ctrl-C again stops now")

        before = signal.signal(signal.SIGINT, asked)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self) -> None:
        """Say of the trials that were running when the sweep was stopped that they are not."""
        for folder, jobs in self._out.items():
            for job in jobs:
                self._store.start(job, folder.name)
                self._store.end(folder.name, _cut_off("interrupted", "stopped by hand", folder))
        self._out.clear()

    def _begin(self, command: str) -> None:
        names = [f"{text.name} {held_out.name}" for text, held_out in self._texts.values()]
        facts = provenance.facts() | {"command": command, "data": ", ".join(names)}
        self._store.begin(
            self._experiment,
            facts | {"budget": json.dumps(self._experiment.base["budget"])},
            {
                "space.yaml": space.dump(self._experiment),
                "environment.txt": provenance.environment(),
                "diff.patch": provenance.diff(),
            },
        )

    def _prepared(self, settings: Data) -> tuple[File, File]:
        """Return the text and the frozen corruptions, made once for each content."""
        if settings not in self._texts:
            cache = self._storage / "cache"
            print(f"text: {settings.vocab} WordPieces, windows of {settings.length}", flush=True)
            text = data.prepare(settings, cache)
            corpus = data.open_corpus(text)
            said = 0.0

            def progress(share: float) -> None:
                nonlocal said
                if share >= said + 0.25 or share >= 1:
                    said = share
                    print(f"frozen masked language model: {share:.0%}", flush=True)

            self._texts[settings] = text, corruption.prepare(corpus, settings, cache, progress)
        return self._texts[settings]


def _cut_off(state: State, reason: str, folder: File) -> Outcome:
    """Return the outcome of a trial that could not record its own."""
    return Outcome(
        state=state,
        reason=reason,
        rows=record.curve(folder),
        began=time.time(),
        seconds=0.0,
        busy=0.0,
    )
