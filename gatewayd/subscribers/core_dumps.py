"""No core dumps: a subscriber's number is in memory for the length of a call, and freed memory keeps it longer."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from gatewayd.errors import MissingPrerequisite

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """For this process, from now on: not even to a program that collects them, which RLIMIT_CORE does not stop
    (prctl(2) PR_SET_DUMPABLE, core(5)). Nor can another process of the same user read its memory (ptrace(2)).

    Raises MissingPrerequisite where the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        why = os.strerror(ctypes.get_errno())
        raise MissingPrerequisite(f"core dumps cannot be turned off ({why})", "allow prctl in the sandbox")
