"""The allowlist: the one owner of the registrations in force."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final, TypeVar

from gatewayd.allowlist.bound import Bound, Ports
from gatewayd.allowlist.match import matching_bound, matching_clients
from gatewayd.allowlist.radix import Radix
from gatewayd.model import Binding, BoundRegistration, Flow, Prefix, Registration, Status

OWN_LENGTH: Final[dict[int, int]] = {4: 24, 6: 48}
"""By family: a client prefix that is shorter is a pool or a provider's block, where anybody's addresses are."""

_Word = TypeVar("_Word", bound=str)


class Allowlist:
    """Registrations by id and, the same objects, by client prefix and by subscriber; and the bindings of
    subscribers. Mutated by its owner task alone.

    Every status and window is held: what is effective is asked at a moment, never stored. Only clients are in
    the radix, and bindings in one of their own; peers and services are checked on the registration that those
    led to.

    Bindings and registrations come and go independently. Whoever adds what `bind` and, after an upsert,
    `bound_registrations_of` the new registration return, and removes what `unbind` and `bound_registrations_of` the
    old one return, has at each moment one grant for each registration and binding of the same subscriber.
    """

    __slots__ = ("_bound", "_by_id", "_categories", "_has_bindings", "_radix", "_statuses")

    def __init__(self) -> None:
        self._by_id: dict[str, Registration] = {}
        self._radix: Radix[Registration] = Radix()
        self._categories: dict[str, int] = {}
        self._statuses: dict[Status, int] = {}
        self._bound = Bound()
        self._has_bindings = False

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Registration]:
        """All registrations, in order of first arrival; not to be mixed with changes."""
        return iter(self._by_id.values())

    def __contains__(self, registration_id: str) -> bool:
        return registration_id in self._by_id

    def get(self, registration_id: str) -> Registration | None:
        return self._by_id.get(registration_id)

    def upsert(self, registration: Registration) -> Registration | None:
        """Put it in the place of its id. Returns what was there before; if that is equal, nothing changed."""
        old = self._by_id.get(registration.id)
        if old is not None:
            if old == registration:
                return old
            self._unlink(old)
        self._by_id[registration.id] = registration
        for prefix in registration.clients:
            self._radix.insert(prefix, registration)
        self._bound.enlist(registration)
        _count(self._categories, registration.category, 1)
        _count(self._statuses, registration.status, 1)
        return old

    def withdraw(self, registration_id: str) -> Registration | None:
        """Take it out. Returns what was there; None, and nothing changed, for an unknown id."""
        old = self._by_id.pop(registration_id, None)
        if old is not None:
            self._unlink(old)
        return old

    def matching(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        """The registrations that make the flow registered at `now`; the hot path."""
        found = matching_clients(self._radix, flow, now)
        return matching_bound(self._bound, flow, now, found) if self._has_bindings else found

    def bind(self, binding: Binding) -> tuple[BoundRegistration, ...]:
        """The subscriber has the place (prefix, ports). Returns what that gives to each of its registrations,
        effective or not.

        () if the place was the subscriber's already: then only the binding is replaced, as for a new
        `confirmed_s`, which costs about 1 µs. Nothing else keeps `confirmed_s` up to date.
        """
        if not self._bound.put(binding):
            return ()
        self._has_bindings = True
        return self._bound.bound_registrations_at(binding.subscriber, binding.prefix, binding.ports)

    def unbind(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> tuple[BoundRegistration, ...]:
        """The subscriber has the place no more. Returns what each of its registrations loses, effective or not;
        () and nothing changed if nothing was bound there."""
        if not self._bound.take(subscriber, prefix, ports):
            return ()
        self._has_bindings = len(self._bound) > 0
        return self._bound.bound_registrations_at(subscriber, prefix, ports)

    def bound_registrations_of(self, registration: Registration) -> tuple[BoundRegistration, ...]:
        """What it is given at the places that its subscriber has at present; also of one that was just taken
        out or replaced: what it then loses."""
        return self._bound.bound_registrations_of(registration)

    @property
    def subscribers(self) -> Container[bytes]:
        """Digests that some registration names, of any status. Live; `in` is one look-up in a dict."""
        return self._bound.subscribers

    def subscribers_changed(self, old: Registration | None, new: Registration | None) -> tuple[bytes, ...]:
        """Digests that left `subscribers`, or came in, when `new` took the place of `old` under one id.

        To be asked right after that upsert (`old` is what it returned) or withdrawal (`new` is None).
        """
        before = old.subscriber if old is not None else None
        after = new.subscriber if new is not None else None
        if before == after:
            return ()
        left = () if before is None or before in self.subscribers else (before,)
        came = () if after is None or len(self.registrations_of(after)) > 1 else (after,)
        return left + came

    def registrations_of(self, subscriber: bytes) -> tuple[Registration, ...]:
        """Those that name it, effective or not, in order of arrival."""
        return self._bound.registrations_of(subscriber)

    def bindings_at(self, address: bytes) -> tuple[Binding, ...]:
        """Those whose prefix covers the address, with or without ports, longest prefix first."""
        return self._bound.bindings_at(address)

    def bindings_of(self, subscriber: bytes) -> tuple[Binding, ...]:
        """Of this subscriber, in order of arrival."""
        return self._bound.bindings_of(subscriber)

    def bindings(self) -> Iterator[Binding]:
        """All of them, those of one subscriber together; not to be mixed with changes."""
        return iter(self._bound)

    def count_bindings(self) -> int:
        return len(self._bound)

    def covering(self, address: bytes) -> tuple[Registration, ...]:
        """Those with the address in their clients, effective or not, once each, longest prefix first."""
        return tuple({registration.id: registration for registration in self._radix.covering(address)}.values())

    def owners_around(self, binding: Binding) -> tuple[Registration, ...]:
        """Registrations of others, effective or not, of which a client prefix of a size that one registrant has
        for itself covers the bound address: the NAS and the registry disagree on whose it is. Once each."""
        shortest = OWN_LENGTH[binding.prefix.family]
        found = self._radix.covering_longer(binding.prefix.packed, shortest)
        return tuple({each.id: each for each in found if each.subscriber != binding.subscriber}.values())

    def at(self, prefix: Prefix) -> tuple[Registration, ...]:
        """Those with this very prefix among their clients."""
        return self._radix.exact(prefix)

    def count_by_category(self) -> dict[str, int]:
        """A copy; categories without registrations are absent."""
        return dict(self._categories)

    def count_by_status(self) -> dict[Status, int]:
        """A copy; statuses without registrations are absent."""
        return dict(self._statuses)

    def _unlink(self, registration: Registration) -> None:
        for prefix in registration.clients:
            self._radix.remove(prefix, registration)
        self._bound.strike(registration)
        _count(self._categories, registration.category, -1)
        _count(self._statuses, registration.status, -1)


def _count(counts: dict[_Word, int], word: _Word, change: int) -> None:
    counts[word] = counts.get(word, 0) + change
    if not counts[word]:
        del counts[word]
