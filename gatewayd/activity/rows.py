"""What is read of `activity.sqlite`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Span(NamedTuple):
    """Days, both included."""

    first: int
    last: int


class Activity(msgspec.Struct, frozen=True, gc=False):
    """Of one registration in a span. `days`: on which it was used. There may be a million."""

    flows: int
    size_bytes: int
    days: int
    last_seen_s: int


class DayTotal(NamedTuple):
    """Registrations that were used on a day, and what they used together."""

    day: int
    registrations: int
    flows: int
    size_bytes: int


class Run(NamedTuple):
    """When the daemon watched, Unix seconds: `until_s` is of its last write."""

    began_s: int
    until_s: int
