"""Answers to the API's questions, made from the owner's state in one turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from gatewayd import __version__
from gatewayd.allowlist import decide
from gatewayd.api import views
from gatewayd.api.subscriber_views import BindingPage, bound_view
from gatewayd.compile import count_elements
from gatewayd.compile.canary import judge_canary
from gatewayd.control.controller import Controller
from gatewayd.control.host_time import HostTime
from gatewayd.control.subscriber_queries import (
    SubscriberAnswers,
    Subscribers,
    is_for_ports_to_decide,
    programmed_for,
)
from gatewayd.errors import AllowlistIncomplete, PrefixInvalid
from gatewayd.model import BoundRegistration, Flow, Prefix, Registration, Status, parse_prefix
from gatewayd.model.mask import Mask, describe_key
from gatewayd.model.transaction import CounterReading
from gatewayd.registry.freshness import Freshness, SourceState
from gatewayd.registry.state import KERNEL
from gatewayd.sources.runner import Runner
from gatewayd.watch.source import EventSource
from gatewayd.watch.surroundings import Surroundings

SYNC_PATIENCE_S = 60.0
"""How long a sync waits for the kernel to have what was read."""
_SYNC_PAUSE_S = 0.02


class DaemonQueries:
    """`api.queries.Queries` over the owner. `counters` is refreshed by the daemon."""

    def __init__(
        self,
        controller: Controller,
        events: EventSource,
        runners: Mapping[str, Runner],
        *,
        clock: Callable[[], float],
        read_sources: Callable[[], Awaitable[None]],
        subscribers: Subscribers | None = None,
        surroundings: Surroundings | None = None,
        host_time: HostTime | None = None,
    ) -> None:
        self._controller = controller
        self._host_time = host_time
        self._events = events
        self._runners = runners
        self._clock = clock
        self._read_sources = read_sources
        self._subscribers = SubscriberAnswers(controller, subscribers, clock) if subscribers is not None else None
        self._surroundings = surroundings
        self._started_at = clock()
        self.counters: dict[str, CounterReading] = {}
        self.reload_error: str | None = None
        self.lag_last_s = 0.0
        self.lag_max_s = 0.0

    def is_alive(self) -> str | None:
        return self._controller.reconciler.stuck()

    def readiness(self) -> tuple[str, ...]:
        reasons = self._incompleteness()
        if not reasons:
            unready = self._controller.reconciler.unready()
            if unready is not None:
                reasons.append(unready)
        return tuple(reasons)

    def _incompleteness(self) -> list[str]:
        """Why the allowlist is not what the registry says."""
        controller = self._controller
        reasons = []
        for name in controller.unread_sources():
            error = controller.sources[name].error
            reasons.append(f"source {name} has not been read: {error}" if error else f"source {name} is being read")
        if not reasons and not controller.loaded:
            reasons.append("the allowlist is being loaded")
        return reasons

    def status(self) -> views.StatusView:
        controller, now = self._controller, self._clock()
        clock = self._clock_view()
        policy = controller.settings.policy
        mode = controller.reconciler.mode_in_force
        reasons = self.readiness()
        fresh = controller.freshness(controller.moment())
        return views.StatusView(
            overrides=self._overrides(),
            held=tuple(
                views.HoldView(each.serial, _time(each.since_s), each.count, each.reason, dict(each.by_cause))
                for each in controller.holds()
            ),
            clock=clock,
            version=__version__,
            started_at=_time(self._started_at),
            now=_time(now),
            mode=mode,
            configured_mode=policy.mode,
            enforce_from=views.format_time(policy.enforce_from),
            armed=mode != "observe",
            epoch=controller.reconciler.epoch,
            ready=not reasons,
            reasons=reasons,
            reload_error=self.reload_error,
            sources=tuple(self._source(name, facts, fresh[name]) for name, facts in controller.sources.items()),
            registrations=self._registration_counts(),
            kernel=self._kernel(),
            counters=views.counter_views(self.counters),
            watch=self._watch(),
            warnings=self._warnings(),
            marks=self._marks(),
            conntrack=self._conntrack(),
            unregistered=tuple(
                views.AggregateView(
                    str(line.prefix), line.flows, tuple(f"{service} ({count})" for service, count in line.services)
                )
                for line in controller.aggregate.top(views.MAX_AGGREGATES)
            ),
            subscribers=None if self._subscribers is None else self._subscribers.status(),
        )

    def metrics(self) -> views.MetricsView:
        stats = self._controller.reconciler.stats
        view = views.MetricsView(
            self.status(), self.lag_last_s, self.lag_max_s, stats.commit_seconds, stats.transactions
        )
        if self._subscribers is None:
            return view
        return msgspec.structs.replace(view, response_times=self._subscribers.response_times())

    def explain(self, flow: Flow) -> views.ExplainView:
        controller, now = self._controller, self._controller.moment()
        # New settings may wait for a source; until then the old rules are what a flow meets.
        policy = controller.reconciler.policy_in_force or controller.policy(now)
        allowlist = controller.allowlist if self._subscribers is None else self._subscribers.covering
        decision = decide(allowlist, policy.scope, flow, now)
        incomplete = self._incompleteness()
        if decision.word == "unregistered" and not controller.loaded:
            raise AllowlistIncomplete(incomplete[0])
        canary = judge_canary(policy, flow)
        mode = controller.reconciler.mode_in_force
        alternatives = list(programmed_for(flow, decision, now))
        in_kernel = self._in_kernel(alternatives) if decision.word == "registered" else None
        bindings = tuple(bound_view(each, now) for each in decision.bindings)
        view = views.explain_view(flow, decision, mode=mode, canary=canary, in_kernel=in_kernel, bindings=bindings)
        desired = controller.reconciler.tracker.desired
        if not in_kernel and alternatives and all(map(desired.is_unprogrammed, alternatives)):
            effect = views.effect_of("unregistered", mode, canary)
            reasons = desired.unprogrammed()
            why = next(reasons[each.id] for each in decision.registrations if each.id in reasons)
            reason = f"{view.reason}, but the kernel cannot be told: {why}"
            view = msgspec.structs.replace(view, effect=effect, reason=reason)
        elif decision.word == "unregistered":
            reason = view.reason
            if is_for_ports_to_decide(controller.allowlist, flow):
                reason += "; the source address is shared, and the source port decides: it was not given"
            view = msgspec.structs.replace(view, reason=f"{reason}, but {incomplete[0]}" if incomplete else reason)
        if (
            not in_kernel
            and decision.word != "out_of_scope"
            and (element := controller.reconciler.element_for(flow))
        ):
            reason = f"{view.reason}; it passes by {self._describe(*element)}"
            return msgspec.structs.replace(view, effect="pass", in_kernel=True, reason=reason)
        return view

    def _describe(self, mask: Mask, key: bytes) -> str:
        """An element that no matching registration needs: where it is from, how long it stays."""
        controller = self._controller
        tracker = controller.reconciler.tracker
        name = f"{describe_key(str(mask), key)} of {mask}"
        if key in tracker.leftovers.of(mask):
            return f"{name}, a binding that the journal does not know, until its time is over"
        if mask not in tracker.desired or key not in tracker.desired.keys(mask):
            return f"{name}, which is about to be taken out"
        held = next((each for each in controller.holds() if KERNEL in each.by_cause), None)
        if held is not None:
            return f"{name}, which a start found and nobody registers, until gatewayd accept {held.serial}"
        if tracker.count_retained():
            return f"{name}, which a start found in the kernel, until every source has been read"
        return f"{name}, which is there for another form or registration"

    def _in_kernel(self, alternatives: Iterable[Registration | BoundRegistration]) -> bool | None:
        """Whether the kernel is known to have all elements of one of them; None before it was ever read."""
        reconciler = self._controller.reconciler
        if any(reconciler.holds(each) for each in alternatives):
            return True
        return False if reconciler.stats.last_verified_at else None

    def registrations(
        self, category: str | None, status: Status | None, text: str | None, offset: int, limit: int
    ) -> views.RegistrationPage:
        found = self._search(category, status, text)
        if (category, status, text) == (None, None, None):
            total = len(self._controller.allowlist)
            page = list(islice(found, offset, offset + limit))
        else:
            matches = list(found)
            total, page = len(matches), matches[offset : offset + limit]
        unprogrammed = self._controller.reconciler.tracker.desired.unprogrammed()
        return views.RegistrationPage(total, offset, tuple(self._view(each, unprogrammed) for each in page))

    def registration(self, registration_id: str) -> views.RegistrationView | None:
        found = self._controller.allowlist.get(registration_id)
        if found is None:
            return None
        return self._view(found, self._controller.reconciler.tracker.desired.unprogrammed())

    def flows(self, registration_id: str | None, offset: int, limit: int) -> views.FlowPage:
        attribution = self._controller.attribution
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

    def bindings(
        self, registration_id: str | None, prefix: Prefix | None, offset: int, limit: int
    ) -> BindingPage | None:
        if self._subscribers is None:
            return None
        return self._subscribers.page(registration_id, prefix, offset, limit)

    async def put_bindings(self, entries: Sequence[object]) -> Mapping[str, object] | None:
        return None if self._subscribers is None else await self._subscribers.put(entries)

    async def delete_binding(self, nas: object, session: object, at: object) -> Mapping[str, object] | None:
        return None if self._subscribers is None else await self._subscribers.delete(nas, session, at)

    async def sync(self) -> Mapping[str, object]:
        await self._read_sources()
        errors = {name: facts.error for name, facts in self._controller.sources.items() if facts.error}
        reasons = await self._wait_for_kernel()
        if reasons and not errors:
            errors["kernel"] = reasons[0]
        return {"registrations": len(self._controller.allowlist), "errors": errors}

    async def accept(self, serial: int) -> Mapping[str, object]:
        return await self._controller.accept(serial)

    async def _wait_for_kernel(self) -> tuple[str, ...]:
        """The reasons that are left when it is ready or patience is at an end."""
        try:
            async with asyncio.timeout(SYNC_PATIENCE_S):
                while not self._incompleteness() and self.readiness():  # noqa: ASYNC110
                    await asyncio.sleep(_SYNC_PAUSE_S)
        except TimeoutError:
            pass
        return self.readiness()

    def note_lag(self, lag_s: float) -> None:
        """How late the loop was just now."""
        self.lag_last_s = max(0.0, lag_s)
        self.lag_max_s = max(self.lag_max_s, self.lag_last_s)

    # -- parts ---------------------------------------------------------------------------------------------

    def _source(self, name: str, facts: SourceState, freshness: Freshness) -> views.SourceView:
        runner = self._runners.get(name)
        held = next((each for each in self._controller.holds() if name in each.by_cause), None)
        return views.SourceView(
            name=name,
            url=runner.place if runner is not None else "",
            state="failing" if facts.error else ("ok" if facts.read_at or facts.restored_at else "waiting"),
            last_success_at=views.format_time(facts.confirmed_at),
            last_error=facts.error,
            next_attempt_at=views.format_time(runner.next_attempt_at if runner is not None else None),
            registrations=facts.registrations,
            rejected=sum(facts.rejected.values()),
            rejected_by_code=facts.rejected,
            conflicts=self._controller.merged.conflicts.get(name, 0),
            signed=facts.session is not None,
            session=facts.session,
            serial=facts.serial if facts.session is not None else None,
            issued_at=views.format_time(facts.issued_at),
            freshness=freshness.word,
            not_fresh_since=None if freshness.word == "fresh" else views.format_time(freshness.since_s),
            held=None
            if held is None
            else views.HeldView(held.serial, _time(held.since_s), held.by_cause[name], held.reason),
            kept=facts.retained,
            restored_at=views.format_time(facts.restored_at),
            store_error=self._controller.store_error(name),
        )

    def _clock_view(self) -> views.ClockView:
        if self._host_time is None:
            return views.ClockView()
        judged = self._host_time.judge()
        doubt = judged.doubt
        return views.ClockView(
            host=views.format_time(judged.wall_s),
            used=views.format_time(judged.earliest_s),
            opens_by=views.format_time(judged.latest_s),
            doubt=None if doubt is None else doubt.word,
            why=None if doubt is None else doubt.why,
            offset_s=0.0 if doubt is None else round(doubt.offset_s, 3),
            confirmed=judged.is_confirmed,
        )

    def _overrides(self) -> views.OverridesView:
        counts = self._controller.override_counts()
        return views.OverridesView(
            pins=counts.pins,
            filters=counts.filters,
            filtered=counts.filtered,
            trimmed=counts.trimmed,
            conflicts=counts.conflicts,
            shadowed=counts.shadowed,
            expired=counts.expired,
            faults=self._controller.override_faults,
        )

    def _registration_counts(self) -> views.RegistrationCounts:
        controller = self._controller
        unprogrammed = controller.reconciler.tracker.desired.unprogrammed()
        return views.RegistrationCounts(
            total=len(controller.allowlist),
            effective=controller.count_active(),
            by_category=controller.allowlist.count_by_category(),
            by_status={status: count for status, count in controller.allowlist.count_by_status().items()},
            unprogrammed=len(unprogrammed),
            in_former_form=len(controller.reconciler.tracker.desired.in_former_form()),
            unprogrammed_examples=tuple(
                views.UnprogrammedView(*each) for each in islice(unprogrammed.items(), views.MAX_EXAMPLES)
            ),
            next_window_change_at=views.format_time(controller.next_window_change()),
        )

    def _kernel(self) -> views.KernelView:
        reconciler = self._controller.reconciler
        tracker, stats = reconciler.tracker, reconciler.stats
        return views.KernelView(
            table=self._controller.settings.kernel.table,
            masks=len(tracker.masks),
            sets=sum(state.exists for state in tracker.set_states()),
            elements_desired=tracker.desired.count(),
            not_in_kernel=tracker.count_missing(),
            surplus=tracker.count_surplus(),
            retained=tracker.count_retained(),
            transactions=stats.transactions,
            failures=stats.failures,
            last_error=stats.last_error or None,
            last_commit_at=views.format_time(stats.last_commit_at or None),
            last_verified_at=views.format_time(stats.last_verified_at or None),
            repairs=stats.repairs,
            notifications_lost=stats.notifications_lost,
            generation=stats.generation,
            pending=len(tracker.retired)
            + sum(len(each.missing) + len(each.surplus) for each in tracker.set_states()),
        )

    def _watch(self) -> views.WatchView:
        controller, stats = self._controller, self._events.stats
        return views.WatchView(
            packets=stats["nflog"].received,
            connections=stats["conntrack"].received,
            malformed=sum(each.malformed for each in stats.values()),
            overruns=sum(each.overruns for each in stats.values()),
            resyncs=controller.resyncs,
            late_admissions=controller.late_admissions,
            flows_tracked=controller.attribution.live_count,
            flows_evicted=controller.attribution.evicted,
        )

    def _warnings(self) -> tuple[str, ...]:
        found = self._surroundings.warnings() if self._surroundings is not None else ()
        scanner = self._controller.scanner
        grace = scanner.grace
        if scanner.strange and not grace.longest_s:
            found += (
                f"{scanner.strange:,} flows were carried over marked registered, and no registration here explains"
                f" them (they drain): do both gateways have the same sources, and the same section subscribers?",
            )
        if grace.waiting:
            found += (
                f"{grace.waiting:,} flows came marked registered, and no registration or binding here explains them"
                f" (they are left alone until accounting has named their addresses, for {grace.longest_s:,.0f} s at"
                f" most): does the accounting of every NAS reach this gateway too?",
            )
        return found

    def _marks(self) -> views.MarksView:
        scanner = self._controller.scanner
        neighbours = self._surroundings.neighbours if self._surroundings is not None else ()
        return views.MarksView(
            carried=scanner.carried,
            not_believed=scanner.not_believed,
            unexplained=scanner.unexplained,
            waiting=scanner.grace.waiting,
            waiting_at_most_s=scanner.grace.longest_s,
            draining=scanner.draining,
            writers=sum(each.deed == "writes" for each in neighbours),
            leakers=sum(each.deed == "leaks" for each in neighbours),
            neighbours=tuple(
                views.NeighbourView(each.deed, each.family, each.table, each.chain, each.handle)
                for each in neighbours[: views.MAX_NEIGHBOURS]
            ),
        )

    def _conntrack(self) -> views.ConntrackView | None:
        size = self._surroundings.size if self._surroundings is not None else None
        if size is None:
            return None
        return views.ConntrackView(size.entries, size.most, size.dropped, size.insert_failed, size.early_dropped)

    def _view(self, registration: Registration, unprogrammed: Mapping[str, str]) -> views.RegistrationView:
        now = self._controller.moment()
        usage = self._controller.attribution.usage(registration.id)
        reason = unprogrammed.get(registration.id)
        in_kernel = None
        wanted: list[Registration | BoundRegistration] = [registration] if count_elements(registration) else []
        wanted.extend(self._controller.allowlist.bound_registrations_of(registration))
        if registration.is_effective(now) and wanted:
            states = [self._in_kernel((each,)) for each in wanted]
            in_kernel = False if reason is not None or False in states else None if None in states else True
        return views.registration_view(
            registration,
            now,
            in_kernel=in_kernel,
            unprogrammed=reason,
            last_seen_s=usage.last_seen_s if usage is not None else None,
            flows=usage.flows if usage is not None else 0,
            size_bytes=usage.size_bytes if usage is not None else 0,
        )

    def _search(self, category: str | None, status: Status | None, text: str | None) -> Iterator[Registration]:
        prefix = _prefix_or_none(text)
        for each in self._controller.allowlist:
            if category is not None and each.category != category:
                continue
            if status is not None and each.status != status:
                continue
            if text is None or text in each.id or (prefix is not None and _touches(each, prefix)):
                yield each


def _time(at_s: float) -> str:
    text = views.format_time(at_s)
    assert text is not None
    return text


def _prefix_or_none(text: str | None) -> Prefix | None:
    try:
        return None if text is None else parse_prefix(text)
    except PrefixInvalid:
        return None


def _touches(registration: Registration, prefix: Prefix) -> bool:
    """Whether a client or peer prefix covers `prefix` or lies in it."""
    return any(
        each.covers(prefix.packed) if each.length <= prefix.length else prefix.covers(each.packed)
        for each in (*registration.clients, *registration.peers)
    )
