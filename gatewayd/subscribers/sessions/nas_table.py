"""Which NAS a word is of: what the NAS calls itself, and from where it speaks. Pure.

A name alone says too little: RouterOS calls every box MikroTik, and gear without an address of its own says
127.0.1.1. So two that use one name from two places are two. A place is the address that the datagrams come from.
All clients that are configured as proxies are one place, because a NAS behind them is heard through any of them.

Within a place, names that are seen together are names of one NAS: NAS-Identifier, NAS-IP-Address,
NAS-IPv6-Address, and the place itself for words that give no address. Of two identifiers with one address each is a
NAS of its own, and so is each of two addresses with one identifier: behind a proxy that is all there is to tell.

Sessions go with the NAS that was heard of them last (see `sessions`), so a NAS that is heard by another way, and is
taken for another because of it, takes its sessions with it word by word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gatewayd.model.accounting import PROXIES, NasIdentity
from gatewayd.subscribers.sessions.session import Nas

MAX_SAME_NAMES: Final = 100
"""Names of several NAS that are remembered."""
_PARTED: Final = "\x1f"
"""Between the parts of a key; no text of a packet has it (attributes.text_of)."""
_MAX_RESOLVED_EACH: Final = 4
"""Identities remembered for each NAS that there may be."""


@dataclass(frozen=True, slots=True)
class SameName:
    """Several NAS that use one name for sessions of the same ids. `sources`: where they are heard from."""

    name: str
    sources: tuple[str, ...]


def name_of_key(key: str) -> str:
    """The name of a NAS, of its key."""
    return key.partition(_PARTED)[0]


def key_of_identity(identity: NasIdentity) -> str:
    """What stands for a NAS that is first heard so; its rows on disk have it. The name alone where no place is
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
        """A namesake has a session of the same id, of somebody else."""
        self._same_names.pop(nas.name, None)
        self._same_names[nas.name] = None
        if len(self._same_names) > MAX_SAME_NAMES:
            del self._same_names[next(iter(self._same_names))]

    def same_names(self) -> tuple[SameName, ...]:
        """Names that several NAS use at present, for sessions of the same ids; the latest last."""
        found = []
        for name in self._same_names:
            live = [each for each in self._by_name.get(name, ()) if each.sessions and each.source is not None]
            if len(live) > 1:
                found.append(SameName(name, tuple(each.place for each in live)))
        return tuple(found)

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
            nas.addresses.update(identity.addresses)
            if len(self._resolved) >= _MAX_RESOLVED_EACH * self._most:
                self._resolved.clear()
            self._resolved[identity] = nas
        names = {nas.name, identity.name, *_addresses(nas.addresses, nas.source)}
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
