"""Which flows were seen a moment ago: a client that is refused tries again, and each try is a flow of its own."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gatewayd.model.flow import Flow

WINDOW_S: Final = 60.0
MAX_SEEN: Final = 10_000
"""Attempts remembered; past it the oldest is new again."""

_Attempt = tuple[int, bytes, bytes, int]


class Repeats:
    """`count`: attempts that were new. An attempt is a protocol, two addresses and the destination port: another
    source port is the same client that tries again."""

    def __init__(self) -> None:
        self.count = 0
        self._seen: OrderedDict[_Attempt, float] = OrderedDict()

    def note(self, flow: Flow, now: float) -> bool:
        """Whether it is the first within WINDOW_S. `now`: of a clock that is never set."""
        attempt = flow.protocol, flow.source, flow.destination, flow.destination_port
        at_s = self._seen.get(attempt)
        if at_s is not None and now - at_s < WINDOW_S:
            return False
        self._seen[attempt] = now
        self._seen.move_to_end(attempt)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        self.count += 1
        return True
