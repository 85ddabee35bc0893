"""The allowlist: the one owner of the registrations in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from gatewayd.allowlist.match import matching_registrations
from gatewayd.allowlist.radix import Radix
from gatewayd.model import Flow, Prefix, Registration, Status

_Word = TypeVar("_Word", bound=str)


class Allowlist:
    """Registrations by id and, the same objects, by client prefix. Mutated by its owner task alone.

    Every status and window is held: what is effective is asked at a moment, never stored. Only clients are in
    the radix; peers and services are checked on the registration that the clients led to.
    """

    __slots__ = ("_by_id", "_categories", "_radix", "_statuses")

    def __init__(self) -> None:
        self._by_id: dict[str, Registration] = {}
        self._radix: Radix[Registration] = Radix()
        self._categories: dict[str, int] = {}
        self._statuses: dict[Status, int] = {}

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
        return matching_registrations(self._radix, flow, now)

    def covering(self, address: bytes) -> tuple[Registration, ...]:
        """Those with the address in their clients, effective or not, once each, longest prefix first."""
        return tuple({registration.id: registration for registration in self._radix.covering(address)}.values())

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
        _count(self._categories, registration.category, -1)
        _count(self._statuses, registration.status, -1)


def _count(counts: dict[_Word, int], word: _Word, change: int) -> None:
    counts[word] = counts.get(word, 0) + change
    if not counts[word]:
        del counts[word]
