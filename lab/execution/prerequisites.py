"""Inputs of trials, each prepared once: texts, held-out corruptions, initial weights and tasks."""

import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path as File
from typing import Any

from lab.config.budget import Spent
from lab.config.data import DataConfig
from lab.config.experiment import Experiment
from lab.config.metrics import PAIRS, finetuned
from lab.config.preparatory_runs import preparatory_runs
from lab.config.results import Outcome
from lab.config.schedules.epochs import check_epochs
from lab.config.trial import Trial, content_hash
from lab.control_characters import make_visible
from lab.data import batches, preparation, prepared_files, text_facts
from lab.data.vocabulary import open_vocabulary
from lab.errors import UserError
from lab.evaluation import corruption, pair_checks, prepared_pairs
from lab.finetuning import finetuner
from lab.finetuning.results import FinetuneResults
from lab.interop.initial_weights import InitialWeights
from lab.loading import search_space
from lab.loading.task_table import load_task
from lab.storage import record
from lab.storage.mirror import Mirror
from lab.tasks import examples, minimal_pairs
from lab.tracking import tags
from lab.tracking.inputs import DataInput, SweepInputs, name_source
from lab.trials.progress import Tell, ignore_progress

_LOG = logging.getLogger(__name__)
_FROZEN = (
    "training the frozen masked language model that makes the held-out corruptions (once per text)"
)


@dataclass(frozen=True, kw_only=True)
class TrialInputs:
    """Inputs of one trial.

    Attributes:
        text: folder of the prepared text.
        held_out: file of the held-out corruptions.
        pairs: file of the minimal pairs, prepared for the text.
        start: file of the initial weights; None where they are drawn at random.
        short_text: folder of the text in short windows; None where the windows do not grow.
        charged: compute that its preparatory runs have spent.
        earlier_flops: FLOPs of the earlier trials that it starts from; None where they were not
            recorded.
    """

    text: File
    held_out: File
    pairs: File
    start: File | None
    short_text: File | None = None
    charged: Spent = field(default_factory=Spent)
    earlier_flops: float | None = 0.0

    @property
    def identity(self) -> str:
        """Hash of the names of all input files; the names are hashes.

        That of the text is a hash of its sources and settings, all others of the files' contents.
        """
        optional = (self.start, self.short_text)
        inputs = [
            self.text,
            self.held_out,
            self.pairs,
            *(file for file in optional if file is not None),
        ]
        return content_hash([each.name for each in inputs])


class Prerequisites:
    """Preparation of the inputs of a sweep's trials.

    Args:
        storage: folder of records and caches.
        mirror: synchronization of `storage` with a remote storage.
        tell: callback that receives each long phase and the share of it that is done.

    Attributes:
        tasks: examples of the tasks to fine-tune on, by file.
    """

    def __init__(self, storage: File, mirror: Mirror, tell: Tell = ignore_progress) -> None:
        self._storage, self._cache = storage, storage / "cache"
        self._mirror, self._tell = mirror, tell
        self._texts: dict[DataConfig, File] = {}
        self._held_out: dict[DataConfig, File] = {}
        self._pairs: dict[DataConfig, File] = {}
        self._pairs_path: str | None = None
        self._task_names: tuple[str, ...] = ()
        self._seeds = 0
        self._starts = InitialWeights(storage, mirror)
        self.tasks: dict[File, examples.Examples] = {}

    def prepare(self, experiment: Experiment) -> None:
        """Prepare the inputs of all cells of an experiment, before any trial starts.

        Raises:
            UserError: a task, a text or initial weights cannot be read, or do not fit; or the text
                has too many windows for the epochs that an objective needs.
        """
        finetune = experiment.finetune
        self._task_names, self._seeds = finetune.tasks, finetune.seeds
        self._pairs_path = experiment.minimal_pairs
        for line in pair_checks.describe_repeated(minimal_pairs.read_pairs(self._pairs_path)):
            _warn(f"{self._pairs_name}: {line}")
        for name in finetune.tasks:  # before the texts, so that an invalid row is reported early
            self._tell(f"reading the task {name}", None)
            file = examples.prepare_examples(load_task(name), self._cache)
            self._mirror.push(file)
            self.tasks[file] = examples.open_examples(file)
            if repeated := self.tasks[file].repeated:
                _warn(f"{name}: {repeated} evaluation examples have the text of a training example")
        for cell in search_space.expand_cells(experiment):
            trial = search_space.build_trial(experiment.base, cell)
            text = self.inputs_without_start(trial).text
            _check_epochs(trial, text)
            # Reads and checks `init_from`; the weights of preparatory runs are read later.
            self._starts.resolve(trial, text)

    def prepare_inputs(self, trial: Trial) -> TrialInputs:
        """Return the inputs of a trial, and prepare those that are missing.

        The trial's preparatory runs (`records`) must have finished.
        """
        inputs, records = self.inputs_without_start(trial), self.records(trial)
        origin = self._starts.resolve(trial, inputs.text, records)
        if origin is None:
            return inputs
        return replace(
            inputs,
            start=origin.file,
            charged=_total_spent(set(records.values())),
            earlier_flops=origin.earlier_flops,
        )

    def inputs_without_start(self, trial: Trial) -> TrialInputs:
        """Return the inputs of a trial but its initial weights, and prepare those missing."""
        text, *short = map(self._text, trial.data_configs)
        for short_text in short:
            _check_tokenizers(text, short_text)
        return TrialInputs(
            text=text,
            held_out=self._held_out_file(trial.data, text),
            pairs=self._pairs_file(trial.data, text),
            start=None,
            short_text=short[0] if short else None,
        )

    def records(self, trial: Trial) -> dict[str, File]:
        """Return the folders of the records of a trial's preparatory runs, by network."""
        return {network: self._record(run) for network, run in preparatory_runs(trial).items()}

    def _record(self, run: Trial) -> File:
        return self._storage / "trials" / run.fingerprint(self.inputs_without_start(run).identity)

    def lacks(self, trial: Trial, folder: File, outcome: Outcome) -> bool:
        """Return whether a finished trial lacks fine-tuning on one of the tasks or seeds."""
        last = outcome.rows[-1]
        protocol = finetuner.default_protocol(trial.encoder.hidden)
        for task in self.tasks.values():
            results = FinetuneResults(folder, task, protocol, int(last["spent/steps"]))
            self._mirror.pull(folder, results.name)
            summary = results.summary(self._seeds)
            if summary is None or not summary.items() <= last.items():
                return True
        return False

    def describe_texts(self) -> dict[str, str]:
        """Return the description of the texts for MLflow and the report, by tag."""
        files = [*self._texts.values(), *self._held_out.values(), *self._pairs.values()]
        texts = list(self._texts.values())
        return {
            tags.DATA: " ".join(file.name for file in files),
            tags.TEXT: " ".join(text_facts.describe_text(text) for text in texts),
            tags.OVERLAPS: json.dumps({text.name: self._overlaps(text) for text in texts}),
            tags.EXAMPLES: json.dumps(self._hash_examples()),
        }

    @property
    def _pairs_name(self) -> str:
        """Name of the minimal pairs in messages."""
        path = self._pairs_path
        return "minimal_pairs" if path is None else f"minimal_pairs: {path}"

    def _hash_examples(self) -> dict[str, str]:
        """Return a hash of the minimal pairs, and of the examples of each task."""
        tasks = {finetuned(task.name).name: task.fingerprint for task in self.tasks.values()}
        return {PAIRS: content_hash(minimal_pairs.read_pairs(self._pairs_path))} | tasks

    def describe_inputs(self) -> SweepInputs:
        """Return the prepared texts and the tasks as inputs of MLflow runs."""
        texts = {}
        for settings, folder in self._texts.items():
            source = asdict(settings)
            name = name_source(source["source"])
            texts[settings] = DataInput(name, folder.name, source, "training")
        tasks = (
            DataInput(task.name, task.fingerprint, asdict(task.config), "fine-tuning")
            for task in self.tasks.values()
        )
        return SweepInputs(texts=texts, tasks=tuple(tasks))

    def _overlaps(self, text: File) -> list[dict[str, Any]]:
        """Return the overlaps of a text with each task; tasks have the names that metrics use."""
        names = {name: load_task(name).name for name in self._task_names}
        facts = prepared_files.read_facts(text)
        return [
            overlap
            | {
                "task": names.get(overlap["task"], overlap["task"]),
                "removed": text_facts.is_decontaminated(facts, overlap),
            }
            for overlap in facts["overlaps"]
            if overlap["task"] != PAIRS or self._pairs_path is None
        ]

    def _text(self, settings: DataConfig) -> File:
        """Return the folder of a prepared text, and prepare it where it is missing."""
        if settings not in self._texts:
            shape = f"{settings.vocab} tokens, windows of {settings.length}"
            self._tell(f"preparing the text ({shape})", None)
            tell_line = partial(_tell_line, self._tell, "preparing the text")
            text = preparation.prepare_text(settings, self._cache, tell_line)
            preparation.add_overlaps(text, settings, self._task_names, tell_line)
            for warning in text_facts.text_warnings(text):
                _warn(warning)
            self._texts[settings] = text
            self._mirror.push(text)
        return self._texts[settings]

    def _held_out_file(self, settings: DataConfig, text: File) -> File:
        """Return the file of a text's held-out corruptions, and make it where it is missing."""
        if settings not in self._held_out:
            corpus = batches.open_corpus(text)
            tell_share = partial(self._tell, _FROZEN)
            self._held_out[settings] = corruption.prepare_held_out(
                corpus, settings, self._cache, tell_share, self._mirror
            )
            corruption.open_held_out(self._held_out[settings])  # raises if the file is damaged
        return self._held_out[settings]

    def _pairs_file(self, settings: DataConfig, text: File) -> File:
        """Return the file of the minimal pairs for a text, and write it where it is missing."""
        if settings not in self._pairs:
            pairs, corpus = minimal_pairs.read_pairs(self._pairs_path), batches.open_corpus(text)
            for line in pair_checks.describe_equal_tokens(corpus.vocabulary, pairs):
                _warn(f"{self._pairs_name}: {line}")
            file = prepared_pairs.prepare_pairs(corpus, pairs, self._cache)
            prepared_pairs.open_pairs(file)  # raises if the file is damaged
            self._pairs[settings] = file
            self._mirror.push(file)
        return self._pairs[settings]


def _total_spent(folders: Iterable[File]) -> Spent:
    """Return the sum of the compute that finished trials have spent, read from their records."""
    ends = [record.read_curve(folder)[-1] for folder in folders]
    return Spent(
        tokens=int(sum(row["spent/tokens"] for row in ends)),
        flops=int(sum(row["spent/flops"] for row in ends)),
        paper_flops=int(sum(row["spent/paper_flops"] for row in ends)),
        six_n=int(sum(row["spent/six_n"] for row in ends)),
        seconds=sum(row["spent/seconds"] for row in ends),
    )


def _check_epochs(trial: Trial, text: File) -> None:
    """Raise `UserError` if the trial has too few epochs of its text for its objective."""
    try:
        check_epochs(trial, prepared_files.read_facts(text)["train"]["windows"])
    except ValueError as error:
        raise UserError(str(error)) from None


def _check_tokenizers(text: File, short: File) -> None:
    """Raise `UserError` if two texts have different tokenizers: one encoder cannot read both."""
    if len({open_vocabulary(folder).fingerprint() for folder in (text, short)}) > 1:
        raise UserError(
            f"{text} and {short}: both hold the same text, in windows of two lengths, but their "
            "tokenizers differ; delete both folders and rerun the sweep, which prepares them again"
        )


def _warn(line: str) -> None:
    _LOG.warning("%s", line)
    print(make_visible(f"lab.sweep: warning: {line}"), file=sys.stderr)


def _tell_line(tell: Tell, phase: str, line: str) -> None:
    tell(f"{phase}: {line}", None)
