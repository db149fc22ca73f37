"""`python -m lab.prepare FILE`: prepare the text of a search space without running its trials.

A sweep of the same search space finds the prepared text in its storage and does not prepare it
again. If the text is prepared already, the command only prints its counts.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

from lab import cli

_REMAINING = "nothing is left of a text that was not finished"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.prepare", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "prepare",
        "Prepare the text of a search space, and print its counts.",
        "python -m lab.prepare search_spaces/smoke.yaml",
    )
    cli.add_search_space(parser, "base.data.vocab=8192")
    cli.add_storage(parser)
    return parser


def _main(options: argparse.Namespace) -> None:
    from lab.loading import search_space
    from lab.storage import checks, open_storage

    experiment = search_space.load_experiment(options.file, tuple(options.overrides))
    root, remote = open_storage.open_mirror(options.storage)
    checks.check_storage(root)
    print(f"{experiment.name}: preparing its text", flush=True)
    from lab.data import preparation, prepared_files, text_facts  # the import takes seconds

    for number, data in enumerate(search_space.required_texts(experiment)):
        if number:
            print()
        began = time.monotonic()

        def say(line: str, began: float = began) -> None:
            print(f"[{time.monotonic() - began:6.1f} s] {line}", flush=True)

        folder = preparation.prepare_text(data, root.resolve() / "cache", say)
        preparation.add_overlaps(folder, data, experiment.finetune.tasks, say)
        remote.push(folder)
        print("\n".join(lines(prepared_files.read_facts(folder))))
        for warning in text_facts.text_warnings(folder):
            print(f"warning:               {warning}")
        print(f"in:                    {folder}")


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yield printable lines with the counts of a prepared text.

    Args:
        facts: counts and settings, as `prepared_files.read_facts` returns them.
    """
    from lab.data import packing, text_facts

    train, held_out = facts["train"], facts["held_out"]
    windows = f" in windows of {facts['length']} ({facts['data']['layout']})"
    yield f"documents:             {facts['documents']:,} ({facts['bytes'] / 1e6:,.1f} MB)"
    yield f"  duplicates dropped:  {facts['duplicates']:,}"
    yield f"  for training:        {train['documents']:,}"
    yield f"  held out:            {held_out['documents']:,}"
    if short := train["without_window"] + held_out["without_window"]:
        share = short / max(1, train["documents"] + held_out["documents"])
        yield (
            f"  too short:           {short:,} ({share:.1%}) make no window: they have fewer "
            f"tokens than {packing.shortest_window(facts['length'])}"
        )
    for reason, count in facts["skipped"].items():
        yield f"  skipped:             {count:,} ({reason})"
    for example in facts["examples"]:
        yield f"    {example}"
    yield f"tokens:                {train['tokens_in_windows']:,}{windows}"
    lost = text_facts.lost_characters(facts)
    yield f"  unknown:             {train['unknown_rate']:.4%}, {lost:.4%} of the characters"
    if (surveyed := text_facts.read_marks(facts)) is not None:
        yield f"  accents:             {surveyed.describe()}"
    if (left_out := facts["left_out"])["words"]:
        yield (
            f"  words too long:      {left_out['words']:,} ({left_out['characters']:,} characters) "
            f"are not used to train the tokenizer"
        )
    yield f"  per word:            {train['tokens_per_word']:.3f}"
    yield f"  padded share:        {train['padded_share']:.2%} of positions"
    for overlap in facts["overlaps"]:
        compared = overlap["questions"] - overlap["short"]
        decontaminated = overlap["task"] in facts["data"]["decontaminate"]
        yield (
            f"  overlap with {overlap['task'] + ':':<9} {overlap['found']:,} of {compared:,} "
            f"questions share 13 tokens in a row ({overlap['short']:,} are shorter)"
            + ("; these lines are removed" if decontaminated else "")
        )
    if train["lines_cut"]:
        yield f"  decontaminated:      {train['lines_cut']:,} lines cut out"


if __name__ == "__main__":
    cli.execute(main)
