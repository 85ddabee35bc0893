"""What an ISP signs of each registration: its addresses are ours, in no pool, in no other company's, and in use.

Two passes over all registrations: the first finds overlaps, which both of two registrations are told of, the second
judges each. Whether an address is ours or in a pool is the configuration's word (`isp`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec

from gatewayd.activity.days import DAY_S, day_text
from gatewayd.model import Prefix, Registration
from gatewayd.model.moment import format_time
from gatewayd.model.prefix import mask_address

Finding = Literal["not_ours", "in_pool", "overlap", "not_seen"]
FINDINGS: Final[dict[Finding, str]] = {
    "not_ours": "a client prefix is not, or not whole, in isp.prefixes",
    "in_pool": "a client prefix overlaps isp.pools, whose addresses change hands",
    "overlap": "a client prefix overlaps that of a registration which is not known to be of the same registrant",
    "not_seen": "effective, and not in use in the time asked for",
}
By = Literal["addresses", "subscriber", "both", "provider"]
MAX_NAMED: Final = 20
"""Overlaps and prefixes that a verdict names; the others are counted."""


class Verdict(msgspec.Struct, frozen=True):
    """`by`: what it is registered by; a subscriber and a provider have no addresses to be judged. `ours` None:
    not to be said, without addresses or without `isp.prefixes`. `more_overlaps`: than are in `overlaps`."""

    id: str
    registrant: str | None
    category: str
    status: str
    effective: bool
    provisional: bool
    by: By
    addresses: tuple[str, ...] = ()
    ours: Literal["yes", "no", "part"] | None = None
    foreign: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()
    more_overlaps: bool = False
    last_seen_at: str | None = None
    findings: tuple[Finding, ...] = ()


class PrefixSet:
    """Prefixes of both families, and which of them cover a prefix or lie in it."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._known = frozenset(prefixes)
        self._sorted = {size: sorted(each for each in self._known if len(each.packed) == size) for size in (4, 16)}
        self._lengths = {size: sorted({each.length for each in found}) for size, found in self._sorted.items()}

    def __bool__(self) -> bool:
        return bool(self._known)

    def covering(self, prefix: Prefix) -> Prefix | None:
        """The widest that has all of it."""
        for length in self._lengths[len(prefix.packed)]:
            if length > prefix.length:
                break
            found = Prefix(mask_address(prefix.packed, length), length)
            if found in self._known:
                return found
        return None

    def within(self, prefix: Prefix) -> list[Prefix]:
        """Those that lie in it, at most MAX_NAMED."""
        among = self._sorted[len(prefix.packed)]
        first = bisect_left(among, prefix)
        found = among[first : first + MAX_NAMED]
        return [each for each in found if prefix.covers(each.packed)]

    def overlapping(self, prefix: Prefix) -> list[Prefix]:
        cover = self.covering(prefix)
        return [cover] if cover is not None else self.within(prefix)


class Overlaps:
    """Which registrations have addresses in common. `covering`: registrations with the address in their clients."""

    def __init__(self, covering: Callable[[bytes], Sequence[Registration]]) -> None:
        self._covering = covering
        self._found: dict[str, dict[str, None]] = {}
        self._with_more: set[str] = set()
        self._at: dict[Prefix, tuple[Registration, ...]] = {}

    def take(self, registration: Registration) -> None:
        """Note what it overlaps; each pair is met at the registration with the longer prefix, or at both."""
        if registration.status != "active":
            return
        others: dict[str, None] = {}
        for client in registration.clients:
            for other in self._others_at(client):
                if other.id != registration.id and not _is_same_company(registration, other):
                    others[other.id] = None
        for id in others:
            self._note(registration.id, id)
            self._note(id, registration.id)

    def of(self, id: str) -> tuple[tuple[str, ...], bool]:
        """The first of them, and whether there are more."""
        return tuple(self._found.get(id, ())), id in self._with_more

    def _others_at(self, client: Prefix) -> Sequence[Registration]:
        """Of a crowd the answer is kept: thousands may share one prefix, and each would be told of all of them."""
        found = self._at.get(client)
        if found is None:
            active = [each for each in self._covering(client.packed) if each.status == "active"]
            if len(active) <= MAX_NAMED:
                return active
            found = self._at[client] = tuple(_differing(active))
        return found

    def _note(self, id: str, other: str) -> None:
        known = self._found.setdefault(id, {})
        if len(known) < MAX_NAMED:
            known[other] = None
        elif other not in known:
            self._with_more.add(id)


class Verifier:
    """`seen_since_s`: a registration that was last used before has not been seen."""

    def __init__(
        self, ours: Iterable[Prefix], pools: Iterable[Prefix], overlaps: Overlaps, seen_since_s: float
    ) -> None:
        self._ours = PrefixSet(ours)
        self._pools = PrefixSet(pools)
        self._overlaps = overlaps
        self._seen_since_s = seen_since_s

    def judge(self, registration: Registration, last_seen_s: float | None, now: float) -> Verdict:
        """After `Overlaps.take` of every registration. `last_seen_s` None: never, as far as is known."""
        clients, is_effective = registration.clients, registration.is_effective(now)
        foreign = [each for each in clients if self._ours and self._ours.covering(each) is None]
        pools = {each: None for client in clients for each in self._pools.overlapping(client)}
        overlaps, has_more = self._overlaps.of(registration.id)
        ours: Literal["yes", "no", "part"] | None = None
        if clients and self._ours:
            is_partly = len(foreign) < len(clients) or any(map(self._ours.within, foreign))
            ours = "yes" if not foreign else "part" if is_partly else "no"
        is_unseen = is_effective and (last_seen_s is None or last_seen_s < self._seen_since_s)
        has: dict[Finding, bool] = {
            "not_ours": bool(foreign), "in_pool": bool(pools), "overlap": bool(overlaps), "not_seen": is_unseen,
        }  # fmt: skip
        return Verdict(
            registration.id, registration.registrant, registration.category, registration.status, is_effective,
            registration.is_provisional, _by(registration), tuple(map(str, clients)), ours,
            tuple(map(str, foreign[:MAX_NAMED])), tuple(map(str, list(pools)[:MAX_NAMED])), overlaps, has_more,
            None if last_seen_s is None else format_time(last_seen_s),
            tuple(finding for finding, is_there in has.items() if is_there),
        )  # fmt: skip


def _by(registration: Registration) -> By:
    if registration.endpoints:
        return "provider"
    if registration.subscriber is None:
        return "addresses"
    return "both" if registration.clients else "subscriber"


def _is_same_company(one: Registration, other: Registration) -> bool:
    return one.registrant is not None and one.registrant == other.registrant


def _differing(registrations: Sequence[Registration]) -> Iterable[Registration]:
    """Of each company two, as one may be the registration that is looked at; at most so many that it fits."""
    counts: dict[str | None, int] = {}
    for each in registrations:
        count = counts.get(each.registrant, 0)
        limit = 2 if each.registrant is not None else MAX_NAMED + 1
        if count < limit and len(counts) <= MAX_NAMED:
            counts[each.registrant] = count + 1
            yield each


def notes_of(
    ours: Sequence[Prefix], pools: Sequence[Prefix], first_day: int | None, seen_since_s: float
) -> Iterable[str]:
    """What the verdicts do not say. `first_day`: that activity is known of."""
    if not ours:
        yield "isp.prefixes is empty: whether an address is ours is not said"
    if not pools:
        yield "isp.pools is empty: no address is taken for one of a pool"
    if first_day is None:
        yield "activity is not known: every registration counts as not seen"
    elif first_day * DAY_S > seen_since_s + DAY_S:
        yield f"activity is known since {day_text(first_day)} only: not seen means since then"
