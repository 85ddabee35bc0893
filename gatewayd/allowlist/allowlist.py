"""The allowlist: the one owner of the registrations in force."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Final, TypeVar

from gatewayd.allowlist.bound import BindingTable, BySubscriber
from gatewayd.allowlist.match import matching_bound, matching_clients
from gatewayd.allowlist.radix import Radix
from gatewayd.model import Binding, BoundRegistration, Flow, Prefix, Registration, Status

OWN_LENGTH: Final[dict[int, int]] = {4: 24, 6: 48}
"""By family: a client prefix that is shorter is a pool or a provider's block, where anybody's addresses are."""

_Word = TypeVar("_Word", bound=str)


class Allowlist:
    """Registrations by id and, the same objects, by client prefix and by subscriber. Mutated by its owner task
    alone. `bindings`: of subscribers, filled by the table of sessions and read here.

    Every status and window is held: what is effective is asked at a moment, never stored. Only clients are in
    the radix, and bindings in one of their own; peers and services are checked on the registration that those
    led to.

    Bindings and registrations come and go independently. The caller adds `bound_registrations_at` a binding that
    came, and `bound_registrations_of` a registration after its upsert. It removes `bound_registrations_at` a
    binding that went, and `bound_registrations_of` a registration that was replaced or withdrawn. So it has at each
    moment one BoundRegistration for each registration and binding of the same subscriber.
    """

    __slots__ = ("_by_id", "_by_subscriber", "_categories", "_radix", "_statuses", "bindings")

    def __init__(self) -> None:
        self._by_id: dict[str, Registration] = {}
        self._radix: Radix[Registration] = Radix()
        self._categories: dict[str, int] = {}
        self._statuses: dict[Status, int] = {}
        self._by_subscriber: BySubscriber[Registration] = BySubscriber()
        self.bindings = BindingTable()

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
        if registration.subscriber is not None:
            self._by_subscriber.add(registration.subscriber, registration)
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
        return matching_bound(self, flow, now, found) if self.bindings.size else found

    def bound_registrations_at(self, binding: Binding) -> tuple[BoundRegistration, ...]:
        """What the binding gives to each registration of its subscriber, effective or not; what it takes, if it has
        gone."""
        found = self._by_subscriber.of(binding.subscriber)
        return tuple([BoundRegistration(each, binding.prefix, binding.ports) for each in found])

    def bound_registrations_of(self, registration: Registration) -> tuple[BoundRegistration, ...]:
        """What it is given at the places that its subscriber has at present; also of one that was just taken
        out or replaced: what it then loses."""
        if registration.subscriber is None:
            return ()
        found = self.bindings.of(registration.subscriber)
        return tuple([BoundRegistration(registration, each.prefix, each.ports) for each in found])

    @property
    def subscribers(self) -> Container[bytes]:
        """Digests that some registration names, of any status. Live; `in` is one look-up in a dict."""
        return self._by_subscriber.held.keys()

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
        return self._by_subscriber.of(subscriber)

    def bindings_at(self, address: bytes) -> Sequence[Binding]:
        """Those whose prefix covers the address, with or without ports, longest prefix first."""
        return self.bindings.covering(address)

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
        if registration.subscriber is not None:
            self._by_subscriber.remove(registration.subscriber, registration)
        _count(self._categories, registration.category, -1)
        _count(self._statuses, registration.status, -1)


def _count(counts: dict[_Word, int], word: _Word, change: int) -> None:
    counts[word] = counts.get(word, 0) + change
    if not counts[word]:
        del counts[word]
