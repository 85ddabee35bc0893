"""Moments as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite


def format_time(at_s: float | None) -> str | None:
    """RFC 3339 in UTC to the millisecond, whole seconds without a fraction; None for None and ∓inf."""
    if at_s is None or not isfinite(at_s):
        return None
    moment = datetime.fromtimestamp(round(at_s, 3), UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds").removesuffix(".000") + "Z"


def parse_time(text: str) -> float:
    """Unix seconds of what format_time made."""
    return datetime.fromisoformat(text).timestamp()
