"""`python -m lab.advise --flops C`: settings for a budget, each with its source.

The size is the optimum of the scaling law of a sweep's runs, and the learning rate that of their
trend; all other settings are those of the runs. Without own runs only published settings can be
printed, by --priors. docs/scaling.md describes the method.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING

from lab import cli
from lab.errors import UserError

if TYPE_CHECKING:
    from lab.advice.comparisons import Comparison
    from lab.advice.devices import Device, Speed, Speeds, Timing
    from lab.advice.evidence import Evidence
    from lab.advice.values import Advice

_SWEEP = "scaling"
_MAX_FLOPS = 1e30
_RUN_FIRST = (
    "run python -m lab.sweep search_spaces/scaling.yaml first; --priors prints published settings"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, as `cli.run`."""
    options = _build_parser().parse_args(arguments)
    return cli.run("lab.advise", "nothing was written", _main, options)


def _build_parser() -> argparse.ArgumentParser:
    from lab.advice.devices import DEVICES

    parser = cli.build_parser(
        "advise",
        "Advise settings for a budget, each with its source, from own runs.",
        "python -m lab.advise --flops 1e14 --priors   # without it, after: python -m lab.sweep "
        "search_spaces/scaling.yaml",
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        "--flops",
        type=_positive,
        metavar="C",
        help="training FLOPs of the run (default: those of --gpu-hours)",
    )
    budget.add_argument(
        "--gpu-hours",
        "--hours",
        type=_positive,
        metavar="H",
        dest="hours",
        help="hours of training on one --device, instead of FLOPs (default: --flops)",
    )
    parser.add_argument(
        "--device",
        choices=sorted(DEVICES),
        help="device of the expected duration (default: that of the sweep's runs)",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        metavar="NAME",
        dest="sweeps",
        help="sweep of sizes and budgets whose law is used; repeated, the runs of further sweeps "
        f"are added (default: {_SWEEP})",
    )
    parser.add_argument(
        "--group",
        metavar="LABEL",
        help="compared settings of the runs, as the report names them, if the sweep has several "
        "laws (default: the only one)",
    )
    parser.add_argument(
        "--rates",
        metavar="NAME",
        help="sweep that tunes the learning rate at three sizes or more, such as isoflop (default: "
        "that of --sweep)",
    )
    parser.add_argument(
        "--compared",
        action="append",
        default=[],
        metavar="NAME",
        help="sweep that compares the generator's width or depth, the mask probability or the "
        "batch: its best value replaces that of --sweep; may be repeated (default: none)",
    )
    parser.add_argument(
        "--priors",
        action="store_true",
        help="print published settings instead, without own runs (default: only own runs)",
    )
    parser.add_argument(
        "--output",
        type=File,
        metavar="FILE",
        help="search space to write, for lab.sweep; must not exist (default: none is written)",
    )
    cli.add_storage(parser)
    cli.add_tracking_uri(parser)
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
    if not 0 < value <= _MAX_FLOPS or math.isnan(value):
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {_MAX_FLOPS:g}")
    return value


def _main(options: argparse.Namespace) -> None:
    from lab.storage import new_files

    out: File | None = options.output
    if out is not None:
        if out.suffix not in {".yaml", ".yml"}:
            raise UserError(f"--output {out}: the name of a search space ends with .yaml")
        new_files.check_not_there(out, "--output")
    advice = _advise(options)
    from lab.advice.text import describe_advice

    print(describe_advice(advice))
    for warning in advice.warnings:
        print(f"lab.advise: warning: {warning}", file=sys.stderr)
    if out is not None:
        _write(out, advice, options)


def _advise(options: argparse.Namespace) -> "Advice":
    """Return the advice from own runs, or from priors if --priors is set."""
    from lab.advice.from_runs import Request, advise_for_hours, advise_from_runs

    if options.priors:
        return _advise_from_priors(options)
    evidence, comparisons = _read_runs(options)
    speeds = _speeds(options, evidence.timings)
    if options.hours is None:
        request = Request(flops=options.flops, speeds=speeds, comparisons=comparisons)
        return advise_from_runs(evidence, request)
    if speeds is None:
        raise UserError("--gpu-hours: needs --device, because there are no own runs on a device")
    _check_hours(options.hours, speeds.of_largest())
    return advise_for_hours(evidence, options.hours, speeds, comparisons)


def _advise_from_priors(options: argparse.Namespace) -> "Advice":
    from lab.advice.priors import advise_from_priors

    if unused := [option for option, value in _of_own_runs(options) if value]:
        raise UserError(f"{unused[0]}: has no effect with --priors, which uses no own runs")
    speeds = _speeds(options, ())
    speed = None if speeds is None else speeds.of_largest()
    if options.hours is None:
        return advise_from_priors(options.flops, speed)
    if speed is None:
        raise UserError("--gpu-hours: needs --device, because there are no own runs on a device")
    _check_hours(options.hours, speed)
    flops = 3600 * options.hours * speed.flops_per_second
    return advise_from_priors(
        flops, speed, f" ({options.hours:g} h on {speed.device}, {speed.because})"
    )


def _check_hours(hours: float, speed: "Speed") -> None:
    if 3600 * hours * speed.flops_per_second > _MAX_FLOPS:
        raise UserError(
            f"--gpu-hours {hours:g}: are more than {_MAX_FLOPS:g} FLOPs on {speed.device}"
        )


def _of_own_runs(options: argparse.Namespace) -> tuple[tuple[str, object], ...]:
    """Return the options that select own runs, with their values."""
    return (
        ("--sweep", options.sweeps),
        ("--group", options.group),
        ("--rates", options.rates),
        ("--compared", options.compared),
    )


def _read_runs(options: argparse.Namespace) -> "tuple[Evidence, tuple[Comparison, ...]]":
    """Return the law of the sweep, and the settings that other sweeps compare.

    Raises:
        UserError: the tracking store has no such sweep, or a sweep lacks a setting or score that
            the advice needs.
    """
    from lab.advice.comparisons import read_comparison
    from lab.advice.own_runs import Sweeps, read_evidence
    from lab.storage import identity, open_storage
    from lab.tracking import frames
    from lab.tracking.client import default_uri

    root, remote = open_storage.open_mirror(options.storage)
    remote.pull(root / identity.NAME)
    uri = options.tracking_uri or default_uri(root)
    storage = identity.read_identity(root)

    def load(name: str) -> frames.SweepFrames:
        return frames.load_frames(uri, name, storage=storage)

    try:
        law = [load(name) for name in _sweeps(options)]
    except frames.FramesError as error:
        raise UserError(f"no own runs: {error}; {_RUN_FIRST}") from None
    rates = None if options.rates in (None, law[0].name) else load(options.rates)
    evidence = read_evidence(Sweeps(law=law, group=options.group, rates=rates))
    objective = evidence.model.objective.kind
    comparisons = (read_comparison(load(name), objective) for name in options.compared)
    return evidence, tuple(comparisons)


def _sweeps(options: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(options.sweeps or [_SWEEP]))


def _speeds(options: argparse.Namespace, timings: "tuple[Timing, ...]") -> "Speeds | None":
    """Return the speeds of the device; None if none is named and own runs have none."""
    from lab.advice.devices import DEVICES, default_device, find_speeds

    named = options.device
    device: Device | None = default_device(timings) if named is None else DEVICES[named]
    return None if device is None else find_speeds(device, timings)


def _write(out: File, advice: "Advice", options: argparse.Namespace) -> None:
    from lab.advice.document import write_document
    from lab.advice.text import next_command
    from lab.loading import search_space
    from lab.storage import new_files

    with new_files.write_all({out: write_document(advice, _command_line(options))}):
        search_space.load_experiment(out)
    name = shlex.quote(str(out))
    print(f"\nwritten: {out}")
    print(f"next:    python -m lab.sweep {name} --dry-run\n         python -m lab.sweep {name}")
    if advice.next_trial is not None:
        print(f"most informative next trial:\n         {next_command(out, advice.next_trial)}")


def _command_line(options: argparse.Namespace) -> str:
    """Return the options that determine the advice, as a command."""
    parts = ["python -m lab.advise"]
    for name, value in (
        ("--flops", options.flops),
        ("--gpu-hours", options.hours),
        ("--device", options.device),
        *(("--sweep", name) for name in ([] if options.priors else _sweeps(options))),
        ("--group", options.group),
        ("--rates", options.rates),
        *(("--compared", name) for name in options.compared),
    ):
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else shlex.quote(value)
            parts.append(f"{name} {text}")
    return " ".join([*parts, *(["--priors"] if options.priors else [])])


if __name__ == "__main__":
    cli.execute(main)
