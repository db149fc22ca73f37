"""`python -m lab.export RUN DIR`: write a trial's networks as folders that `transformers` loads.

    python -m lab.export gen_ratio exported          # the best trial of a sweep
    python -m lab.export 5c0900208d00 exported       # a trial by its name

The folders are `DIR/discriminator` and `DIR/generator`, or `DIR/encoder` if the encoder itself
predicts tokens. Each has a configuration, weights in safetensors, a tokenizer and a model
card. Before DIR appears, the written networks are loaded by `transformers` and compared with the
lab's own: their logits must agree bit for bit.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path as File

from lab import cli
from lab.control_characters import make_visible
from lab.errors import UserError
from lab.interop import find_trial, model_card
from lab.interop.export import write_networks
from lab.interop.trained import open_trained
from lab.storage import open_storage, record

_REMAINING = "nothing half written is left"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.export", _REMAINING, _main, options)


def _build_parser() -> argparse.ArgumentParser:
    parser = cli.build_parser(
        "export",
        "Write a trial's networks as folders that transformers loads.",
        "python -m lab.export smoke exported   "
        "# after: python -m lab.sweep search_spaces/smoke.yaml",
    )
    cli.add_run(parser)
    parser.add_argument("folder", metavar="DIR", type=File, help="new or empty folder to write to")
    cli.add_storage(parser)
    cli.add_tracking_uri(parser)
    return parser


def _main(options: argparse.Namespace) -> None:
    root, remote = open_storage.open_mirror(options.storage)
    record_folder, reason = find_trial.resolve_run(options.run, root, options.tracking_uri, remote)
    chosen = f" ({reason})" if reason else ""
    # On standard error, so that standard output has the written folders alone.
    print(make_visible(f"exporting {record_folder.name}{chosen}"), file=sys.stderr, flush=True)
    remote.pull(root / "cache" / str(record.read_facts(record_folder).get("text")))
    trained = open_trained(record_folder, root / "cache")
    try:
        folders = write_networks(trained, options.folder)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    print("\n".join(str(folder) for folder in folders))
    if warning := model_card.short_window_warning(trained.trial.data.length):
        print(f"lab.export: warning: {record_folder.name}: {warning}", file=sys.stderr)


if __name__ == "__main__":
    cli.execute(main)
