"""Sets of ipset(8), for `ipset restore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.clock import Ran, run_command

NAME = "hosts"


def room_for(count: int) -> str:
    """Sized right at once: no more than one element a bucket on average, so that the kernel has not to rehash."""
    return f"hashsize {1 << (max(count, 64) - 1).bit_length()} maxelem {2 * max(count, 64)}"


def restore(kind: str, elements: Sequence[str], scratch: Path) -> Ran:
    """`kind`: hash:ip or hash:net."""
    path = scratch / "set.ipset"
    lines = [f"create {NAME} {kind} family inet {room_for(len(elements))}", *(f"add {NAME} {e}" for e in elements)]
    path.write_text("\n".join([*lines, ""]))
    return run_command(["ipset", "restore", "-file", str(path)])
