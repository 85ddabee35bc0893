"""The numbers that may trip, read from where they are counted, and the names that go with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.controller import Controller
from gatewayd.trial.trip import MAX_NAMES


class TripEvidence:
    """Implements `trial.trip.Evidence`. A cause has the name of its key in `policy.trip`."""

    def __init__(self, controller: Controller, gate: AssertionGate) -> None:
        self._controller = controller
        self._watch = controller.watch
        self._near_misses = controller.near_misses
        self._reconciler = controller.reconciler
        self._states = gate.states

    def thresholds(self) -> Mapping[str, int | None]:
        trip = self._controller.settings.policy.trip
        return {
            "failing_assertions": trip.failing_assertions,
            "unprogrammed": trip.unprogrammed,
            "late_admissions": trip.late_admissions,
            "near_misses": trip.near_misses,
        }

    def numbers(self) -> Mapping[str, int]:
        return {
            "failing_assertions": len(self._cut()),
            "unprogrammed": len(self._reconciler.unprogrammed()),
            "late_admissions": self._watch.late_flows.count,
            "near_misses": self._watch.near_flows.count,
        }

    def names(self, cause: str) -> tuple[str, ...]:
        names: dict[str, Callable[[], list[str]]] = {
            "failing_assertions": self._cut,
            "unprogrammed": lambda: list(self._reconciler.unprogrammed()),
            "late_admissions": lambda: list(self._watch.late_ids),
            "near_misses": lambda: [each.registration_id for each in self._near_misses.listed()],
        }
        return tuple(islice(dict.fromkeys(names[cause]()), MAX_NAMES))

    def _cut(self) -> list[str]:
        """Of `must_pass` alone: observe mends no `must_not_pass`. Nor may a trip undo what an operator forced."""
        return [each.name for each in self._states.unforced() if each.kind == "must_pass"]
