"""A registration of the registry, what changes between two registries, and the places where a subscriber has one.

There may be a million registrations. They are frozen, untracked by the garbage collector, and share their parts
(`services`, `category`) where the reader interns them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, TypeVar

import msgspec

from gatewayd.model.prefix import Prefix
from gatewayd.model.service import Service

Status = Literal["active", "suspended", "revoked"]


class Extension(msgspec.Struct, frozen=True, gc=False):
    """What few registrations have, or many have in common. At least one part of it says something.

    `registrant`: an opaque key that the records of one company share. `is_provisional`: for a while, until its
    window ends. `endpoints`: sorted, unique; servers of a licensed provider.
    """

    registrant: str | None = None
    is_provisional: bool = False
    endpoints: tuple[Prefix, ...] = ()


class Registration(msgspec.Struct, frozen=True, gc=False):
    """`clients`, `peers`, `services`: sorted, unique; no peers = any, no services = any.

    `subscriber`: 32-byte digest or None. `valid_from_s`, `valid_until_s`: Unix seconds, ∓inf when open. One that
    has endpoints has neither clients nor a subscriber nor peers, and it has services.

    `extension` takes no memory: nine members and the header are 88 bytes, and the allocator gives 96.
    """

    id: str
    category: str
    status: Status
    clients: tuple[Prefix, ...]
    subscriber: bytes | None = None
    peers: tuple[Prefix, ...] = ()
    services: tuple[Service, ...] = ()
    valid_from_s: float = -inf
    valid_until_s: float = inf
    extension: Extension | None = None

    @property
    def registrant(self) -> str | None:
        """The company, by its opaque key."""
        return None if self.extension is None else self.extension.registrant

    @property
    def is_provisional(self) -> bool:
        return self.extension is not None and self.extension.is_provisional

    @property
    def endpoints(self) -> tuple[Prefix, ...]:
        """A flow from inside to one of these is registered, and never one from it."""
        return () if self.extension is None else self.extension.endpoints

    def is_effective(self, now: float) -> bool:
        """Active, and `valid_from ≤ now < valid_until`."""
        return self.status == "active" and self.valid_from_s <= now < self.valid_until_s


def with_endpoints(registration: Registration, endpoints: tuple[Prefix, ...]) -> Registration:
    """The same with these endpoints, of one that has some."""
    assert registration.extension is not None
    extension = msgspec.structs.replace(registration.extension, endpoints=endpoints)
    return msgspec.structs.replace(registration, extension=extension)


class RejectedRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a record that is not usable stands, and why; nothing of its content. `serial`: of the reading; of a
    delta (`is_delta`) the last of its chain, and `line` counts within it. `id` None: it has none that is usable."""

    serial: int
    line: int
    id: str | None
    code: str
    field: str
    is_delta: bool = False


# From one registry to the next

SLICE: Final = 8192
"""Registrations looked at between two yields of a generator of slices."""


Slices = Generator[None, None, "_T"]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Changes:
    """From one registry to the next. `withdrawals` are ids; an upsert is new or differs from before."""

    upserts: tuple[Registration, ...]
    withdrawals: tuple[str, ...]


def changes_in_slices(old: Mapping[str, Registration], new: Mapping[str, Registration]) -> Slices[Changes | None]:
    """What leads from `old` to `new`, None when they are equal. Neither mapping may change meanwhile.

    A registration that is the same object in both costs one look-up (see `previous` of the readers).
    """
    if old is new:
        return None
    upserts: list[Registration] = []
    added = 0
    for count, (id, registration) in enumerate(new.items(), 1):
        before = old.get(id)
        if before is not registration and before != registration:
            upserts.append(registration)
            added += before is None
        if count % SLICE == 0:
            yield
    withdrawals: list[str] = []
    if len(new) - added < len(old):
        for count, id in enumerate(old, 1):
            if id not in new:
                withdrawals.append(id)
            if count % SLICE == 0:
                yield
    return Changes(tuple(upserts), tuple(withdrawals)) if upserts or withdrawals else None


def run_slices(slices: Slices[_T]) -> _T:
    """The result of a generator of slices, all of them run at once."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            result: _T = stop.value
            return result


# Bindings: the address that a registered subscriber has at present, as the NAS reported it

Ports = tuple[int, int] | None
"""First and last port of a port block; None = the whole address."""


class Binding(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """`subscriber` has `prefix`, or of a shared IPv4 address (CGNAT) the `ports` first..last alone.

    One session that holds it stands for all that do. Times are Unix seconds, as the NAS reports them.
    """

    subscriber: bytes
    """Digest of 32 bytes."""
    prefix: Prefix
    ports: Ports = None
    since_s: float
    """Of the record by which the binding was made."""
    confirmed_s: float
    """Of the last record that named this address, when the Binding was made."""
    nas: str
    session: str
    is_restored: bool = False
    """Known from before a restart of gatewayd, and not confirmed since by a record of its session."""


class BindingChange(msgspec.Struct, frozen=True, gc=False):
    """`added` comes before `removed`. Of a binding that is removed the same subscriber has the address no more."""

    kind: Literal["added", "removed"]
    binding: Binding


class BoundRegistration(msgspec.Struct, frozen=True, gc=False):
    """`registration` may be used at `prefix`, whichever end opens the flow; of a shared IPv4 address (CGNAT) with
    the subscriber's port in first..last alone. A value: two of the same registration, prefix and ports are one."""

    registration: Registration
    prefix: Prefix
    ports: Ports = None
