"""Which interfaces are inside and outside, as tests in nft's words; and which names no interface has. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Protocol


class Sides(Protocol):
    """Names of the interfaces of each side: a Policy, or `policy.interfaces` of the settings."""

    @property
    def inside(self) -> tuple[str, ...]: ...

    @property
    def outside(self) -> tuple[str, ...]: ...


def crossing(named: Sides) -> list[str]:
    """Tests, one of which is true of a packet between inside and outside; a side without names is any interface.
    None where neither side has names."""
    inside, outside = _interfaces(named.inside), _interfaces(named.outside)
    if inside and outside:
        pairs = [*product(inside, outside), *product(outside, inside)]
        return list(dict.fromkeys(f"iifname {incoming} oifname {outgoing}" for incoming, outgoing in pairs))
    return [f"{word} {names}" for word in ("iifname", "oifname") for names in inside or outside]


def _interfaces(names: tuple[str, ...]) -> list[str]:
    """Values to compare an interface's name with. Before 1.0.3 nft refuses a wildcard in a set; a single name is
    compared faster without one."""
    wild = sorted(f'"{name}"' for name in names if name.endswith("*"))
    plain = sorted(f'"{name}"' for name in names if not name.endswith("*"))
    if len(plain) > 1:
        plain = [f"{{ {', '.join(plain)} }}"]
    return plain + wild


def knows_inside(named: Sides) -> bool:
    """Whether the rules can tell a packet's end inside from the one outside."""
    return bool(client_tests(named))


def client_tests(named: Sides) -> list[str]:
    """Tests, one of which is true of a packet that a client sent, among those that cross; none where that cannot be
    told: no interface is named, or one is named for both sides."""
    if _may_meet(named.inside, named.outside):
        return []
    if named.inside:
        return [f"iifname {names}" for names in _interfaces(named.inside)]
    return [f"oifname {names}" for names in _interfaces(named.outside)]


def no_client_test(named: Sides) -> str:
    """True of a packet for which none of `client_tests` is, where there are any."""
    return " ".join(test.replace("ifname ", "ifname != ") for test in client_tests(named))


def _may_meet(inside: Iterable[str], outside: Iterable[str]) -> bool:
    """Whether an interface may have a name of both sides; a `*` at the end stands for anything."""
    return any(
        (one.endswith("*") and other.startswith(one[:-1]))
        or (other.endswith("*") and one.startswith(other[:-1]))
        or one == other
        for one, other in product(inside, outside)
    )


def unmatched(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Those of `policy.interfaces` that no interface has now, by the `names` of all that there are."""
    present = tuple(names)
    return tuple(each for each in patterns if not any(_has_name(each, name) for name in present))


def names_like(pattern: str, names: Iterable[str]) -> list[str]:
    """Those of the names that the pattern stands for."""
    return [name for name in names if _has_name(pattern, name)]


def _has_name(pattern: str, name: str) -> bool:
    """As nft compares: a `*` at the end stands for anything (`ppp*`), and nowhere else."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def crosses(named: Sides, incoming: str, outgoing: str) -> bool:
    """Whether the rules judge a packet that comes in by one interface and goes out by the other; see `crossing`."""

    def has(patterns: tuple[str, ...], name: str) -> bool:
        return any(_has_name(each, name) for each in patterns)

    inside, outside = named.inside, named.outside
    if inside and outside:
        ways = ((incoming, outgoing), (outgoing, incoming))
        return any(has(inside, one) and has(outside, other) for one, other in ways)
    return not (inside or outside) or has(inside or outside, incoming) or has(inside or outside, outgoing)


_MAX_NEAR = 3
"""Interfaces that a warning proposes."""


def near_names(pattern: str, names: Iterable[str]) -> list[str]:
    """Names of interfaces that may be meant by one that none has."""
    stem = pattern.removesuffix("*")
    return [each for each in names if each.startswith(stem) or stem.startswith(each)][:_MAX_NEAR]


def interface_warnings(named: Sides, names: Iterable[str]) -> tuple[str, ...]:
    """Sentences on names that no interface has now, by the `names` of all; what that turns off comes first."""
    present = sorted(names)
    sides = (("inside", named.inside), ("outside", named.outside))
    absent = [(side, name) for side, patterns in sides for name in unmatched(patterns, present)]
    said = [
        f"no interface has a name of policy.interfaces.{side} ({', '.join(patterns)}): the rules judge no packet,"
        f" in any mode, until one has"
        for side, patterns in sides
        if patterns and len(unmatched(patterns, present)) == len(patterns)
    ]
    for side, name in absent:
        near = near_names(name, present)
        hint = f"; is {' or '.join(near)} meant?" if near else ""
        said.append(f"no interface is named {name} now (policy.interfaces.{side}){hint}")
    return tuple(said)
