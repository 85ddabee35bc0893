"""The one shape of a change, and long work in slices."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from gatewayd.model import Registration

SLICE: Final = 8192
"""Registrations looked at between two yields of a generator of slices."""


Slices = Generator[None, None, "_T"]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Changes:
    """From one registry to the next. `withdrawals` are ids; an upsert is new or differs from before."""

    upserts: tuple[Registration, ...]
    withdrawals: tuple[str, ...]


def changes_in_slices(old: Mapping[str, Registration], new: Mapping[str, Registration]) -> Slices[Changes | None]:
    """What leads from `old` to `new`, None when they are equal. Neither mapping may change meanwhile.

    A registration that is the same object in both costs one look-up (see `previous` of the readers).
    """
    if old is new:
        return None
    upserts: list[Registration] = []
    added = 0
    for count, (id, registration) in enumerate(new.items(), 1):
        before = old.get(id)
        if before is not registration and before != registration:
            upserts.append(registration)
            added += before is None
        if count % SLICE == 0:
            yield
    withdrawals: list[str] = []
    if len(new) - added < len(old):
        for count, id in enumerate(old, 1):
            if id not in new:
                withdrawals.append(id)
            if count % SLICE == 0:
                yield
    return Changes(tuple(upserts), tuple(withdrawals)) if upserts or withdrawals else None


def run_slices(slices: Slices[_T]) -> _T:
    """The result of a generator of slices, all of them run at once."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            result: _T = stop.value
            return result
