"""What a command does before its libraries are loaded, which takes seconds: it ends quietly on Ctrl-C, and with its parent."""

import ctypes
import io
import os
import signal
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1
"""Of <linux/prctl.h>."""


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(130)  # nothing is open yet; an exception would be lost in an import, or printed with a traceback


def begin() -> None:
    """Take over Ctrl-C until `loaded`; let a process of a distributed run end when the one that started it is killed; let all be
    printed, also names that the terminal's encoding lacks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    if "LOCAL_RANK" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def loaded() -> None:
    """Give Ctrl-C back."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
