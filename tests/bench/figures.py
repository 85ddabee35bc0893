"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Sequence

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def figure(value: float, unit: str) -> str:
    """With its unit; seconds as s, ms or µs."""
    scale, unit = _scale_of(value, unit)
    return f"{number(value / scale)} {unit}".rstrip()


def figure_of(values: Sequence[float], median: float, unit: str) -> str:
    """The median, and in brackets, where they differ, the smallest and the largest. `values`: sorted."""
    scale, shown = _scale_of(median, unit)
    low, high = number(values[0] / scale), number(values[-1] / scale)
    span = "" if low == high else f" ({low}–{high})"
    return f"{number(median / scale)} {shown}".rstrip() + span


def _scale_of(value: float, unit: str) -> tuple[float, str]:
    if unit != "s":
        return 1.0, unit
    return next((each for each in _SECONDS if value >= each[0]), _SECONDS[-1])
