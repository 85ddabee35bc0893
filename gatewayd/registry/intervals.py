"""How long to wait before a source is asked again, and for how long its notification holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_REFRESH_S: Final = 10.0
"""A notification cannot make us ask more often, unless the operator's own refresh is shorter."""
LONGEST_REFRESH_S: Final = 86400.0
LEAST_RETRY_S: Final = 1.0
LEAST_EXPIRE_S: Final = 60.0


def back_off_s(failures: int, retry_s: float, longest_s: float) -> float:
    """After so many failures (from 1) in a row: `retry_s`, doubled each time, up to `longest_s`."""
    return min(retry_s * 2.0 ** min(failures - 1, 30), longest_s)


@dataclass(frozen=True, slots=True)
class FeedIntervals:
    """The operator's, in seconds, for where the notification says nothing (0)."""

    refresh_s: float = 60.0
    retry_s: float = 10.0
    expire_s: float = 7 * 86400.0

    def wait_s(self, failures: int, stated_refresh: int = 0, stated_retry: int = 0) -> float:
        """Before the next attempt, without jitter: `refresh`, or after failures a back-off from `retry`."""
        refresh_s, retry_s = self.refresh_s, self.retry_s
        if stated_refresh:
            refresh_s = max(stated_refresh, min(LEAST_REFRESH_S, refresh_s))
        refresh_s = min(refresh_s, LONGEST_REFRESH_S)
        if not failures:
            return refresh_s
        if stated_retry:
            retry_s = max(stated_retry, min(LEAST_RETRY_S, retry_s))
        return back_off_s(failures, retry_s, max(refresh_s, self.retry_s))

    def holds_s(self, stated_expire: int) -> float:
        """From the time of issue."""
        return max(float(stated_expire), LEAST_EXPIRE_S) if stated_expire else self.expire_s
