"""The latest events that a person follows, numbered, within a bound; and where a reader stands among them.

An id is `EPOCH-NUMBER`: the run, and the event in it, counted from 1. A number alone would begin again with each
run, and a reader from before would take new events for old ones.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Literal

import msgspec

MAX_EVENTS: Final = 4000
MAX_BYTES: Final = 2 << 20
"""Of the events together, as JSON."""
MAX_EVENT_BYTES: Final = 16 << 10
"""Of one, as JSON; past it the longest fields are left out, and named."""

_ID: Final = re.compile(r"([0-9]{1,16})-([0-9]{1,16})")

Loss = Literal["restart", "overrun"]
"""Why events are missing. `restart`: the reader's id is of another run. `overrun`: they are forgotten."""


@dataclass(frozen=True, slots=True)
class Position:
    """After the event `number` of the run `epoch`; 0: before the first."""

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


def parse_position(text: str) -> Position | None:
    """None: it is no id of ours."""
    found = _ID.fullmatch(text)
    return None if found is None else Position(int(found[1]), int(found[2]))


def stamp_of(at_s: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class FollowedEvent(msgspec.Struct, frozen=True):
    """`at`: by the host's clock, as in the log. `omitted`: names of fields that were too long."""

    id: str
    at: str
    level: str
    event: str
    fields: dict[str, object] = {}
    omitted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """`body`: the JSON of the FollowedEvent."""

    position: Position
    at_s: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader has not had. `after`: where it stands before `entries`. `missed`: how many are lost before
    them, None where that is not known; `loss`: why, None where none is."""

    after: Position
    entries: tuple[Entry, ...]
    loss: Loss | None = None
    missed: int | None = 0


class EventRing:
    """The latest events, the oldest first. `epoch`: of this run, unlike those of former runs."""

    def __init__(self, epoch: int, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self.epoch = epoch
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._size_bytes = 0
        self._last = 0

    @property
    def last(self) -> Position:
        return Position(self.epoch, self._last)

    @property
    def dropped(self) -> int:
        """Events that were forgotten for newer ones."""
        return self._last - len(self._entries)

    def append(self, at_s: float, level: str, event: str, fields: Mapping[str, object]) -> None:
        """`fields`: of values that JSON has."""
        self._last += 1
        body = _encode(FollowedEvent(str(self.last), stamp_of(at_s), level, event, dict(fields)))
        self._entries.append(Entry(self.last, at_s, body))
        self._size_bytes += len(body)
        while len(self._entries) > self._max_events or (
            self._size_bytes > self._max_bytes and len(self._entries) > 1
        ):
            self._size_bytes -= len(self._entries.popleft().body)

    def after(self, position: Position | None, limit: int = MAX_EVENTS) -> Batch:
        """What came after that; None: all that there is, without a word of what is forgotten."""
        dropped = self.dropped
        start = Position(self.epoch, dropped)
        if position is None:
            return Batch(start, self._from(dropped, limit))
        if position.epoch != self.epoch or position.number > self._last:
            return Batch(start, self._from(dropped, limit), "restart", None)
        if position.number < dropped:
            return Batch(start, self._from(dropped, limit), "overrun", dropped - position.number)
        return Batch(position, self._from(position.number, limit))

    def position_of(self, at_s: float) -> tuple[Position, Loss | None]:
        """Before the first event of that time or later, and why events since then may be missing: they are
        forgotten (`overrun`), or all that there is is later (`restart`)."""
        for entry in self._entries:
            if entry.at_s >= at_s:
                break
        else:
            return self.last, None
        number = entry.position.number - 1
        loss: Loss | None = None
        if number == self.dropped:
            loss = "overrun" if number else "restart"
        return Position(self.epoch, number), loss

    def _from(self, number: int, limit: int) -> tuple[Entry, ...]:
        """At most `limit` of those after this number, which is not forgotten."""
        first = number - self.dropped
        return tuple(islice(self._entries, first, first + limit))


def _encode(event: FollowedEvent) -> bytes:
    body = msgspec.json.encode(event)
    while len(body) > MAX_EVENT_BYTES and event.fields:
        longest = max(event.fields, key=lambda name: len(msgspec.json.encode(event.fields[name])))
        left = {name: value for name, value in event.fields.items() if name != longest}
        event = msgspec.structs.replace(event, fields=left, omitted=(*event.omitted, longest))
        body = msgspec.json.encode(event)
    return body
