"""`python -m lab.export RUN DIR`: a trial's networks as folders that `transformers` loads.

    python -m lab.export gen_ratio exported          # the best trial of a sweep
    python -m lab.export 5c0900208d00 exported       # a trial by its name

`DIR/discriminator` and `DIR/generator` (or `DIR/encoder` for an objective whose encoder predicts
tokens), each with configuration, weights in safetensors, tokenizer and model card. What was written
is read back and has to compute what the lab computes, bit for bit, before it appears in its place.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path as File

from lab import cli
from lab.errors import UserError
from lab.interop import find_trial
from lab.interop.export import write_networks
from lab.interop.trained import open_trained
from lab.storage import mirror, record
from lab.tracking.client import default_uri

_KEPT = "nothing half written is left"


def main(arguments: Sequence[str] | None = None) -> int:
    """Export what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.export",
        description="Write a trial's networks as folders that transformers loads.",
    )
    parser.add_argument("run", metavar="RUN", help="a trial's name, its folder, or a sweep's name")
    parser.add_argument("folder", metavar="DIR", type=File, help="to write to; new or empty")
    parser.add_argument("--storage", default="runs", metavar="FOLDER|URI", help="of the sweep")
    parser.add_argument("--tracking-uri", help="MLflow store (default: SQLite in --storage)")
    given = parser.parse_args(arguments)
    return cli.run("lab.export", _KEPT, lambda: _main(given))


def _main(given: argparse.Namespace) -> None:
    root, kept = mirror.open_mirror(given.storage)
    uri = given.tracking_uri or default_uri(root)
    folder = find_trial.resolve_run(given.run, root, uri, kept)
    kept.pull(root / "cache" / str(record.read_facts(folder).get("text")))
    try:
        made = write_networks(open_trained(folder, root / "cache"), given.folder)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    print("\n".join(str(each) for each in made))


if __name__ == "__main__":
    cli.execute(main)
