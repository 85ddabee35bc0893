"""Takes a sample of the counters at the end of each minute, for the plots of the last day."""

from __future__ import annotations

import asyncio

from gatewayd.api.history import STEP_S, History, Reading
from gatewayd.control.controller import Controller
from gatewayd.control.vitals import Vitals
from gatewayd.subscribers.service import SubscriberService

FIRST_EVERY_S = 1.0


class HistoryKeeper:
    """`view` is the last day. Before the kernel's counters were read there is nothing to compare with."""

    def __init__(self, controller: Controller, vitals: Vitals, subscribers: SubscriberService | None) -> None:
        self._controller = controller
        self._vitals = vitals
        self._subscribers = subscribers
        self._history = History()
        self.view = self._history.view

    async def run(self) -> None:
        """Until cancelled. The first reading, which the next is compared with, is one of all counters."""
        while not self._vitals.counters:  # noqa: ASYNC110 - the table is made when the registry was read
            await asyncio.sleep(FIRST_EVERY_S)
        while True:
            self.look()
            await asyncio.sleep(STEP_S - self._vitals.clock() % STEP_S)

    def look(self) -> None:
        self._history.note(round(self._vitals.clock()), self._read())

    def _read(self) -> Reading:
        counters = self._vitals.counters
        listener = None if self._subscribers is None else self._subscribers.listener

        def flows(word: str) -> int | None:
            found = counters.get(f"{word}_flows")
            return None if found is None else found.packets

        return Reading(
            flows("registered"),
            flows("unregistered"),
            self._controller.reconciler.stats.repairs,
            self._controller.watch.late_admissions,
            None if listener is None else listener.stats.requests,
        )
