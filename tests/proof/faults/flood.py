"""New flows by the hundred thousand through the lab's gateway, and nothing of them on the wires behind it.

The taps of the registered traffic read each packet in Python. So the flood is dropped where it leaves the gateway:
behind forwarding, connection tracking and every rule.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatewayd.lab.lab import INSIDE, OUTSIDE, Lab

SOURCE_CODE: Final = Path(__file__).parents[2] / "bench" / "burst.c"
FAR: Final = "203.0.113.200"
"""No flow of the registered traffic goes there."""
HOUSE: Final = tuple(f"39.32.64.{number}" for number in range(8, 16))
"""Registered, for wireguard."""
STRANGERS: Final = tuple(f"39.50.{number}.{last}" for number in range(64) for last in (1, 2, 3, 4))
_SINK: Final = f"""table netdev flood {{
  chain out {{
    type filter hook egress device "{OUTSIDE.gateway_interface}" priority 0
    ip daddr {FAR} drop
  }}
  chain back {{
    type filter hook egress device "{INSIDE.gateway_interface}" priority 0
    ip daddr 39.50.0.0/16 drop
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """`per_s`: the rate that was reached."""

    flows: int
    per_s: float


class Flood:
    """Of one lab; `flooding` makes it."""

    def __init__(self, lab: Lab, program: Path, directory: Path) -> None:
        self._lab, self._program, self._directory = lab, program, directory
        self._running: list[subprocess.Popen[bytes]] = []

    def begin(self, sources: tuple[str, ...], count: int, rate: int) -> None:
        """`count` flows, `rate` of them a second, from these addresses to udp/51820."""
        listed = self._directory / f"sources-{len(self._running)}"
        listed.write_text("".join(f"{each}\n" for each in sources))
        words = [str(self._program), str(listed), FAR, "51820", str(count), str(rate)]
        self._running.append(self._lab.customers.popen(words, stdout=subprocess.PIPE))

    def finish(self) -> list[Sent]:
        """Of each that was begun, once it has sent all. Raises AssertionError."""
        found = []
        for each in self._running:
            assert each.stdout is not None
            with each.stdout:
                said = each.stdout.read()
            assert each.wait() == 0, each.args
            flows, took_us = map(int, said.split())
            found.append(Sent(flows, flows / took_us * 1e6))
        self._running.clear()
        return found


@contextmanager
def flooding(lab: Lab, directory: Path) -> Iterator[Flood]:
    """Nothing of the flood leaves the gateway within it."""
    program = directory / "burst"
    subprocess.run(["gcc", "-O2", "-o", str(program), str(SOURCE_CODE)], check=True)
    lab.gateway.nft(_SINK)
    try:
        yield Flood(lab, program, directory)
    finally:
        lab.gateway.run(["nft", "delete table netdev flood"])
