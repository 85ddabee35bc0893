"""What the table of sessions is told about a NAS, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

JITTER = 0.1
"""A session lives up to this part longer than its time, so that those of one second do not run out together."""


class Randomness(Protocol):
    """The part of random.Random that lifetimes are spread with."""

    def uniform(self, a: float, b: float, /) -> float: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a NAS is believed, in seconds, and of how much.

    `interim_s`: the interval that it is configured with; None = what its packets say (RFC 2869 §5.16), if they do.
    A session runs out after `missed_interims` of it, and not before `min_session_timeout_s`. One of which no
    interval is known, as of a NAS that sends no interim updates, runs out after `session_timeout_s`; inf = never.
    After Accounting-On or -Off sessions stay for `restart_grace_s` unless confirmed: a proxy may have sent it; 0 =
    they end at once.

    `single_session`: of a subscriber's sessions only the one that began last, as far as it was heard of, has
    addresses of a family; else all of them together, as of a phone with bearers.
    """

    interim_s: int | None = None
    missed_interims: float = 3.0
    min_session_timeout_s: float = 900.0
    session_timeout_s: float = 86400.0
    restart_grace_s: float = 120.0
    single_session: bool = False

    def lifetime_s(self, interim_s: int | None) -> float:
        """Of a session, after a word of it that said this interval."""
        interval_s = interim_s or self.interim_s
        return (
            self.session_timeout_s
            if interval_s is None
            else max(self.missed_interims * interval_s, self.min_session_timeout_s)
        )


@dataclass(slots=True)
class SessionCounts:
    """Since the start. What came, then what ended and why, then what was not followed, then what bounds cost."""

    starts: int = 0
    interims: int = 0
    stops: int = 0
    restarts: int = 0
    """Accounting-On and -Off."""

    evictions: int = 0
    """Addresses that a later word gave to another subscriber."""
    missed_stops: int = 0
    """Sessions that something else showed to be over: their addresses or their id went to another."""
    expired: int = 0
    ended_by_restart: int = 0

    repeated: int = 0
    """Words not newer than the last of their session; what they add is taken."""
    interims_first: int = 0
    """Interims of a session that nobody knew; taken as its Start."""
    unknown_stops: int = 0
    late_stops: int = 0
    """Stops of an earlier life of a session id; the later life goes on."""
    bearer_stops: int = 0
    """Stops of one bearer of several (3GPP)."""
    tombstoned: int = 0
    """Words of sessions that had ended."""
    before_restart: int = 0
    """Words from before the last restart of their NAS, or of an earlier subscriber of the session id."""
    superseded: int = 0
    """Addresses named by a word older than what another subscriber was told since."""
    stale: int = 0
    """Words so old that what they began had run out when they came."""

    taken_again: int = 0
    """Words that counted as old until it was seen that the clock of their NAS had been set back."""
    same_name: int = 0
    """Sessions of an id that another NAS of the same name has, for another subscriber."""

    refused: int = 0
    """New sessions of no registered subscriber, beyond `max_sessions`."""
    over_limit: int = 0
    """Sessions or addresses that went because their subscriber or session had too many."""
    nas_refused: int = 0
    """Words of a NAS beyond `max_nas`."""
