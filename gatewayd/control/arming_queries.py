"""Implements `api.arming.ArmingQueries` over the keeper of trials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from gatewayd.api.arming import ModeRequest
from gatewayd.control.trial_keeper import APPLY_PATIENCE_S, TrialKeeper
from gatewayd.model.policy import Stage
from gatewayd.trial.state import Kind, Request
from gatewayd.trial.views import ArmingView

Check = Callable[[Stage, str, bool], Awaitable[None]]
"""Of a stage, for who asks, by force or not: raises InputRejected where it is not to be."""

_GIVE_UP_S: Final = 2 * APPLY_PATIENCE_S
"""Of a plain change, should its own command end before it."""


class Arming:
    """`check`: the assertions'."""

    def __init__(self, keeper: TrialKeeper, check: Check) -> None:
        self._keeper = keeper
        self._check = check

    def view(self) -> ArmingView:
        return self._keeper.view()

    async def report(self) -> bytes | None:
        return await self._keeper.report()

    async def set_mode(self, request: ModeRequest) -> None:
        kind: Kind = "plain"
        if request.confirm_s is not None:
            kind = "confirm"
        elif request.for_s is not None:
            kind = "timed"
        elif request.mode == "observe":
            await self._keeper.stand_down(request.by, request.comment)
            return
        view = self._keeper.view()
        canary = view.wanted.canary_percent if request.canary_percent is None else request.canary_percent
        stage = Stage(request.mode, canary)

        async def check(stage: Stage) -> None:
            await self._check(stage, request.by, request.is_forced)

        seconds = request.confirm_s or request.for_s or _GIVE_UP_S
        await self._keeper.change(Request(stage, kind, float(seconds), request.by, request.comment), check)

    async def confirm(self, by: str) -> None:
        await self._keeper.confirm(by)

    async def revert(self, by: str) -> None:
        await self._keeper.revert(by)

    async def rearm(self, by: str) -> None:
        await self._keeper.rearm(by)

    async def acknowledge(self, by: str) -> None:
        await self._keeper.acknowledge(by)


async def check_nothing(_stage: Stage, _by: str, _is_forced: bool) -> None:
    """Where there are no assertions."""
