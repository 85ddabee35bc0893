"""The registrations and bindings in force, and what of them is active at a moment.

Each change returns what the kernel is to have more and less, to be performed in the same turn: additions before
removals, so an element that both an old and a new form want never leaves the kernel. Registrations and bindings
that overlap do not disturb each other: what any of them lets pass, passes. So one record costs what one record
costs, however many bindings lie within its addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

import msgspec

from gatewayd.allowlist.by_subscriber import BySubscriber
from gatewayd.allowlist.endpoints import MAX_MATCHING, matching_endpoints, matching_reversed
from gatewayd.allowlist.match import matching_bound, matching_clients
from gatewayd.allowlist.radix import Radix
from gatewayd.allowlist.schedule import Schedule
from gatewayd.model import Binding, BoundRegistration, Flow, Prefix, Registration, Status
from gatewayd.model.registration import Ports

MAX_SHARING = 256
"""Bindings at one address, its port blocks, from which on they are found by the port."""


def piece_of(port: int) -> bytes:
    """The 1,024 ports that the port is among, as if it were an address: a block of a CGNAT is in one or two."""
    return (port >> 10).to_bytes(2, "big") + b"\0\0"


def _pieces_of(binding: Binding) -> list[Prefix]:
    """None where it has all ports."""
    first, last = binding.ports or (0, -1)
    return [Prefix(piece_of(port), 16) for port in range(first & ~1023, last + 1, 1024)]


class BindingTable:
    """The one holder of bindings: the table of sessions fills it, the allowlist reads it.

    There is at most one binding of a subscriber at a prefix and ports. It is as it was when it was made: what
    confirms it later, every few minutes, is in the sessions.
    """

    __slots__ = ("_by_subscriber", "_radix", "covering", "facing", "size")

    def __init__(self) -> None:
        self._by_subscriber: BySubscriber[Binding] = BySubscriber()
        self._radix: Radix[Binding] = Radix(_pieces_of, MAX_SHARING)
        self.covering: Callable[[bytes], Sequence[Binding]] = self._radix.covering
        """Those whose prefix covers the address, longest prefix first, at one prefix in order of arrival."""
        self.facing: Callable[[bytes, bytes], Sequence[Binding]] = self._radix.facing
        """The same, of an address with many port blocks those of a `piece_of` the ports; perhaps twice each."""
        self.size = 0
        """Bindings."""

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Binding]:
        """All bindings, those of a subscriber together; not to be mixed with changes."""
        for subscriber in self._by_subscriber.held:
            yield from self._by_subscriber.of(subscriber)

    def put(self, binding: Binding) -> None:
        """The caller does not put two of one subscriber at one prefix and ports."""
        self._by_subscriber.add(binding.subscriber, binding)
        self._radix.insert(binding.prefix, binding)
        self.size += 1

    def remove(self, binding: Binding) -> None:
        """The very object; KeyError, and nothing changed, if it is not there."""
        self._by_subscriber.remove(binding.subscriber, binding)
        self._radix.remove(binding.prefix, binding)
        self.size -= 1

    def get(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> Binding | None:
        for binding in self._by_subscriber.of(subscriber):
            if binding.prefix == prefix and binding.ports == ports:
                return binding
        return None

    def of(self, subscriber: bytes) -> tuple[Binding, ...]:
        """Of this subscriber, in order of arrival."""
        return self._by_subscriber.of(subscriber)


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

    __slots__ = (
        "_by_id", "_by_subscriber", "_categories", "_endpoints", "_providers", "_radix", "_statuses", "bindings",
    )  # fmt: skip

    def __init__(self) -> None:
        self._by_id: dict[str, Registration] = {}
        self._radix: Radix[Registration] = Radix(_peers_of)
        self._endpoints: Radix[Registration] = Radix(_peers_of)
        self._providers = 0
        """Registrations that have endpoints."""
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
        if registration.extension is not None:
            self._link_endpoints(registration)
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
        if self.bindings.size:
            found = matching_bound(self, flow, now, found)
        return matching_endpoints(self, flow, now, found) if self._providers else found

    def matching_connection(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        """The registrations that may make a connection registered, whose packet made it: the client's packets run
        in its reply direction, if the far end's did."""
        found = self.matching(flow, now)
        return matching_reversed(self, flow, now) if not found and self._providers else found

    def endpoints_at(self, address: bytes) -> Sequence[Registration]:
        """Those with the address among their endpoints, effective or not, longest prefix first; perhaps several
        times each."""
        return self._endpoints.covering(address) if self._providers else ()

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
    def has_providers(self) -> bool:
        """Whether any registration has endpoints, effective or not."""
        return self._providers > 0

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

    def facing(self, address: bytes, other: bytes) -> Sequence[Registration]:
        """As `covering`, without some whose peers do not cover `other`; perhaps several times each."""
        return self._radix.facing(address, other)

    def around(self, address: bytes, other: bytes, most: int) -> Sequence[Registration]:
        """As `covering`, and of thousands at one prefix some alone, those that face the other first."""
        return self._radix.around(address, other, most)

    def has_place(self, subscriber: bytes) -> bool:
        return bool(self.bindings.of(subscriber))

    def bindings_facing(self, address: bytes, port: int) -> Sequence[Binding]:
        """As `bindings_at`, without some whose ports do not include the port; perhaps several times each."""
        return self.bindings.facing(address, piece_of(port))

    def owners_around(self, binding: Binding) -> tuple[Registration, ...]:
        """Registrations of others, effective or not, of which a client prefix of a size that one registrant has
        for itself covers the bound address: the NAS and the registry disagree on whose it is. Once each, at most
        MAX_MATCHING."""
        shortest = OWN_LENGTH[binding.prefix.family]
        found = self._radix.covering_longer(binding.prefix.packed, shortest)
        others = (each for each in found if each.subscriber != binding.subscriber)
        return tuple({each.id: each for each in islice(others, MAX_MATCHING)}.values())

    def count_by_category(self) -> dict[str, int]:
        """A copy; categories without registrations are absent."""
        return dict(self._categories)

    def count_by_status(self) -> dict[Status, int]:
        """A copy; statuses without registrations are absent."""
        return dict(self._statuses)

    def _link_endpoints(self, registration: Registration) -> None:
        for prefix in registration.endpoints:
            self._endpoints.insert(prefix, registration)
        self._providers += bool(registration.endpoints)

    def _unlink(self, registration: Registration) -> None:
        for prefix in registration.clients:
            self._radix.remove(prefix, registration)
        for prefix in registration.endpoints:
            self._endpoints.remove(prefix, registration)
        self._providers -= bool(registration.endpoints)
        if registration.subscriber is not None:
            self._by_subscriber.remove(registration.subscriber, registration)
        _count(self._categories, registration.category, -1)
        _count(self._statuses, registration.status, -1)


def _peers_of(registration: Registration) -> tuple[Prefix, ...]:
    return registration.peers


def _count(counts: dict[_Word, int], word: _Word, change: int) -> None:
    counts[word] = counts.get(word, 0) + change
    if not counts[word]:
        del counts[word]


Wanted = Registration | BoundRegistration


class Desired(msgspec.Struct, frozen=True, gc=False):
    """What follows from one change. `subscribers`: digests that some registration names now, or none any more."""

    add: tuple[Wanted, ...] = ()
    remove: tuple[Wanted, ...] = ()
    subscribers: tuple[bytes, ...] = ()


NOTHING: Final = Desired()


class ActiveSet:
    """Owns the allowlist and the schedule. A caller that performs the result of each call has in force, at each
    moment, every effective registration, and each of these at every address of its subscriber."""

    __slots__ = ("_dormant", "_schedule", "allowlist")

    def __init__(self) -> None:
        self.allowlist = Allowlist()
        self._schedule = Schedule()
        self._dormant: set[str] = set()

    def count(self) -> int:
        """Registrations that are effective."""
        return len(self.allowlist) - len(self._dormant)

    def closed(self, now: float) -> list[Registration]:
        """Registrations whose window has closed."""
        found = [self.allowlist.get(id) for id in self._dormant]
        return [
            each for each in found if each is not None and each.status == "active" and each.valid_until_s <= now
        ]

    def upsert(self, registration: Registration, now: float) -> Desired:
        """Put it in the place of its id."""
        old = self.allowlist.upsert(registration)
        was_active = old is not None and registration.id not in self._dormant
        self._schedule.watch(registration, now)
        add: tuple[Wanted, ...] = ()
        if registration.is_effective(now):
            self._dormant.discard(registration.id)
            add = self._all_of(registration)
        else:
            self._dormant.add(registration.id)
        remove = self._all_of(old) if old is not None and was_active else ()
        return Desired(add, remove, self.allowlist.subscribers_changed(old, registration))

    def withdraw(self, registration_id: str) -> Desired:
        """Take it out, if it is there."""
        old = self.allowlist.withdraw(registration_id)
        self._schedule.forget(registration_id)
        was_dormant = registration_id in self._dormant
        self._dormant.discard(registration_id)
        if old is None:
            return NOTHING
        remove = () if was_dormant else self._all_of(old)
        return Desired((), remove, self.allowlist.subscribers_changed(old, None))

    def refresh(self, registration_id: str, now: float) -> Desired:
        """A window may have opened or closed; NOTHING if it did not, or the registration is not there."""
        registration = self.allowlist.get(registration_id)
        if registration is None:
            return NOTHING
        self._schedule.watch(registration, now)
        is_dormant = registration_id in self._dormant
        if registration.is_effective(now) and is_dormant:
            self._dormant.remove(registration_id)
            return Desired(add=self._all_of(registration))
        if not registration.is_effective(now) and not is_dormant:
            self._dormant.add(registration_id)
            return Desired(remove=self._all_of(registration))
        return NOTHING

    def watch_all(self, now: float) -> None:
        """The time went back: every boundary is looked for again. A `refresh` of each registration comes after."""
        self._schedule.watch_all(self.allowlist, now)

    def due(self, now: float) -> list[str]:
        """Ids of the registrations whose windows opened or closed since the last call; to be refreshed."""
        return self._schedule.due(now)

    def due_in_s(self, now: float) -> float:
        """How long after `now` that is next so; inf = never."""
        return self._schedule.due_in_s(now)

    def next_change(self) -> float | None:
        """When a window next opens or closes, in Unix seconds; None if none does."""
        return self._schedule.next_change()

    def bind(self, binding: Binding) -> tuple[BoundRegistration, ...]:
        """A subscriber has a place: what that adds."""
        return self._effective(self.allowlist.bound_registrations_at(binding))

    def unbind(self, binding: Binding) -> tuple[BoundRegistration, ...]:
        """The subscriber has it no more: what that removes."""
        return self._effective(self.allowlist.bound_registrations_at(binding))

    def _all_of(self, registration: Registration) -> tuple[Wanted, ...]:
        if registration.subscriber is None:
            return (registration,)
        return (registration, *self.allowlist.bound_registrations_of(registration))

    def _effective(self, bound: tuple[BoundRegistration, ...]) -> tuple[BoundRegistration, ...]:
        dormant = self._dormant
        return tuple([each for each in bound if each.registration.id not in dormant]) if dormant else bound
