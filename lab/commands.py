"""`electra-lab COMMAND`: the commands of the lab under one name.

`electra-lab sweep` is the same command as `python -m lab.sweep`.
"""

import argparse
import importlib
import sys
from functools import partial
from typing import NoReturn

from lab import cli
from lab.errors import UserError

DESCRIPTIONS = {  # equal to those of the parsers; importing the commands would take seconds
    "init": "Write a search space for your own text, for a given time on this machine.",
    "sweep": "Run the trials of a search space, record them and write the report.",
    "prepare": "Prepare the text of a search space, and print its counts.",
    "report": "Write the report of a sweep, or of several together, from the tracking store.",
    "verify": "Recompute the numbers of a report and list what differs.",
    "advise": "Advise settings for a budget, each with its source, from own runs.",
    "forecast": "Forecast the losses of a sweep's designs at a larger budget, or score earlier "
    "forecasts.",
    "finetune": "Fine-tune an encoder that the lab has trained, and print its scores.",
    "export": "Write a trial's networks as folders that transformers loads.",
}


def main() -> NoReturn:
    """Run the command that the first argument names, and exit with its status."""
    match sys.argv[1:]:
        case [name, *arguments] if name in DESCRIPTIONS:
            module = importlib.import_module(f"lab.{name}")
            cli.execute(partial(module.main, arguments))
        case arguments:
            options = argparse.Namespace(arguments=arguments, verbose=False)
            cli.execute(partial(cli.run, cli.SCRIPT, "nothing was run", _list_commands, options))


def _list_commands(options: argparse.Namespace) -> None:
    """Print the commands with one line each.

    Raises:
        UserError: the first argument is neither a command nor --help.
    """
    arguments: list[str] = options.arguments
    if arguments and arguments[0] not in {"-h", "--help"}:
        raise UserError(f"no command {arguments[0]!r}; must be one of {', '.join(DESCRIPTIONS)}")
    print(f"usage: {cli.SCRIPT} COMMAND ...\n\ncommands:")
    for name, description in DESCRIPTIONS.items():
        print(f"  {name:<10}{description}")
    print(
        f"\nexample:\n  {cli.SCRIPT} sweep search_spaces/smoke.yaml\n\n"
        f"`{cli.SCRIPT} COMMAND --help` lists the arguments of a command."
    )
