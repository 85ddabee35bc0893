"""Interfaces of the kernel against the names of `policy.interfaces`. Pure.

A name that no interface has turns rules off, and no packet shows it. That is a warning and not a reason against
readiness: the allowlist is in the kernel, whatever registered traffic there is passes, and a gateway whose `ppp*`
lines have all gone for a moment must not be taken out of service for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from gatewayd.compile.interfaces import Sides, interface_warnings, names_like
from gatewayd.model.metric import counter, gauge

Side = Literal["inside", "outside"]

MAX_NAMES: Final = 5
"""Interfaces of a pattern that a status names."""


class PatternView(msgspec.Struct, frozen=True):
    """A name of `policy.interfaces`, and how many interfaces have it now. `names`: the first MAX_NAMES."""

    pattern: str
    count: int
    names: tuple[str, ...] = ()


def _by_pattern(patterns: Iterable[PatternView]) -> Mapping[str, int]:
    return {each.pattern: each.count for each in patterns}


class InterfacesView(msgspec.Struct, frozen=True):
    """`total`: None before the first look, and where `policy.interfaces` names none: then they are not watched.
    `reason`: why the rules judge no packet now."""

    total: Annotated[int | None, gauge("interfaces",
        "Interfaces of the gateway; absent where `policy.interfaces` names none.")] = None  # fmt: skip
    inside: Annotated[tuple[PatternView, ...], gauge("interfaces_inside",
        "Interfaces that have a name of `policy.interfaces.inside`.",
        "`sum(…) == 0` for 5 min: the rules judge no packet", label="pattern", read=_by_pattern)] = ()  # fmt: skip
    outside: Annotated[tuple[PatternView, ...], gauge("interfaces_outside",
        "Interfaces that have a name of `policy.interfaces.outside`.",
        "`sum(…) == 0` for 5 min: the rules judge no packet", label="pattern", read=_by_pattern)] = ()  # fmt: skip
    reason: str | None = None
    looks: Annotated[int, counter("interface_looks",
        "Times that the interfaces were listed: after a change, at most once a second.")] = 0  # fmt: skip
    failures: Annotated[int, counter("interface_watch_failures",
        "Times that the watch of interfaces ended and began again.", "rises for 5 min")] = 0  # fmt: skip


class Turn(NamedTuple):
    """The first interface of a pattern has come (`interfaces` is not 0), or the last has gone."""

    side: Side
    pattern: str
    interfaces: int


@dataclass(frozen=True, slots=True)
class Matched:
    """What a look came to. `patterns`: as they were in the settings."""

    patterns: tuple[tuple[str, ...], tuple[str, ...]]
    names: tuple[str, ...]
    inside: tuple[PatternView, ...]
    outside: tuple[PatternView, ...]
    warnings: tuple[str, ...]

    @property
    def unmatched(self) -> tuple[str, ...]:
        return tuple(each.pattern for each in (*self.inside, *self.outside) if not each.count)

    @property
    def reason(self) -> str | None:
        """A side that has names, and no interface."""
        idle = any(side and not any(each.count for each in side) for side in (self.inside, self.outside))
        return self.warnings[0] if idle else None


def patterns_of(sides: Sides) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return sides.inside, sides.outside


def match_interfaces(sides: Sides, names: tuple[str, ...]) -> Matched:
    """`names`: of all interfaces."""

    def view(pattern: str) -> PatternView:
        found = names_like(pattern, names)
        return PatternView(pattern, len(found), tuple(found[:MAX_NAMES]))

    inside, outside = tuple(map(view, sides.inside)), tuple(map(view, sides.outside))
    is_whole = all(each.count for each in (*inside, *outside))
    warnings = () if is_whole else interface_warnings(sides, names)
    return Matched(patterns_of(sides), names, inside, outside, warnings)


def turns_of(before: Matched | None, now: Matched) -> list[Turn]:
    """Of a pattern that was not there before, that no interface has it."""
    had: dict[tuple[Side, str], int] = {}
    if before is not None:
        had = {(side, each.pattern): each.count for side, each in _sided(before)}
    return [
        Turn(side, each.pattern, each.count)
        for side, each in _sided(now)
        if bool(each.count) != bool(had.get((side, each.pattern), 1))
    ]


def _sided(matched: Matched) -> list[tuple[Side, PatternView]]:
    inside: list[tuple[Side, PatternView]] = [("inside", each) for each in matched.inside]
    return [*inside, *(("outside", each) for each in matched.outside)]
