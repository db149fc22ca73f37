"""`python -m lab.init TEXTS`: write a search space for your own text.

    python -m lab.init texts/
    python -m lab.init "texts/*.txt" --minutes 60
    python -m lab.init reviews.csv --task labelled.csv --output reviews.yaml

Looks at the text, chooses settings for the time and this machine, and says in a comment beside each
setting which figure it was chosen by. A labelled file becomes a task, on which the sweep then
fine-tunes.
"""

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path as File
from typing import TYPE_CHECKING

from lab import cli
from lab.config.experiment import Resources
from lab.errors import UserError
from lab.loading import search_space
from lab.trials import assignment

if TYPE_CHECKING:
    from lab.suggestion.file_samples import Say
    from lab.suggestion.recommend import Facts, Recommendation, RunDesign
    from lab.suggestion.task_draft import TaskDraft

_SAID = 2.0  # seconds between two lines of progress
_LEAST = 2e10  # FLOPs of a trial, some ten steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `command.run`."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `sweep`, whose steps are timed here
    return cli.run("lab.init", "nothing was written", partial(_main, given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.init",
        description="Write a search space for your own text, for a stated time on this machine.",
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
        help="fine-tune on this: a task's YAML file, or labelled rows (.csv .tsv .jsonl .parquet); "
        "a second --task gives the rows to be scored on",
    )
    parser.add_argument("--minutes", type=_minutes, default=30.0, help="of the sweep (default: 30)")
    parser.add_argument(
        "--output", type=File, metavar="FILE", help="search space (default: named after the text)"
    )
    return parser


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= 1e6:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1e6")
    return minutes


def _main(given: argparse.Namespace) -> None:
    from lab.storage import new_files
    from lab.suggestion import commented_yaml, task_draft

    output = given.output or File(f"{_stem(given.texts[0])}.yaml")
    if output.suffix not in {".yaml", ".yml"}:
        raise UserError(f"--output {output}: the name of a search space ends with .yaml")
    new_files.check_not_there(output, "--output")
    draft = task_draft.draft_task(given.tasks, output) if given.tasks else None
    with new_files.write_all({} if draft is None else draft.contents):
        text = _Text(tuple(given.texts), draft, _progress())
        made = _fitted(text, given.minutes, output.stem)
        heading = _heading(given, text, made)
        content = commented_yaml.write_commented(made.document, heading)
        with new_files.write_all({output: content}):
            search_space.load_experiment(output)
    _conclude(output, draft, heading)


class _Text:
    """A text that is looked at, and measured with a vocabulary of any size.

    Args:
        texts: files, folders and globs.
        draft: of a task whose files are written; None for none.
        say: called with lines of progress.

    Raises:
        UserError: it cannot be read, or is too small.
    """

    def __init__(self, texts: tuple[str, ...], draft: "TaskDraft | None", say: "Say") -> None:
        from lab.suggestion import file_samples, recommend, source_guess, task_draft, text_survey

        paths = source_guess.expand_paths(texts)
        read = file_samples.read_samples(paths, say)
        self._guess = source_guess.guess_source(paths, read)
        self.survey = text_survey.survey_text(self._guess, read, say)
        self._draft, self._say = draft, say
        cased = draft is not None and task_draft.is_tagging(draft)
        self._tokenizer = recommend.recommend_tokenizer(self.survey, cased=cased)

    def facts(self, vocab: int) -> "Facts":
        """Return all figures, with a vocabulary of this size or near it."""
        from lab.suggestion import recommend, task_draft, token_survey

        self._say(f"learning a vocabulary of about {vocab:,} tokens from a sample")
        chosen = recommend.is_trained(self._tokenizer)
        tokens = token_survey.survey_tokens(chosen, vocab, self.survey.sample)
        draft = self._draft
        facts = recommend.Facts(
            guess=self._guess,
            text=self.survey,
            tokenizer=self._tokenizer,
            tokens=tokens,
            task=None if draft is None else task_draft.task_facts(draft, tokens.tokenizer),
        )
        recommend.check_text_size(facts)
        return facts


def _fitted(text: _Text, minutes: float, name: str) -> "Recommendation":
    """Return the search space that takes about so many minutes on this machine.

    Raises:
        UserError: that is too short a time for any.
    """
    from lab.suggestion import recommend

    facts = text.facts(recommend.TABLE[0].count("data.vocab"))
    design = recommend.DESIGNS[-1]
    flops = 1e12  # a first guess
    for _ in range(2):  # the second time at about the size and the design that are chosen
        flops = _flops(facts, flops, design, minutes, name)
        design = recommend.pick_design(flops, before=design)
    flops = _flops(facts, flops, design, minutes, name)
    wanted = recommend.pick_size(flops).count("data.vocab")
    if wanted > facts.tokens.asked:
        facts = text.facts(wanted)
    allowed = f"{minutes:g} minutes on {_slots()} cores of this machine"
    return recommend.recommend(facts, flops, design, allowed)


def _flops(facts: "Facts", near: float, design: "RunDesign", minutes: float, name: str) -> float:
    """Return the FLOPs of a trial for which a sweep is expected to take so many minutes.

    Time is a line in FLOPs, since preparation, scoring and fine-tuning do not depend on them.

    Args:
        facts: what is known of the text.
        near: FLOPs by which the size is chosen, and at which time is estimated.
        design: how often a cell is run.
        minutes: of the sweep.
        name: of the search space.

    Raises:
        UserError: preparation and scoring alone take as long.
    """
    from lab.execution import expectation
    from lab.suggestion import commented_yaml, recommend
    from lab.tracking.client import default_uri

    draft = commented_yaml.to_plain(recommend.recommend(facts, near, design, "").document)

    def expected(flops: float) -> float:
        draft["base"]["budget"]["amount"] = flops
        asked = search_space.check_experiment(name, draft)
        return expectation.estimate_sweep(asked, None, _slots(), default_uri(File("runs"))).seconds

    little, much = expected(1e11), expected(1e13)
    slope = (much - little) / (1e13 - 1e11)
    fixed = little - 1e11 * slope
    flops = (60 * minutes - fixed) / slope
    if flops < _LEAST:
        raise UserError(
            f"--minutes {minutes:g}: too few for {len(recommend.WIDTHS)} widths with "
            f"{design.seeds} seeds each; preparation, scoring and {_LEAST:.0e} FLOPs a trial take "
            f"about {(fixed + _LEAST * slope) / 60:.2g}"
        )
    return flops


def _slots() -> int:
    return max(1, assignment.count_slots(Resources(), [assignment.local_resources(gpus=False)]))


def _heading(given: argparse.Namespace, text: _Text, made: "Recommendation") -> str:
    """Return what a person should know of the text, and what to do next."""
    survey = text.survey
    read = "" if survey.share == 1 else f" (estimated from {survey.share:.2%} of it)"
    scripts = ", ".join(
        f"{script} {share:.1%}" for script, share in survey.scripts.items() if share > 0.0005
    )
    lines = [
        f"Written by python -m lab.init for {' '.join(given.texts)[:200]}",
        f"Text: {survey.files:,} files, {survey.stored / 1e6:,.1f} MB, {survey.documents:,} "
        f"documents of {survey.median_document:,.0f} characters in the median, "
        f"{survey.characters:,} characters, {survey.words:,} words{read}; "
        f"{survey.duplicates:.1%} of the documents are duplicates, which are read once.",
        f"Letters: {scripts}.",
        *(f"WARNING: {warning}." for warning in made.warnings),
    ]
    return "\n".join(lines)


def _conclude(output: File, draft: "TaskDraft | None", heading: str) -> None:
    for line in heading.splitlines()[1:]:
        print(line, file=sys.stderr if line.startswith("WARNING") else sys.stdout)
    for file in [*([] if draft is None else draft.contents), output]:
        print(f"written: {file}")
    name = shlex.quote(str(output))
    print(f"next:    python -m lab.sweep {name} --dry-run\n         python -m lab.sweep {name}")


def _stem(text: str) -> str:
    """Return a name for a text: that of the file or folder, or the last one before a wildcard."""
    plain = [part for part in File(text).parts if not re.search(r"[*?\[]", part)]
    name = File(text).resolve().name if File(text).exists() else (plain[-1] if plain else "")
    return name.split(".")[0] or "text"


def _progress() -> "Say":
    """Return a function that prints a line of progress now and then."""
    began = said = time.monotonic()

    def say(line: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAID:
            said = now
            print(f"[{now - began:6.1f} s] {line}", flush=True)

    return say


if __name__ == "__main__":
    cli.execute(main)
