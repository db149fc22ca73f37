"""A hyperparameter and scaling lab for pre-training encoders with replaced-token detection."""

import os
import signal
import sys
from types import FrameType

__version__ = "0.3.0"


def leave(_signal: int, _frame: FrameType | None) -> None:
    """End an interrupted process whose command is still being loaded, and has done nothing."""
    os.write(2, b"interrupted; nothing had begun\n")
    os._exit(130)


# While Python looks for the module of `python -m lab.…`, sys.argv[0] is "-m". Libraries take
# seconds to load, and an interrupt inside of them ends in a traceback, or is lost in their code.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
