"""The prefixes of Pakistan that ship with the package; each file's first line names origin and licence."""

from __future__ import annotations

from functools import cache
from importlib import resources

from gatewayd.lab.world import parse_prefix_lines
from gatewayd.model import Family, Prefix


@cache
def announced_prefixes(family: Family) -> tuple[Prefix, ...]:
    """All that are announced, those under another included (5,382 for IPv4, 1,373 for IPv6), in file
    order."""
    return _prefixes(f"pk-bgp-announced-ipv{family}.txt")


@cache
def allocated_prefixes(family: Family) -> tuple[Prefix, ...]:
    """Allocated by the regional registry (710 for IPv4, 326 for IPv6), in file order."""
    return _prefixes(f"pk-rir-ipv{family}.txt")


def _prefixes(file_name: str) -> tuple[Prefix, ...]:
    file = resources.files("gatewayd.lab") / "prefixes" / file_name
    return parse_prefix_lines(file.read_text("ascii"))
