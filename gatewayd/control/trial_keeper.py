"""Changes of the mode, performed: on disk, in the kernel, on time and in the log. The rules are `trial.state`'s.

what arms      disk first, then the kernel; it is read back, and only then it has succeeded
what disarms   both at once; the kernel waits for the disk for HEAD_START_S at most
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from gatewayd.control.trial_gateway import TrialGateway
from gatewayd.control.trial_report import TrialReports
from gatewayd.control.trial_store import TrialStore
from gatewayd.log import get_logger
from gatewayd.model.policy import Stage
from gatewayd.trial.stages import stage_of
from gatewayd.trial.state import (
    REMINDERS,
    ChangeRefused,
    Instant,
    Notice,
    Request,
    TrialState,
    Trip,
    abandon,
    acknowledge,
    apply,
    begin,
    confirm,
    describe_trip,
    expire,
    rearm,
    revert,
    stand_down,
    trip,
    use_file,
)
from gatewayd.trial.trip import Evidence, TripWatch
from gatewayd.trial.views import ArmingView, arming_view

log = get_logger(__name__)
_T = TypeVar("_T")

APPLY_PATIENCE_S: Final = 30.0
"""How long the kernel has to take what arms; nft itself is given as long."""
WAY_BACK_PATIENCE_S: Final = 10.0
"""How long a command that disarms waits for the kernel; what it asked for is done all the same."""
HEAD_START_S: Final = 0.25
"""Of the disk, before the kernel is disarmed: a kill in between leaves a record that arms nothing."""
SAY_AGAIN_S: Final = 10.0
"""Between two lines of the log about a way back that the kernel does not take."""
LOOK_EVERY_S: Final = 1.0
_PAUSE_S: Final = 0.02


class TrialKeeper:
    """`now`: the likely time and the elapsed. `make_id`: another each time. Commands raise ChangeRefused."""

    def __init__(
        self,
        store: TrialStore,
        gateway: TrialGateway,
        *,
        now: Callable[[], Instant],
        make_id: Callable[[], str],
        evidence: Evidence | None = None,
        reports: TrialReports | None = None,
        path: str = "",
    ) -> None:
        self.reverts = 0
        """Trials that came back by themselves and were not to, in this run."""
        self._store = store
        self._gateway = gateway
        self._now = now
        self._make_id = make_id
        self._path = path
        self._evidence = evidence
        self._reports = reports
        self._trip_watch = TripWatch()
        self._wake = asyncio.Event()
        self._reverting: tuple[Stage, float] | None = None
        """The way back that the kernel does not have yet, and since when."""
        self._said_waiting_at_s = 0.0
        self._reminded: tuple[str, float, int] | None = None
        self._is_reloading = False
        self._saving: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def state(self) -> TrialState:
        return self._store.state

    def view(self) -> ArmingView:
        return arming_view(
            self.state,
            self._gateway.file_stage(),
            self._now(),
            reverting=None if self._reverting is None else self._reverting[0],
            not_saved=self._store.error,
            path=self._path,
            reverts=self.reverts,
            mode=self._gateway.mode_in_force(),
            report_of="" if self._reports is None else self._reports.of,
        )

    # -- commands ------------------------------------------------------------------------------------------

    async def change(self, request: Request, check: Callable[[Stage], Awaitable[None]]) -> None:
        """To another stage than observe. Raises ChangeRefused, also where it could not be done; then no timer
        remains. A client that goes does not cut it short. `check` raises where the stage is not to be."""
        begin(
            self.state, self._gateway.file_stage(), request, self._now(), ""
        )  # refuses it before anything is asked
        if self._is_reloading:
            raise ChangeRefused("a reload is under way: try again when it is done")
        trial = self.state.trial
        if trial is None or trial.to != request.stage:
            self._refuse_unless_ready(request.stage)
            await check(request.stage)
        await asyncio.shield(self._go_on_with(self._change(request)))

    def _go_on_with(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """A task that no client and no timeout ends."""
        task = asyncio.create_task(work, name="change of the mode")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _refuse_unless_ready(self, stage: Stage) -> None:
        cause = self._gateway.cause_of_stage()
        if cause == "schedule":
            raise ChangeRefused("enforce_from and enforce_until of the file say observe now, and come first")
        if cause == "staleness":
            raise ChangeRefused("a source is stale, and registry.on_stale says observe")
        reasons = self._gateway.obstacles(stage)
        if reasons:
            raise ChangeRefused(f"nothing is armed while the gateway is not ready: {reasons[0]}")

    async def _change(self, request: Request) -> None:
        before, file, now = self.state, self._gateway.file_stage(), self._now()
        proposed = begin(before, file, request, now, self._make_id())
        trial = proposed.trial
        assert trial is not None
        try:
            await self._store.save_first(proposed)
        except OSError as error:
            raise ChangeRefused(
                f"the record of the change cannot be written ({error.strerror or error}): nothing was changed"
            ) from None
        if self.state is not before or self._is_reloading:
            await self._store.save()
            raise ChangeRefused("another change came first: look at gatewayd trial")
        self._store.take(proposed)
        mode, was, seconds = str(trial.to), str(trial.way_back), round(request.seconds)
        by, comment = trial.by, request.comment
        if trial.is_applied:
            log.info("trial.moved", id=trial.id, mode=mode, was=was, by=by, seconds=seconds, comment=comment)
            self._wake.set()
            return
        self._reverting = None
        log.info(
            "trial.begun", id=trial.id, mode=mode, was=was, by=by, seconds=seconds, kind=trial.kind, comment=comment
        )
        self._gateway.change_stage(request.by)
        self._wake.set()
        await self._follow(trial.id, trial.to)

    async def _follow(self, id: str, to: Stage) -> None:
        """Until the kernel was read back with it and the disk knows, or not at all."""
        failure = await self._wait_until_applied(id, to)
        if not self._is_ours(id, to):
            raise ChangeRefused("another command, the trip or the end of its time came first: gatewayd trial")
        if failure is None:
            self._store.take(apply(self.state, self._gateway.file_stage(), id, self._now()))
            # A plain order that is not on disk is one that a restart ends: as it would anyway.
            if await self._store.save() or self.state.trial is None:
                log.info("trial.applied", id=id, mode=str(to))
                if self._reports is not None and self.state.trial is not None:
                    await self._reports.begin(self.state.trial)
                return
            failure = f"the record of the change cannot be written ({self._store.error})"
        log.error("trial.failed", id=id, mode=str(to), reason=failure)
        back = abandon(self.state, self._gateway.file_stage(), id, self._now())
        await self._step_back(back, "a change that failed")
        raise ChangeRefused(f"{to} is not in force, and no timer remains: {failure}")

    def _is_ours(self, id: str, to: Stage) -> bool:
        trial = self.state.trial
        return trial is not None and (trial.id, trial.to) == (id, to)

    async def _wait_until_applied(self, id: str, to: Stage) -> str | None:
        """None, or why not."""
        until_s = self._now().elapsed_s + APPLY_PATIENCE_S
        while self._is_ours(id, to) and not self._gateway.is_stage_read_back():
            if self._now().elapsed_s >= until_s:
                why = self._gateway.kernel_error() or "it was not read back"
                return f"the kernel did not take it within {APPLY_PATIENCE_S:g} s ({why})"
            await asyncio.sleep(_PAUSE_S)
        return None

    async def stand_down(self, by: str, comment: str) -> None:
        """Observe, whatever is pending."""
        ended = self.state.trial
        log.warning("mode.observe", by=by, comment=comment, ended="" if ended is None else ended.id)
        await self._step_back(stand_down(self.state, self._gateway.file_stage(), by, comment, self._now()), by)
        await self._wait_for_way_back()

    async def confirm(self, by: str) -> None:
        trial = self.state.trial
        self._store.take(confirm(self.state, self._gateway.file_stage(), by, self._now()))
        assert trial is not None
        log.info("trial.confirmed", id=trial.id, mode=str(trial.to), by=by)
        await self._store.save()

    async def revert(self, by: str) -> None:
        trial = self.state.trial
        state = revert(self.state, self._gateway.file_stage(), by, self._now())
        assert trial is not None
        log.warning("trial.reverting", id=trial.id, mode=str(trial.to), back=str(trial.way_back), by=by)
        await self._step_back(state, by)
        await self._wait_for_way_back()

    async def rearm(self, by: str) -> None:
        cause = self.state.trip
        self._store.take(rearm(self.state))
        assert cause is not None
        log.warning("trip.rearmed", cause=cause.cause, by=by)
        await self._store.save()
        self._gateway.change_stage(by)

    async def acknowledge(self, by: str) -> None:
        count = len(self.state.notices)
        self._store.take(acknowledge(self.state))
        log.info("trial.acknowledged", notices=count, by=by)
        await self._store.save()

    # -- the file ------------------------------------------------------------------------------------------

    def refusal_of_reload(self) -> str | None:
        """Why the file is not read again now."""
        trial = self.state.trial
        if trial is None:
            return None
        return f"a trial of {trial.to} is pending: gatewayd confirm, gatewayd revert or gatewayd mode observe first"

    def note_reloading(self, *, is_reloading: bool) -> None:
        """No trial begins meanwhile."""
        self._is_reloading = is_reloading

    def use_file(self, stage: Stage) -> None:
        """The file was read again, with this stage; in the same turn the controller gets it."""
        self._store.take(use_file(self.state, stage))
        self._wake.set()

    # -- the clock, and the way back -------------------------------------------------------------------------

    async def trip(self, cause: Trip) -> None:
        """Back to observe at once, and latched."""
        if self.state.trip is None:
            log.error("trip.tripped", cause=cause.cause, evidence=describe_trip(cause))
            await self._step_back(trip(self.state, self._gateway.file_stage(), cause, self._now()), "trip")

    async def run(self) -> None:
        """Until cancelled. The kernel keeps what it has then, and the next start judges it."""
        try:
            await self._run()
        finally:
            trial = self.state.trial
            if trial is not None:
                log.warning(
                    "trial.left", id=trial.id, mode=str(trial.to), left_s=round(trial.left_s(self._now().elapsed_s))
                )

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self.tick()
            if not self._store.is_saved and (self._saving is None or self._saving.done()):
                # A disk that does not answer holds up no way back.
                self._saving = self._go_on_with(self._store.save())
            trial = self.state.trial
            left_s = LOOK_EVERY_S if trial is None else trial.left_s(self._now().elapsed_s)
            pause_s = _PAUSE_S if self._reverting is not None else min(LOOK_EVERY_S, max(left_s, _PAUSE_S))
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def tick(self) -> None:
        """What is due now."""
        state = expire(self.state, self._gateway.file_stage(), self._now())
        if state is not self.state:
            notice = state.notices[-1]
            self._note_end(notice)
            await self._step_back(state, f"the end of trial {notice.id}")
        await self._look_for_trip()
        self._remind()
        self._look_at_way_back()

    async def _look_for_trip(self) -> None:
        """Only what is enforced can trip; what was there when it was armed does not."""
        evidence, now = self._evidence, self._now()
        if evidence is None or self._gateway.mode_in_force() == "observe" or self.state.trip is not None:
            self._trip_watch.reset()
            return
        thresholds = evidence.thresholds()
        cause = self._trip_watch.look(now.elapsed_s, evidence.numbers(), thresholds)
        threshold = None if cause is None else thresholds[cause]
        if cause is None or threshold is None:
            return
        await self.trip(Trip(cause, now.wall_s, self._trip_watch.rise(cause), threshold, evidence.names(cause)))

    def say_restored(self, kept: TrialState) -> None:
        """At a start: what became of the state that was on disk."""
        state = self.state
        if state.trial is not None:
            trial = state.trial
            log.warning(
                "trial.goes_on", id=trial.id, mode=str(trial.to), left_s=round(trial.left_s(self._now().elapsed_s))
            )
        elif kept.trial is not None:
            self._note_end(state.notices[-1])
        if kept.order is not None and state.order is None and kept.trial is None:
            log.warning("mode.file_counts", was=str(kept.order.stage), mode=str(self._gateway.file_stage()))
        if state.trip is not None:
            log.warning("trip.latched", cause=state.trip.cause, evidence=describe_trip(state.trip))

    def _note_end(self, notice: Notice) -> None:
        self.reverts += notice.kind != "ended"
        mode, back = str(notice.tried), str(notice.back)
        if notice.kind == "ended":
            log.info("trial.ended", id=notice.id, mode=mode, back=back)
        else:
            log.warning("trial.reverting", id=notice.id, mode=mode, back=back, by=notice.kind)

    async def report(self) -> bytes | None:
        """Of the latest trial that ended unconfirmed, as a page; None: there is none."""
        return None if self._reports is None else await self._reports.read()

    async def _step_back(self, state: TrialState, by: str) -> None:
        ended = self.state.trial
        if self._reports is not None and ended is not None and ended.is_applied and state.trial is None:
            self._go_on_with(self._reports.end(ended, self._now().wall_s, f"by {by}"))
        self._store.take(state)
        await asyncio.wait({self._go_on_with(self._store.save())}, timeout=HEAD_START_S)
        self._reverting = stage_of(self._gateway.file_stage(), self.state).stage, self._now().elapsed_s
        self._said_waiting_at_s = self._reverting[1]
        self._gateway.change_stage(by)
        self._look_at_way_back()
        self._wake.set()

    async def _wait_for_way_back(self) -> None:
        until_s = self._now().elapsed_s + WAY_BACK_PATIENCE_S
        while self._reverting is not None and self._now().elapsed_s < until_s:
            await asyncio.sleep(_PAUSE_S)
            self._look_at_way_back()

    def _look_at_way_back(self) -> None:
        """Say when the kernel has it; and again and again while it does not."""
        if self._reverting is None:
            return
        stage, since_s = self._reverting
        now_s = self._now().elapsed_s
        if self._gateway.is_stage_in_force():
            self._reverting = None
            log.warning("mode.stepped_back", mode=str(stage), seconds=round(now_s - since_s, 3))
        elif now_s - self._said_waiting_at_s >= SAY_AGAIN_S:
            self._said_waiting_at_s = now_s
            why = self._gateway.kernel_error()
            log.error("mode.step_back_waits", mode=str(stage), seconds=round(now_s - since_s), reason=why)

    def _remind(self) -> None:
        trial = self.state.trial
        if trial is None or not trial.is_applied:
            return
        now = self._now()
        due = trial.reminders_due(now.elapsed_s)
        said = self._reminded
        if said is not None and said[:2] == (trial.id, trial.deadline_elapsed_s) and said[2] >= due:
            return
        self._reminded = (trial.id, trial.deadline_elapsed_s, due)
        if due:
            percent = round(REMINDERS[due - 1] * 100)
            left_s = round(trial.left_s(now.elapsed_s))
            log.warning("trial.reminder", id=trial.id, mode=str(trial.to), left_s=left_s, left_percent=percent)
