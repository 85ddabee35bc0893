"""What is in force that needs an eye on it: endpoints of licensed providers, and provisional registrations.

Each endpoint that comes or goes is said. A provisional registration is said some days before it ends, and some
hours before. Both are few: what others cost is a look at one member.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Annotated, Final, Literal

import msgspec

from gatewayd.model import Prefix, Registration
from gatewayd.model.metric import counter, gauge
from gatewayd.model.moment import format_time

WARN_BEFORE_S: Final = (3 * 86_400.0, 6 * 3600.0)
"""Before its end a provisional registration is said, the earlier first."""
MAX_NAMED: Final = 10
"""Provisional registrations that a status names."""
MAX_SAID: Final = 100
"""Changes of endpoints, and ends, that one turn says one by one; the rest is counted."""


class ProvidersView(msgspec.Struct, frozen=True):
    """Registrations that every client may use, in force: a flow from inside to one of their endpoints."""

    registrations: Annotated[int, gauge("providers", "Registrations of licensed providers, of every status.")] = 0
    endpoints: Annotated[int, gauge("endpoints",
        "Endpoint prefixes of licensed providers, to which every client's flow is registered.",
        "rises without a change that you know of")] = 0  # fmt: skip
    added: Annotated[int, counter("endpoints_added", "Endpoint prefixes that came, since the start.", "rises")] = 0
    removed: Annotated[int, counter("endpoints_removed", "Endpoint prefixes that went, since the start.")] = 0
    held: Annotated[int, gauge("endpoints_held",
        "Endpoint prefixes that wait for `gatewayd accept`: not in force.", "`> 0`")] = 0  # fmt: skip


class EndingView(msgspec.Struct, frozen=True):
    """A provisional registration that ends soon."""

    id: str
    ends_at: str | None


class ProvisionalView(msgspec.Struct, frozen=True):
    """`ending`: within the first of WARN_BEFORE_S; the first of them by name in `soonest`."""

    total: Annotated[int, gauge("registrations_provisional", "Provisional registrations that are active.")] = 0
    ending: Annotated[int, gauge("registrations_provisional_ending",
        "Provisional registrations that end within 3 days.", "`> 0` for a day")] = 0  # fmt: skip
    soonest: tuple[EndingView, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointsChange:
    """Endpoints that came into force or went."""

    kind: Literal["added", "removed"]
    registration: Registration
    prefixes: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """A provisional registration is to end."""

    registration: Registration
    in_s: float


class Extended:
    """Told of each registration that comes into force or goes and has, or had, an extension. Owned by one task."""

    def __init__(self) -> None:
        self.added = self.removed = 0
        self._providers: dict[str, Registration] = {}
        self._provisional: dict[str, Registration] = {}
        self._ends: list[tuple[float, str, float]] = []
        """When to say it, of which, and when it ends."""
        self._changes: deque[EndpointsChange] = deque()
        self._more = 0

    def put(self, registration: Registration, now: float) -> None:
        """It is in force from now on, in the place of what had its id."""
        old = self._providers.pop(registration.id, None)
        had, has = (() if old is None else old.endpoints), registration.endpoints
        if has:
            self._providers[registration.id] = registration
        self._note("removed", old, tuple(each for each in had if each not in has))
        self._note("added", registration, tuple(each for each in has if each not in had))
        self._provisional.pop(registration.id, None)
        if registration.is_provisional and registration.status == "active":
            self._provisional[registration.id] = registration
            ends = registration.valid_until_s
            for before_s in WARN_BEFORE_S:
                if ends - before_s > now or before_s == WARN_BEFORE_S[-1]:
                    heappush(self._ends, (ends - before_s, registration.id, ends))

    def drop(self, id: str) -> None:
        """It is in force no more."""
        old = self._providers.pop(id, None)
        if old is not None:
            self._note("removed", old, old.endpoints)
        self._provisional.pop(id, None)

    def knows(self, id: str) -> bool:
        """Whether `drop` would change anything."""
        return id in self._providers or id in self._provisional

    def _note(
        self, kind: Literal["added", "removed"], whose: Registration | None, prefixes: tuple[Prefix, ...]
    ) -> None:
        if whose is None or not prefixes:
            return
        if kind == "added":
            self.added += len(prefixes)
        else:
            self.removed += len(prefixes)
        if len(self._changes) < MAX_SAID:
            self._changes.append(EndpointsChange(kind, whose, prefixes))
        else:
            self._more += 1

    def take_changes(self) -> tuple[list[EndpointsChange], int]:
        """What came and went since, at most MAX_SAID, and how many more."""
        taken, more = list(self._changes), self._more
        self._changes.clear()
        self._more = 0
        return taken, more

    def take_ending(self, now: float) -> tuple[list[Ending], int]:
        """Provisional registrations that are to be said now, at most MAX_SAID, and how many more. One that ends is
        said once for each of WARN_BEFORE_S, and again after its window was moved."""
        found: dict[str, Ending] = {}
        while self._ends and self._ends[0][0] <= now:
            _, id, ends = heappop(self._ends)
            registration = self._provisional.get(id)
            if registration is not None and registration.valid_until_s == ends and ends > now:
                found[id] = Ending(registration, ends - now)
        said = list(found.values())
        return said[:MAX_SAID], max(0, len(said) - MAX_SAID)

    def next_end(self) -> float | None:
        """When `take_ending` next has something."""
        return self._ends[0][0] if self._ends else None

    def providers(self, held: int) -> ProvidersView:
        """`held`: prefixes that wait for an operator."""
        endpoints = sum(len(each.endpoints) for each in self._providers.values())
        return ProvidersView(len(self._providers), endpoints, self.added, self.removed, held)

    def provisional(self, now: float) -> ProvisionalView:
        ends = ((each.valid_until_s, each.id) for each in self._provisional.values())
        active = sorted(each for each in ends if each[0] > now)
        ending = [each for each in active if each[0] - now <= WARN_BEFORE_S[0]]
        soonest = tuple(EndingView(id, format_time(ends_s)) for ends_s, id in ending[:MAX_NAMED])
        return ProvisionalView(len(active), len(ending), soonest)
