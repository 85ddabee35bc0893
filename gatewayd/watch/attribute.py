"""Whose traffic it is: registered flows that are live, and what each registration has used.

Everything counts from the start of the daemon and lives in memory alone. Flows and counters come from
connection events: one when a flow begins, one with its totals when it ends. A live flow is what the kernel
has one of at a time, an original tuple in its zone; the kernel's 32-bit id (nf_ct_get_id, a truncated hash)
tells a flow from an earlier one of the same tuple, and is no key by itself: 200 000 of them hold some five
pairs that are equal.

After events were lost the kernel is asked for its list, a part at a time, while events go on to arrive:
`begin_resync`, `listed` for each, `finish_resync`. An event is newer than the list wherever they differ.

Measured (Python 3.11): `opened` and `closed` together 1.7–2.7 µs with 50 000 flows live and one registration
each, 2.7 µs with two; `finish_resync` 0.11 µs a live flow. A live flow takes 410 bytes, a registration that
had traffic 230.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Final

import msgspec

from gatewayd.model import Flow, Registration
from gatewayd.model.flow import ConnectionEvent
from gatewayd.model.metric import counter, gauge

LIVE_FLOWS = 200_000


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one registration has used. Packets and bytes of both directions, 0 without nf_conntrack_acct.

    `last_seen_s`: when a flow of it last began, ended, or was found with more traffic than before; where the kernel
    counts none, when it was found alive.
    """

    flows: int
    last_seen_s: float
    packets: int
    size_bytes: int


class Traffic(msgspec.Struct, frozen=True, gc=False):
    """What one registration has used since that was last taken."""

    registration_id: str
    flows: int
    size_bytes: int
    last_seen_s: float


class AttributedFlow(msgspec.Struct, frozen=True, gc=False):
    """A live registered flow; its counters are as of its beginning or of the last resync."""

    flow: Flow
    registration_ids: tuple[str, ...]
    first_seen_s: float
    last_seen_s: float
    packets: int
    size_bytes: int


class _Account(msgspec.Struct, gc=False):
    """Usage while it is being counted. `alone`: the ids of a flow that only this registration covers, shared
    by its flows. `taken_…`: what `take_traffic` has given, and what was used before this run."""

    alone: tuple[str, ...]
    flows: int
    last_seen_s: float
    packets: int
    size_bytes: int
    taken_flows: int = 0
    taken_bytes: int = 0
    taken_seen_s: float = 0.0


class _Live(msgspec.Struct, gc=False):
    """`packets`, `size_bytes`: what is already in the accounts. `round`: of the resync it was last met in."""

    flow: Flow
    id: int
    registration_ids: tuple[str, ...]
    round: int
    first_seen_s: float
    last_seen_s: float
    packets: int
    size_bytes: int


class Attribution:
    """Live registered flows, at most `capacity`, and the usage of registrations that had traffic.

    A full table loses its oldest 64th at once. A flow that several registrations cover counts in full for
    each. Nothing is counted twice: what of a live flow is in the accounts is remembered with it. A counter
    that went back was zeroed by somebody (`conntrack -Z`) and counts from 0 again.

    What the accounts miss is counted, too. `evicted`: flows left out by the bound, the oldest first; the rest
    of their traffic is not counted, and one that a resync finds again counts as a flow anew. `ended_unseen`:
    ends that were lost, and with them what the flow carried since it was last listed. `strays`: ends of flows
    that were not live. `unmatched`: flows that no registration covers. `unremembered`: ends during a resync
    that were too many to be held against the list.
    """

    __slots__ = (
        "_accounts", "_capacity", "_ended", "_forgotten", "_has_listed", "_live", "_round",
        "ended_unseen", "evicted", "strays", "unmatched", "unremembered",
    )  # fmt: skip

    def __init__(self, capacity: int = LIVE_FLOWS) -> None:
        self._capacity = capacity
        self._accounts: dict[str, _Account] = {}
        self._live: dict[bytes, _Live] = {}
        self._round = 0
        self._ended: set[bytes] | None = None
        self._forgotten: list[Traffic] = []
        self._has_listed = False
        """A list was complete in this run."""
        self.evicted = self.ended_unseen = self.strays = self.unmatched = self.unremembered = 0

    @property
    def live_count(self) -> int:
        return len(self._live)

    def opened(self, event: ConnectionEvent, registrations: Sequence[Registration], now: float) -> None:
        """A flow began, covered by `registrations`. Said of a live flow, it brings what is known up to date."""
        key = event.identity if event.zone else event.tuple_bytes
        known = self._live.get(key)
        if known is not None:
            if known.id == event.id:
                self._refresh(known, event, registrations, now)
                return
            del self._live[key]
            self.ended_unseen += 1
        if not registrations:
            self.unmatched += 1
            return
        if len(self._live) >= self._capacity:
            self._evict()
        self._begin(key, event, registrations, now)

    def closed(self, event: ConnectionEvent, now: float) -> tuple[str, ...]:
        """A flow ended with these totals. Returns whose it was; () for a flow that is not live.

        A flow whose beginning was missed is attributed by `opened` with the event of its end, then `closed`.
        """
        key = event.identity if event.zone else event.tuple_bytes
        if self._ended is not None:
            self._remember_end(key)
        known = self._live.get(key)
        if known is None or known.id != event.id:
            self.strays += 1
            return ()
        del self._live[key]
        self._account(known, event, now)
        return known.registration_ids

    def knows(self, event: ConnectionEvent) -> bool:
        """Whether this flow is live here, so that `listed` can do without its registrations."""
        known = self._live.get(event.identity)
        return known is not None and known.id == event.id

    def begin_resync(self) -> None:
        """The kernel is about to be listed; to be said before it is asked. A resync under way is given up."""
        self._round += 1
        self._ended = set()

    def listed(self, event: ConnectionEvent, registrations: Sequence[Registration], now: float) -> None:
        """The kernel's list has this flow. No registrations: a flow that is known keeps those it has.

        A flow that is missing is added while there is room; what is live is not evicted for it.
        """
        key = event.identity
        known = self._live.get(key)
        if known is not None:
            if known.id == event.id:
                self._refresh(known, event, registrations, now)
                return
            if known.round == self._round:  # it began after this was listed, or its end is still to be heard
                return
            del self._live[key]
            self.ended_unseen += 1
        elif self._ended is not None and key in self._ended:
            return
        if not registrations:
            self.unmatched += 1
        elif len(self._live) >= self._capacity:
            self.evicted += 1
        else:
            self._begin(key, event, registrations, now)
            if not self._has_listed:
                self._note_former(event, registrations, now)

    def finish_resync(self) -> int:
        """The list was complete: drop flows that neither it nor an event since has named. Returns how many.

        Not to be called after a list that broke off, which would drop flows that are alive.
        """
        if self._ended is None:
            return 0
        self._ended = None
        self._has_listed = True
        gone = [key for key, known in self._live.items() if known.round != self._round]
        for key in gone:
            del self._live[key]
        self.ended_unseen += len(gone)
        return len(gone)

    def forget(self, registration_id: str) -> None:
        """Drop the usage of a withdrawn registration. Its live flows stay listed until they end."""
        account = self._accounts.pop(registration_id, None)
        if account is not None:
            self._forgotten += _taken(registration_id, account)

    def take_traffic(self, slice_size: int) -> Iterator[list[Traffic]]:
        """What registrations have used since it was last taken, those that were withdrawn meanwhile included. So
        many accounts are looked at between two lists, so that the loop can turn.

        Not in it: what a flow carried before this run, as the run before has counted that. Where the kernel does
        not count bytes, a flow that a list still has was used.
        """
        forgotten, self._forgotten = self._forgotten, []
        if forgotten:
            yield forgotten
        ids = iter(tuple(self._accounts))
        while piece := tuple(islice(ids, slice_size)):
            found: list[Traffic] = []
            for id in piece:
                account = self._accounts.get(id)
                if account is not None:
                    found += _taken(id, account)
            yield found

    def usage(self, registration_id: str) -> Usage | None:
        """None: no traffic yet."""
        account = self._accounts.get(registration_id)
        if account is None:
            return None
        return Usage(account.flows, account.last_seen_s, account.packets, account.size_bytes)

    def flows(self, registration_id: str | None, offset: int, limit: int) -> tuple[AttributedFlow, ...]:
        """Live flows of one registration or of all, oldest first; walks the whole table for one."""
        chosen = (
            known
            for known in self._live.values()
            if registration_id is None or registration_id in known.registration_ids
        )
        return tuple(
            AttributedFlow(
                known.flow, known.registration_ids, known.first_seen_s, known.last_seen_s,
                known.packets, known.size_bytes,
            )
            for known in islice(chosen, offset, offset + limit)
        )  # fmt: skip

    def count_live(self, ids: frozenset[str]) -> Counter[str]:
        """Live flows of each of these registrations; walks the whole table once."""
        alive = self._live.values() if ids else ()
        return Counter(id for known in alive for id in known.registration_ids if id in ids)

    def _evict(self) -> None:
        """Many at once: a dict finds its oldest key by stepping over all that were deleted before it."""
        oldest = list(islice(self._live, max(1, self._capacity // 64)))
        for key in oldest:
            del self._live[key]
        self.evicted += len(oldest)

    def _begin(self, key: bytes, event: ConnectionEvent, registrations: Sequence[Registration], now: float) -> None:
        packets = event.packets_original + event.packets_reply
        size_bytes = event.bytes_original + event.bytes_reply
        accounts = self._accounts
        for registration in registrations:
            account = accounts.get(registration.id)
            if account is None:
                account = accounts[registration.id] = _Account((registration.id,), 0, now, 0, 0)
            account.flows += 1
            account.last_seen_s = now
            account.packets += packets
            account.size_bytes += size_bytes
        if len(registrations) == 1:
            ids = accounts[registrations[0].id].alone
        else:
            ids = tuple([registration.id for registration in registrations])
        self._live[key] = _Live(event.flow, event.id, ids, self._round, now, now, packets, size_bytes)

    def _refresh(
        self, known: _Live, event: ConnectionEvent, registrations: Sequence[Registration], now: float
    ) -> None:
        """Registrations that cover it only now have the flow from here on; what it carried is not theirs."""
        known.round = self._round
        totals = event.packets_original + event.packets_reply, event.bytes_original + event.bytes_reply
        if totals != (known.packets, known.size_bytes) or not totals[0]:
            known.last_seen_s = now
            self._account(known, event, now)
        if not registrations:
            return
        ids = tuple(registration.id for registration in registrations)
        for registration_id in ids:
            if registration_id not in known.registration_ids:
                account = self._accounts.setdefault(registration_id, _Account((registration_id,), 0, now, 0, 0))
                account.flows += 1
                account.last_seen_s = now
        known.registration_ids = ids

    def _account(self, known: _Live, event: ConnectionEvent, now: float) -> None:
        """Add what the totals of `event` have more than those in the accounts."""
        packets = event.packets_original + event.packets_reply
        size_bytes = event.bytes_original + event.bytes_reply
        more_packets = packets - known.packets if packets >= known.packets else packets
        more_bytes = size_bytes - known.size_bytes if size_bytes >= known.size_bytes else size_bytes
        known.packets, known.size_bytes = packets, size_bytes
        for registration_id in known.registration_ids:
            account = self._accounts.get(registration_id)
            if account is not None:
                account.last_seen_s = now
                account.packets += more_packets
                account.size_bytes += more_bytes

    def _note_former(self, event: ConnectionEvent, registrations: Sequence[Registration], now: float) -> None:
        """A flow that began before this run: what it has carried is not of now."""
        for registration in registrations:
            account = self._accounts[registration.id]
            account.taken_flows += 1
            account.taken_bytes += event.bytes_original + event.bytes_reply
            account.taken_seen_s = max(account.taken_seen_s, now)

    def _remember_end(self, key: bytes) -> None:
        ended = self._ended
        assert ended is not None
        if len(ended) < self._capacity:
            ended.add(key)
        else:
            self.unremembered += 1


def _taken(id: str, account: _Account) -> list[Traffic]:
    """What is new of an account, and is not from now on; one or none."""
    flows, size_bytes = account.flows - account.taken_flows, account.size_bytes - account.taken_bytes
    if not flows and not size_bytes and account.last_seen_s == account.taken_seen_s:
        return []
    account.taken_flows, account.taken_bytes = account.flows, account.size_bytes
    account.taken_seen_s = account.last_seen_s
    return [Traffic(id, flows, size_bytes, account.last_seen_s)]


_WATCHED: Final = counter("watch_events", "Events taken in from the kernel.", label="kind")
_UNCOUNTED: Final = counter("flows_uncounted",
    "Flows that attribution misses, or a part of them. `ended_unseen`: the end was lost. `strays`: the end of a"
    " flow not followed. `unmatched`: unregistered. `unremembered`: ended in a dump.", label="kind")  # fmt: skip


class WatchView(msgspec.Struct, frozen=True):
    """`packets`, `connections`: events taken in from NFLOG and from ctnetlink."""

    packets: Annotated[int, _WATCHED.of("packet")] = 0
    connections: Annotated[int, _WATCHED.of("connection")] = 0
    malformed: Annotated[int, counter("watch_malformed", "Events that could not be parsed.",
        "rises: report it to us with the kernel's version")] = 0  # fmt: skip
    overruns: Annotated[int, counter("watch_overruns", "Events that the kernel dropped before we read them.",
        "rises")] = 0  # fmt: skip
    resyncs: Annotated[int, counter("watch_resyncs", "Times that all flows were read again after a loss.")] = 0
    late_admissions: Annotated[int, counter("late_admissions",
        "Registered flows that the kernel had let go as unregistered, and that were put right.",
        "rises in peace")] = 0  # fmt: skip
    flows_tracked: Annotated[int, gauge("flows_tracked", "Registered flows followed at present.")] = 0
    flows_evicted: Annotated[int, counter("flows_evicted", "Flows no longer followed because the table was full.",
        "rises: attribution is incomplete")] = 0  # fmt: skip
    postponed: Annotated[int, counter("watch_postponed",
        "Turns whose time was not enough for the events read: the rest waited for 5 ms.",
        "rises for 5 min: a flood, or thousands of registrations at one address")] = 0  # fmt: skip
    flows_ended_unseen: Annotated[int, _UNCOUNTED.of("ended_unseen")] = 0
    flows_strays: Annotated[int, _UNCOUNTED.of("strays")] = 0
    flows_unmatched: Annotated[int, _UNCOUNTED.of("unmatched")] = 0
    flows_unremembered: Annotated[int, _UNCOUNTED.of("unremembered")] = 0
    aggregates_evicted: Annotated[int, counter("aggregates_evicted",
        "Prefixes of unregistered traffic whose counts were dropped for newer ones, past 4,096.")] = 0  # fmt: skip
