"""What the reconciler did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What the reconciler did since start; times are unix seconds, 0 = never."""

    transactions: int = 0
    elements: int = 0
    commit_seconds: float = 0.0
    failures: int = 0
    last_error: str = ""
    last_commit_at: float = 0.0
    last_verified_at: float = 0.0
    repairs: int = 0
    notices_lost: int = 0
    """Times that others committed more than we were told of."""
    late_admissions: int = 0
    generation: int = 0
    turned_at: float = 0.0
    """By the stopwatch: when the task last got somewhere."""
