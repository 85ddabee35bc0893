"""The report of impact for people: sentences, rows of tables, parts of a page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gatewayd.api.html import Bars, Cell, Facts, Part, Series, Table, Text
from gatewayd.impact.buckets import DAY_S
from gatewayd.impact.report import GapLine, ImpactReport
from gatewayd.model.moment import parse_time

TITLE: Final = "Unregistered flows, and who a policy would refuse"
SERVICE_COLUMNS: Final = ("service", "flows", "share")
INTERFACE_COLUMNS: Final = ("inside interface", "flows", "share")
PREFIX_COLUMNS: Final = ("client prefix", "flows", "services")
GAP_COLUMNS: Final = ("from", "to", "flows meanwhile")
CSV_COLUMNS: Final = ("kind", "name", "service", "flows", "in_canary")


def subtitle_of(report: ImpactReport) -> str:
    watched = f"watched since {report.watched_since}" if report.watched_since else "not watched yet"
    return f"{report.since} to {report.until}, {watched}"


def warnings_of(report: ImpactReport) -> Iterator[str]:
    """What makes the numbers less than the whole."""
    if not report.counts:
        yield "flows are not counted: watch.unregistered is off"
    if report.file != "ok":
        yield f"impact.sqlite: {report.file}"
    if report.watched_since is not None and report.watched_since > report.since:
        yield f"nothing is known from before {report.watched_since}"
    lost = report.lost
    if lost.prefixes:
        yield f"{lost.prefixes:,} flows are of a prefix that is not known"
    if lost.services:
        yield f"{lost.services:,} flows are of a service that is not known"
    if lost.interfaces:
        yield f"{lost.interfaces:,} flows are of an interface that is not known"
    if lost.uncertain_packets:
        yield f"{lost.uncertain_packets:,} refused packets, of new flows or repeated ones, are in no number"
    if report.other_flows:
        yield f"{report.other_flows:,} flows are of prefixes past the bound of what is kept"
    if report.gaps:
        unknown = sum(gap.flows is None for gap in report.gaps)
        besides = f"; over {unknown} of them the kernel's counts are lost" if unknown else ""
        yield f"not watched {_times(len(report.gaps))}, {_length(report.gaps)} together{besides}"


def facts_of(report: ImpactReport) -> Iterator[tuple[str, Cell]]:
    """What happened, and what each policy would do to the same flows."""
    yield "unregistered flows", report.flows
    yield "reject would refuse", report.flows
    for line in report.canaries:
        if line.percent < 100:
            yield f"  of them with canary: {line.percent}%", line.flows
    limit = report.limit
    if limit.is_counted or limit.packets:
        yield "limit would drop", f"{limit.packets:,} of {limit.of_packets:,} packets, {limit.size_bytes:,} bytes"
    else:
        yield "limit would drop", "not counted: watch.shadow_limit is off"
    if report.done.rejected_packets:
        yield "packets refused", report.done.rejected_packets
    if report.done.limited_packets:
        yield "packets dropped", report.done.limited_packets


def service_columns(report: ImpactReport) -> tuple[str, ...]:
    return (*SERVICE_COLUMNS, f"canary: {report.percent}%")


def service_rows(report: ImpactReport) -> list[tuple[str, int, str, int]]:
    return [(line.service, line.flows, share_of(line.flows, report.flows), line.canary) for line in report.services]


def interface_rows(report: ImpactReport) -> list[tuple[str, int, str]]:
    return [(line.interface, line.flows, share_of(line.flows, report.flows)) for line in report.interfaces]


def prefix_rows(report: ImpactReport) -> list[tuple[str, int, str]]:
    return [
        (line.prefix, line.flows, ", ".join(f"{name} {flows:,}" for name, flows in line.services))
        for line in report.prefixes
    ]


def gap_rows(report: ImpactReport) -> list[tuple[str, str, int | str]]:
    return [
        (gap.since, gap.until, "the kernel's counts are lost" if gap.flows is None else gap.flows)
        for gap in report.gaps
    ]


def csv_rows(report: ImpactReport) -> Iterator[tuple[str, str, str, int, int | str]]:
    """One for each service, interface, and service of a prefix; a canary is known of services alone."""
    for service in report.services:
        yield "service", service.service, service.service, service.flows, service.canary
    for interface in report.interfaces:
        yield "interface", interface.interface, "", interface.flows, ""
    for prefix in report.prefixes:
        yield "prefix", prefix.prefix, "", prefix.flows, ""
        for name, flows in prefix.services:
            yield "prefix_service", prefix.prefix, name, flows, ""


def parts_of(report: ImpactReport) -> Iterator[Part]:
    """Of a page (api.html)."""
    for warning in warnings_of(report):
        yield Text(warning, warning=True)
    yield Facts(tuple(facts_of(report)))
    each = "a day" if report.step_s == DAY_S else "an hour"
    steps = [(parse_time(step.at), float(step.flows)) for step in report.steps]
    yield Series(f"Unregistered flows {each}", steps, float(report.step_s), "flows")
    canaries = [(f"canary: {line.percent}%", float(line.flows)) for line in report.canaries]
    yield Bars("Flows that reject would refuse, by canary", canaries, "flows", float(report.flows) or None)
    yield Table("By service", service_columns(report), service_rows(report))
    if report.interfaces:
        yield Table("By inside interface", INTERFACE_COLUMNS, interface_rows(report))
    shown = f"{len(report.prefixes):,} of {report.prefix_count:,}"
    yield Table("By client prefix", PREFIX_COLUMNS, prefix_rows(report), f"{shown} shown, the most flows first")
    if report.gaps:
        yield Table("Not watched", GAP_COLUMNS, gap_rows(report))


def share_of(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _length(gaps: Sequence[GapLine]) -> str:
    minutes = sum(parse_time(gap.until) - parse_time(gap.since) for gap in gaps) / 60
    return f"{minutes:.0f} min"
