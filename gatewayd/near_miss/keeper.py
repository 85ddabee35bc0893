"""What happens when, of near misses: fed by the registry, by sessions and by the kernel's log; kept on disk.

The feeding calls are turns without await. What the disk takes is written by a task of its own, in a thread: nothing
waits for it but the word of an operator.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gatewayd.allowlist import Allowlist
from gatewayd.compile.near import NearClients
from gatewayd.log import RateLimited, get_logger
from gatewayd.model import Binding, Flow, Registration
from gatewayd.near_miss.findings import Findings, Key, Line, NearMissView
from gatewayd.near_miss.former import Former
from gatewayd.near_miss.reasons import Miss, classify
from gatewayd.near_miss.store import LineStore
from gatewayd.state_file.file import StateFileUnusable
from gatewayd.state_file.view import StateFileView

log = get_logger(__name__)

EXPIRE_EVERY_S: Final = 1.0
SAVE_EVERY: Final = 5
"""Of these rounds; a kill loses what came since."""
SAY_EVERY_S: Final = 10.0
REPEATED_S: Final = 60.0
MAX_RECENT: Final = 4096
"""Flows whose repetitions are known as such; one that comes after so many others counts again."""


class NearMissKeeper:
    """`clock`: the likely time; `monotonic`: one that is never set; `on_prefixes`: the sets for the log changed."""

    def __init__(
        self,
        allowlist: Allowlist,
        near: NearClients,
        on_prefixes: Callable[[], None],
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._allowlist = allowlist
        self._near = near
        self._on_prefixes = on_prefixes
        self._clock = clock
        self._monotonic = monotonic
        self._former = Former()
        self._findings = Findings()
        self._recent: OrderedDict[int, float] = OrderedDict()
        self._said = RateLimited(log, interval_s=SAY_EVERY_S, clock=monotonic)
        self._store: LineStore | None = None
        self.file_view = StateFileView("near_misses")
        self._unsaved: dict[Key, Line | None] = {}

    # -- what the registry and sessions say ----------------------------------------------------------------

    def replaced(self, old: Registration | None, new: Registration | None) -> None:
        """A registration came, changed or went; a million of them at a start."""
        if old is None:
            if new is not None and self._near.add(new.clients):
                self._on_prefixes()
            return
        came = () if new is None else new.clients
        if came == old.clients:
            return
        kept, was = frozenset(came), frozenset(old.clients)
        gone = [prefix for prefix in old.clients if prefix not in kept]
        self._near.add([prefix for prefix in came if prefix not in was])
        # What went is near for a day.
        self._near.remove(self._former.add(old, gone, self._monotonic()))
        self._on_prefixes()

    def bound(self, binding: Binding) -> None:
        """A registered subscriber has an address."""
        self._near.add_bound(binding.prefix)
        self._on_prefixes()

    def unbound(self, binding: Binding, registrations: Sequence[Registration]) -> None:
        """The subscriber of these has it no more; it is near for two minutes."""
        for prefix in self._former.add_binding(binding, registrations, self._monotonic()):
            self._near.remove_bound(prefix)
            self._on_prefixes()

    def expire(self) -> None:
        """Forget what is old; every second or so."""
        clients, bound = self._former.expire(self._monotonic())
        self._near.remove(clients)
        for prefix in bound:
            self._near.remove_bound(prefix)
        if clients or bound:
            self._on_prefixes()
        self._findings.expire(self._clock())

    # -- what the kernel says ------------------------------------------------------------------------------

    def seen(self, flow: Flow, moment: float) -> bool:
        """A flow that nothing lets pass was logged; whether it is a near miss. `moment`: the time for windows."""
        miss = classify(self._allowlist, self._former, flow, moment)
        if miss is None:
            return False
        if self._findings.note(miss, self._clock(), is_repeated=self._is_repeated(flow)):
            self._say(miss)
        return True

    def _is_repeated(self, flow: Flow) -> bool:
        """Whether it was seen within a minute: a refused packet leaves no connection, so each is logged."""
        now, key = self._monotonic(), hash(flow)
        seen_s = self._recent.get(key)
        if seen_s is not None and now - seen_s < REPEATED_S:
            return True
        self._recent[key] = now
        self._recent.move_to_end(key)
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return False

    def _say(self, miss: Miss) -> None:
        self._said.warning(
            "near_miss.found",
            id=miss.registration_id,
            reason=miss.reason,
            service=str(miss.service),
            far=str(miss.far),
        )

    # -- for people ----------------------------------------------------------------------------------------

    @property
    def flows(self) -> int:
        """Near misses so far."""
        return self._findings.flows

    def listed(self, *, with_acknowledged: bool = False) -> list[Line]:
        """The list, the latest first."""
        return self._findings.listed(self._clock(), with_acknowledged=with_acknowledged)

    async def acknowledge(self, registration_id: str, until_s: float, by: str) -> int:
        """Take all lines of a registration off the list, on the disk too; how many."""
        count = self._findings.acknowledge(registration_id, until_s)
        if count:
            log.info("near_miss.acknowledged", id=registration_id, lines=count, by=by)
            await self._save()
        return count

    def view(self) -> NearMissView:
        return NearMissView(
            flows=self._findings.flows,
            listed=self._findings.count_listed(self._clock()),
            evicted=self._findings.evicted,
            former_lost=self._former.lost,
            prefixes=len(self._near),
            unfollowed=self._near.unfollowed,
        )

    # -- the disk ------------------------------------------------------------------------------------------

    async def open(self, state_dir: Path) -> None:
        """What an earlier run left; raises nothing."""
        self._store = LineStore(state_dir, self.file_view)
        with suppress(StateFileUnusable):
            self._findings.restore(await self._store.load())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for _ in range(SAVE_EVERY):
                await asyncio.sleep(EXPIRE_EVERY_S)
                self.expire()
            await self._save()

    async def close(self) -> None:
        """What is not on the disk yet is written."""
        await self._save()
        if self._store is not None:
            await self._store.close()

    async def _save(self) -> None:
        """What cannot be written now is written with what comes next: at most all lines, and those gone."""
        changes = self._unsaved | self._findings.take_changed()
        if not changes or self._store is None:
            return
        self._unsaved = changes
        try:
            await self._store.save(changes)
        except StateFileUnusable:
            return
        if self._unsaved is changes:
            self._unsaved = {}
