"""What the connection scanner waits for: the kernel, and accounting.

`ScanRequests`: what happened since live flows were last looked at, and what of it the kernel has by now. Each
change of the registry or of bindings is noted here; the reconciler says when the kernel is as desired; the scanner
takes what is due. A mark that was judged for want of an element is cleared only when the kernel has that element,
so each note waits for `settle`. `look` is for what needs no waiting.

`Grace`: flows that came marked registered and that nothing here explains: how long they are left alone.

The mark came with the connection, from another gateway (conntrackd) or from before a restart, and this gateway has
not known the flow as registered in this run. Where subscribers are registered by number, the binding that explains
it may be on its way: the NAS tells of each session again with its next Interim. So the flow is not drained before

- accounting has named the address of one of its ends (whatever it said: then this gateway knows who has it), or
- it has been here for `longest_s`: by then every session of which this gateway can hear was heard of.

From then on it drains as any other. `longest_s` 0: no subscribers, so nothing is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf

from gatewayd.model.flow import Flow
from gatewayd.model.prefix import Prefix

MAX_BOUND = 16
"""Addresses whose flows are asked for one by one; beyond, all that were judged are gone through."""
MAX_UNBOUND_S = 30.0
"""How long a scan waits for more addresses that subscribers lost; at most a 20th of the drain."""
MAX_LATE = 10_000
"""Late flows remembered by their tuples; more are found by going through all that were judged."""


class ScanRequests:
    """`drain_s`: for how long a flow that is no longer registered is left alone."""

    def __init__(self, drain_s: float) -> None:
        self.drain_s = drain_s
        self.wake = asyncio.Event()
        self.epoch = 0
        """The epoch of the rules when the kernel was last as desired; 0 = it was not yet."""
        self.reclassify = self.scan = False
        """Go through all that were judged; through all that are marked registered."""
        self.unbound_at = inf
        """When to scan for addresses that subscribers lost."""
        self._added = False
        self._late: list[Flow] = []
        self._late_in_kernel: list[Flow] = []
        self._bound: set[bytes] = set()
        self._bound_in_kernel: set[bytes] = set()

    def note_added(self) -> None:
        """Something was registered: flows judged before may be registered now."""
        self._added = True

    def note_removed(self) -> None:
        """Something was withdrawn, or flow events were lost: look at the registered flows."""
        self.scan = True

    def note_bound(self, prefix: Prefix) -> None:
        """A registered subscriber has this address now; flows of it may have been judged a moment before."""
        if prefix.length == 8 * len(prefix.packed) and len(self._bound) < MAX_BOUND:
            self._bound.add(prefix.packed)
        else:
            self._added = True

    def note_unbound(self) -> None:
        """A subscriber lost an address: its flows begin to drain, and no hurry is in that."""
        if self.drain_s:
            self.unbound_at = min(self.unbound_at, monotonic() + min(MAX_UNBOUND_S, self.drain_s / 20))
        else:
            self.scan = True

    def note_late(self, flow: Flow, *, in_kernel: bool = False) -> None:
        """This very flow was judged unregistered a moment too early. `in_kernel`: it would not be now."""
        late = self._late_in_kernel if in_kernel else self._late
        if len(late) < MAX_LATE:
            late.append(flow)
        elif in_kernel:
            self.reclassify = True
        else:
            self._added = True
        if in_kernel:
            self.wake.set()

    def use_drain(self, drain_s: float) -> None:
        """Another drain, from now on."""
        self.drain_s = drain_s
        self.scan = True

    def settle(self, epoch: int) -> None:
        """The kernel is as desired, in this epoch: now a new judgement gives the right result."""
        # The number of a new epoch may have been in use before, and flows may carry it from then.
        self.reclassify = self.reclassify or self._added or epoch != self.epoch
        self._added = False
        self._late_in_kernel += self._late
        self._late = []
        self._bound_in_kernel |= self._bound
        self._bound = set()
        self.epoch = epoch
        self.wake.set()

    def look(self) -> None:
        """Scan now if something was removed; what was added goes on to wait for the kernel."""
        self.wake.set()

    @property
    def is_waiting(self) -> bool:
        """Whether something was registered that the kernel may not have yet."""
        return bool(self._added or self._bound or self._late)

    # -- for the scanner -----------------------------------------------------------------------------------

    def take_late(self) -> list[Flow]:
        late, self._late_in_kernel = self._late_in_kernel, []
        return late

    def take_reclassify(self) -> bool:
        """Whether all that were judged are to be gone through; that answers for the addresses too."""
        is_due = self.reclassify and bool(self.epoch)
        if is_due:
            self.reclassify, self._bound_in_kernel = False, set()
        return is_due

    def take_bound(self) -> set[bytes]:
        if not self.epoch:
            return set()
        bound, self._bound_in_kernel = self._bound_in_kernel, set()
        return bound

    def drop_scan(self) -> None:
        """All that are marked registered are gone through now, whatever for."""
        self.scan, self.unbound_at = False, inf

    def look_at_all(self) -> None:
        """A search failed: what it was to look at is not known to be done."""
        self.reclassify = self.scan = True


def monotonic() -> float:
    """The running loop's clock, which is never set."""
    return asyncio.get_running_loop().time()


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
        """Accounting has named these addresses; a look-up where nothing waits, or no flow near."""
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
