"""Sessions that ended and addresses that were let go, for a while: old records of them raise nothing. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from math import inf
from typing import Final, Generic, TypeVar

import msgspec

_Key = TypeVar("_Key")

_PRUNED_EACH: Final = 2
_MAX_ID: Final = 32
_DIGEST_BYTES: Final = 16


def short_id(session: str) -> str:
    """What stands for a session id in a key: itself, or its digest where it is long. So a tombstone takes 400 bytes
    whatever a NAS sends; with the longest id as it came it would be 620."""
    if len(session) <= _MAX_ID and session.isascii():
        return session
    return blake2b(session.encode(), digest_size=_DIGEST_BYTES).hexdigest()


class Tombstone(msgspec.Struct, frozen=True, gc=False):
    """`at_s`: event time of the last record, which was of `subscriber`. `buried_s`: by our clock. `others_s`: event
    time of the last record of any other."""

    at_s: float
    buried_s: float
    subscriber: bytes | None = None
    others_s: float = -inf

    def last_but_of(self, subscriber: bytes | None) -> float:
        """When it was last somebody else's; -inf for never."""
        return self.others_s if subscriber == self.subscriber else self.at_s


class Tombstones(Generic[_Key]):
    """At most `most`, each for `keep_s` of our clock; the oldest goes first. `lost` counts what the bound cost.

    `on_forgotten`: called with the key of each that goes, for its time or for the bound. An OrderedDict: to get the
    first entry of a plain dict takes longer with each that was removed before it.
    """

    __slots__ = ("_keep_s", "_most", "_on_forgotten", "_stones", "lost")

    def __init__(self, *, keep_s: float, most: int, on_forgotten: Callable[[_Key], None] | None = None) -> None:
        self._keep_s = keep_s
        self._most = most
        self._on_forgotten = on_forgotten
        self._stones: OrderedDict[_Key, Tombstone] = OrderedDict()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._stones)

    def get(self, key: _Key) -> Tombstone | None:
        return self._stones.get(key)

    def bury(self, key: _Key, at_s: float, now: float, subscriber: bytes | None = None) -> None:
        """Of two ends of the same thing the later counts."""
        stone = Tombstone(at_s, now, subscriber)
        before = self._stones.pop(key, None)
        if before is not None:
            first, last = (before, stone) if before.at_s <= at_s else (stone, before)
            others_s = max(last.others_s, first.last_but_of(last.subscriber))
            stone = Tombstone(last.at_s, now, last.subscriber, others_s)
        self._stones[key] = stone
        self.prune(now, _PRUNED_EACH)
        self._keep_bound()

    def put_back(self, key: _Key, stone: Tombstone) -> None:
        """One that was known before a restart; those buried first come first, and before any is buried anew."""
        self._stones[key] = stone
        self._keep_bound()

    def drop(self, key: _Key) -> None:
        """It is to be remembered no more; `on_forgotten` is not called."""
        self._stones.pop(key, None)

    def is_over(self, stone: Tombstone, now: float) -> bool:
        return stone.buried_s + self._keep_s <= now

    def next_due(self) -> float | None:
        """When the oldest may go."""
        for stone in self._stones.values():
            return stone.buried_s + self._keep_s
        return None

    def prune(self, now: float, most: int) -> None:
        """Forget at most `most` whose time is over."""
        for _ in range(most):
            due_s = self.next_due()
            if due_s is None or due_s > now:
                return
            self._forget_oldest()

    def _keep_bound(self) -> None:
        if len(self._stones) > self._most:
            self._forget_oldest()
            self.lost += 1

    def _forget_oldest(self) -> None:
        key, _ = self._stones.popitem(last=False)
        if self._on_forgotten is not None:
            self._on_forgotten(key)
