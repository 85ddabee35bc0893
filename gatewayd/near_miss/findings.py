"""The list of registrations to call about: one line for each registration and reason. Pure.

A line is there until its last flow is 30 days old. `acknowledge` takes lines off the list for a time or for good:
they go on counting, and another reason for the same registration is a new line. At the bound the line whose last
flow is oldest goes; acknowledged ones first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from gatewayd.model import Prefix, Service
from gatewayd.model.metric import counter, gauge
from gatewayd.near_miss.reasons import Miss, Reason

MAX_LINES: Final = 10_000
KEEP_S: Final = 30 * 86_400.0

Key = tuple[str, str]
"""The id of a registration, and a reason."""


class Line(msgspec.Struct):
    """Times are Unix seconds. `service`, `far`: of the latest flow. `acknowledged_until_s`: 0 = it is on the list,
    inf = it is off for good."""

    registration_id: str
    category: str
    reason: Reason
    first_seen_s: float
    last_seen_s: float
    flows: int
    service: Service
    far: Prefix
    acknowledged_until_s: float = 0.0

    @property
    def key(self) -> Key:
        return self.registration_id, self.reason


class Findings:
    """`now` is the likely time. `most`: lines at once."""

    def __init__(self, most: int = MAX_LINES) -> None:
        self._most = most
        self._lines: OrderedDict[Key, Line] = OrderedDict()
        self._changed: dict[Key, None] = {}
        self.flows = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._lines)

    def restore(self, lines: Iterable[Line]) -> None:
        """What an earlier run left."""
        for line in sorted(lines, key=lambda each: each.last_seen_s)[-self._most :]:
            self._lines[line.key] = line

    def note(self, miss: Miss, now: float, *, is_repeated: bool = False) -> bool:
        """One flow, or a packet more of it (`is_repeated`); whether its line is new."""
        self.flows += not is_repeated
        key = miss.registration_id, miss.reason
        line = self._lines.get(key)
        self._changed[key] = None
        if line is not None:
            line.last_seen_s = max(line.last_seen_s, now)
            line.flows += not is_repeated
            line.category, line.service, line.far = miss.category, miss.service, miss.far
            self._lines.move_to_end(key)
            return False
        if len(self._lines) >= self._most:
            self._evict(now)
        self._lines[key] = Line(
            miss.registration_id, miss.category, miss.reason, now, now, 1, miss.service, miss.far
        )
        return True

    def _evict(self, now: float) -> None:
        off = (key for key, line in self._lines.items() if now < line.acknowledged_until_s)
        key = next(off, None) or next(iter(self._lines))
        del self._lines[key]
        self._changed[key] = None
        self.evicted += 1

    def acknowledge(self, registration_id: str, until_s: float) -> int:
        """Take all lines of a registration off the list; how many. `until_s` inf: for good; 0: put them back."""
        found = [line for line in self._lines.values() if line.registration_id == registration_id]
        for line in found:
            line.acknowledged_until_s = until_s
            self._changed[line.key] = None
        return len(found)

    def expire(self, now: float) -> None:
        """Drop lines whose last flow is too old, or lies far ahead: it is from before the clock was set back."""
        old = [key for key, line in self._lines.items() if abs(now - line.last_seen_s) > KEEP_S]
        for key in old:
            del self._lines[key]
            self._changed[key] = None

    def listed(self, now: float, *, with_acknowledged: bool = False) -> list[Line]:
        """Those on the list, the latest first: by their times, which a restart keeps, also where the clock was set
        back between two of them."""
        found = [
            line
            for line in reversed(self._lines.values())
            if with_acknowledged or not now < line.acknowledged_until_s
        ]
        return sorted(found, key=lambda line: line.last_seen_s, reverse=True)

    def count_listed(self, now: float) -> int:
        return sum(not now < line.acknowledged_until_s for line in self._lines.values())

    def take_changed(self) -> dict[Key, Line | None]:
        """Lines that changed since the last call, as they are now; None: it is gone."""
        changed, self._changed = self._changed, {}
        return {
            key: None if (line := self._lines.get(key)) is None else msgspec.structs.replace(line)
            for key in changed
        }


class NearMissView(msgspec.Struct, frozen=True):
    """Near misses as numbers. `listed`: lines on the list now."""

    flows: Annotated[int, counter("near_misses",
        "Flows that no registration lets pass, from addresses that a registration has, or had until a moment ago.",
        "rises: `gatewayd impact near-misses` says whom to call")] = 0  # fmt: skip
    listed: Annotated[int, gauge("near_misses_listed",
        "Lines of the list, one for each registration and reason, that are not acknowledged.",
        "`> 0` before a policy is armed")] = 0  # fmt: skip
    evicted: Annotated[int, counter("near_misses_evicted",
        "Lines that made room for others, at the bound of 10,000.", "rises")] = 0  # fmt: skip
    former_lost: Annotated[int, counter("near_miss_former_lost",
        "Former addresses that were forgotten before their time, at the bound.",
        "rises: such flows count as strangers'")] = 0  # fmt: skip
    prefixes: Annotated[int, gauge("near_miss_prefixes",
        "Prefixes in which clients of registrations lie, in sets for the log.")] = 0  # fmt: skip
    unfollowed: Annotated[int, counter("near_miss_unfollowed",
        "Addresses of subscribers that have no place in these sets, at the bound.",
        "rises: flows from there are in the common log")] = 0  # fmt: skip
