"""Which NAS a record is of, and when it last restarted. Pure.

A name alone says too little: RouterOS calls every box MikroTik, and gear without an address of its own says
127.0.1.1. So two that use one name from two places are two. A place is the address that the datagrams come from.
All clients that are configured as proxies are one place, because a NAS behind them may come through any of them.

Within a place, names that are seen together are names of one NAS: NAS-Identifier, NAS-IP-Address,
NAS-IPv6-Address, and the place itself for records that give no address. Of two identifiers with one address each is
a NAS of its own, and so is each of two addresses with one identifier: behind a proxy that is all there is to go by.

Sessions go with the NAS that reported them last (see `sessions`), so a NAS that comes by another way, and is taken
for another because of it, takes its sessions with it record by record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from gatewayd.model.accounting import PROXIES, NasIdentity
from gatewayd.subscribers.sessions.nas_clock import NasClock

if TYPE_CHECKING:
    from gatewayd.subscribers.journal_rows import NasRow
    from gatewayd.subscribers.sessions.session import Session

LAG_WINDOW_S: Final = 120.0
USUAL_LAG_S: Final = 60.0
"""Events come so late by themselves: queues, repeats."""

RESTART_KEPT_S: Final = 86400.0
"""An Accounting-On or -Off is remembered for so long: the same bytes again are a replay. Not longer, as a NAS
without a clock may say the same at each of its restarts."""
MAX_RESTARTS: Final = 16
"""Of one NAS that are remembered."""
MAX_NAMES: Final = 32
"""Of one NAS."""
MAX_SAME_NAMES: Final = 100
"""Names of several NAS that are remembered."""
_PARTED: Final = "\x1f"
"""Between the parts of a key; no text of a packet has it (attributes.text_of)."""
_MAX_RESOLVED_EACH: Final = 4
"""Identities remembered for each NAS that there may be."""


class Nas:
    """A NAS: its live sessions by id, when it last restarted, what its clock says.

    `key`: stands for it in rows, and never changes. `name`: the best that it calls itself. `label`: for
    people, with its place where others have the name. `source`: from where it speaks, as in NasIdentity.
    `identifier`, `addresses`: what it calls itself; `names`: all that leads to it. `restarted_s`: event time of its
    last Accounting-On or -Off; a record older than that counts for nothing. `restarts`: the authenticators
    of these, and when they came.
    """

    __slots__ = (
        "_lag_before_s",
        "_lag_s",
        "_window_ends_s",
        "addresses",
        "clock",
        "identifier",
        "interim_s",
        "key",
        "label",
        "name",
        "names",
        "restarted_s",
        "restarts",
        "sessions",
        "source",
    )

    def __init__(self, key: str, name: str | None = None, source: str | None = None) -> None:
        self.key = key
        self.name = self.label = key if name is None else name
        self.source = source
        self.identifier: str | None = None
        self.addresses: set[str] = set()
        self.names: set[str] = set()
        self.sessions: dict[str, Session] = {}
        self.restarted_s = -inf
        self.restarts: tuple[tuple[bytes, float], ...] = ()
        self.clock = NasClock()
        self.interim_s: int | None = None
        self._lag_s = inf
        self._lag_before_s = inf
        self._window_ends_s = -inf

    @property
    def place(self) -> str:
        """Where it is, for people: its address behind a proxy, or where several speak from one place."""
        own = sorted(self.addresses - {self.source or ""})
        return " ".join(
            filter(None, (self.source, f"({own[0]})" if own and self.source else own[0] if own else ""))
        )

    @property
    def has_restarted(self) -> bool:
        """Whether an Accounting-On or -Off of it is known."""
        return self.restarted_s > -inf

    def admit_restart(self, authenticator: bytes, now: float) -> bool:
        """Whether an Accounting-On or -Off is news, and not the same again; it is remembered. Without an
        authenticator, as of a list, it is."""
        recent = [each for each in self.restarts if now - each[1] < RESTART_KEPT_S]
        if any(known == authenticator for known, _ in recent):
            return False
        if authenticator:
            self.restarts = ((authenticator, now), *recent[: MAX_RESTARTS - 1])
        return True

    def resume(self, row: NasRow, now: float) -> None:
        """As known before a restart of ours: what is late from now on is late, and no clock that is behind."""
        self.restarted_s, self.clock, self.restarts = row.restarted_s, NasClock(row.ahead_s), row.restarts
        ahead_s = row.ahead_s
        self._lag_s, self._window_ends_s = max(-ahead_s, 0.0), now

    def age_s(self, at_s: float, received_s: float) -> float:
        """How old an event of this NAS was when it came, its clock put right.

        What every event of the last minutes was late by is no delay but a clock that is behind (no NTP, a wrong
        zone, set back). An old event from a proxy's queue comes among fresh ones, and stays old.
        """
        lag_s = max(received_s - at_s, 0.0)
        if not self._window_ends_s - LAG_WINDOW_S <= received_s < self._window_ends_s:
            is_next = 0 <= received_s - self._window_ends_s < LAG_WINDOW_S
            self._lag_before_s = self._lag_s if is_next else inf
            self._lag_s = inf
            self._window_ends_s = received_s + LAG_WINDOW_S
        self._lag_s = min(self._lag_s, lag_s)
        behind_s = min(self._lag_s, self._lag_before_s)
        return lag_s - behind_s if behind_s > USUAL_LAG_S else lag_s

    def same_interim_s(self, interim_s: int | None) -> int | None:
        """`interim_s`, as one object for all sessions of this NAS, which mostly have the same."""
        if self.interim_s != interim_s:
            self.interim_s = interim_s
        return self.interim_s


@dataclass(frozen=True, slots=True)
class SameName:
    """Several NAS that use one name for sessions of the same ids. `sources`: where they speak from."""

    name: str
    sources: tuple[str, ...]


def name_of_key(key: str) -> str:
    """The name of a NAS, of its key."""
    return key.partition(_PARTED)[0]


def key_of_identity(identity: NasIdentity) -> str:
    """What stands for a NAS whose first record says so; its rows on disk have it. The name alone where no place is
    known, as in lists."""
    if identity.source is None:
        return identity.name
    return _PARTED.join((identity.name, identity.source, identity.addresses[0] if identity.addresses else ""))


def identity_of_key(key: str) -> NasIdentity:
    """As key_of_identity was given it, but for what the name is: an identifier that is an address is none."""
    name, *place = key.split(_PARTED)
    if len(place) != 2:
        return NasIdentity(name, None, (), None)
    source, address = place
    is_identifier = name not in (source, address)
    return NasIdentity(name, name if is_identifier else None, (address,) if address else (), source)


class NasTable:
    """At most `most` NAS; those without sessions make room. `by_key`: live."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: dict[str, Nas] = {}
        self._by_name: dict[str, list[Nas]] = {}
        self._resolved: dict[NasIdentity, Nas] = {}
        self._same_names: dict[str, None] = {}
        self._placeless = 0
        """NAS that only lists, or rows of an earlier version, know."""
        self.by_key: Mapping[str, Nas] = self._by_key

    def __iter__(self) -> Iterator[Nas]:
        return iter(self._by_key.values())

    def find(self, identity: NasIdentity) -> Nas | None:
        """The NAS that says so of itself, if it is known."""
        nas = self._resolved.get(identity)
        if nas is None:
            nas = self._match(identity)
            if nas is not None:
                self._learn(nas, identity)
        return nas

    def add(self, key: str, identity: NasIdentity) -> tuple[Nas | None, list[Nas]]:
        """A new one; None where there is no room. And those that had to go for it."""
        gone: list[Nas] = []
        if len(self._by_key) >= self._most:
            gone = [each for each in self._by_key.values() if not each.sessions]
            for each in gone:
                self._remove(each)
        if len(self._by_key) >= self._most:
            return None, gone
        nas = self._by_key[key] = Nas(key, identity.name, identity.source)
        self._placeless += nas.source is None
        self._learn(nas, identity)
        return nas, gone

    def smallest(self, is_fit: Callable[[Nas], bool]) -> Nas | None:
        """Of those that are fit, the one with the fewest sessions."""
        found = sorted(self._by_key.values(), key=lambda each: len(each.sessions))
        return next(filter(is_fit, found), None)

    def namesakes(self, nas: Nas) -> list[Nas]:
        """Others that use its name, from other places or of other addresses; and what lists know by any of its
        names."""
        known = self._by_name.get(nas.name, ())
        if len(known) <= 1 and not self._placeless:
            return []
        found = [each for each in known if each is not nas and each.name == nas.name]
        for name in nas.names:
            for each in self._by_name.get(name, ()) if self._placeless else ():
                if each.source is None and each is not nas and each not in found:
                    found.append(each)
        return found

    def of_name(self, name: str) -> list[Nas]:
        """All that use this name; one by its key or its label too."""
        known = self._by_name.get(name) or [each for each in self if name in (each.key, each.label)]
        return list(known)

    def note_same_name(self, nas: Nas) -> None:
        """A namesake has a session of the same id, of another subscriber."""
        self._same_names.pop(nas.name, None)
        self._same_names[nas.name] = None
        if len(self._same_names) > MAX_SAME_NAMES:
            del self._same_names[next(iter(self._same_names))]

    def same_names(self) -> tuple[SameName, ...]:
        """Names that several NAS use at present, for sessions of the same ids; the latest last."""
        found = [self.same_name(name) for name in self._same_names]
        return tuple(each for each in found if each is not None)

    def same_name(self, name: str) -> SameName | None:
        """None where a single NAS uses it at present."""
        live = [each for each in self._by_name.get(name, ()) if each.sessions and each.source is not None]
        return SameName(name, tuple(each.place for each in live)) if len(live) > 1 else None

    def _match(self, identity: NasIdentity) -> Nas | None:
        if identity.source is None:
            known = self._by_name.get(identity.name, [])
            placeless = [each for each in known if each.source is None]
            known = known or [each for each in self if each.label == identity.name]
            return placeless[0] if placeless else known[0] if len(known) == 1 else None
        near: dict[str, Nas] = {}
        for name in (identity.identifier, *_addresses(identity.addresses, identity.source)):
            for each in self._by_name.get(name, ()) if name is not None else ():
                if each.source == identity.source:
                    near[each.key] = each
        same = [each for each in near.values() if _is_same(each, identity)]
        if len(same) > 1:
            same = [each for each in same if each.identifier == identity.identifier] or same
        if len(same) > 1:
            same = [each for each in same if each.addresses == set(identity.addresses)] or same
        return same[0] if len(same) == 1 else self._by_key.get(key_of_identity(identity))

    def _learn(self, nas: Nas, identity: NasIdentity) -> None:
        """What it calls itself here too."""
        if identity.source is not None:
            if nas.identifier is None and identity.identifier is not None:
                nas.identifier = nas.name = identity.identifier
            if len(nas.names) < MAX_NAMES:
                nas.addresses.update(identity.addresses)
            if len(self._resolved) >= _MAX_RESOLVED_EACH * self._most:
                self._resolved.clear()
            self._resolved[identity] = nas
        names = {nas.name, identity.name, *_addresses(nas.addresses, nas.source)}
        if len(nas.names) >= MAX_NAMES:
            names &= nas.names | {nas.name}
        for name in names:
            known = self._by_name.setdefault(name, [])
            if nas not in known:
                known.append(nas)
        nas.names |= names
        self._label(nas.name)

    def _label(self, name: str) -> None:
        """Of several with one name each is called by its place too."""
        known = [each for each in self._by_name.get(name, ()) if each.name == name]
        placed = sum(each.source is not None for each in known)
        for each in known:
            each.label = f"{name} from {each.place}" if placed > 1 and each.source is not None else name

    def _remove(self, nas: Nas) -> None:
        del self._by_key[nas.key]
        self._placeless -= nas.source is None
        for name in nas.names:
            known = self._by_name[name]
            known.remove(nas)
            if not known:
                del self._by_name[name]
        self._resolved = {identity: each for identity, each in self._resolved.items() if each is not nas}
        self._label(nas.name)


def _addresses(addresses: set[str] | tuple[str, ...], source: str | None) -> tuple[str, ...]:
    """Those that a NAS gave as its own; if it gave none, the place that it speaks from."""
    return tuple(addresses) or ((source,) if source is not None and source != PROXIES else ())


def _is_same(nas: Nas, identity: NasIdentity) -> bool:
    """Of the same place: whether one NAS may have said both."""
    if nas.identifier is not None and identity.identifier is not None:
        if nas.identifier != identity.identifier:
            return False
        if not nas.addresses or not identity.addresses:
            return True
    mine = set(_addresses(nas.addresses, nas.source))
    return not mine.isdisjoint(_addresses(identity.addresses, identity.source))
