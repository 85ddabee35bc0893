"""The panels of the Grafana dashboard: what each shows, of which metrics. `tests.support.grafana` builds it.

`$T` in an expression stands for the gateways that are chosen above the dashboard. `$__rate_interval` and
`$__interval` are Grafana's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from grafana_foundation_sdk.models import units

IN_5_MIN: Final = "suffix: in 5 min"
POLICY_CHANGES: Final = "changes(gatewayd_policy_since_timestamp_seconds{$T}[$__interval]) > 0"
"""A line across all plots."""

FLOWS: Final = 'class=~"registered|unregistered|unlogged|unlogged_near"'
PACKETS: Final = 'class=~"registered|unregistered|limited|rejected|uncrossed"'
"""Those of which an operator asks; docs/metrics.md has all."""

Kind = Literal["stat", "word", "plot", "states"]
"""A number, or the name of a series, as it is now; lines; bars of what was true when."""


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries`: each with its legend, and `instance` before that. `bad_from`: red from there on."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: Kind = "plot"
    bad_from: float | None = None


def now(title: str, description: str, expr: str, bad_from: float = 1, unit: str = units.Short) -> Panel:
    return Panel(title, description, unit, ((expr, ""),), "stat", bad_from)


def rises(title: str, description: str, **counters: str) -> Panel:
    """Of events that are rare: how many there were in five minutes. Legend → counter."""
    return Panel(
        title,
        description,
        IN_5_MIN,
        tuple((f"increase({name}{{$T}}[5m])", legend.replace("_", " ")) for legend, name in counters.items()),
    )


NOW = (
    Panel(
        "Ready", "1 when the allowlist is loaded, and read back from the kernel.", units.BoolYesNo,
        (("gatewayd_ready{$T}", ""),), "stat",
    ),
    Panel("Mode", "The mode in force.", units.NoUnit, (("gatewayd_mode{$T} == 1", "{{mode}}"),), "word"),
    now(
        "Not in the kernel", "Elements of effective registrations that are not known to be in the kernel. In "
        "reject and limit these customers are cut.", "gatewayd_registered_not_in_kernel{$T}",
    ),
    now(
        "Not programmed", "Registrations past a bound of the kernel's: their traffic counts as unregistered.",
        "gatewayd_registrations_unprogrammed{$T}",
    ),
    now(
        "Held", "Removals, and endpoints of providers, that wait for gatewayd accept.",
        "sum by (job, instance) (gatewayd_held_removals{$T}) or 0 * gatewayd_ready{$T}",
    ),
    now(
        "Assertions that fail", "Named customers who would be cut, or are; or flows that pass and must not.",
        "gatewayd_assertions_failing{$T}",
    ),
    now(
        "Near misses", "Lines of registered customers whose flows no registration lets pass. Call them before a "
        "policy is armed.", "gatewayd_near_misses_listed{$T}",
    ),
    now(
        "Connections", "Share of nf_conntrack_max that is in use. At 100 % the kernel drops new flows of every "
        "customer.", "gatewayd_conntrack_entries{$T} / gatewayd_conntrack_max{$T}", 0.8, units.PercentUnit,
    ),
)  # fmt: skip

TRAFFIC = (
    Panel(
        "Flows judged", "New flows in scope, by class; each counts with its first packet. In reject, a refused "
        "flow counts with each packet.", units.CountsPerSecond,
        ((f"rate(gatewayd_flows_total{{$T,{FLOWS}}}[$__rate_interval])", "{{class}}"),),
    ),
    Panel(
        "Packets", "Packets that the rules counted, by class. uncrossed: in scope, and between no two named sides.",
        units.PacketsPerSecond,
        ((f"rate(gatewayd_packets_total{{$T,{PACKETS}}}[$__rate_interval])", "{{class}}"),),
    ),
    Panel(
        "Bytes", "Bytes that the rules counted, by class.", units.BytesPerSecondSI,
        ((f"rate(gatewayd_bytes_total{{$T,{PACKETS}}}[$__rate_interval])", "{{class}}"),),
    ),
    Panel(
        "Live registered flows", "Flows that are followed; flows whose registration ended and whose drain runs; "
        "flows that wait for accounting to name their address.", units.Short,
        (
            ("gatewayd_flows_tracked{$T}", "followed"),
            ("gatewayd_flows_draining{$T}", "draining"),
            ("gatewayd_flows_waiting{$T}", "waiting"),
        ),
    ),
    rises(
        "Near misses and late admissions", "Flows of registered customers that no registration lets pass; "
        "registered flows that came before their element, and were put right.",
        near_misses="gatewayd_near_misses_total", late_admissions="gatewayd_late_admissions_total",
    ),
    Panel(
        "Unregistered flows", "New unregistered flows, each counted once in every mode: those of gatewayd impact.",
        units.CountsPerSecond, (("rate(gatewayd_impact_flows_total{$T}[$__rate_interval])", "unregistered"),),
    ),
)  # fmt: skip

REGISTRY = (
    Panel(
        "Registrations", "Registrations of every status by category, and those that are effective now.",
        units.Short,
        (
            ("gatewayd_registrations_effective{$T}", "effective"),
            ("gatewayd_registrations{$T}", "{{category}}"),
        ),
    ),
    Panel(
        "Since the last answer", "Time since each source was last read; issued: age of its signed notification.",
        units.Seconds,
        (
            ("time() - gatewayd_source_last_success_timestamp_seconds{$T}", "{{source}}"),
            ("time() - gatewayd_source_issued_timestamp_seconds{$T}", "{{source}} issued"),
        ),
    ),
    Panel(
        "Serial", "Serial of each source. Gateways that read the same registry have the same.", units.NoUnit,
        (("gatewayd_source_serial{$T}", "{{source}}"),),
    ),
    Panel(
        "Records that wait or are not used", "Held: removals that wait for gatewayd accept. Rejected: records that "
        "the registry has to mend. Kept: records that became unusable, in force as they were.", units.Short,
        (
            ("gatewayd_source_held_removals{$T}", "{{source}} held"),
            ("sum by (job, instance, source) (gatewayd_source_rejected_records{$T})", "{{source}} rejected"),
            ("gatewayd_source_kept_records{$T}", "{{source}} kept"),
        ),
    ),
    Panel(
        "Local overrides", "Pins and filters of the local files, and their effect.", units.Short,
        (("gatewayd_overrides{$T}", "{{kind}}"), ("gatewayd_override_faults{$T}", "faults")),
    ),
    Panel(
        "Source in order", "1 while the last attempt to read the source succeeded.", units.BoolYesNo,
        (("gatewayd_source_up{$T}", "{{source}}"),), "states",
    ),
)  # fmt: skip

KERNEL = (
    Panel(
        "Elements", "Elements that should be in the kernel.", units.Short,
        (("gatewayd_kernel_elements{$T}", "desired"),),
    ),
    Panel(
        "Elements that differ", "Missing: the kernel is behind the registry. Surplus: no registration wants them. "
        "Retained: found at the start, until every source has answered.", units.Short,
        (
            ("gatewayd_registered_not_in_kernel{$T}", "missing"),
            ("gatewayd_kernel_surplus_elements{$T}", "surplus"),
            ("gatewayd_kernel_retained_elements{$T}", "retained"),
            ("gatewayd_kernel_pending_operations{$T}", "operations that wait"),
        ),
    ),
    Panel(
        "Time of a transaction", "Mean time from sending a transaction to the kernel's acknowledgement.",
        units.Seconds,
        ((
            "rate(gatewayd_kernel_commit_seconds_sum{$T}[5m]) / rate(gatewayd_kernel_commit_seconds_count{$T}[5m])",
            "mean",
        ),),
    ),
    rises(
        "Transactions", "Transactions that the kernel took.", taken="gatewayd_kernel_transactions_total",
    ),
    rises(
        "Repairs and failures", "Repairs: changes by other programs that were undone. Failures: transactions and "
        "readings that the kernel refused or lost.",
        repairs="gatewayd_kernel_repairs_total", failures="gatewayd_kernel_failures_total",
        notifications_lost="gatewayd_kernel_notifications_lost_total",
    ),
    Panel(
        "Since the last verification", "Time since the kernel was last read back whole.", units.Seconds,
        (("time() - gatewayd_kernel_last_verified_timestamp_seconds{$T}", "kernel"),),
    ),
)  # fmt: skip

ARMING = (
    Panel(
        "Mode over time", "The mode in force.", units.NoUnit, (("gatewayd_mode{$T} == 1", "{{mode}}"),),
        "states",
    ),
    Panel(
        "Canary", "Share of client addresses for which the mode takes effect.", units.Percent,
        (("gatewayd_policy_canary_percent{$T}", "canary"),),
    ),
    Panel(
        "Time left of a trial", "Time until the pending trial reverts or ends. Without a trial there is no line.",
        units.Seconds, (("gatewayd_trial_deadline_timestamp_seconds{$T} - time()", "left"),),
    ),
)  # fmt: skip

SUBSCRIBERS = (
    Panel(
        "Sessions and addresses", "Live sessions of all subscribers; addresses of registered ones; sessions from "
        "before a restart that accounting has not confirmed.", units.Short,
        (
            ("gatewayd_sessions{$T}", "sessions"),
            ("gatewayd_bindings{$T}", "addresses"),
            ("gatewayd_sessions_restored{$T}", "not confirmed"),
        ),
    ),
    Panel(
        "Accounting datagrams", "Each in one kind. event: a record that can be used.", units.RequestsPerSecond,
        (("rate(gatewayd_radius_requests_total{$T}[$__rate_interval])", "{{kind}}"),),
    ),
    Panel(
        "Time of an answer", "From the reading of a request to its answer, which comes when the record is on disk.",
        units.Seconds,
        tuple(
            (
                f"histogram_quantile({share}, sum by (job, instance, le) "
                "(rate(gatewayd_radius_response_seconds_bucket{$T}[5m])))",
                f"{share:.0%}",
            )
            for share in (0.5, 0.99)
        ),
    ),
    rises(
        "Records not answered, lost or refused", "Not answered: the journal had no room. Dropped: the socket "
        "had none. The sender repeats both.",
        not_answered="gatewayd_accounting_unanswered_total", dropped="gatewayd_radius_kernel_drops_total",
        flood="gatewayd_radius_flood_drops_total",
    ),
    Panel(
        "Journal", "Answers and rows that wait for the disk.", units.Short,
        (
            ("gatewayd_journal_waiting{$T}", "answers that wait"),
            ("gatewayd_journal_waiting_rows{$T}", "rows that wait"),
        ),
    ),
    Panel(
        "Journal in order", "1 while answers are durable.", units.BoolYesNo,
        (("1 - gatewayd_journal_suspended{$T}", "durable"),), "states",
    ),
)  # fmt: skip

HOST = (
    Panel(
        "Table of connections", "Connections of all customers that the kernel tracks, and the bound.", units.Short,
        (("gatewayd_conntrack_entries{$T}", "connections"), ("gatewayd_conntrack_max{$T}", "bound")),
    ),
    rises(
        "Connections dropped", "Dropped: packets without room for their flow, or that raced. Early: flows thrown "
        "out for others.",
        dropped="gatewayd_conntrack_dropped_total", early="gatewayd_conntrack_early_dropped_total",
        not_entered="gatewayd_conntrack_insert_failed_total",
    ),
    Panel(
        "The host", "Findings of gatewayd doctor that the daemon sees. Names of policy.interfaces that match "
        "none. Rules of other programs that reach our bits of the ct mark.", units.Short,
        (
            ("gatewayd_host_findings{$T}", "findings"),
            ("gatewayd_interfaces_unmatched{$T}", "interfaces missing"),
            ("gatewayd_mark_neighbours{$T}", "rules, {{kind}}"),
        ),
    ),
    Panel(
        "Events of the kernel", "Packets of the log, and begins and ends of flows.", units.CountsPerSecond,
        (("rate(gatewayd_watch_events_total{$T}[$__rate_interval])", "{{kind}}"),),
    ),
    rises(
        "Events lost", "Lost: dropped by the kernel before they were read. Postponed: turns that were too short.",
        lost="gatewayd_watch_overruns_total", malformed="gatewayd_watch_malformed_total",
        postponed="gatewayd_watch_postponed_total",
    ),
    Panel(
        "Event loop", "How late the loop of the daemon ran last. Over 0.5 s it has too much to do.", units.Seconds,
        (('gatewayd_loop_lag_seconds{$T,kind="last"}', "late"),),
    ),
    Panel(
        "Memory", "Resident memory of the daemon.", units.BytesSI,
        (("process_resident_memory_bytes{$T}", "resident"),),
    ),
    Panel(
        "Processor", "Processor time of the daemon: 100 % is one core.", units.PercentUnit,
        (("rate(process_cpu_seconds_total{$T}[$__rate_interval])", "processor"),),
    ),
    Panel(
        "Clock", "How far the clock of the host is ahead of the believed time.", units.Seconds,
        (("gatewayd_clock_offset_seconds{$T}", "ahead"),),
    ),
    Panel(
        "State on disk", "1 while the file takes what is written to it.", units.BoolYesNo,
        (("gatewayd_state_file_ok{$T}", "{{file}}"),), "states",
    ),
    Panel(
        "API", "Open connections of each listener.", units.Short,
        (("gatewayd_api_connections{$T}", "{{listener}}"),),
    ),
    rises(
        "API refused", "Requests that waited too many, and connections that were closed at a bound.",
        requests="gatewayd_api_requests_refused_total", connections="gatewayd_api_connections_closed_total",
    ),
)  # fmt: skip

ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": NOW,
    "Traffic": TRAFFIC,
    "Registry": REGISTRY,
    "Kernel": KERNEL,
    "Arming": ARMING,
    "Subscribers by mobile number": SUBSCRIBERS,
    "Host and daemon": HOST,
}
