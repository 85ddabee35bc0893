"""A change at once, where the code makes it in slices."""

from __future__ import annotations

from collections.abc import Mapping

from gatewayd.model import Registration
from gatewayd.model.registration import Changes, changes_in_slices, run_slices


def construct_changes(old: Mapping[str, Registration], new: Mapping[str, Registration]) -> Changes | None:
    """What leads from `old` to `new`; None when they are equal."""
    return run_slices(changes_in_slices(old, new))
