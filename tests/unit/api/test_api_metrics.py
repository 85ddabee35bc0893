from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import pytest
from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from gatewayd.api.metrics import OPENMETRICS_TYPE, TEXT_TYPE, choose_type, render_metrics
from gatewayd.api.process import ListenerView
from gatewayd.api.status import CounterView, HoldView, PolicyView, StatusView
from gatewayd.compile.ruleset import COUNTERS
from gatewayd.model.policy import Stage
from gatewayd.state_file.view import StateFileView
from gatewayd.trial.state import Instant, Trial, TrialState
from gatewayd.trial.views import arming_view
from tests.support.fake_queries import DEAF, GUARDED, PEACE, SUBSCRIBED, TROUBLE
from tests.support.metrics_table import DOC, SECTIONS, renewed, rows_of

TRIAL = Trial("t1", "confirm", Stage("observe"), Stage("reject"), 0.0, 600.0, "boot", 0.0, 600.0, "uid 0")


def samples(view: StatusView) -> dict[str, float]:
    """`name{label="word"}` → value, from the page."""
    lines = render_metrics(view).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_peace_reads_as_peace() -> None:
    found = samples(PEACE)
    assert (
        found.items()
        >= {
            'gatewayd_build_info{version="0.1.0"}': 1,
            "gatewayd_start_time_seconds": 1730419200,
            "gatewayd_ready": 1,
            "gatewayd_armed": 0,
            'gatewayd_mode{mode="observe"}': 1,
            'gatewayd_mode{mode="reject"}': 0,
            'gatewayd_configured_mode{mode="reject"}': 1,
            'gatewayd_loop_lag_seconds{kind="max"}': 0.02,
            'gatewayd_registrations{category="bank"}': 31000,
            'gatewayd_registrations_by_status{status="suspended"}': 22,
            "gatewayd_registrations_effective": 30988,
            'gatewayd_source_up{source="national"}': 1,
            'gatewayd_source_last_success_timestamp_seconds{source="national"}': 1730689160,
            "gatewayd_registered_not_in_kernel": 0,
            "gatewayd_kernel_last_verified_timestamp_seconds": 1730689070,
            "gatewayd_kernel_transactions_total": 144,
            "gatewayd_kernel_commit_seconds_sum": 0.5,
            "gatewayd_kernel_commit_seconds_count": 144,
            'gatewayd_packets_total{class="registered"}': 2_500_000,
            'gatewayd_bytes_total{class="unregistered"}': 1020,
            'gatewayd_flows_total{class="registered"}': 1200,
            'gatewayd_watch_events_total{kind="connection"}': 2400,
            "gatewayd_flows_tracked": 310,
        }.items()
    )


def test_trouble_reads_as_trouble() -> None:
    found = samples(TROUBLE)
    assert (
        found.items()
        >= {
            "gatewayd_ready": 0,
            "gatewayd_armed": 1,
            "gatewayd_registered_not_in_kernel": 12,
            "gatewayd_kernel_surplus_elements": 1,
            "gatewayd_kernel_pending_operations": 12,
            "gatewayd_kernel_failures_total": 2,
            "gatewayd_kernel_repairs_total": 1,
            "gatewayd_registrations_unprogrammed": 1,
            'gatewayd_source_up{source="lab"}': 0,
            'gatewayd_source_up{source="mirror"}': 0,
            'gatewayd_source_rejected_records{code="unknown_field",source="national"}': 3,
            'gatewayd_source_conflicts{source="national"}': 1,
            "gatewayd_watch_overruns_total": 20,
            "gatewayd_late_admissions_total": 5,
        }.items()
    )


def test_what_waits_for_somebody_is_to_be_seen_of_each_source() -> None:
    found = samples(GUARDED)
    assert (
        found.items()
        >= {
            'gatewayd_source_held_removals{source="national"}': 1204,
            'gatewayd_source_held_removals{source="mirror"}': 0,
            'gatewayd_source_serial{source="national"}': 17,
            'gatewayd_source_issued_timestamp_seconds{source="national"}': 1730689080,
            'gatewayd_source_stale{source="national"}': 0,
            'gatewayd_source_stale{source="embassies"}': 0,
            'gatewayd_source_stale{source="mirror"}': 1,
            'gatewayd_source_kept_records{source="national"}': 2,
            'gatewayd_source_kept_records{source="lab"}': 0,
            'gatewayd_source_store_failed{source="national"}': 1,
            'gatewayd_source_store_failed{source="lab"}': 0,
            'gatewayd_overrides{kind="pins"}': 3,
            'gatewayd_overrides{kind="filters"}': 1,
            'gatewayd_overrides{kind="filtered"}': 1200,
            'gatewayd_overrides{kind="conflicts"}': 1,
            'gatewayd_overrides{kind="expired"}': 4,
            "gatewayd_override_faults": 7,
        }.items()
    )


def test_subscribers_are_counted() -> None:
    found = samples(SUBSCRIBED)
    assert (
        found.items()
        >= {
            "gatewayd_sessions": 31000,
            "gatewayd_sessions_restored": 0,
            "gatewayd_bindings": 412,
            'gatewayd_session_events_total{kind="starts"}': 900,
            "gatewayd_session_tombstones": 14,
            "gatewayd_binding_refreshes_total": 1200,
            "gatewayd_accounting_unanswered_total": 0,
            "gatewayd_journal_suspended": 0,
            "gatewayd_journal_rows_total": 1500,
            "gatewayd_journal_write_seconds_count": 400,
            "gatewayd_journal_write_seconds_sum": 0.8,
            'gatewayd_radius_requests_total{kind="event"}': 930,
            'gatewayd_radius_requests_total{kind="duplicate"}': 9,
            'gatewayd_radius_requests_total{kind="status_server"}': 60,
            'gatewayd_radius_accounting_rejected_total{reason="no_session"}': 1,
            "gatewayd_radius_responses_total": 1000,
            'gatewayd_radius_response_seconds_bucket{le="0.001"}': 900,
            'gatewayd_radius_response_seconds_bucket{le="0.01"}': 980,
            'gatewayd_radius_response_seconds_bucket{le="+Inf"}': 990,
            "gatewayd_radius_response_seconds_count": 990,
            "gatewayd_radius_response_seconds_sum": 1.5,
        }.items()
    )


def test_each_datagram_is_in_one_kind() -> None:
    for view in (SUBSCRIBED, DEAF):
        found = samples(view)
        kinds = [value for name, value in found.items() if name.startswith("gatewayd_radius_requests_total")]
        assert view.subscribers is not None
        assert view.subscribers.listener is not None
        assert len(kinds) == 8
        assert sum(kinds) == view.subscribers.listener.requests


def test_a_disk_that_is_full_and_strangers_are_to_be_seen() -> None:
    found = samples(DEAF)
    assert (
        found.items()
        >= {
            "gatewayd_sessions_restored": 1,
            "gatewayd_bindings_conflicting_total": 6,
            "gatewayd_session_tombstones_lost_total": 5,
            "gatewayd_accounting_unanswered_total": 2,
            "gatewayd_journal_suspended": 1,
            "gatewayd_journal_waiting": 1,
            "gatewayd_journal_waiting_rows": 7,
            "gatewayd_journal_failures_total": 4,
            "gatewayd_journal_refused_total": 2,
            'gatewayd_journal_damaged_total{kind="row"}': 1,
            'gatewayd_journal_damaged_total{kind="file"}': 1,
            'gatewayd_radius_requests_total{kind="unknown_client"}': 30,
            'gatewayd_radius_requests_total{kind="rejected"}': 20,
            'gatewayd_radius_rejected_total{reason="bad_authenticator"}': 15,
            'gatewayd_radius_ignored_total{reason="address_hint"}': 2,
            "gatewayd_radius_unsent_total": 1,
            "gatewayd_radius_receive_errors_total": 1,
            "gatewayd_radius_kernel_drops_total": 8,
            'gatewayd_radius_response_seconds_bucket{le="+Inf"}': 0,
        }.items()
    )
    assert "192.0.2.9" not in render_metrics(DEAF).decode()


def test_without_subscribers_nothing_is_said_of_them() -> None:
    words = ("radius", "session", "binding", "journal", "accounting")
    assert not [name for name in samples(PEACE) if any(word in name for word in words)]


def test_without_radius_nothing_is_said_of_it() -> None:
    assert SUBSCRIBED.subscribers is not None
    alone = msgspec.structs.replace(SUBSCRIBED.subscribers, listener=None)
    found = samples(msgspec.structs.replace(SUBSCRIBED, subscribers=alone))
    assert found["gatewayd_bindings"] == 412
    assert not [name for name in found if "radius" in name]


def test_what_never_happened_is_absent_and_not_zero() -> None:
    found = samples(TROUBLE)
    assert not [name for name in found if name.startswith(("gatewayd_source_serial", "gatewayd_source_issued"))]
    assert 'gatewayd_source_last_success_timestamp_seconds{source="lab"}' not in found
    assert "gatewayd_kernel_last_verified_timestamp_seconds" not in found


def test_a_counter_of_another_kind_is_left_out() -> None:
    view = msgspec.structs.replace(PEACE, counters={"registered_drops": CounterView(1, 1)})
    assert not [name for name in samples(view) if "class=" in name]


@pytest.mark.parametrize("view", [PEACE, TROUBLE, GUARDED, SUBSCRIBED, DEAF])
def test_both_formats_parse_and_say_the_same(view: object) -> None:
    metrics = view
    text = list(parse_text(render_metrics(metrics).decode()))
    page = render_metrics(metrics, OPENMETRICS_TYPE).decode()
    strict: list[Metric] = list(parse_openmetrics(page))  # type: ignore[no-untyped-call]
    assert {_hashable(s) for f in text for s in f.samples} == {_hashable(s) for f in strict for s in f.samples}


def _hashable(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...], float]:
    return sample.name, tuple(sorted(sample.labels.items())), sample.value


def test_every_family_has_a_name_of_ours_a_help_and_stands_once() -> None:
    families = list(parse_text(render_metrics(SUBSCRIBED).decode()))
    assert all(family.name.startswith("gatewayd_") and family.documentation[-1] == "." for family in families)
    names = [family.name for family in families]
    assert len(names) == len(set(names))


def test_labels_are_few_words() -> None:
    pages = [
        render_metrics(view).decode()
        for view in (msgspec.structs.replace(TROUBLE, counters={}), msgspec.structs.replace(DEAF, counters={}))
    ]
    families = [family for page in pages for family in parse_text(page)]
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert labels == {"version", "mode", "kind", "status", "category", "source", "code", "reason", "le", "pattern"}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT_TYPE),
        ("*/*", TEXT_TYPE),
        ("text/plain;version=0.0.4;q=0.5", TEXT_TYPE),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", OPENMETRICS_TYPE),
        ("text/plain, application/openmetrics-text; version=junk", OPENMETRICS_TYPE),
    ],
)
def test_the_scraper_chooses_the_format(accept: str, content_type: str) -> None:
    assert choose_type(accept) == content_type


def test_the_process_is_measured_where_a_collector_is_given() -> None:
    page = render_metrics(PEACE, TEXT_TYPE, ProcessCollector(registry=None)).decode()
    assert "\nprocess_resident_memory_bytes " in page


def test_the_document_has_what_is_declared_and_nothing_else() -> None:
    """`python -m tests.support.metrics_table` puts it right."""
    text = DOC.read_text()
    assert renewed(text) == text


def test_every_number_that_is_declared_comes_on_the_page_and_no_other() -> None:
    assert DEAF.subscribers is not None
    assert DEAF.subscribers.listener is not None
    listener = replace(DEAF.subscribers.listener, unusable={"no_session": 1})
    everything = msgspec.structs.replace(
        TROUBLE,
        sources=GUARDED.sources + TROUBLE.sources,
        held=(HoldView(17, "2024-11-04T01:00:00Z", 4, "too many", {"national": 4}),),
        counters=PEACE.counters,
        kernel=PEACE.kernel,
        listeners=(ListenerView("tcp"),),
        state_files=(StateFileView("activity"),),
        report_failures={"pulse": 1},
        policy=PolicyView("reject", 100, "2024-11-04T01:00:00Z", "start"),
        arming=arming_view(TrialState(TRIAL), Stage("observe"), Instant(0.0, 0.0, "boot")),
        subscribers=msgspec.structs.replace(DEAF.subscribers, listener=listener),
    )
    lines = render_metrics(everything).decode().splitlines()
    rendered = [line.split(" ")[2] for line in lines if line.startswith("# TYPE ")]
    declared = {row[0].name: row[0] for section in SECTIONS for row in rows_of(section)}
    names = {f"gatewayd_{each.name}{'_total' * (each.kind == 'counter')}" for each in declared.values()}
    assert sorted(rendered) == sorted(names)


def test_a_family_has_one_kind_and_one_help_wherever_its_words_are_declared() -> None:
    rows = [metric for section in SECTIONS for metric, _ in rows_of(section)]
    families = {(each.name, each.kind, each.help, each.label) for each in rows}
    assert len(families) == len({each.name for each in rows})
    assert all(each.help.endswith(".") and not each.watch_for.endswith(".") for each in rows)


def test_removals_that_are_held_are_counted_by_their_cause() -> None:
    held = HoldView(17, "2024-11-04T01:00:00Z", 5, "too many", {"config/local": 4, "national": 1})
    found = samples(msgspec.structs.replace(PEACE, held=(held,)))
    assert found['gatewayd_held_removals{cause="config/local"}'] == 4
    assert found['gatewayd_held_removals{cause="national"}'] == 1


def test_the_classes_of_traffic_are_described() -> None:
    """Each counter of the rules, and nothing else."""
    section = DOC.read_text().partition("## Traffic\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", section, re.MULTILINE)
    assert {f"{word}_{kind}" for word, of in rows for kind in of.split(", ") if kind != "bytes"} == set(COUNTERS)
