"""`python -m lab.init TEXTS`: write a search space for your own text.

    python -m lab.init texts/
    python -m lab.init "texts/*.txt" --minutes 60
    python -m lab.init reviews.csv --task labelled.csv --output reviews.yaml

The command measures the text and chooses settings for the given time on this machine. A comment
above each setting gives the reason and the measured figure. A file of labelled rows becomes a task,
on which the sweep fine-tunes its encoders.
"""

import argparse
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING

from lab import cli
from lab.config.experiment import Resources
from lab.errors import UserError
from lab.loading import search_space
from lab.trials import assignment

if TYPE_CHECKING:
    from lab.suggestion.compute_tiers import RunDesign
    from lab.suggestion.facts import Facts
    from lab.suggestion.file_samples import Say
    from lab.suggestion.recommend import Recommendation
    from lab.suggestion.task_draft import TaskDraft

_PROGRESS_INTERVAL = 2.0  # seconds between two lines of progress
_MIN_FLOPS = 2e10  # FLOPs of a trial; about ten steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # as in `lab.sweep`, of which steps are timed
    # As Ctrl-C: the files of a task that are already written are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return cli.run("lab.init", "nothing was written", _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "init",
        "Write a search space for your own text, for a given time on this machine.",
        "python -m lab.init lab/text/corpus/austen.jsonl.xz --output austen.yaml",
    )
    parser.add_argument(
        "texts",
        nargs="+",
        metavar="TEXTS",
        help="files, folders or globs: .txt .jsonl .csv .tsv .parquet, also .gz .bz2 .xz .zst",
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="FILE",
        dest="tasks",
        help="task to fine-tune on: a name of the lab's table, a YAML file, or labelled rows (.csv "
        ".tsv .jsonl .parquet); a second --task gives the evaluation rows (default: no task)",
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=30.0,
        help="duration of the sweep on this machine (default: %(default)g)",
    )
    parser.add_argument(
        "--output",
        type=File,
        metavar="FILE",
        help="search space to write; must not exist (default: TEXTS' name with .yaml)",
    )
    return parser


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
    if not 0 < minutes <= 1e6:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1e6")
    return minutes


def _main(options: argparse.Namespace) -> None:
    from lab.storage import new_files
    from lab.suggestion import commented_yaml, task_draft

    output = options.output or File(f"{_stem(options.texts[0])}.yaml")
    if output.suffix not in {".yaml", ".yml"}:
        raise UserError(f"--output {output}: the name of a search space ends with .yaml")
    new_files.check_not_there(output, "--output")
    draft = task_draft.draft_task(options.tasks, output) if options.tasks else None
    with new_files.write_all({} if draft is None else draft.contents):
        text = _Text(tuple(options.texts), draft, _print_progress())
        recommendation = _recommend(text, options.minutes, output.stem)
        heading = _heading(options, text, recommendation)
        content = commented_yaml.write_commented(recommendation.document, heading)
        with new_files.write_all({output: content}):
            search_space.load_experiment(output)
    _print_summary(output, draft, heading)


class _Text:
    """A surveyed text, which can be measured with vocabularies of different sizes.

    Args:
        texts: files, folders and globs.
        draft: task to fine-tune on, with its files written; None for no task.
        say: callback that receives lines of progress.

    Attributes:
        survey: figures of the text.

    Raises:
        UserError: the text cannot be read, or is too small.
    """

    def __init__(self, texts: tuple[str, ...], draft: "TaskDraft | None", say: "Say") -> None:
        from lab.suggestion import file_samples, source_guess, task_draft, text_survey
        from lab.suggestion import tokenizer_settings as tokenizer

        paths = source_guess.expand_paths(texts)
        samples = file_samples.read_samples(paths, say)
        self._guess = source_guess.guess_source(paths, samples)
        self.survey = text_survey.survey_text(self._guess, samples, say)
        self._draft, self._say = draft, say
        cased = draft is not None and task_draft.is_tagging(draft)
        self._tokenizer = tokenizer.recommend_tokenizer(self.survey, cased=cased)

    def facts(self, vocab: int) -> "Facts":
        """Return the figures of the text as tokens.

        Args:
            vocab: requested size of the vocabulary; `survey_tokens` may take another one.

        Raises:
            UserError: the text is too small.
        """
        from lab.suggestion import facts, task_draft, token_survey, tokenizer_settings

        self._say(f"learning a vocabulary of about {vocab:,} tokens from a sample")
        settings = tokenizer_settings.tokenizer_config(self._tokenizer)
        tokens = token_survey.survey_tokens(settings, vocab, self.survey.sample)
        draft = self._draft
        figures = facts.Facts(
            guess=self._guess,
            text=self.survey,
            tokenizer=self._tokenizer,
            tokens=tokens,
            task=None if draft is None else task_draft.task_facts(draft, tokens.tokenizer),
        )
        facts.check_text_size(figures)
        return figures


def _recommend(text: _Text, minutes: float, name: str) -> "Recommendation":
    """Return a search space that takes about `minutes` on this machine.

    Raises:
        UserError: the time is too short for any search space.
    """
    from lab.suggestion import compute_tiers, recommend

    facts = text.facts(compute_tiers.TABLE[0].count("data.vocab"))
    design = compute_tiers.DESIGNS[-1]
    flops = 1e12  # initial guess
    for _ in range(2):  # the second estimate is made near the size and design that are chosen
        flops = _affordable_flops(facts, flops, design, minutes, name)
        design = compute_tiers.pick_design(flops, before=design)
    flops = _affordable_flops(facts, flops, design, minutes, name)
    vocab = compute_tiers.pick_size(flops).count("data.vocab")
    if vocab > facts.tokens.requested:
        facts = text.facts(vocab)
    allowed = f"{minutes:g} minutes on {_slots()} cores of this machine"
    return recommend.recommend(facts, flops, design, allowed)


def _affordable_flops(
    facts: "Facts", near: float, design: "RunDesign", minutes: float, name: str
) -> float:
    """Return the FLOPs of a trial with which the sweep is estimated to take `minutes`.

    The estimated time is linear in the FLOPs of a trial: preparation, scoring and fine-tuning do
    not depend on them.

    Args:
        facts: figures of the text.
        near: FLOPs of a trial for which the encoder's size is chosen.
        design: learning rates and repeats of a cell.
        minutes: duration of the sweep.
        name: name of the search space.

    Raises:
        UserError: `minutes` are too few for preparation, scoring and the shortest trials.
    """
    from lab.execution import expectation
    from lab.suggestion import commented_yaml, recommend
    from lab.tracking.client import default_uri

    draft = commented_yaml.to_plain(recommend.recommend(facts, near, design, "").document)

    def estimate_seconds(flops: float) -> float:
        draft["base"]["budget"]["amount"] = flops
        experiment = search_space.check_experiment(name, draft)
        uri = default_uri(File("runs"))
        return expectation.estimate_sweep(experiment, None, _slots(), uri).seconds

    short, long = estimate_seconds(1e11), estimate_seconds(1e13)
    slope = (long - short) / (1e13 - 1e11)
    fixed = short - 1e11 * slope
    flops = (60 * minutes - fixed) / slope
    if flops < _MIN_FLOPS:
        raise UserError(
            f"--minutes {minutes:g}: too few for {len(recommend.WIDTHS)} widths with "
            f"{design.seeds} seeds each; preparation, scoring and {_MIN_FLOPS:.0e} FLOPs a trial "
            f"take about {(fixed + _MIN_FLOPS * slope) / 60:.2g} minutes"
        )
    return flops


def _slots() -> int:
    return max(1, assignment.count_slots(Resources(), [assignment.local_resources(gpus=False)]))


def _heading(options: argparse.Namespace, text: _Text, recommendation: "Recommendation") -> str:
    """Return the search space's heading: the command, the text's figures and the warnings."""
    survey = text.survey
    estimated = "" if survey.share == 1 else f" (estimated from {survey.share:.2%} of it)"
    scripts = ", ".join(
        f"{script} {share:.1%}" for script, share in survey.scripts.items() if share > 0.0005
    )
    lines = [
        f"Written by python -m lab.init for {' '.join(options.texts)[:200]}",
        f"Text: {survey.files:,} {'file' if survey.files == 1 else 'files'}, "
        f"{survey.stored / 1e6:,.1f} MB, {survey.documents:,} "
        f"documents with a median of {survey.median_document:,.0f} characters, "
        f"{survey.characters:,} characters, {survey.words:,} words{estimated}; "
        f"{survey.duplicates:.1%} of the documents are duplicates, which are dropped.",
        f"Letters: {scripts}.",
        *(f"WARNING: {warning}." for warning in recommendation.warnings),
    ]
    return "\n".join(lines)


def _print_summary(output: File, draft: "TaskDraft | None", heading: str) -> None:
    """Print the heading, the written files and the commands that run the search space."""
    for line in heading.splitlines()[1:]:
        print(line, file=sys.stderr if line.startswith("WARNING") else sys.stdout)
    for file in [*([] if draft is None else draft.contents), output]:
        print(f"written: {file}")
    name = shlex.quote(str(output))
    print(f"next:    python -m lab.sweep {name} --dry-run\n         python -m lab.sweep {name}")


def _stem(text: str) -> str:
    """Return a file's or folder's name without suffixes; of a glob, the last plain component."""
    plain = [part for part in File(text).parts if not re.search(r"[*?\[]", part)]
    name = File(text).resolve().name if File(text).exists() else (plain[-1] if plain else "")
    return name.split(".")[0].replace("+", "_") or "text"  # a sweep's name has no "+"


def _print_progress() -> "Say":
    """Return a callback that prints at most one line of progress in `_PROGRESS_INTERVAL`."""
    began = printed = time.monotonic()

    def say(line: str) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed >= _PROGRESS_INTERVAL:
            printed = now
            print(f"[{now - began:6.1f} s] {line}", flush=True)

    return say


if __name__ == "__main__":
    cli.execute(main)
