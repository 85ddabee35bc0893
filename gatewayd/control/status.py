"""The status, put together from the statistics of every part in one turn of the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from gatewayd import __version__
from gatewayd.api import status as views
from gatewayd.api.process import ListenerView
from gatewayd.assertions.states import AssertionsView
from gatewayd.control.controller import Controller
from gatewayd.control.guard_keeper import Hold
from gatewayd.control.host_time import HostTime
from gatewayd.control.policy import describe_policy
from gatewayd.control.vitals import Vitals
from gatewayd.doctor.findings import HostView
from gatewayd.doctor.keeper import HostKeeper
from gatewayd.impact.report import ImpactView
from gatewayd.log import LOST
from gatewayd.model.moment import format_time
from gatewayd.registry.freshness import Freshness, SourceState
from gatewayd.sources.runner import Runner
from gatewayd.state_file.view import StateFileView
from gatewayd.trial.views import ArmingView
from gatewayd.watch.aggregate import AggregateLine
from gatewayd.watch.attribute import WatchView
from gatewayd.watch.interfaces import InterfacesView
from gatewayd.watch.links import LinkWatch
from gatewayd.watch.source import EventSource
from gatewayd.watch.surroundings import Surroundings


def incompleteness_of(controller: Controller) -> list[str]:
    """Why the allowlist is not yet what the registry says; empty = it is."""
    reasons = []
    for name in controller.unread_sources():
        error = controller.sources[name].error
        reasons.append(f"source {name} has not been read: {error}" if error else f"source {name} is being read")
    if not reasons and not controller.loaded:
        reasons.append("the allowlist is being loaded")
    return reasons


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of traffic on disk: the files, and the counts of unregistered flows."""

    files: tuple[StateFileView, ...] = ()
    impact: ImpactView = field(default_factory=ImpactView)


@dataclass(frozen=True, slots=True)
class Host:
    """What is watched of the host."""

    surroundings: Surroundings | None = None
    links: LinkWatch | None = None
    keeper: HostKeeper | None = None


class StatusReport:
    """Over the controller and the parts around it; `None` where a part is not used."""

    def __init__(
        self,
        controller: Controller,
        events: EventSource,
        runners: Mapping[str, Runner],
        vitals: Vitals,
        *,
        host: Host | None = None,
        host_time: HostTime | None = None,
        listeners: tuple[ListenerView, ...] = (),
        kept: Kept | None = None,
        assertions: Callable[[], AssertionsView] = AssertionsView,
        arming: Callable[[], ArmingView] = ArmingView,
    ) -> None:
        self._controller = controller
        self._events = events
        self._runners = runners
        self._vitals = vitals
        self._surroundings = None if host is None else host.surroundings
        self._links = None if host is None else host.links
        self._keeper = None if host is None else host.keeper
        self._host_time = host_time
        self._listeners = listeners
        self._kept = kept or Kept()
        self._assertions = assertions
        self._arming = arming

    def view(self, reasons: tuple[str, ...], subscribers: views.SubscribersView | None) -> views.StatusView:
        """`reasons`: why it is not ready."""
        controller, vitals, surroundings = self._controller, self._vitals, self._surroundings
        policy, reconciler = controller.settings.policy, controller.reconciler
        now, clock = vitals.clock(), self._clock()
        fresh = controller.freshness(controller.moment())
        return views.StatusView(
            version=__version__,
            started_at=_time(vitals.started_at),
            now=_time(now),
            mode=reconciler.mode_in_force,
            configured_mode=policy.mode,
            enforce_from=format_time(policy.enforce_from),
            enforce_until=format_time(policy.enforce_until),
            armed=reconciler.mode_in_force != "observe",
            epoch=reconciler.epoch,
            policy=self._policy(),
            ready=not reasons,
            reasons=reasons,
            reload_error=vitals.reload_error,
            sources=tuple(self._source(name, facts, fresh[name]) for name, facts in controller.sources.items()),
            registrations=self._registrations(),
            kernel=reconciler.report(),
            counters=views.counter_views(vitals.counters),
            interfaces=InterfacesView() if self._links is None else self._links.view(),
            interfaces_unmatched=() if self._links is None else self._links.unmatched(),
            watch=self._watch(),
            unregistered=tuple(map(_aggregate, controller.aggregate.top(views.MAX_AGGREGATES))),
            overrides=replace(controller.override_counts(), faults=controller.override_faults),
            warnings=self._warnings(),
            marks=self._marks(),
            conntrack=None if surroundings is None else surroundings.size,
            held=tuple(map(_hold, controller.holds())),
            clock=clock,
            loop=vitals.loop,
            log_lost=LOST.total,
            report_failures=dict(vitals.report_failures),
            listeners=self._listeners,
            near_misses=controller.near_misses.view(),
            state_files=self._kept.files,
            subscribers=subscribers,
            assertions=self._assertions(),
            arming=self._arming(),
            host=HostView() if self._keeper is None else self._keeper.view,
            providers=controller.extended.providers(),
            provisional=controller.extended.provisional(now),
            impact=self._kept.impact,
        )

    def _source(self, name: str, facts: SourceState, freshness: Freshness) -> views.SourceView:
        runner = self._runners.get(name)
        held = next((each for each in self._controller.holds() if name in each.by_cause), None)
        return views.SourceView(
            name=name,
            url=runner.place if runner is not None else "",
            state="failing" if facts.error else ("ok" if facts.read_at or facts.restored_at else "waiting"),
            last_success_at=format_time(facts.confirmed_at),
            last_error=facts.error,
            next_attempt_at=format_time(runner.next_attempt_at if runner is not None else None),
            registrations=facts.registrations,
            rejected=sum(facts.rejected.values()),
            rejected_by_code=facts.rejected,
            conflicts=self._controller.merged.conflicts.get(name, 0),
            signed=facts.session is not None,
            session=facts.session,
            serial=facts.serial if facts.session is not None else None,
            issued_at=format_time(facts.issued_at),
            freshness=freshness.word,
            not_fresh_since=None if freshness.word == "fresh" else format_time(freshness.since_s),
            held=None
            if held is None
            else views.HeldView(held.serial, _time(held.since_s), held.by_cause[name], held.reason),
            kept=facts.retained,
            refused=facts.refused,
            restored_at=format_time(facts.restored_at),
            store_error=self._controller.store_error(name),
        )

    def _policy(self) -> views.PolicyView | None:
        found = self._controller.policy_in_force
        if found is None:
            return None
        return views.PolicyView(
            describe_policy(found.policy, found.drain_s),
            found.policy.canary_percent,
            _time(found.since_s),
            found.by,
        )

    def _clock(self) -> views.ClockView:
        if self._host_time is None:
            return views.ClockView()
        judged = self._host_time.judge()
        doubt = judged.doubt
        return views.ClockView(
            host=format_time(judged.wall_s),
            used=format_time(judged.earliest_s),
            opens_by=format_time(judged.latest_s),
            doubt=None if doubt is None else doubt.word,
            why=None if doubt is None else doubt.why,
            offset_s=0.0 if doubt is None else round(doubt.offset_s, 3),
            confirmed=judged.is_confirmed,
        )

    def _registrations(self) -> views.RegistrationCounts:
        controller, reconciler = self._controller, self._controller.reconciler
        unprogrammed = reconciler.unprogrammed()
        examples = islice(unprogrammed.items(), views.MAX_EXAMPLES)
        return views.RegistrationCounts(
            total=len(controller.allowlist),
            effective=controller.count_active(),
            by_category=views.fold_categories(controller.allowlist.count_by_category()),
            by_status={status: count for status, count in controller.allowlist.count_by_status().items()},
            unprogrammed=len(unprogrammed),
            in_former_form=len(reconciler.in_former_form()),
            unprogrammed_examples=tuple(views.UnprogrammedView(*each) for each in examples),
            next_window_change_at=format_time(controller.next_window_change()),
        )

    def _watch(self) -> WatchView:
        controller, stats = self._controller, self._events.stats
        attribution = controller.attribution
        return WatchView(
            packets=stats["nflog"].received + stats["near"].received,
            connections=stats["conntrack"].received,
            malformed=sum(each.malformed for each in stats.values()),
            overruns=sum(each.overruns for each in stats.values()),
            resyncs=controller.watch.resyncs,
            late_admissions=controller.watch.late_admissions,
            postponed=sum(each.postponed for each in stats.values()),
            flows_tracked=attribution.live_count,
            flows_evicted=attribution.evicted,
            flows_ended_unseen=attribution.ended_unseen,
            flows_strays=attribution.strays,
            flows_unmatched=attribution.unmatched,
            flows_unremembered=attribution.unremembered,
            aggregates_evicted=controller.aggregate.evicted,
        )

    def interface_warnings(self) -> tuple[str, ...]:
        """Names of `policy.interfaces` that no interface has now."""
        return () if self._links is None else self._links.warnings()

    def _warnings(self) -> tuple[str, ...]:
        controller, scanner = self._controller, self._controller.scanner
        found = self.interface_warnings()
        found += self._surroundings.warnings() if self._surroundings is not None else ()
        grace = scanner.grace
        if scanner.strange and not grace.longest_s:
            found += (
                f"{scanner.strange:,} flows were carried over marked registered, and no registration here explains"
                f" them; they drain. Do both gateways have the same sources, and the same section subscribers?",
            )
        if any(not each.is_listening for each in self._listeners):
            found += (
                f"another program has {controller.settings.http.listen}, where the API and the metrics should be;"
                f" which one: ss -ltnp",
            )
        if grace.waiting:
            found += (
                f"{grace.waiting:,} flows came marked registered, and no registration or binding here explains"
                f" them; they are left alone until accounting has named their addresses, for at most"
                f" {grace.longest_s:,.0f} s. Does the accounting of every NAS reach this gateway too?",
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
            neighbours=neighbours[: views.MAX_NEIGHBOURS],
        )


def _hold(each: Hold) -> views.HoldView:
    return views.HoldView(each.serial, _time(each.since_s), each.count, each.reason, dict(each.by_cause))


def _aggregate(line: AggregateLine) -> views.AggregateView:
    services = tuple(f"{service} ({count})" for service, count in line.services)
    return views.AggregateView(str(line.prefix), line.flows, services)


def _time(at_s: float) -> str:
    text = format_time(at_s)
    assert text is not None
    return text
