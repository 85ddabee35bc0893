"""Flows that came marked registered and that nothing here explains: how long they are left alone.

The mark came with the connection, from another gateway (conntrackd) or from before a restart, and this gateway has
not known the flow as registered in this run. Where subscribers are registered by number, the binding that explains
it may be on its way: the NAS tells of each session again with its next Interim. So the flow is not drained before

- accounting has named the address of one of its ends (whatever it said: then this gateway knows who has it), or
- it has been here for `longest_s`: by then every session of which this gateway can hear was heard of.

From then on it drains as any other. `longest_s` 0: no subscribers, so nothing is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable

from gatewayd.model.flow import Flow
from gatewayd.model.prefix import Prefix

MAX_WAITING = 100_000
"""Flows whose time is kept; more are left alone and looked at again by the next scan."""


class Grace:
    """Owns the times of waiting flows, and which of their addresses accounting has named since."""

    def __init__(self, longest_s: float = 0.0, capacity: int = MAX_WAITING) -> None:
        self.longest_s = longest_s
        self._capacity = capacity
        self._since: dict[bytes, tuple[float, Flow]] = {}
        self._ends: dict[bytes, set[bytes]] = {}
        """Addresses that wait, by their /24 or /48."""
        self._named: set[bytes] = set()
        self._met: set[bytes] = set()
        self._left_alone = 0
        self.waiting = 0
        """Flows left alone, as of the latest scan."""

    def wait_for(self, longest_s: float) -> None:
        """Another bound, from now on."""
        self.longest_s = longest_s

    def holds(self, key: bytes, flow: Flow, now: float) -> bool:
        """Whether the flow, met by a scan, is to be left alone. `now`: of a clock that is never set."""
        if not self.longest_s or flow.source in self._named or flow.destination in self._named:
            return False
        known = self._since.get(key)
        if known is None and len(self._since) < self._capacity:
            known = self._since[key] = now, flow
            self._await(flow)
        if known is not None:
            self._met.add(key)
            if now - known[0] >= self.longest_s:
                return False
        self._left_alone += 1
        return True

    def finish(self) -> None:
        """The scan is complete: flows that it did not meet are gone, or explained by now."""
        if len(self._met) < len(self._since):
            self._since = {key: known for key, known in self._since.items() if key in self._met}
            self._ends = {}
            for _, flow in self._since.values():
                self._await(flow)
            if not self._since:
                self._named = set()
        self.waiting = self._left_alone

    def begin(self) -> None:
        """A scan begins."""
        self._met = set()
        self._left_alone = 0

    def hear(self, prefixes: Iterable[Prefix]) -> None:
        """Accounting has named these addresses; a look-up where nothing waits, or nobody near."""
        if not self._ends:
            return
        for prefix in prefixes:
            size = _size(prefix.packed)
            if prefix.length >= 8 * size:
                near: Iterable[set[bytes]] = (self._ends.get(prefix.packed[:size], _NOBODY),)
            else:
                near = self._ends.values()
            for addresses in near:
                self._named.update(
                    each for each in addresses if len(each) == len(prefix.packed) and prefix.covers(each)
                )

    def _await(self, flow: Flow) -> None:
        for address in (flow.source, flow.destination):
            self._ends.setdefault(address[: _size(address)], set()).add(address)


_NOBODY: set[bytes] = set()


def _size(address: bytes) -> int:
    return 3 if len(address) == 4 else 6
