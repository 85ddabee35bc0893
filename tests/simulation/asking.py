"""How a life asks its sources: the daemon's own tasks, one for each source, with runners that need no file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any, Final, Protocol, cast

from gatewayd.control.controller import Controller
from gatewayd.control.reload import SourceTasks
from gatewayd.errors import SourceUnreadable
from gatewayd.model import Registration
from gatewayd.model.registration import Changes, changes_in_slices, run_slices
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.last_good import Restored
from gatewayd.sources.update import Deliver, FeedPosition, SnapshotReason, SourceUpdate
from tests.simulation.loop import Dice
from tests.simulation.parties import FEEDS

FETCH_RETRY_S: Final = 1.0
RESET: Final = 0.15
"""How often a feed has another session than before."""


class Supply(Protocol):
    """What sources publish, and what is learnt of a process that asks them."""

    @property
    def published(self) -> Mapping[str, Mapping[str, Registration]]: ...
    @property
    def failing(self) -> set[str]: ...
    @property
    def silent(self) -> set[str]: ...
    def uses(self, sources: Collection[str]) -> None: ...
    @property
    def serials(self) -> Mapping[str, int]: ...
    def fetched(self, source: str, registrations: Mapping[str, Registration], how: str) -> None: ...
    def delivered(self, source: str, registrations: Mapping[str, Registration]) -> None: ...


class Asking:
    """In the place of a runner: asks one source at the start and whenever there is something new.

    A feed gives what changed since the last answer, or since the last good of an earlier run; a snapshot at first,
    and where its session is another. A plain source is read whole.
    """

    def __init__(
        self, name: str, env: Supply, poke: asyncio.Event, dice: Dice, now: Callable[[], float],
        restored: Restored | None,
    ) -> None:  # fmt: skip
        self._name, self._env, self._poke, self._dice, self._now = name, env, poke, dice, now
        self._position: FeedPosition | None = None
        self._known: Mapping[str, Registration] = {}
        if restored is not None and restored.is_feed:
            self._position, self._known = restored.position, restored.registrations

    async def run(self, deliver: Deliver, delivered: Callable[[Mapping[str, Registration]], None]) -> None:
        env, name, poke = self._env, self._name, self._poke
        while True:
            poke.clear()
            await asyncio.sleep(self._dice.random() * 0.3)
            if name in env.silent:
                await asyncio.sleep(FETCH_RETRY_S)
                continue
            if name in env.failing:
                error = SourceUnreadable(name, "no answer")
                await deliver(SourceUpdate(name, self._now(), error))
                await asyncio.sleep(FETCH_RETRY_S)
                continue
            found = env.published[name]
            update, how = self._answer(found)
            env.fetched(name, found, how)
            await deliver(update)
            delivered(found)
            await poke.wait()

    def _answer(self, found: Mapping[str, Registration]) -> tuple[SourceUpdate, str]:
        now, name = self._now(), self._name
        if name not in FEEDS:
            return SourceUpdate(name, now, registrations=found), "reading"
        before, known, serial = self._position, self._known, self._env.serials[name]
        self._position, self._known = FeedPosition("feed", serial), found
        if before is None or self._dice.chance(RESET):
            reason: SnapshotReason = "first_time" if before is None else "new_session"
            return SourceUpdate(name, now, registrations=found, position=self._position, reason=reason), "snapshot"
        if before.serial == serial:
            return SourceUpdate(name, now, position=self._position), "confirmation"
        changes = run_slices(changes_in_slices(known, found)) or Changes((), ())
        return SourceUpdate(
            name, now, registrations=found, changes=changes, position=self._position, before=before
        ), "delta"


class Sources(SourceTasks):
    """With runners that need no file."""

    def __init__(
        self, env: Supply, pokes: Mapping[str, asyncio.Event], dice: Dice, now: Callable[[], float]
    ) -> None:
        super().__init__(cast(Any, None))
        self._env, self._dice, self._pokes, self._now = env, dice, pokes, now

    def use(self, registry: RegistrySettings, controller: Controller, group: Any) -> None:
        super().use(registry, controller, group)
        self._env.uses(tuple(self.runners))

    def _make(self, source: SourceSettings, registry: RegistrySettings, controller: Controller) -> Any:
        name = source.name
        asking = Asking(name, self._env, self._pokes[name], self._dice, self._now, self._restored.pop(name, None))

        async def deliver(update: SourceUpdate) -> None:
            if self.runners.get(name) is made:
                await controller.deliver(update)

        def delivered(found: Mapping[str, Registration]) -> None:
            if self.runners.get(name) is made and name in controller.sources:
                self._env.delivered(name, found)

        made: Any = SimpleNamespace(run=lambda: asking.run(deliver, delivered))
        return made


class Group:
    """In the place of the daemon's task group."""

    def __init__(self, do: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[None]]) -> None:
        self._do = do

    def create_task(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[None]:
        return self._do(work)
