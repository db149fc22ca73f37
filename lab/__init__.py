"""A hyperparameter and scaling lab for pre-training encoders with replaced-token detection."""

import os
import signal
import sys
from types import FrameType

__version__ = "0.3.0"


def leave(_signal: int, _frame: FrameType | None) -> None:
    """Exit with status 130: SIGINT handler for the time in which a command's modules are loaded."""
    os.write(2, b"interrupted; nothing had begun\n")
    os._exit(130)


# While Python looks up the module of `python -m lab.NAME`, sys.argv[0] is "-m"; in the console
# script it is the path of the script. Importing the libraries takes seconds. An interrupt during an
# import would end in a traceback, or would be swallowed by the library's own exception handling.
_IS_COMMAND = os.path.basename("".join(sys.argv[:1])) in {"-m", "electra-lab"}  # noqa: PTH119
if _IS_COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
