"""Rows of the journal, put right for the present before sessions are rebuilt from them.

A wall clock that was set between two runs must not make
anything last for ever: no time is ahead of `now`, and no session runs out later than if it had just been reported,
with or without an interval. Where that changes a row, it is to be written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from msgspec.structs import replace

from gatewayd.subscribers.journal_rows import AddressRow, EndedRow, HoldRow, Key, NasRow, Row, SessionRow
from gatewayd.subscribers.sessions.nas import name_of_key
from gatewayd.subscribers.sessions.session import JITTER, TICK_S, Terms


@dataclass(frozen=True, slots=True)
class SortedRows:
    """`sessions`: by their beginning. `stones`: by when they were buried. `changed`: keys of those put right."""

    nas: list[NasRow]
    stones: list[EndedRow | AddressRow]
    sessions: list[SessionRow]
    changed: list[Key]


def sort_rows(rows: Iterable[Row], now: float, terms_of: Callable[[str], Terms]) -> SortedRows:
    """Rows without a value are left out."""
    found = SortedRows([], [], [], [])
    latest_s = now
    for row in rows:
        value = row.value
        if isinstance(value, SessionRow):
            session = _tame_session(value, latest_s, now + _longest_s(value, terms_of))
            found.sessions.append(session)
            is_changed = session is not value
        elif isinstance(value, NasRow):
            restarts = tuple([(each, min(at_s, now)) for each, at_s in value.restarts])
            tame = replace(value, restarted_s=min(value.restarted_s, latest_s), restarts=restarts)
            found.nas.append(tame)
            is_changed = tame != value
        elif value is not None:
            stone = _tame_stone(value, latest_s, now)
            found.stones.append(stone)
            is_changed = stone is not value
        else:
            continue
        if is_changed:
            found.changed.append(row.key)
    found.sessions.sort(key=lambda each: each.since_s)
    found.stones.sort(key=lambda each: each.buried_s)
    return found


def _longest_s(row: SessionRow, terms_of: Callable[[str], Terms]) -> float:
    """How far ahead a session can run out by what the NAS may have said of its interval, now or earlier; an
    interval that became shorter shortens no life. `due_s` of a row is a tick rounded up."""
    terms = terms_of(name_of_key(row.nas))
    lifetimes = {terms.lifetime_s(row.interim_s), terms.lifetime_s(None)}
    if row.due_s is not None and len(lifetimes) > 1:
        lifetimes.discard(inf)
    return max(lifetimes) * (1 + JITTER) + TICK_S


def _tame_session(row: SessionRow, latest_s: float, last_due_s: float) -> SessionRow:
    """The row itself where nothing is wrong with it."""
    due_s = inf if row.due_s is None else row.due_s
    newest_s = max(row.at_s, row.since_s, row.snapshot_s, row.ipv4_s)
    if (
        due_s <= last_due_s
        and newest_s <= latest_s
        and all(hold.named_s <= latest_s and hold.since_s <= latest_s for hold in row.holds)
    ):
        return row
    return replace(
        row,
        since_s=min(row.since_s, latest_s),
        at_s=min(row.at_s, latest_s),
        snapshot_s=min(row.snapshot_s, latest_s),
        ipv4_s=min(row.ipv4_s, latest_s),
        due_s=min(due_s, last_due_s),
        holds=tuple(
            HoldRow(hold.prefix, hold.ports, min(hold.named_s, latest_s), min(hold.since_s, latest_s))
            for hold in row.holds
        ),
    )


def _tame_stone(row: EndedRow | AddressRow, latest_s: float, now: float) -> EndedRow | AddressRow:
    if row.at_s <= latest_s and row.buried_s <= now:
        return row
    at_s, buried_s = min(row.at_s, latest_s), min(row.buried_s, now)
    if isinstance(row, EndedRow):
        return replace(row, at_s=at_s, buried_s=buried_s)
    return replace(row, at_s=at_s, buried_s=buried_s, others_s=min(row.others_s, latest_s))
