"""Hours and days in which counts are kept, and the bounds of what is kept of each. Pure.

UTC. An hour's rows stay for nine days, a day's for 400. Of either so many rows are kept, those with the most flows
first; what is beyond counts as of other prefixes, other services, other interfaces, so the sums stay whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from gatewayd.impact.counting import PrefixService, ServiceBucket

HOUR_S: Final = 3600
DAY_S: Final = 86_400
OTHER_PREFIX: Final = b""
OTHER_SERVICE: Final = (0, 0)
OTHER_INTERFACE: Final = "(other)"

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Resolution:
    """`kept_s`: rows older than that go. `max_prefixes`: rows of a prefix with a service."""

    step_s: int
    kept_s: int
    max_prefixes: int
    max_services: int
    max_interfaces: int

    def start_of(self, at_s: float) -> int:
        return int(at_s // self.step_s) * self.step_s

    def first_kept(self, now_s: float) -> int:
        return self.start_of(now_s - self.kept_s)


HOURS: Final = Resolution(HOUR_S, 9 * DAY_S, max_prefixes=4096, max_services=64, max_interfaces=256)
DAYS: Final = Resolution(DAY_S, 400 * DAY_S, max_prefixes=8192, max_services=64, max_interfaces=256)
RESOLUTIONS: Final = (HOURS, DAYS)
MAX_HOURLY_S: Final = 8 * DAY_S
"""A time up to this long is answered by the hour, a longer one by the day."""


def resolution_for(span_s: float) -> Resolution:
    return HOURS if span_s <= MAX_HOURLY_S else DAYS


def bound_prefixes(
    came: Mapping[PrefixService, int], kept: Collection[PrefixService], most: int
) -> dict[PrefixService, int]:
    """What is beyond `most` rows counts for the service, of other prefixes."""
    return _bound(came, kept, most, lambda key: key, lambda key: key._replace(prefix=OTHER_PREFIX))


def bound_services(
    came: Mapping[ServiceBucket, int], kept: Collection[tuple[int, int]], most: int
) -> dict[ServiceBucket, int]:
    """What is beyond `most` services counts for the bucket, of another service."""
    return _bound(
        came,
        kept,
        most,
        lambda key: (key.protocol, key.port),
        lambda key: ServiceBucket(*OTHER_SERVICE, key.bucket),
    )


def bound_interfaces(came: Mapping[str, int], kept: Collection[str], most: int) -> dict[str, int]:
    return _bound(came, kept, most, lambda key: key, lambda _: OTHER_INTERFACE)


def _bound(
    came: Mapping[_Key, int],
    kept: Collection[Hashable],
    most: int,
    row_of: Callable[[_Key], Hashable],
    other: Callable[[_Key], _Key],
) -> dict[_Key, int]:
    """`kept`: rows that are there already."""
    rows = set(kept)
    bounded: dict[_Key, int] = {}
    for key, flows in sorted(came.items(), key=lambda item: -item[1]):
        row = row_of(key)
        if row not in rows:
            if len(rows) >= most:
                key = other(key)
            else:
                rows.add(row)
        bounded[key] = bounded.get(key, 0) + flows
    return bounded


def group_interface(name: str, inside: Sequence[str]) -> str:
    """The pattern of `policy.interfaces.inside` that has the name, the narrowest first; else the name without its
    number: the interface of a line (ppp17) names a customer."""
    patterns = sorted((each for each in inside if _has_name(each, name)), key=lambda each: (-len(each), each))
    if patterns:
        return patterns[0]
    stem = name.rstrip("0123456789")
    return name if stem == name else f"{stem}*"


def group_interfaces(came: Mapping[str, int], inside: Sequence[str]) -> dict[str, int]:
    return _sum((group_interface(name, inside), flows) for name, flows in came.items())


def _has_name(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _sum(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for name, flows in pairs:
        sums[name] = sums.get(name, 0) + flows
    return sums
