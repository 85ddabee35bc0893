"""Answers to the API's questions, made from the controller's state in one turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from gatewayd.api import views
from gatewayd.api.arming import ArmingQueries
from gatewayd.api.history import HistoryView
from gatewayd.api.near_misses import NearMissList
from gatewayd.api.plan import PlanRequest, PlanView
from gatewayd.api.report import ActivityPage, ReportView, VerifyPage
from gatewayd.api.standing import ChangeList, HeldList, RejectedList
from gatewayd.api.status import StatusView
from gatewayd.compile import count_elements, crosses
from gatewayd.control.activity_keeper import ActivityKeeper
from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.controller import Controller
from gatewayd.control.explain import Explainer, Wanted, are_all_in_kernel
from gatewayd.control.near_miss_queries import NearMissQueries
from gatewayd.control.registry_queries import RegistryQueries
from gatewayd.control.reload import ReloadOutcome
from gatewayd.control.report_queries import ReportQueries
from gatewayd.control.status import StatusReport, incompleteness_of
from gatewayd.control.subscriber_queries import SubscriberQueries
from gatewayd.errors import PrefixInvalid
from gatewayd.impact.report import ImpactReport
from gatewayd.model import Flow, Prefix, Registration, Status, parse_prefix
from gatewayd.model.msisdn import parse_digest
from gatewayd.subscribers.service import SubscriberService

RELOAD_PATIENCE_S = 10.0
"""How long a reload waits until the kernel has its policy; a source that is new may take longer."""
SYNC_PATIENCE_S = 60.0
"""How long a sync waits until the kernel has what was read."""
_SYNC_PAUSE_S = 0.02
SLICE = 500
"""Registrations looked through between two turns of the loop: 1 ms or 2."""
VIEWS = 50
"""Registrations shown between two turns of the loop."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is kept of traffic. `activity`: None where it is not kept. `impact`: the report since a time, with so
    many prefixes and a canary of so many percent. `history`: the last day, minute by minute."""

    activity: ActivityKeeper | None
    impact: Callable[[float | None, int, int], Awaitable[ImpactReport]]
    history: Callable[[], HistoryView] = HistoryView


class DaemonQueries:
    """`api.queries.Queries` over the controller. `subscribers`: None where the configuration has no such section.
    `clock`: the likely time."""

    def __init__(
        self,
        controller: Controller,
        report: StatusReport,
        subscribers: SubscriberService | None,
        *,
        clock: Callable[[], float],
        read_sources: Callable[[], Awaitable[None]],
        reload: Callable[[str, bool], Awaitable[ReloadOutcome]],
        gate: AssertionGate,
        counts: Counts,
        arming: ArmingQueries,
        plan: Callable[[PlanRequest], Awaitable[PlanView]] | None = None,
    ) -> None:
        self.arming = arming
        self._controller = controller
        self._allowlist = controller.allowlist
        self._reconciler = controller.reconciler
        self._attribution = controller.attribution
        self._aggregate = controller.aggregate
        self._report = report
        self._registry = RegistryQueries(controller)
        self._reports = ReportQueries(controller, counts.activity, clock=clock)
        self._read_sources = read_sources
        self._reload = reload
        self._gate = gate
        self._plan = plan
        self._impact = counts.impact
        self.history = counts.history
        self._subscribers = None if subscribers is None else SubscriberQueries(controller, subscribers)
        self._near_misses = NearMissQueries(controller, clock)
        self._explainer = Explainer(controller, subscribers, self._registry.notes)

    def is_alive(self) -> str | None:
        return self._reconciler.stuck()

    def readiness(self) -> tuple[str, ...]:
        reasons = incompleteness_of(self._controller)
        unready = None if reasons else self._reconciler.unready()
        if not reasons and unready is None:
            self._controller.in_sync.note()
        return tuple(reasons) if unready is None else (unready,)

    def outage(self) -> tuple[str, ...]:
        reasons = self.readiness()
        is_on_its_way = not incompleteness_of(self._controller) and self._controller.in_sync.is_recent()
        return () if is_on_its_way else reasons

    def status(self) -> StatusView:
        return self._report.view(
            self.readiness(), None if self._subscribers is None else self._subscribers.status()
        )

    def explain(self, flow: Flow, incoming: str | None = None, outgoing: str | None = None) -> views.ExplainView:
        view = self._explainer.explain(flow)
        sides = self._controller.settings.policy.interfaces
        known = None if incoming is None or outgoing is None else crosses(sides, incoming, outgoing)
        notes = (*self._report.interface_warnings(), *view.notes)
        return msgspec.structs.replace(view, crosses=known, notes=notes)

    # -- registrations -------------------------------------------------------------------------------------

    async def registrations(
        self, category: str | None, status: Status | None, text: str | None, offset: int, limit: int,
        *, registrant: str | None = None, ending_s: float | None = None, provisional: bool = False,
    ) -> views.RegistrationPage:  # fmt: skip
        allowlist, only = self._allowlist, Only(registrant, ending_s, provisional, self._controller.moment())
        if (category, status, text) == (None, None, None) and only.is_all:
            total, page = len(allowlist), list(islice(allowlist, offset, offset + limit))
        else:
            matches = await self._search(category, status, text, only)
            total, page = len(matches), matches[offset : offset + limit]
        items: list[views.RegistrationView] = []
        for number, each in enumerate(page, 1):
            items.append(self._view(each))
            if number % VIEWS == 0:
                await asyncio.sleep(0)
        return views.RegistrationPage(total, offset, tuple(items))

    def registration(self, registration_id: str) -> views.RegistrationView | None:
        found = self._allowlist.get(registration_id)
        found = found or next(self._registry.filtered(registration_id, None), None)
        return None if found is None else self._view(found)

    def held(self, offset: int, limit: int) -> HeldList:
        return self._registry.held(offset, limit)

    def changes(self, since_s: float) -> ChangeList:
        return self._registry.changes(since_s)

    async def report(self, since_s: float) -> ReportView:
        return await self._reports.report(since_s)

    async def activity(self, since_s: float, id: str | None, offset: int, limit: int) -> ActivityPage:
        return await self._reports.activity(since_s, id, offset, limit)

    def rejected(self, source: str | None, offset: int, limit: int) -> RejectedList:
        return self._registry.rejected(source, offset, limit)

    def near_misses(self, offset: int, limit: int, *, with_acknowledged: bool) -> NearMissList:
        return self._near_misses.page(offset, limit, with_acknowledged=with_acknowledged)

    async def acknowledge(self, registration_id: str, until_s: float | None, by: str) -> Mapping[str, object]:
        return await self._near_misses.acknowledge(registration_id, until_s, by)

    async def verify(self, since_s: float, offset: int, limit: int) -> VerifyPage:
        return await self._reports.verify(since_s, offset, limit)

    async def _search(
        self, category: str | None, status: Status | None, text: str | None, only: Only
    ) -> list[Registration]:
        """All of them, as they are now, are looked through in slices; the loop turns in between."""
        subscriber = parse_digest(text or "")
        if subscriber is not None:
            text, among = None, self._allowlist.registrations_of(subscriber)
        else:
            among = tuple(self._allowlist)
        prefix = _prefix_or_none(text)
        dropped = () if text is None else self._registry.filtered(text, prefix)
        found: list[Registration] = []
        # The allowlist may change between two slices; what is looked through does not.
        for number, each in enumerate(among, 1):
            if (
                category in (None, each.category)
                and status in (None, each.status)
                and (text is None or text in each.id or (prefix is not None and _touches(each, prefix)))
                and only.takes(each)
            ):
                found.append(each)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        found += (
            each
            for each in dropped
            if category in (None, each.category) and status in (None, each.status) and only.takes(each)
        )
        return only.sorted(found)

    def _view(self, registration: Registration) -> views.RegistrationView:
        now = self._controller.moment()
        usage = self._attribution.usage(registration.id)
        reason = self._reconciler.unprogrammed().get(registration.id)
        in_kernel = None
        wanted: list[Wanted] = [registration] if count_elements(registration) else []
        wanted.extend(self._allowlist.bound_registrations_of(registration))
        standing = self._registry.standing(registration.id)
        in_force = standing is None or not standing.is_out_of_force
        if registration.is_effective(now) and wanted and in_force:
            in_kernel = False if reason is not None else are_all_in_kernel(self._reconciler, wanted)
        return views.registration_view(
            registration,
            now,
            in_kernel=in_kernel,
            unprogrammed=reason,
            last_seen_s=usage.last_seen_s if usage is not None else None,
            flows=usage.flows if usage is not None else 0,
            size_bytes=usage.size_bytes if usage is not None else 0,
            standing=standing,
        )

    # -- flows and bindings --------------------------------------------------------------------------------

    async def impact(self, since_s: float | None, top: int, percent: int) -> ImpactReport:
        return await self._impact(since_s, top, percent)

    def flows(self, registration_id: str | None, offset: int, limit: int) -> views.FlowPage:
        attribution = self._attribution
        lines = attribution.flows(registration_id, offset, limit)
        total = attribution.live_count
        if registration_id is not None:
            total = len(attribution.flows(registration_id, 0, total))
        items = tuple(
            views.flow_view(
                line.flow,
                line.registration_ids,
                packets=line.packets,
                size_bytes=line.size_bytes,
                first_seen_s=line.first_seen_s,
                last_seen_s=line.last_seen_s,
            )
            for line in lines
        )
        return views.FlowPage(total, offset, items)

    def unregistered_flows(self, offset: int, limit: int) -> views.UnregisteredFlowPage | None:
        if self._aggregate.detail != "flows":
            return None
        found = self._aggregate.recent()[::-1]
        page = found[offset : offset + limit]
        items = tuple(views.unregistered_flow_view(each.flow, each.seen_s) for each in page)
        return views.UnregisteredFlowPage(len(found), offset, items)

    def bindings(
        self, registration_id: str | None, prefix: Prefix | None, offset: int, limit: int
    ) -> views.BindingPage | None:
        if self._subscribers is None:
            return None
        return self._subscribers.page(registration_id, prefix, offset, limit)

    async def put_bindings(self, entries: Sequence[object]) -> Mapping[str, object] | None:
        return None if self._subscribers is None else await self._subscribers.put(entries)

    async def delete_binding(self, nas: object, session: object, at: object) -> Mapping[str, object] | None:
        return None if self._subscribers is None else await self._subscribers.delete(nas, session, at)

    # -- changes -------------------------------------------------------------------------------------------

    async def sync(self) -> Mapping[str, object]:
        await self._read_sources()
        errors = {name: facts.error for name, facts in self._controller.sources.items() if facts.error}
        reasons = await self._wait_for_kernel()
        if reasons and not errors:
            errors["kernel"] = reasons[0]
        return {"registrations": len(self._allowlist), "errors": errors}

    async def accept(self, serial: int, by: str, *, is_forced: bool) -> Mapping[str, object]:
        return await self._gate.accept(serial, by, is_forced=is_forced)

    async def plan(self, request: PlanRequest) -> PlanView:
        assert self._plan is not None
        return await self._plan(request)

    async def reload(self, by: str, *, is_forced: bool) -> Mapping[str, object]:
        # Those who ask for one reload wait for one future: that a client goes does not end it for the others.
        outcome = await asyncio.shield(self._reload(by, is_forced))
        reasons = await self._wait_for_policy() if outcome.is_done else ()
        return {
            "reloaded": outcome.is_done,
            "faults": outcome.faults,
            "needs_restart": outcome.needs_restart,
            "broken": outcome.broken,
            "mode": self._reconciler.mode_in_force,
            "waits_for": reasons,
        }

    async def _wait_for_policy(self) -> tuple[str, ...]:
        """What is left when patience is at an end: reasons why the policy of the settings is not in force."""
        try:
            async with asyncio.timeout(RELOAD_PATIENCE_S):
                while not self._controller.is_policy_in_force():  # noqa: ASYNC110
                    await asyncio.sleep(_SYNC_PAUSE_S)
        except TimeoutError:
            return self.readiness() or ("the new rules are not in the kernel yet",)
        return ()

    async def _wait_for_kernel(self) -> tuple[str, ...]:
        """The reasons that are left when it is ready or patience is at an end."""
        try:
            async with asyncio.timeout(SYNC_PATIENCE_S):
                while not incompleteness_of(self._controller) and self.readiness():  # noqa: ASYNC110
                    await asyncio.sleep(_SYNC_PAUSE_S)
        except TimeoutError:
            pass
        return self.readiness()


@dataclass(frozen=True, slots=True)
class Only:
    """Further conditions of a selection; None, False: not asked for."""

    registrant: str | None
    ending_s: float | None
    provisional: bool
    now: float

    @property
    def is_all(self) -> bool:
        return self.registrant is None and self.ending_s is None and not self.provisional

    def takes(self, each: Registration) -> bool:
        if self.registrant is not None and each.registrant != self.registrant:
            return False
        if self.provisional and not each.is_provisional:
            return False
        return self.ending_s is None or (
            each.is_effective(self.now) and each.valid_until_s - self.now <= self.ending_s
        )

    def sorted(self, found: list[Registration]) -> list[Registration]:
        """The soonest end first, where it is asked for."""
        return found if self.ending_s is None else sorted(found, key=lambda each: each.valid_until_s)


def _prefix_or_none(text: str | None) -> Prefix | None:
    try:
        return None if text is None else parse_prefix(text)
    except PrefixInvalid:
        return None


def _touches(registration: Registration, prefix: Prefix) -> bool:
    """Whether a client or peer prefix covers `prefix` or lies in it."""
    return any(
        each.covers(prefix.packed) if each.length <= prefix.length else prefix.covers(each.packed)
        for each in (*registration.clients, *registration.peers, *registration.endpoints)
    )
