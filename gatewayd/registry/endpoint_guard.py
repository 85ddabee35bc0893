"""The guard of endpoints: how many doors the registry may open before an operator is asked.

One registration of a licensed provider opens its endpoints to every client. So what opens more than before is
judged by a limit of its own: endpoint prefixes in a day. What comes at once is judged as one, beside what came in
the last day: within the limit all of it applies, beyond it none does. What is held back is not in force: what was
in force of its id stays. Only `accept` lets it in, and while something is held, what opens more joins it.

A longer window is no more than before. What an operator names by its id in a local file is his word. The first
registry of a gateway is taken as it is: nothing was there to be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gatewayd.model import Registration
from gatewayd.model.registration import Changes, Slices
from gatewayd.registry.limits import BUCKET_S, WINDOW_S, opens_more
from gatewayd.registry.lookups import Lookup

SLICE: Final = 1024
"""Changes looked at between two yields."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """`wanted`: not in force, and `before` is (None: nothing of the id)."""

    wanted: Registration | None
    before: Registration | None
    cause: str
    since_s: float


@dataclass(frozen=True, slots=True)
class HeldEndpoints:
    """What waits for `accept`. `prefixes`: how many endpoints it would open, `recent` those of the last day."""

    serial: int
    since_s: float
    held: Mapping[str, HeldBack]
    prefixes: int
    recent: int
    limit: int

    def __str__(self) -> str:
        beside = f" beside {self.recent} of the last 24 h" if self.recent else ""
        ids = sorted(self.held)
        named = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
        return f"{self.prefixes} endpoint prefixes added{beside}, more than {self.limit}, by {named}"


class EndpointGuard:
    """Owned by one task. `recent`: endpoint prefixes let in, by hour (Unix seconds / BUCKET_S)."""

    def __init__(self, serial: int = 0, since_s: float = 0.0, recent: Mapping[int, int] | None = None) -> None:
        self.serial = serial
        self.since_s = since_s
        self.recent = dict(recent or {})
        self.pending: dict[str, HeldBack] = {}
        self.limit = 0
        """The latest."""
        self.changes = 0
        """Goes up with every change that a restart has to know of."""

    def in_force(self) -> dict[str, Registration | None]:
        """Instead of what is registered under these ids."""
        return {id: each.before for id, each in self.pending.items()}

    def held(self) -> HeldEndpoints | None:
        """A view, as of now; None if nothing is held back."""
        if not self.pending:
            return None
        count = _count_prefixes(each.wanted for each in self.pending.values())
        return HeldEndpoints(
            self.serial, self.since_s, dict(self.pending), count, sum(self.recent.values()), self.limit
        )

    def begin(self, wanted: Mapping[str, Registration], now: float) -> None:
        """At a start: what of the ids that an earlier run held back is registered. What opens no more goes."""
        for id, each in list(self.pending.items()):
            found = wanted.get(id)
            if found is not None and opens_more(found, each.before, now):
                self.pending[id] = HeldBack(found, each.before, each.cause, each.since_s)
            else:
                del self.pending[id]

    def take_in_slices(
        self,
        before: Lookup,
        changes: Changes,
        serial: int,
        *,
        cause: str,
        limit: int,
        now: float,
        is_asked: Callable[[str], bool] = lambda _: False,
    ) -> Slices[Changes]:
        """What of `changes` applies now. `before`: what is in force, without what is held back."""
        self.limit = limit
        self._expire(now)
        waiting, upserts = dict(self.pending), list[Registration]()
        for done, each in enumerate(changes.upserts, 1):
            held = waiting.pop(each.id, None) if waiting else None
            if each.endpoints and not is_asked(each.id) and opens_more(each, old := before.get(each.id), now):
                taken = (cause, now) if held is None else (held.cause, held.since_s)
                waiting[each.id] = HeldBack(each, old, *taken)
            else:
                upserts.append(each)
            if done % SLICE == 0:
                yield
        withdrawals = changes.withdrawals
        if waiting:
            gone = {id: waiting.pop(id) for id in withdrawals if id in waiting}
            nothing = {id for id, each in gone.items() if each.before is None}
            withdrawals = tuple(id for id in withdrawals if id not in nothing) if nothing else withdrawals
        return self._settle(waiting, upserts, withdrawals, serial, now)

    def _settle(
        self,
        waiting: dict[str, HeldBack],
        upserts: list[Registration],
        withdrawals: tuple[str, ...],
        serial: int,
        now: float,
    ) -> Changes:
        count = _count_prefixes(each.wanted for each in waiting.values())
        if count and not self.pending and sum(self.recent.values()) + count <= self.limit:
            upserts += [each.wanted for each in waiting.values() if each.wanted is not None]
            self._note_opened(count, now)
            waiting = {}
        has_more = any(self.pending.get(id) != each for id, each in waiting.items())
        if has_more:
            self.since_s = self.since_s if self.pending else now
            # Of the same second: more is accepted than was shown to nobody.
            self.serial = serial + 1 if self.pending and serial == self.serial else serial
        self.changes += has_more or len(waiting) != len(self.pending)
        self.pending = waiting
        return Changes(tuple(upserts), withdrawals)

    def accept(self, now: float) -> Changes:
        """All that is held back is to come into force."""
        upserts = tuple(each.wanted for each in self.pending.values() if each.wanted is not None)
        self.pending, self.recent = {}, {}  # an operator has looked at it: the day begins now
        self.changes += 1
        return Changes(upserts, ())

    def _note_opened(self, count: int, now: float) -> None:
        hour = int(now // BUCKET_S)
        self.recent[hour] = self.recent.get(hour, 0) + count
        self.changes += 1

    def _expire(self, now: float) -> None:
        """Also what lies ahead, after the wall clock was set back."""
        first, hour = (now - WINDOW_S) // BUCKET_S, now // BUCKET_S
        self.recent = {at: count for at, count in self.recent.items() if first < at <= hour}


def _count_prefixes(some: Iterable[Registration | None]) -> int:
    return sum(len(each.endpoints) for each in some if each is not None)
