"""Counters of the kernel, read again and again → what came since the last reading. Pure.

A counter only rises, or begins again at 0: its element went for want of flows and came again, or the table is
another one. An element goes when it has counted nothing for an hour (rule_sets.COUNTED_TIMEOUT_S), so between two
readings a minute apart none goes with something uncounted. After a longer pause some may have: then the total,
which has no timeout, is more than its parts, and the rest is of unknown prefix.

Nothing is taken as counted before the caller has it on disk: `compare` changes nothing, `accept` does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gatewayd.compile.rule_sets import COUNTED_TIMEOUT_S, INTERFACE_FLOWS, PREFIX_FLOWS, SERVICE_FLOWS
from gatewayd.model.transaction import Counted, CounterReading

SETS: Final = (*PREFIX_FLOWS, SERVICE_FLOWS, INTERFACE_FLOWS)
"""A set's number in a baseline is its place here: append only."""
NAMES: Final = (
    "unregistered_flows",
    "reclassified_flows",
    "repeated_packets",
    "uncertain_packets",
    "unplaced_flows",
    "unregistered_packets",
    "rejected_packets",
    "limited_packets",
    "over_limit_packets",
)
"""Named counters of the rules that are kept."""
_ANOTHER_S: Final = COUNTED_TIMEOUT_S / 2
"""An element that came again goes this much later than the one before: it came after that had gone. Two readings of
the same expiry differ by the time between the kernel's answer and ours, seconds on a busy machine."""
_FORGET_S: Final = 60.0
SLICE: Final = 4096
"""Elements of the baseline that are looked at in one turn: half a millisecond."""


class PrefixService(NamedTuple):
    """`prefix`: 3 bytes of a /24 or 6 of a /48."""

    prefix: bytes
    protocol: int
    port: int


class ServiceBucket(NamedTuple):
    """`bucket`: 0..99, the client's share of a canary (compile.effects.canary_bucket)."""

    protocol: int
    port: int
    bucket: int


class Seen(NamedTuple):
    """An element when it was last read. `expires_s`: when it goes, on the clock of the boot."""

    flows: int
    expires_s: float


Element = tuple[int, bytes]
"""Number of the set, key."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What has been counted of the kernel's counters. `incarnation`: boot and table; None: never read.

    `bytes` are of the counters that have a use for it, by the same names.
    """

    incarnation: str | None = None
    packets: Mapping[str, int] = field(default_factory=dict)
    size_bytes: Mapping[str, int] = field(default_factory=dict)
    elements: Mapping[Element, Seen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What came since the last reading, and the baseline that follows.

    `begins`: the first reading ever; what the counters had before is left out. `is_new_table`: the former baseline
    is void. `changed`, `gone`: elements of the baseline.
    """

    incarnation: str
    begins: bool
    is_new_table: bool
    prefixes: Mapping[PrefixService, int]
    services: Mapping[ServiceBucket, int]
    interfaces: Mapping[str, int]
    packets: Mapping[str, int]
    size_bytes: Mapping[str, int]
    changed: Mapping[Element, Seen]
    gone: Sequence[Element]
    counters: Baseline
    """Without elements: the named counters as they were read."""


class Comparison:
    """One reading, piece by piece, against the baseline. `now_s`: of the boot. What came is known after each piece,
    so nothing is left to be done in one turn at the end. Not `is_counted`: what came is left out."""

    def __init__(self, baseline: Mapping[Element, Seen], now_s: float, *, is_counted: bool = True) -> None:
        self._baseline = baseline
        self._now_s = now_s
        self._is_counted = is_counted
        self.changed: dict[Element, Seen] = {}
        self.gone: list[Element] = []
        self.prefixes: dict[PrefixService, int] = {}
        self.services: dict[ServiceBucket, int] = {}
        self.interfaces: dict[str, int] = {}

    def take(self, number: int, piece: Iterable[Counted]) -> None:
        """Elements of the set with this number in SETS. One that comes twice counts as it came last."""
        baseline, now_s, changed, came = self._baseline, self._now_s, self.changed, self._counting_of(number)
        for key, flows, left_s in piece:
            element = number, key
            expires_s = now_s + left_s
            seen = baseline.get(element)
            if seen is None or flows < seen.flows:
                came(key, flows)
            elif flows > seen.flows:
                came(key, flows - seen.flows)
            elif expires_s - seen.expires_s > _ANOTHER_S:
                # As many as before, and yet its time began again.
                came(key, flows)
            else:
                continue
            changed[element] = Seen(flows, expires_s)

    def find_gone(self) -> Generator[None, None, None]:
        """After all pieces: elements of the baseline whose time is over and that did not come again, in slices."""
        over_s = self._now_s - _FORGET_S
        for number, (element, seen) in enumerate(self._baseline.items(), 1):
            if seen.expires_s < over_s and element not in self.changed:
                self.gone.append(element)
            if number % SLICE == 0:
                yield

    def _counting_of(self, number: int) -> Callable[[bytes, int], None]:
        if not self._is_counted:
            return _count_nothing
        if number < len(PREFIX_FLOWS):
            return self._count_prefix4 if number == 0 else self._count_prefix6
        return self._count_service if SETS[number] == SERVICE_FLOWS else self._count_interface

    # Keys: fields of 4 bytes. A port is in network order, a bucket in the host's: it was computed in a register.

    def _count_prefix4(self, key: bytes, flows: int) -> None:
        self.prefixes[PrefixService(key[:3], key[4], key[8] << 8 | key[9])] = flows

    def _count_prefix6(self, key: bytes, flows: int) -> None:
        self.prefixes[PrefixService(key[:6], key[16], key[20] << 8 | key[21])] = flows

    def _count_service(self, key: bytes, flows: int) -> None:
        # A bucket is below 100, so its other three bytes are zero in either order.
        self.services[ServiceBucket(key[0], key[4] << 8 | key[5], max(key[8:12]))] = flows

    def _count_interface(self, key: bytes, flows: int) -> None:
        self.interfaces[key.rstrip(b"\0").decode("utf-8", "replace")] = flows


def _count_nothing(key: bytes, flows: int) -> None:
    """Of the first reading ever."""


class Counting:
    """Holds the baseline. `load` first; for each reading `compare`, `finish`, and `accept` once it is on disk."""

    def __init__(self) -> None:
        self._incarnation: str | None = None
        self._packets: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._elements: dict[Element, Seen] = {}

    def load(self, baseline: Baseline) -> None:
        self._incarnation = baseline.incarnation
        self._packets, self._bytes = dict(baseline.packets), dict(baseline.size_bytes)
        self._elements = dict(baseline.elements)

    def __len__(self) -> int:
        """Elements in the baseline."""
        return len(self._elements)

    @property
    def incarnation(self) -> str | None:
        return self._incarnation

    def whole(self) -> Baseline:
        """For a file that was begun again."""
        return Baseline(self._incarnation, dict(self._packets), dict(self._bytes), dict(self._elements))

    def compare(self, incarnation: str, now_s: float) -> Comparison:
        baseline = self._elements if incarnation == self._incarnation else {}
        return Comparison(baseline, now_s, is_counted=self._incarnation is not None)

    def finish(
        self,
        incarnation: str,
        comparison: Comparison,
        counters: Mapping[str, CounterReading],
        *,
        is_counted: bool = True,
    ) -> Step:
        """`counters`: read before the elements, so that none of their flows is missing in a part. Not `is_counted`:
        the rules count no flows, and what their counters count besides is left out."""
        is_same = incarnation == self._incarnation
        begins = self._incarnation is None
        packets = {name: counters[name].packets for name in NAMES if name in counters}
        size_bytes = {name: counters[name].size_bytes for name in NAMES if name in counters}
        return Step(
            incarnation=incarnation,
            begins=begins,
            is_new_table=not is_same,
            prefixes=comparison.prefixes,
            services=comparison.services,
            interfaces=comparison.interfaces,
            packets=_risen(packets, self._packets if is_same else {}) if is_counted and not begins else {},
            size_bytes=_risen(size_bytes, self._bytes if is_same else {}) if is_counted and not begins else {},
            changed=comparison.changed,
            gone=comparison.gone,
            counters=Baseline(incarnation, packets, size_bytes),
        )

    def accept(self, step: Step) -> None:
        """It is on disk."""
        if step.is_new_table:
            self._elements.clear()
        self._incarnation = step.incarnation
        self._packets, self._bytes = dict(step.counters.packets), dict(step.counters.size_bytes)
        self._elements.update(step.changed)
        for element in step.gone:
            self._elements.pop(element, None)


def _risen(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """A counter that is less than before began again."""
    risen = {name: count - before.get(name, 0) for name, count in now.items()}
    return {name: now[name] if more < 0 else more for name, more in risen.items() if more}
