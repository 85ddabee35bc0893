"""The kernel's word on its clock."""

from __future__ import annotations

import time

import pytest

from gatewayd.kernel import clock
from gatewayd.kernel.clock import is_kernel_synced

START_S = 1_800_000_000.0
YEAR_S = 366 * 86_400.0


def test_the_kernels_word_is_of_its_own_clock_alone() -> None:
    assert isinstance(is_kernel_synced(time.time()), bool)
    assert not is_kernel_synced(time.time() - YEAR_S)  # as under libfaketime


@pytest.mark.parametrize(
    ("state", "status", "off_s", "synced"),
    [(0, 0x2001, 0, True), (5, 0x40, 0, False), (0, 0x40, 0, False), (-1, 0, 0, False), (0, 1, 3600, False)],
)
def test_how_the_kernels_word_is_read(
    monkeypatch: pytest.MonkeyPatch, state: int, status: int, off_s: int, synced: bool
) -> None:
    """struct timex of a 64-bit kernel: int modes, four longs, int status, three longs, struct timeval time."""

    class Libc:
        @staticmethod
        def adjtimex(timex: bytearray) -> int:
            timex[40:44] = status.to_bytes(4, "little")
            timex[72:80] = int(START_S + off_s).to_bytes(8, "little")
            return state

    monkeypatch.setattr(clock, "_LIBC", Libc)
    assert is_kernel_synced(START_S) is synced
