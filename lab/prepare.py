"""`python -m lab.prepare FILE`: prepare the text that a search space asks for, and nothing else.

What a sweep would prepare first, into the same place: the sweep finds it done. Run again it
prints what was counted then.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from lab import cli

if TYPE_CHECKING:
    from lab.config.data import DataConfig

_KEPT = "nothing is left of a text that was not finished"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `command.run`."""
    given = _parser().parse_args(arguments)
    return cli.run("lab.prepare", _KEPT, partial(_main, given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.prepare",
        description="Prepare the text of a search space, and say what is in it.",
    )
    parser.add_argument("file", type=File, help="search space, for example gen_ratio.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="override a dotted path of the file, for example base.data.vocab=8192",
    )
    parser.add_argument(
        "--storage", default="runs", metavar="FOLDER|URI", help="as for python -m lab.sweep"
    )
    return parser


def _main(given: argparse.Namespace) -> None:
    from lab.loading import search_space
    from lab.storage import checks, mirror

    experiment = search_space.load_experiment(given.file, tuple(given.overrides))
    root, kept = mirror.open_mirror(given.storage)
    checks.check_storage(root)
    print(f"{experiment.name}: preparing its text", flush=True)
    from lab.data import preparation  # takes seconds to import

    for number, data in enumerate(search_space.required_texts(experiment)):
        if number:
            print()
        began = time.monotonic()

        def say(line: str, began: float = began) -> None:
            print(f"[{time.monotonic() - began:6.1f} s] {line}", flush=True)

        folder = preparation.prepare_text(data, root.resolve() / "cache", say)
        preparation.add_overlaps(folder, data, experiment.finetune.tasks, say)
        kept.push(folder)
        print("\n".join(lines(data, preparation.read_facts(folder))))
        print(f"in:                    {folder}")


def lines(data: "DataConfig", facts: dict[str, Any]) -> Iterator[str]:
    """Yield what a person wants to know of a prepared text."""
    train, held_out = facts["train"], facts["held_out"]
    cut = f" in windows of {data.length} ({data.layout})"
    yield f"documents:             {facts['documents']:,} ({facts['bytes'] / 1e6:,.1f} MB)"
    yield f"  duplicates dropped:  {facts['duplicates']:,}"
    yield f"  to learn from:       {train['documents']:,}"
    yield f"  held out:            {held_out['documents']:,}"
    for reason, count in facts["skipped"].items():
        yield f"  skipped:             {count:,} ({reason})"
    for example in facts["examples"]:
        yield f"    {example}"
    yield f"tokens:                {train['tokens_in_windows']:,}{cut}"
    yield f"  unknown:             {train['unknown_rate']:.4%}"
    yield f"  a word:              {train['tokens_per_word']:.3f}"
    yield f"  padded share:        {train['padded_share']:.2%} of positions"
    for overlap in facts["overlaps"]:
        told = overlap["questions"] - overlap["short"]
        yield (
            f"  overlap with {overlap['task'] + ':':<9} {overlap['found']:,} of {told:,} questions "
            f"share 13 tokens in a row ({overlap['short']:,} are shorter)"
        )
    if train["lines_cut"]:
        yield f"  cut out for it:      {train['lines_cut']:,} lines"


if __name__ == "__main__":
    cli.execute(main)
