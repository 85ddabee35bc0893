"""Answers about near misses: the list with the change that mends each line, and its acknowledgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from gatewayd.api.near_misses import NearMissLineView, NearMissList, near_miss_view
from gatewayd.control.controller import Controller
from gatewayd.model.registration import RejectedRecord
from gatewayd.near_miss.findings import Line


class NearMissQueries:
    """`clock`: the likely time."""

    def __init__(self, controller: Controller, clock: Callable[[], float]) -> None:
        self._registry = controller.registry
        self._near_misses = controller.near_misses
        self._clock = clock

    def page(self, offset: int, limit: int, *, with_acknowledged: bool) -> NearMissList:
        lines = self._near_misses.listed(with_acknowledged=with_acknowledged)
        items = tuple(map(self._view, lines[offset : offset + limit]))
        return NearMissList(len(lines), offset, self._near_misses.view().evicted, items)

    async def acknowledge(self, registration_id: str, until_s: float | None, by: str) -> Mapping[str, object]:
        """`until_s`: None = for good; a time that has come puts the lines back on the list."""
        count = await self._near_misses.acknowledge(registration_id, inf if until_s is None else until_s, by)
        return {"id": registration_id, "lines": count}

    def _view(self, line: Line) -> NearMissLineView:
        standing = self._registry.standing_of(line.registration_id)
        held = self._registry.held() if standing.held is not None else None
        accepts = None if held is None else held.serial
        known = standing if standing.is_known else None
        return near_miss_view(line, self._clock(), known, accepts, self._rejected(line.registration_id))

    def _rejected(self, id: str) -> tuple[str, RejectedRecord] | None:
        found = ((name, each.rejection_of(id)) for name, each in self._registry.sources.items())
        return next(((name, record) for name, record in found if record is not None), None)
