"""Whether an NTP program keeps this host's clock, as the kernel says."""

from __future__ import annotations

import ctypes
from typing import Final

_STA_UNSYNC: Final = 0x40
_TIME_BAD: Final = 5
"""adjtimex(2): TIME_ERROR, the clock is not synchronised."""
_STATUS_AT: Final = 5 * ctypes.sizeof(ctypes.c_long)
_SECONDS_AT: Final = 9 * ctypes.sizeof(ctypes.c_long)
_TIMEX_BYTES: Final = 512
"""struct timex is 208 on 64 bits."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def is_kernel_synced(wall_s: float) -> bool:
    """Whether an NTP daemon keeps the kernel's clock (adjtimex(2) without STA_UNSYNC), and `wall_s` is that clock.

    Setting the clock clears the word, in the same moment; the NTP daemon that set it gives it anew. A sandbox that
    refuses the call says nothing.
    """
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only read
    state = _LIBC.adjtimex(timex)
    if state < 0 or state == _TIME_BAD:
        return False
    status = ctypes.c_int.from_buffer(timex, _STATUS_AT).value
    seconds = ctypes.c_long.from_buffer(timex, _SECONDS_AT).value
    return not status & _STA_UNSYNC and abs(wall_s - seconds) <= 2
