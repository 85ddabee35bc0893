"""Addresses that registrations and subscribers had until a moment ago, and have no more. Pure.

A client prefix that left a registration is remembered for a day: a customer who was renumbered, or whose record
went, is noticed by then. An address of a subscriber is remembered for two minutes: then another subscriber has it.
Both are bounded; what has to go early is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from gatewayd.allowlist import Radix
from gatewayd.model import Prefix, Registration
from gatewayd.model.registration import Binding, Ports

CLIENT_S: Final = 86_400.0
BINDING_S: Final = 120.0
MAX_CLIENTS: Final = 4096
MAX_BINDINGS: Final = 16384


class FormerClient(msgspec.Struct, frozen=True, gc=False):
    """`registration` as it was when `prefix` was of it. `ports`: of a shared address. `is_bound`: by a subscriber's
    session that ended."""

    registration: Registration
    prefix: Prefix
    ports: Ports = None
    is_bound: bool = False


class Former:
    """Times are of a clock that is never set. What `add…` and `expire` return are prefixes that are remembered no
    more: of registrations, and of subscribers."""

    __slots__ = ("_bound", "_by_prefix", "_clients", "_max_bindings", "_max_clients", "lost")

    def __init__(self, max_clients: int = MAX_CLIENTS, max_bindings: int = MAX_BINDINGS) -> None:
        self._max_clients = max_clients
        self._max_bindings = max_bindings
        self._by_prefix: Radix[FormerClient] = Radix()
        self._clients: deque[tuple[float, FormerClient]] = deque()
        self._bound: deque[tuple[float, Prefix, tuple[FormerClient, ...]]] = deque()
        self.lost = 0
        """Forgotten before their time, at a bound."""

    def __len__(self) -> int:
        return len(self._clients) + len(self._bound)

    def add(self, registration: Registration, prefixes: Sequence[Prefix], now: float) -> list[Prefix]:
        """They are clients of it no more."""
        for prefix in prefixes:
            former = FormerClient(registration, prefix)
            self._by_prefix.insert(prefix, former)
            self._clients.append((now, former))
        gone = []
        while len(self._clients) > self._max_clients:
            self.lost += 1
            gone.append(self._forget_client())
        return gone

    def add_binding(self, binding: Binding, registrations: Sequence[Registration], now: float) -> list[Prefix]:
        """A subscriber of these has the address no more."""
        formers = tuple(
            [FormerClient(each, binding.prefix, binding.ports, is_bound=True) for each in registrations]
        )
        for former in formers:
            self._by_prefix.insert(binding.prefix, former)
        self._bound.append((now, binding.prefix, formers))
        gone = []
        while len(self._bound) > self._max_bindings:
            self.lost += 1
            gone.append(self._forget_binding())
        return gone

    def expire(self, now: float) -> tuple[list[Prefix], list[Prefix]]:
        clients, bound = [], []
        while self._clients and now - self._clients[0][0] >= CLIENT_S:
            clients.append(self._forget_client())
        while self._bound and now - self._bound[0][0] >= BINDING_S:
            bound.append(self._forget_binding())
        return clients, bound

    def covering(self, address: bytes) -> Sequence[FormerClient]:
        """Those that had the address, longest prefix first."""
        return self._by_prefix.covering(address)

    def _forget_client(self) -> Prefix:
        _, former = self._clients.popleft()
        self._by_prefix.remove(former.prefix, former)
        return former.prefix

    def _forget_binding(self) -> Prefix:
        _, prefix, formers = self._bound.popleft()
        for former in formers:
            self._by_prefix.remove(prefix, former)
        return prefix
