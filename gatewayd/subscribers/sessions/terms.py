"""What the table of sessions is told about a NAS, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from gatewayd.model.metric import counter

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


_EVENTS: Final = counter(
    "session_events",
    "Records that came, sessions that ended, and records that were not followed.",
    "missed_stops, refused, nas_refused or over_limit rises",
    label="kind",
)


@dataclass(slots=True)
class SessionCounts:
    """Since the start: records that came; ends and their reasons; records that were not followed; the cost of the
    bounds."""

    starts: Annotated[int, _EVENTS.of(meaning="Starts of sessions, by Acct-Status-Type.")] = 0
    interims: Annotated[int, _EVENTS.of(meaning="Interim updates; live sessions of lists and of the API.")] = 0
    stops: Annotated[int, _EVENTS.of(meaning="Stops, and ends that the API reported.")] = 0
    restarts: Annotated[int, _EVENTS.of(meaning="Accounting-On and Accounting-Off.")] = 0

    evictions: Annotated[int, _EVENTS.of(meaning="Addresses that went to another subscriber.")] = 0
    missed_stops: Annotated[int, _EVENTS.of(meaning="Sessions whose addresses or id another session got.")] = 0
    expired: Annotated[int, _EVENTS.of(meaning="Sessions that had no record for too long.")] = 0
    ended_by_restart: Annotated[int, _EVENTS.of(meaning="Sessions that ended as their NAS restarted.")] = 0

    repeated: Annotated[int, _EVENTS.of(meaning="Records not newer than the last of their session.")] = 0
    interims_first: Annotated[int, _EVENTS.of(meaning="Interim updates of unknown sessions, taken as Starts.")] = 0
    unknown_stops: Annotated[int, _EVENTS.of(meaning="Stops of unknown sessions.")] = 0
    late_stops: Annotated[int, _EVENTS.of(meaning="Stops of an earlier session of the same id.")] = 0
    bearer_stops: Annotated[int, _EVENTS.of(meaning="Stops of one bearer of several (3GPP).")] = 0
    tombstoned: Annotated[int, _EVENTS.of(meaning="Records of sessions that had ended.")] = 0
    before_restart: Annotated[int, _EVENTS.of(meaning="Records from before the last restart of their NAS.")] = 0
    superseded: Annotated[int, _EVENTS.of(meaning="Addresses that a newer record had given to another.")] = 0
    stale: Annotated[int, _EVENTS.of(meaning="Records of sessions that had run out when they came.")] = 0

    taken_again: Annotated[int, _EVENTS.of(meaning="Records taken late: the clock of their NAS was set back.")] = 0
    same_name: Annotated[int, _EVENTS.of(meaning="Sessions whose id another NAS of the same name has.")] = 0

    refused: Annotated[int, _EVENTS.of(meaning="Unregistered sessions beyond `subscribers.max_sessions`.")] = 0
    over_limit: Annotated[int, _EVENTS.of(meaning="Sessions or addresses beyond the bound of a subscriber.")] = 0
    nas_refused: Annotated[int, _EVENTS.of(meaning="Records of a NAS beyond the bound.")] = 0
