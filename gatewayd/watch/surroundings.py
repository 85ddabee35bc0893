"""What else goes on in the gateway's kernel that can cut a registered customer: watched, said, and left alone.

Other programs' rules that write our bits of the ct mark, or copy them into the packet mark; and how full connection
tracking is, which our rules turn on for all forwarded traffic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol

from gatewayd.doctor.settings_checks import NEARLY_FULL, SMALL_SIZE
from gatewayd.errors import KernelError
from gatewayd.kernel.external import read_conntrack_size
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.transaction import ConntrackSize, Neighbour

log = get_logger(__name__)

SIZE_EVERY_S = 5.0
RULES_EVERY_S = 30.0
"""The rules of all tables are listed at most this often, and only if something was committed since."""


class Rules(Protocol):
    """kernel.external.RuleReader."""

    async def generation(self) -> int: ...

    async def neighbours(self) -> tuple[Neighbour, ...]: ...


class Surroundings:
    """`mask`: our bits. `monotonic clock`: a clock that is never set."""

    def __init__(
        self,
        rules: Rules,
        mask: int,
        *,
        monotonic: Callable[[], float],
        read_size: Callable[[], ConntrackSize | None] = read_conntrack_size,
    ) -> None:
        self._rules = rules
        self._mask = mask
        self._monotonic = monotonic
        self._read_size = read_size
        self._said = RateLimited(log, 600.0, monotonic)
        self._rules_at = -inf
        self._generation: int | None = None
        self.neighbours: tuple[Neighbour, ...] = ()
        self.size: ConntrackSize | None = None
        """None while connection tracking is not loaded."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look_at_size()
            if self._monotonic() >= self._rules_at:
                self._rules_at = self._monotonic() + RULES_EVERY_S
                await self.look_at_rules()
            await asyncio.sleep(SIZE_EVERY_S)

    def look_at_size(self) -> None:
        before, size = self.size, self._read_size()
        self.size = size
        if size is None:
            return
        if before is None and size.most < SMALL_SIZE:
            log.warning("conntrack.small", most=size.most, usual=SMALL_SIZE)
        if size.fill >= NEARLY_FULL:
            self._said.warning("conntrack.filling", entries=size.entries, most=size.most)
        dropped = (size.dropped or 0) - ((before.dropped or 0) if before is not None else size.dropped or 0)
        if dropped > 0:
            self._said.warning("conntrack.dropping", packets=dropped, entries=size.entries, most=size.most)

    async def look_at_rules(self) -> None:
        """Whatever a failure was about, the rules that were found before stay known."""
        try:
            generation = await self._rules.generation()
            if generation == self._generation:
                return
            found = await self._rules.neighbours()
        except KernelError as error:
            self._said.warning("neighbours.failed", error=str(error))
            return
        self._generation = generation  # of before the list: what was committed since is looked at next time
        if found != self.neighbours:
            self.neighbours = found
            if not found:
                log.info("neighbours.gone")
            for deed in ("writes", "leaks"):
                rules = [each for each in found if each.deed == deed]
                if rules:
                    log.warning("neighbours.found", deed=deed, rules=len(rules), first=str(rules[0]))

    def warnings(self) -> tuple[str, ...]:
        """Sentences for the first screen of status, the worst first."""
        return warnings_of(self.neighbours, self.size, self._mask)


def warnings_of(neighbours: tuple[Neighbour, ...], size: ConntrackSize | None, mask: int) -> tuple[str, ...]:
    """What a person should know of it."""
    said = []
    writers = [each for each in neighbours if each.deed == "writes"]
    leakers = [each for each in neighbours if each.deed == "leaks"]
    if writers:
        said.append(
            f"{_rules(writers)} the ct mark over our bits ({mask:#010x}): registered flows may be refused, or"
            f" strangers pass; have it keep them, or change kernel.ct_mark_mask"
        )
    if size is not None and size.fill >= NEARLY_FULL:
        said.append(
            f"connection tracking is {size.fill:.0%} full ({size.entries:,} of {size.most:,}): at 100% new flows of"
            f" everybody are dropped; raise net.netfilter.nf_conntrack_max"
        )
    if leakers:
        said.append(
            f"{_rules(leakers, 'copies', 'copy')} our bits of the ct mark ({mask:#010x}) into the packet mark:"
            f" routing by packet mark may go wrong in every mode; have it mask them away"
        )
    if size is not None and size.most < SMALL_SIZE:
        said.append(
            f"net.netfilter.nf_conntrack_max is {size.most:,}, small for a gateway: our rules have connection"
            f" tracking follow all forwarded flows"
        )
    return tuple(said)


def _rules(found: list[Neighbour], one: str = "sets", many: str = "set") -> str:
    """`a rule (inet a c handle 3) sets`, `3 rules (the first is …) set`."""
    if len(found) == 1:
        return f"a rule of another program ({found[0]}) {one}"
    return f"{len(found):,} rules of other programs (the first is {found[0]}) {many}"
