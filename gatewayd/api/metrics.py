"""The daemon's numbers as Prometheus metrics. `docs/metrics.md` says what each is for; a test holds it to this.

Labels are words of our own or of the configuration: nothing of a registration or a subscriber, however useful
it would be, because there may be a million. All is made from a view at the moment of the scrape; no metric
has a life of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, get_args

from prometheus_client import CollectorRegistry, generate_latest, openmetrics
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from gatewayd.api.subscriber_metrics import (
    counter,
    counters,
    gauge,
    gauges,
    listener_metrics,
    response_metrics,
    session_metrics,
)
from gatewayd.api.views import (
    ConntrackView,
    KernelView,
    MarksView,
    MetricsView,
    OverridesView,
    RegistrationCounts,
    SourceView,
    StatusView,
    WatchView,
)
from gatewayd.model import Mode
from gatewayd.model.moment import parse_time

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def choose_type(accept: str) -> str:
    """The content type for a scraper's Accept header: OpenMetrics where it is wanted, else plain text."""
    wanted = (part.partition(";")[0].strip() for part in accept.split(","))
    return OPENMETRICS_TYPE if "application/openmetrics-text" in wanted else TEXT_TYPE


def render_metrics(view: MetricsView, content_type: str = TEXT_TYPE, process: Collector | None = None) -> bytes:
    """The page of one scrape. `process`: a collector of what the operating system knows of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ViewCollector(view))
    if process is not None:
        registry.register(process)
    if content_type == OPENMETRICS_TYPE:
        page: bytes = openmetrics.exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
        return page
    return generate_latest(registry)


class _ViewCollector(Collector):
    def __init__(self, view: MetricsView) -> None:
        self._view = view

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not look for names given twice, a test does."""
        return ()

    def collect(self) -> Iterator[Metric]:
        view, status = self._view, self._view.status
        yield from _daemon_metrics(view)
        yield from _registration_metrics(status.registrations)
        yield from _source_metrics(status)
        yield from _feed_metrics(status.sources)
        yield gauges(
            "held_removals",
            "Removals that wait for an operator, by what brought them about: a source, or another word.",
            "cause",
            {cause: count for each in status.held for cause, count in each.by_cause.items()},
        )
        yield from _override_metrics(status.overrides)
        yield from _kernel_metrics(status.kernel)
        yield SummaryMetricFamily(
            "gatewayd_kernel_commit_seconds",
            "Time from sending a transaction to the kernel's acknowledgement.",
            count_value=view.commit_count,
            sum_value=view.commit_seconds_sum,
        )
        yield from _traffic_metrics(status)
        yield from _watch_metrics(status.watch)
        yield from _marks_metrics(status.marks)
        if status.conntrack is not None:
            yield from _conntrack_metrics(status.conntrack)
        if status.subscribers is not None:
            yield from session_metrics(status.subscribers)
            if status.subscribers.listener is not None:
                yield from listener_metrics(status.subscribers.listener)
                yield response_metrics(view.response_times)


def _daemon_metrics(view: MetricsView) -> Iterator[Metric]:
    status = view.status
    yield gauges("build_info", "1, with the version as label.", "version", {status.version: 1})
    yield gauge("start_time_seconds", "When the daemon started, Unix time.", parse_time(status.started_at))
    yield gauge("config_reload_failed", "1 while the latest reload is refused.", status.reload_error is not None)
    yield gauge("ready", "1 when the allowlist is loaded and read back from the kernel.", status.ready)
    yield gauge("armed", "1 when a mode other than observe is in force.", status.armed)
    modes = {mode: float(mode == status.mode) for mode in get_args(Mode)}
    yield gauges("mode", "1 for the mode in force.", "mode", modes)
    configured = {mode: float(mode == status.configured_mode) for mode in get_args(Mode)}
    yield gauges("configured_mode", "1 for the mode of the configuration, in force or not yet.", "mode", configured)
    yield gauge("epoch", "Epoch in which unregistered flows are judged.", status.epoch)
    lags = {"last": view.loop_lag_last_s, "max": view.loop_lag_max_s}
    yield gauge("clock_doubted", "1 while this host's clock is not believed.", status.clock.doubt is not None)
    yield gauge(
        "clock_offset_seconds",
        "How far this host's clock is ahead of the time that is believed; 0 where it is believed.",
        status.clock.offset_s,
    )
    yield gauge("clock_confirmed", "1 when NTP or a signed notification confirms the time.", status.clock.confirmed)
    yield gauges("loop_lag_seconds", "How late the event loop ran: last, and worst since start.", "kind", lags)


def _registration_metrics(counts: RegistrationCounts) -> Iterator[Metric]:
    yield gauges("registrations", "Registrations held, of every status.", "category", counts.by_category)
    yield gauges("registrations_by_status", "Registrations held.", "status", counts.by_status)
    yield gauge("registrations_effective", "Registrations that are active and in their window.", counts.effective)
    yield gauge(
        "registrations_unprogrammed",
        "Registrations that the kernel cannot be told of; status names them.",
        counts.unprogrammed,
    )
    yield gauge(
        "registrations_in_former_form",
        "Of these, registrations of which a former form is in the kernel until there is room: not ready.",
        counts.in_former_form,
    )


def _source_metrics(status: StatusView) -> Iterator[Metric]:
    sources = status.sources
    yield gauges(
        "source_up",
        "1 when the last attempt to read the source succeeded.",
        "source",
        {source.name: float(source.state == "ok") for source in sources},
    )
    yield gauges(
        "source_last_success_timestamp_seconds",
        "When the source was last read, Unix time; absent before the first time.",
        "source",
        {each.name: parse_time(each.last_success_at) for each in sources if each.last_success_at},
    )
    yield gauges(
        "source_registrations",
        "Usable records of the last good reading.",
        "source",
        {source.name: source.registrations for source in sources},
    )
    rejected = GaugeMetricFamily(
        "gatewayd_source_rejected_records",
        "Records of the last good reading that are not used, by reason code.",
        labels=["source", "code"],
    )
    for source in sources:
        for code, count in sorted(source.rejected_by_code.items()):
            rejected.add_metric([source.name, code], count)
    yield rejected
    yield gauges(
        "source_conflicts",
        "Records not used because an earlier source has the same id.",
        "source",
        {source.name: source.conflicts for source in sources},
    )


def _feed_metrics(sources: Iterable[SourceView]) -> Iterator[Metric]:
    """What is known of where a source is, how old that is, and what of it waits or is not saved."""
    yield gauges(
        "source_serial",
        "Serial of what was read last; absent for a source that has none.",
        "source",
        {each.name: each.serial for each in sources if each.serial is not None},
    )
    yield gauges(
        "source_issued_timestamp_seconds",
        "When the registry issued what is in force, as signed, Unix time; absent where nobody says.",
        "source",
        {each.name: parse_time(each.issued_at) for each in sources if each.issued_at},
    )
    yield gauges(
        "source_stale",
        "1 when nothing has confirmed the source for longer than it is said to hold.",
        "source",
        {each.name: float(each.freshness == "stale") for each in sources},
    )
    yield gauges(
        "source_held_removals",
        "Removals that wait for an operator to accept them; what they are about stays in force.",
        "source",
        {each.name: 0 if each.held is None else each.held.count for each in sources},
    )
    yield gauges(
        "source_kept_records",
        "Records that became unusable and stay in force as they were.",
        "source",
        {each.name: each.kept for each in sources},
    )
    yield gauges(
        "source_store_failed",
        "1 when the last good on disk is older than what is in force.",
        "source",
        {each.name: float(each.store_error is not None) for each in sources},
    )


def _override_metrics(overrides: OverridesView) -> Iterator[Metric]:
    kinds = {
        "pins": overrides.pins,
        "filters": overrides.filters,
        "filtered": overrides.filtered,
        "conflicts": overrides.conflicts,
        "expired": overrides.expired,
    }
    yield gauges("overrides", "Local overrides and what they do.", "kind", kinds)
    yield gauge(
        "override_faults",
        "Problems in files of overrides; what those files said before is in force.",
        len(overrides.faults),
    )


def _kernel_metrics(kernel: KernelView) -> Iterator[Metric]:
    yield gauge(
        "registered_not_in_kernel",
        "Elements of effective registrations that are not known to be in the kernel; 0 in peace.",
        kernel.not_in_kernel,
    )
    yield gauge("kernel_surplus_elements", "Elements in the kernel that no registration wants.", kernel.surplus)
    yield gauge(
        "kernel_retained_elements",
        "Elements found at the start beyond the last good; they stay until every source has answered.",
        kernel.retained,
    )
    yield gauge("kernel_elements", "Elements that should be in the kernel.", kernel.elements_desired)
    yield gauge("kernel_masks", "Masks in use.", kernel.masks)
    yield gauge("kernel_sets", "Allowlist sets in the kernel.", kernel.sets)
    yield gauge("kernel_pending_operations", "Operations that wait to be sent.", kernel.pending)
    if kernel.last_verified_at:
        yield gauge(
            "kernel_last_verified_timestamp_seconds",
            "When the kernel was last read back whole, Unix time; absent before the first time.",
            parse_time(kernel.last_verified_at),
        )
    yield counter("kernel_transactions", "Transactions that the kernel took.", kernel.transactions)
    yield counter("kernel_failures", "Transactions and readings that the kernel refused or lost.", kernel.failures)
    yield counter("kernel_repairs", "Changes by other programs that were undone.", kernel.repairs)
    yield counter(
        "kernel_notifications_lost",
        "Times that the kernel told of more changes by other programs than could be read.",
        kernel.notifications_lost,
    )


def _traffic_metrics(status: StatusView) -> Iterator[Metric]:
    """From the kernel's counters, `<class>_packets` and `<class>_flows`; a flow is counted by its first packet."""
    packets: dict[str, float] = {}
    sizes: dict[str, float] = {}
    flows: dict[str, float] = {}
    for name, reading in status.counters.items():
        word, _, kind = name.rpartition("_")
        if kind == "flows":
            flows[word] = reading.packets
        elif kind == "packets":
            packets[word] = reading.packets
            sizes[word] = reading.bytes
    yield counters("packets", "Packets counted by the rules, by class.", "class", packets)
    yield counters("bytes", "Bytes counted by the rules, by class.", "class", sizes)
    yield counters("flows", "Flows judged by the rules, by class.", "class", flows)


def _marks_metrics(marks: MarksView) -> Iterator[Metric]:
    yield counter(
        "marks_not_believed",
        "Judged marks from elsewhere on registered flows; they were cleared.",
        marks.not_believed,
    )
    yield counter(
        "connections_carried", "Connections with a mark of ours that another program put in.", marks.carried
    )
    yield gauge(
        "flows_unexplained",
        "Flows marked registered that no registration or binding here explains.",
        marks.unexplained,
    )
    yield gauge(
        "flows_waiting",
        "Unexplained flows that are left alone until accounting has named their address.",
        marks.waiting,
    )
    yield gauge("flows_draining", "Flows that are registered no more and whose drain runs.", marks.draining)
    deeds = {"writes": marks.writers, "leaks": marks.leakers}
    yield gauges("mark_neighbours", "Rules of other programs that use our bits of the ct mark.", "kind", deeds)


def _conntrack_metrics(conntrack: ConntrackView) -> Iterator[Metric]:
    yield gauge("conntrack_entries", "Connections that the kernel tracks, of everybody.", conntrack.entries)
    yield gauge("conntrack_max", "Connections that the kernel tracks at most.", conntrack.max)
    for name, help, value in (
        ("dropped", "Packets dropped as there was no room for their flow.", conntrack.dropped),
        ("insert_failed", "Flows that could not be entered.", conntrack.insert_failed),
        ("early_dropped", "Flows thrown out as others needed their room.", conntrack.early_dropped),
    ):
        if value is not None:
            yield counter(f"conntrack_{name}", help, value)


def _watch_metrics(watch: WatchView) -> Iterator[Metric]:
    events = {"packet": watch.packets, "connection": watch.connections}
    yield counters("watch_events", "Events taken in from the kernel.", "kind", events)
    yield counter("watch_malformed", "Events that could not be parsed.", watch.malformed)
    yield counter("watch_overruns", "Events that the kernel dropped before we read them.", watch.overruns)
    yield counter("watch_resyncs", "Times the flows were listed anew after a loss.", watch.resyncs)
    yield counter(
        "late_admissions",
        "Registered flows that the kernel had let go as unregistered and were put right.",
        watch.late_admissions,
    )
    yield gauge("flows_tracked", "Registered flows followed at present.", watch.flows_tracked)
    yield counter("flows_evicted", "Flows no longer followed because the table was full.", watch.flows_evicted)
