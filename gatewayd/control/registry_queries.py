"""What the registry knows beside what is in force: whose an id is, pins and filters, held removals, changes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from gatewayd.api.standing import (
    ChangeList,
    HeldList,
    RejectedList,
    StandingView,
    held_endpoints_view,
    held_removal_view,
    rejected_view,
    standing_view,
    step_view,
)
from gatewayd.control.controller import Controller
from gatewayd.model import Decision, Flow, Prefix, Registration
from gatewayd.model.moment import format_time
from gatewayd.registry.standing import Standing
from gatewayd.registry.state import KERNEL

MAX_NOTES: Final = 10
"""Of one answer of explain."""


class RegistryQueries:
    """Over the controller's registry. Each answer costs what it names."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._registry = controller.registry
        self._attribution = controller.attribution

    def standing(self, id: str) -> StandingView | None:
        """None: neither source nor local file has the id."""
        found = self._registry.standing_of(_own(id))
        return standing_view(found) if found.is_known else None

    def filtered(self, id_or_prefix: str, prefix: Prefix | None) -> Iterator[Registration]:
        """What sources have under an id or at an address, and a filter drops."""
        found: tuple[Standing, ...] = (self._registry.standing_of(id_or_prefix),)
        if prefix is not None:
            found = self._registry.filtered_at(prefix.packed)
        for each in found:
            if each.in_source is not None and each.registered is None and each.held is None:
                yield each.in_source

    def held(self, offset: int, limit: int) -> HeldList:
        page = self._registry.held_removals(offset, limit)
        flows = self._attribution.count_live(frozenset(each.id for each in page.items))
        items = tuple(held_removal_view(each, flows[each.id]) for each in page.items)
        held, endpoints = self._registry.held(), self._registry.endpoints.held()
        pending = () if endpoints is None else tuple(islice(endpoints.held.items(), offset, offset + limit))
        elements = next((each for each in self._controller.holds() if KERNEL in each.by_cause), None)
        return HeldList(
            page.serial,
            None if held is None else format_time(held.since_s),
            "" if held is None else str(held.decision),
            page.total,
            page.offset,
            items,
            0 if elements is None else elements.by_cause[KERNEL],
            0 if elements is None else elements.serial,
            self._controller.held_log.registrants,
            () if endpoints is None else tuple(held_endpoints_view(*each) for each in pending),
            0 if endpoints is None else endpoints.serial,
            "" if endpoints is None else str(endpoints),
        )

    def rejected(self, source: str | None, offset: int, limit: int) -> RejectedList:
        """Of one source, or of all in order."""
        states = {name: each for name, each in self._registry.sources.items() if source in (None, name)}
        total = sum(sum(each.rejected.values()) for each in states.values())
        records = [(name, record) for name, each in states.items() for record in each.rejections]
        items = tuple(rejected_view(*each) for each in records[offset : offset + limit])
        return RejectedList(total, len(records), offset, items)

    def changes(self, since_s: float) -> ChangeList:
        history = self._registry.history
        return ChangeList(history.dropped, tuple(map(step_view, history.since(since_s))))

    def notes(self, flow: Flow, decision: Decision) -> tuple[str, ...]:
        """What an operator should know of the registrations behind a decision: filters, pins, held removals."""
        found: dict[str, None] = {}
        for registration in decision.registrations:
            found |= dict.fromkeys(self._notes_of(self._registry.standing_of(_own(registration.id))))
        if decision.word == "unregistered":
            for end, address in (("source", flow.source), ("destination", flow.destination)):
                for each in self._registry.filtered_at(address):
                    for override in standing_view(each).filters:
                        found[f"{each.id} of {each.source} has the {end}, but the {override} takes it away"] = None
        return tuple(found)[:MAX_NOTES]

    def _notes_of(self, standing: Standing) -> Iterator[str]:
        view = standing_view(standing)
        if view.pin is not None:
            yield f"{standing.id} is a local {view.pin}"
        if view.held_since is not None:
            yield (
                f"{standing.id} is in force because its removal is held, since {view.held_since} "
                f"(by {view.held_cause}; gatewayd held)"
            )


def _own(id: str) -> str:
    """The registry's id of what the guard has under one of its own: `PK-1#2`."""
    return id.partition("#")[0]
