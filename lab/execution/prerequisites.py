"""What trials need before they start: text, questions, starting weights, tasks; each made once."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path as File
from typing import Any

from lab.config.budget import Spent
from lab.config.data import DataConfig
from lab.config.experiment import Experiment
from lab.config.preparatory_runs import preparatory_runs
from lab.config.results import Outcome
from lab.config.trial import Trial, content_hash
from lab.data import batches, preparation
from lab.data.vocabulary import open_vocabulary
from lab.errors import UserError
from lab.evaluation import corruption
from lab.finetuning import finetuner
from lab.finetuning.results import FinetuneResults
from lab.interop.initial_weights import InitialWeights
from lab.loading import search_space
from lab.loading.task_table import load_task
from lab.storage import record
from lab.storage.mirror import Mirror
from lab.tasks import examples
from lab.tracking import tags
from lab.trials.progress import Tell, ignore_progress

_FROZEN = (
    "training the frozen masked language model that makes the held-out corruptions (once per text)"
)


@dataclass(frozen=True, kw_only=True)
class TrialInputs:
    """What one trial needs.

    Attributes:
        text: folder of the prepared text.
        held_out: file of the frozen corruptions.
        start: file of the weights to start from; None where chance draws them.
        short_text: folder of the text in the short windows that grow; None where none do.
        charged: what its preparatory runs have spent.
        earlier_flops: of earlier trials that it starts from; None where they were not recorded.
    """

    text: File
    held_out: File
    start: File | None
    short_text: File | None = None
    charged: Spent = field(default_factory=Spent)
    earlier_flops: float | None = 0.0

    @property
    def identity(self) -> str:
        """What names it all by its content."""
        either = (self.start, self.short_text)
        made = [self.text, self.held_out, *(file for file in either if file is not None)]
        return content_hash([each.name for each in made])


class Prerequisites:
    """Everything that the trials of a sweep read and did not make.

    Args:
        storage: of the records and caches.
        mirror: what keeps it equal to a storage that is no folder.
        tell: told each phase that takes long, and the share of it that is done.

    Attributes:
        tasks: to fine-tune on, by their files.
    """

    def __init__(self, storage: File, mirror: Mirror, tell: Tell = ignore_progress) -> None:
        self._storage, self._cache = storage, storage / "cache"
        self._mirror, self._tell = mirror, tell
        self._texts: dict[DataConfig, File] = {}
        self._held_out: dict[DataConfig, File] = {}
        self._judged: tuple[str, ...] = ()
        self._seeds = 0
        self._starts = InitialWeights(storage, mirror)
        self.tasks: dict[File, examples.Examples] = {}

    def prepare(self, experiment: Experiment) -> None:
        """Make what the cells of an experiment need, before any trial starts.

        Raises:
            UserError: it cannot be had.
        """
        asked = experiment.finetune
        self._judged, self._seeds = asked.tasks, asked.seeds
        for name in asked.tasks:  # first: a bad row is found at once
            self._tell(f"reading the task {name}", None)
            file = examples.prepare_examples(load_task(name), self._cache)
            self._mirror.push(file)
            self.tasks[file] = examples.open_examples(file)
        for cell in search_space.expand_cells(experiment):
            trial = search_space.build_trial(experiment.base, cell)
            text = self.before(trial).text
            self._starts.of(trial, text)  # what it names; its preparatory runs come later

    def of(self, trial: Trial) -> TrialInputs:
        """Return what a trial needs, made first where it is not there.

        Its preparatory runs (`records`) have finished.
        """
        supply, records = self.before(trial), self.records(trial)
        origin = self._starts.of(trial, supply.text, records)
        if origin is None:
            return supply
        return replace(
            supply,
            start=origin.file,
            charged=_spent(set(records.values())),
            earlier_flops=origin.earlier_flops,
        )

    def before(self, trial: Trial) -> TrialInputs:
        """Return what a trial needs that starts from no other weights, or has yet to get them."""
        text, *short = map(self._text, trial.texts)
        for one in short:
            _check_tokenizers(text, one)
        return TrialInputs(
            text=text,
            held_out=self._questions(trial.data, text),
            start=None,
            short_text=short[0] if short else None,
        )

    def records(self, trial: Trial) -> dict[str, File]:
        """Return the folders of the records of a trial's preparatory runs, by network."""
        return {network: self._record(run) for network, run in preparatory_runs(trial).items()}

    def _record(self, run: Trial) -> File:
        return self._storage / "trials" / run.fingerprint(self.before(run).identity)

    def lacks(self, trial: Trial, folder: File, outcome: Outcome) -> bool:
        """Return whether a trial that has finished has yet to be fine-tuned on something."""
        last = outcome.rows[-1]
        given = finetuner.default_protocol(trial.encoder.hidden)
        for task in self.tasks.values():
            ledger = FinetuneResults(folder, task, given, int(last["spent/steps"]))
            self._mirror.pull(folder, ledger.name)
            summary = ledger.summary(self._seeds)
            if summary is None or not summary.items() <= last.items():
                return True
        return False

    def said(self) -> dict[str, str]:
        """Return what a report tells of the texts, by tag."""
        made = [*self._texts.values(), *self._held_out.values()]
        texts = list(self._texts.values())
        return {
            tags.DATA: " ".join(file.name for file in made),
            tags.TEXT: " ".join(preparation.describe_text(text) for text in texts),
            tags.OVERLAPS: json.dumps({text.name: self._overlaps(text) for text in texts}),
        }

    def _overlaps(self, text: File) -> list[dict[str, Any]]:
        """Return what a text has in common with each task, by the name that metrics use."""
        names = {name: load_task(name).name for name in self._judged}
        found = preparation.read_facts(text)["overlaps"]
        return [
            overlap | {"task": names.get(overlap["task"], overlap["task"])} for overlap in found
        ]

    def _text(self, settings: DataConfig) -> File:
        """Return the folder of the prepared text."""
        if settings not in self._texts:
            asked = f"{settings.vocab} tokens, windows of {settings.length}"
            self._tell(f"preparing the text ({asked})", None)
            say = partial(_told, self._tell, "preparing the text")
            text = preparation.prepare_text(settings, self._cache, say)
            preparation.add_overlaps(text, settings, self._judged, say)
            self._texts[settings] = text
            self._mirror.push(text)
        return self._texts[settings]

    def _questions(self, settings: DataConfig, text: File) -> File:
        """Return the file of the frozen corruptions."""
        if settings not in self._held_out:
            corpus = batches.open_corpus(text)
            told = partial(self._tell, _FROZEN)
            held_out = corruption.prepare_held_out(corpus, settings, self._cache, told)
            self._held_out[settings] = held_out
            self._mirror.push(held_out)
        return self._held_out[settings]


def _spent(folders: Iterable[File]) -> Spent:
    """Return what finished trials have spent together, by their records."""
    ends = [record.read_curve(folder)[-1] for folder in folders]
    return Spent(
        tokens=int(sum(row["spent/tokens"] for row in ends)),
        flops=int(sum(row["spent/flops"] for row in ends)),
        paper_flops=int(sum(row["spent/paper_flops"] for row in ends)),
        six_n=int(sum(row["spent/six_n"] for row in ends)),
        seconds=sum(row["spent/seconds"] for row in ends),
    )


def _check_tokenizers(text: File, short: File) -> None:
    """Refuse two texts that one encoder cannot read."""
    if len({open_vocabulary(folder).fingerprint() for folder in (text, short)}) > 1:
        raise UserError(
            f"{text} and {short} hold one text in windows of two lengths, and their tokenizers "
            f"differ; delete both, and the sweep, run again, makes them anew"
        )


def _told(tell: Tell, phase: str, line: str) -> None:
    tell(f"{phase}: {line}", None)
