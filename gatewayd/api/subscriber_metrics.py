"""Metrics of subscribers: sessions, their journal, RADIUS accounting. Absent where the configuration has none.

No label is an address, a NAS or a digest: sources can be forged, so there is no end of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from gatewayd.api.subscriber_views import JournalView, ListenerView, ResponseTimesView, SubscribersView


def gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gatewayd_{name}", help, value=value)


def counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"gatewayd_{name}", help, value=value)


def gauges(name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"gatewayd_{name}", help, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def counters(name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"gatewayd_{name}", help, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def session_metrics(view: SubscribersView) -> Iterator[Metric]:
    yield gauge("sessions", "Live sessions, of everybody.", view.sessions)
    yield gauge(
        "sessions_restored", "Live sessions from before a restart that no word has confirmed since.", view.restored
    )
    yield gauge("bindings", "Addresses of registered subscribers.", view.bindings)
    yield counter(
        "bindings_conflicting",
        "Times that an address was bound which another registrant's own prefix has.",
        view.conflicting,
    )
    yield gauge("bindings_left", "Elements found at the start that the journal does not know.", view.left)
    yield gauge("nas_same_name", "Names that several NAS use for sessions of the same ids.", len(view.same_names))
    yield counters("session_events", "What came, ended and was not followed.", "kind", view.counts)
    yield gauge("session_tombstones", "Ended sessions and released addresses that are remembered.", view.tombstones)
    yield counter("session_tombstones_lost", "Of them, forgotten before their time.", view.tombstones_lost)
    yield counter("binding_refreshes", "Elements of bindings asserted again in the kernel.", view.refreshed)
    yield counter(
        "accounting_unanswered", "Words taken and not answered, as the journal had no room.", view.unanswered
    )
    yield from _journal_metrics(view.journal)


def _journal_metrics(journal: JournalView) -> Iterator[Metric]:
    yield gauge("journal_suspended", "1 while what is answered is not durable.", journal.state == "suspended")
    yield gauge("journal_waiting", "Answers that wait for the disk.", journal.waiting)
    yield gauge("journal_waiting_rows", "Rows that are not on disk yet.", journal.waiting_rows)
    yield counter("journal_rows", "Rows put on disk.", journal.rows)
    yield counter("journal_failures", "Groups of rows that the disk did not take.", journal.failures)
    yield counter("journal_refused", "Writes for which there was no room.", journal.refused)
    damaged = {"row": journal.skipped, "file": journal.set_aside, "lost_group": journal.lost_groups}
    yield counters("journal_damaged", "What was damaged at the start, and left out.", "kind", damaged)
    yield SummaryMetricFamily(
        "gatewayd_journal_write_seconds",
        "Time that a group of rows took to be on disk.",
        count_value=journal.groups,
        sum_value=journal.write_seconds,
    )


def listener_metrics(view: ListenerView) -> Iterator[Metric]:
    requests = {
        "event": view.events,
        "unusable": sum(view.unusable.values()),
        "duplicate": view.duplicates,
        "pending_duplicate": view.pending_duplicates,
        "status_server": view.status_server,
        "unknown_client": view.unknown_client,
        "rejected": sum(view.rejected.values()),
    }
    yield counters("radius_requests", "Datagrams, each in one kind.", "kind", requests)
    yield counters("radius_rejected", "Datagrams not believed and not answered.", "reason", view.rejected)
    yield counters("radius_accounting_rejected", "Requests believed and of no use.", "reason", view.unusable)
    yield counters("radius_ignored", "Parts of requests that could not be used.", "reason", view.ignored)
    yield counter("radius_responses", "Answers sent, those to repeats too.", view.responses)
    yield counter("radius_unsent", "Answers that the socket did not take.", view.unsent)
    yield counter("radius_receive_errors", "Times a socket could not be read.", view.receive_errors)
    yield counter("radius_kernel_drops", "Datagrams for which a socket had no room.", view.kernel_drops)


def response_metrics(view: ResponseTimesView) -> Metric:
    bounds = [str(bound_s) for bound_s, _ in view.buckets]
    totals = list(accumulate([*(number for _, number in view.buckets), view.beyond]))
    family = HistogramMetricFamily(
        "gatewayd_radius_response_seconds", "Time from the reading of a request to its first answer."
    )
    family.add_metric([], list(zip([*bounds, "+Inf"], totals, strict=True)), view.sum_seconds)
    return family
