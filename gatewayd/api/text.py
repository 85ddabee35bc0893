"""Words for people: numbers, sizes, times and places as text; and the lines of a report. Pure.

The commands print them, and the page shows them: the words are the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from gatewayd.model.moment import parse_time

GOOD: Final = "bold green"
BAD: Final = "bold red"
DOUBTFUL: Final = "bold yellow"
"""Styles of a text, by rich's names; without one it is plain."""

IN_KERNEL: Final = {True: "yes", False: "NO", None: "-"}
"""None: nothing is to be there, or it is not known."""

_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Line(NamedTuple):
    """A line of a report. Without `label` it goes on with what is above; `style` is of the text."""

    label: str
    text: str
    style: str = ""


def count(number: int, noun: str) -> str:
    """`1 flow`, `31,022 flows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(size_bytes: int) -> str:
    """`0 B`, `9.4 MiB`."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{size_bytes} B" if unit == 0 else f"{value:.1f} {_SIZES[unit]}"


def ago(now: str, then: str | None) -> str:
    """`4s ago`, `in 5m`, `never`."""
    if then is None:
        return "never"
    seconds = parse_time(now) - parse_time(then)
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """The two largest units: `4s`, `2m 10s`, `3d 4h`."""
    rest = int(seconds)
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def place(prefix: str, ports: tuple[int, int] | None) -> str:
    """`10.1.2.3/32`, `10.1.2.3/32 ports 1024-2047`."""
    return prefix if ports is None else f"{prefix} ports {ports[0]}-{ports[1]}"


def some(words: Sequence[str], most: int = 3, none: str = "any") -> str:
    """The first few, and how many there are beside them."""
    if not words:
        return none
    more = len(words) - most
    return ", ".join(words[:most]) + (f" +{more}" if more > 0 else "")


def by_number(numbers: Mapping[str, int]) -> str:
    """Those that are not 0, the highest first."""
    return numbers_of(
        sorted(((word, number) for word, number in numbers.items() if number), key=lambda item: -item[1])
    )


def numbers_of(numbers: list[tuple[str, int]]) -> str:
    """`: bank 3, embassy 1`, or nothing."""
    words = ", ".join(f"{word} {number:,}" for word, number in numbers)
    return f": {words}" if words else ""
