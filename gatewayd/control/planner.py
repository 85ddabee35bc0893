"""A plan of the running daemon: a reload, or another mode, rehearsed on its own registry, kernel and live flows.

Nothing is changed. One plan is made at a time, in slices of a few milliseconds; the flows that are alive are looked
at within a bound of number and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from gatewayd.allowlist.match import Facing
from gatewayd.api.plan import MAX_LISTED, FlowCounts, HeldPlan, PlanRequest, PlanView, RegistrationsPlan
from gatewayd.assertions.judge import Broken
from gatewayd.assertions.overlay import overlay_in_slices
from gatewayd.compile import compile_ruleset
from gatewayd.compile.element_changes import ElementChanges, ElementSum
from gatewayd.compile.ruleset import policy_in_force, policy_of
from gatewayd.control.assertion_gate import AssertionGate, Rehearsal
from gatewayd.control.controller import Controller
from gatewayd.control.flow_changes import FlowSum
from gatewayd.control.host_time import HostTime
from gatewayd.control.policy import describe_change, describe_schedule
from gatewayd.errors import DumpInterrupted, SettingsInvalid
from gatewayd.log import get_logger
from gatewayd.model.flow import ConnectionEvent
from gatewayd.model.mask import Mask, set_name
from gatewayd.model.policy import Policy, Stage
from gatewayd.model.registration import BoundRegistration, Changes, Registration, Slices
from gatewayd.reconcile.connections import Connections
from gatewayd.reconcile.steps import wanted_ruleset
from gatewayd.reconcile.tracker import SetTracker
from gatewayd.registry.state import ENDPOINTS
from gatewayd.settings import Settings, load_settings, settings_that_need_restart
from gatewayd.sources.files import OverridesDir, OverridesReading
from gatewayd.sources.runner import run_in_slices

log = get_logger(__name__)

MAX_CHANGES: Final = 100_000
"""Registrations whose elements are counted, and that live flows are held against; with more, neither is done."""
MAX_FLOWS: Final = 1_000_000
MAX_FLOWS_S: Final = 30.0
"""How many live flows are looked at, and for how long."""
SLICE: Final = 256
"""Registrations compiled between two turns of the loop."""


class Planner:
    """`tracker`: of the kernel's sets. `conntrack`: a channel of its own, so that no scan waits for a plan."""

    def __init__(
        self,
        controller: Controller,
        gate: AssertionGate,
        tracker: SetTracker,
        conntrack: Connections,
        *,
        host_time: HostTime | None,
        monotonic: Callable[[], float],
    ) -> None:
        self._controller = controller
        self._allowlist = controller.allowlist
        self._gate = gate
        self._tracker = tracker
        self._conntrack = conntrack
        self._host_time = host_time
        self._monotonic = monotonic
        self._one = asyncio.Lock()

    async def plan(self, request: PlanRequest) -> PlanView:
        """One at a time. Raises KernelError where the live flows cannot be asked for."""
        async with self._one:
            try:
                settings, reading = await self._read(request)
            except SettingsInvalid as error:
                return PlanView(faults=error.faults)
            return await self._plan(settings, reading, request)

    async def _read(self, request: PlanRequest) -> tuple[Settings, OverridesReading]:
        settings = self._controller.settings
        if request.config is not None:
            settings = load_settings(request.config, request.filename)
        path = settings.registry.local
        reading = OverridesReading(()) if path is None else await OverridesDir(Path(path)).read()
        if reading.faults:
            raise SettingsInvalid(reading.faults)
        return settings, reading

    async def _plan(self, settings: Settings, reading: OverridesReading, request: PlanRequest) -> PlanView:
        controller, gate = self._controller, self._gate
        now, before = controller.moment(), gate.policy()
        rehearsal = await gate.rehearse(settings, reading)
        stage, policy = settings.policy.stage, policy_in_force(settings, now)
        if request.mode is not None or request.canary is not None:
            canary = stage.canary_percent if request.canary is None else request.canary
            stage = Stage(request.mode or stage.mode, canary)
            policy, before = policy_of(settings, stage), controller.policy(now)
        after = policy_of(settings, stage)
        broken: tuple[Broken, ...] = await gate.judge(rehearsal, before, after)
        registrations = await run_in_slices(self._registrations_in_slices(rehearsal.changes))
        elements = await self._count_elements(rehearsal.changes, now)
        flows = FlowCounts(is_complete=False)
        if request.counts_flows:
            flows = await self._count_flows(rehearsal.changes, after, before, now)
        schedule = describe_schedule(settings.policy, now) if stage == settings.policy.stage else ""
        doubt = None if self._host_time is None else self._host_time.doubt()
        names = [each.name for each in settings.registry.sources]
        return PlanView(
            needs_restart=settings_that_need_restart(controller.settings, settings),
            registrations=registrations,
            held=tuple(self._held(rehearsal)),
            broken=tuple(map(str, broken)),
            failing=tuple(f"{each.kind} {each.name}: {reason}" for each, reason in gate.states.failing()),
            assertions=len(rehearsal.assertions),
            waits_for=tuple(name for name in names if name not in controller.sources),
            added=None if elements is None else _by_mask(elements.added),
            removed=None if elements is None else _by_mask(elements.removed),
            new_masks=() if elements is None else tuple(map(str, elements.new_masks)),
            unprogrammed=controller.reconciler.unprogrammed() | ({} if elements is None else elements.unprogrammed),
            ruleset=self._rules(settings, policy, () if elements is None else elements.new_masks),
            policy=describe_change(controller.reconciler.mode_in_force, policy) + schedule,
            mode=after.mode,
            flows=flows,
            clock_doubt=None if doubt is None else doubt.why,
        )

    # -- the registry --------------------------------------------------------------------------------------

    def _registrations_in_slices(self, changes: Iterable[Changes]) -> Slices[RegistrationsPlan]:
        """Against what is in force now; ids with a `#` are the guard's own."""
        after: dict[str, bool] = {}
        """Whether each id is in force after all of the changes."""
        for each in changes:
            for done, registration in enumerate(each.upserts, 1):
                after[registration.id] = True
                if done % SLICE == 0:
                    yield
            for done, id in enumerate(each.withdrawals, 1):
                after[id] = False
                if done % SLICE == 0:
                    yield
        counts = [0, 0, 0]
        listed: tuple[list[str], ...] = ([], [], [])
        for done, (id, stays) in enumerate(after.items(), 1):
            was = id in self._allowlist
            if "#" not in id and (was or stays):
                kind = 1 if not stays else 2 if was else 0
                counts[kind] += 1
                if len(listed[kind]) < MAX_LISTED:
                    listed[kind].append(id)
            if done % SLICE == 0:
                yield
        came, went, changed = counts
        return RegistrationsPlan(came, went, changed, *map(tuple, listed))

    def _held(self, rehearsal: Rehearsal) -> Iterator[HeldPlan]:
        """What the guard would hold then, and elements of the kernel that are held now."""
        registry = self._controller.registry if rehearsal.fork is None else rehearsal.fork
        held = registry.held()
        if held is not None:
            yield HeldPlan(dict(held.by_cause), str(held.decision))
        endpoints = registry.endpoints.held()
        if endpoints is not None:
            yield HeldPlan({ENDPOINTS: len(endpoints.held)}, str(endpoints))
        ours = self._controller.registry.held()
        for each in self._controller.holds():
            if ENDPOINTS not in each.by_cause and (ours is None or each.serial != ours.serial):
                yield HeldPlan(dict(each.by_cause), each.reason)

    # -- the kernel ----------------------------------------------------------------------------------------

    async def _count_elements(self, changes: tuple[Changes, ...], now: float) -> ElementChanges | None:
        """None where they are too many."""
        if sum(len(each.upserts) + len(each.withdrawals) for each in changes) > MAX_CHANGES:
            return None
        return await run_in_slices(self._elements_in_slices(changes, now))

    def _elements_in_slices(self, changes: tuple[Changes, ...], now: float) -> Slices[ElementChanges]:
        allowlist, found = self._allowlist, ElementSum(self._tracker.desired)
        known: dict[str, Registration | None] = {}
        """What earlier ones of the changes have made of an id."""
        done = 0
        for each in changes:
            after = [*((new.id, new) for new in each.upserts), *((id, None) for id in each.withdrawals)]
            for id, new in after:
                old = known[id] if id in known else allowlist.get(id)
                known[id] = new
                if new is not None and new.is_effective(now):
                    found.add(self._all_of(new))
                if old is not None and old.is_effective(now):
                    found.remove(self._all_of(old))
                done += 1
                if done % SLICE == 0:
                    yield
        return found.result()

    def _all_of(self, registration: Registration) -> tuple[Registration | BoundRegistration, ...]:
        return (registration, *self._allowlist.bound_registrations_of(registration))

    def _rules(self, settings: Settings, policy: Policy, new_masks: Iterable[Mask]) -> str | None:
        """As text, where they would be others."""
        tracker, table = self._tracker, settings.kernel.table
        wanted = wanted_ruleset(tracker, policy, table)
        if new := {mask: set_name(mask, 0) for mask in new_masks}:
            wanted = compile_ruleset(table, policy, {**tracker.hooks(), **new}, wanted.epoch)
        return None if wanted.text == tracker.rules.text else wanted.text

    # -- live flows ----------------------------------------------------------------------------------------

    async def _count_flows(
        self, changes: tuple[Changes, ...], after: Policy, before: Policy, now: float
    ) -> FlowCounts:
        """Flows with a mark of ours; where services come into scope, also those without one."""
        controller = self._controller
        world: Facing = self._allowlist
        if changes:
            if sum(len(each.upserts) for each in changes) > MAX_CHANGES:
                return FlowCounts(is_complete=False)
            world = await run_in_slices(overlay_in_slices(self._allowlist, changes))
        found, ends_s = FlowSum(world, after, now), self._monotonic() + MAX_FLOWS_S
        layout, epoch = after.mark_layout, controller.reconciler.epoch
        kinds = [("registered", layout.registered, layout.registered)]
        if epoch:
            kinds.append(("judged", layout.judged(epoch), layout.mask))
        if set(after.scope) - set(before.scope):
            kinds.append(("", 0, layout.mask))
        for was, mark, mask in kinds:
            async for event in self._flows(mark, mask):
                if found.looked_at >= MAX_FLOWS or self._monotonic() >= ends_s:
                    return found.result(is_complete=False)
                found.count(event.flow, was=was)
        return found.result(is_complete=True)

    async def _flows(self, mark: int, mask: int) -> AsyncIterator[ConnectionEvent]:
        """A flow that ends or begins meanwhile may be missing, or come twice."""
        try:
            async with aclosing(self._conntrack.dump(mark=mark, mask=mask)) as batches:
                async for events in batches:
                    await asyncio.sleep(0)
                    for event in events:
                        yield event
        except DumpInterrupted:
            return


def _by_mask(counts: dict[Mask, int]) -> dict[str, int]:
    return {str(mask): number for mask, number in sorted(counts.items())}
