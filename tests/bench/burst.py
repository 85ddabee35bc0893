"""New flows by the thousand from the lab's customers, and the programs that count their events."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gatewayd.demo.cast import FAR
from gatewayd.lab.lab import Lab
from tests.bench.registrants import PORT
from tests.bench.row import check

SOURCE_CODE = Path(__file__).with_name("burst.c")
QUIET_S = 0.5
_LOOK_EVERY_S = 0.05


class Burst:
    """`sources`: addresses that the flows are from, in turns."""

    def __init__(self, lab: Lab, scratch: Path, sources: Sequence[str]) -> None:
        self._lab = lab
        self._program = scratch / "burst"
        self._sources = scratch / "sources"
        self._sources.write_text("".join(f"{each}\n" for each in sources))
        compiled = subprocess.run(
            ["gcc", "-O2", "-o", str(self._program), str(SOURCE_CODE)], capture_output=True, text=True, check=False
        )
        check(compiled.returncode == 0, compiled.stderr)

    def send(self, count: int, rate: int = 0) -> int:
        """So many flows, `rate` a second, 0: as fast as it goes. Returns how many the gateway tracks more."""
        before = self.count_tracked()
        words = [str(self._program), str(self._sources), FAR, str(PORT), str(count), str(rate)]
        self._lab.customers.run(words)
        return self.count_tracked() - before

    def count_tracked(self) -> int:
        """Connections of the gateway."""
        with self._lab.gateway.entered():
            return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())


def when_quiet(count: Callable[[], int]) -> int:
    """The number once it stays as it is."""
    seen, since = count(), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        time.sleep(_LOOK_EVERY_S)
        now = count()
        if now != seen:
            seen, since = now, time.monotonic()
    return seen
