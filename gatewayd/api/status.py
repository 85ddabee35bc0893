"""The status of the daemon, as frozen values that are JSON as they stand; its numbers are the metrics.

Statistics that a package keeps of itself are in here as they are. Times are RFC 3339 in UTC, None where there is no
such moment. A field added here is an addition for every reader; a field renamed or taken away breaks the dashboards
of people we do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal, get_args

import msgspec

from gatewayd.api.process import ListenerView, LoopView
from gatewayd.assertions.states import AssertionsView
from gatewayd.doctor.findings import HostView
from gatewayd.impact.report import ImpactView
from gatewayd.model import Mode
from gatewayd.model.metric import Each, counter, equals, gauge, is_there, one_of
from gatewayd.model.transaction import ConntrackSize, CounterReading, Neighbour
from gatewayd.near_miss.findings import NearMissView
from gatewayd.reconcile.dataplane import Stats
from gatewayd.registry.extended import ProvidersView, ProvisionalView
from gatewayd.registry.layers import OverrideCounts
from gatewayd.state_file.view import StateFileView
from gatewayd.subscribers.journal_rows import JournalStats
from gatewayd.subscribers.radius.senders import ListenerStats
from gatewayd.subscribers.sessions.session import SessionCounts
from gatewayd.trial.views import ArmingView
from gatewayd.watch.attribute import WatchView
from gatewayd.watch.interfaces import InterfacesView

SourceState = Literal["waiting", "ok", "failing"]
FreshnessState = Literal["fresh", "overdue", "stale"]

MAX_EXAMPLES = 20
"""Unprogrammed registrations that a status names."""
MAX_CATEGORIES = 200
"""Categories that have a number of their own, the largest first; the others have one together."""
MAX_NEIGHBOURS = 20
"""Rules of other programs that a status names."""
MAX_AGGREGATES = 20
"""Prefixes of unregistered traffic that a status names, the busiest first."""


class HeldView(msgspec.Struct, frozen=True):
    """Removals that wait for `gatewayd accept SERIAL`; until then nothing of theirs is taken away."""

    serial: int
    since: str
    count: int
    reason: str


class HoldView(HeldView, frozen=True):
    """`by_cause`: how many each source took away. `config/sources`, `config/local`, `kernel/elements` are the list
    of sources, local pins and filters, and unregistered elements found in the kernel. `registry/endpoints`:
    additions, which are not in force."""

    by_cause: Annotated[dict[str, int], gauge("held_removals",
        "Removals that wait for `gatewayd accept`, by cause. A cause is a source, `config/sources` (the list of"
        " sources), `config/local` (pins and filters), or `kernel/elements` (unregistered elements that a start"
        " found). `registry/endpoints`: endpoints of licensed providers, which are additions.",
        "`> 0`: look at `gatewayd status`, ask the registry, then accept or wait",
        label="cause")] = {}  # fmt: skip


def _count_held(held: HeldView | None) -> int:
    return 0 if held is None else held.count


class SourceView(msgspec.Struct, frozen=True):
    """`registrations`: usable records of the last good reading; `conflicts`: ids that an earlier source has too.

    `issued_at`: as signed. `not_fresh_since`: when it became overdue or stale; None where it is fresh, or was never
    read. `kept`: records that became unusable and stay as they were. `restored_at`: an earlier run saved then what
    is in force; None once the source gave it in this run. `store_error`: why the last good on disk is older than
    what is in force.
    """

    name: str
    url: str
    state: Annotated[SourceState, gauge("source_up", "1 when the last attempt to read the source succeeded.",
        "`== 0` for 15 min", read=equals("ok"))]  # fmt: skip
    last_success_at: Annotated[str | None, gauge("source_last_success_timestamp_seconds",
        "When the source was last read, Unix time; absent before the first time.",
        "older than an hour")] = None  # fmt: skip
    last_error: str | None = None
    next_attempt_at: str | None = None
    registrations: Annotated[int, gauge("source_registrations", "Usable records of the last good reading.",
        "falls by more than 5 %")] = 0  # fmt: skip
    rejected: int = 0
    rejected_by_code: Annotated[dict[str, int], gauge("source_rejected_records",
        "Records of the last good reading that are not used, by reason code.",
        "`> 0`: the registry has to mend them", label="code")] = {}  # fmt: skip
    conflicts: Annotated[int, gauge("source_conflicts",
        "Records not used because an earlier source has the same id.", "rises")] = 0  # fmt: skip
    signed: bool = False
    session: str | None = None
    serial: Annotated[int | None, gauge("source_serial",
        "Serial of the last reading; absent for a source that has none.",
        "differs between gateways for an hour")] = None  # fmt: skip
    issued_at: Annotated[str | None, gauge("source_issued_timestamp_seconds",
        "When the registry issued what is in force, as signed, Unix time; absent without a signature.",
        "older than a day, or than the registry promises")] = None  # fmt: skip
    freshness: Annotated[FreshnessState, gauge("source_stale",
        "1 when nothing has confirmed the source for longer than it holds."
        " With `registry.on_stale: observe` nothing is enforced then.",
        "`== 1`; before it, the age of the last success", read=equals("stale"))] = "fresh"  # fmt: skip
    not_fresh_since: str | None = None
    held: Annotated[HeldView | None, gauge("source_held_removals",
        "Removals of the source that wait for `gatewayd accept`. Until then the registrations stay in force.",
        "`> 0`, as `gatewayd_held_removals`", read=_count_held)] = None  # fmt: skip
    kept: Annotated[int, gauge("source_kept_records",
        "Records that became unusable and stay in force as they were.",
        "`> 0` for a day: the registry has to mend them")] = 0  # fmt: skip
    refused: Annotated[int, counter("source_readings_refused",
        "Readings refused as a whole: they come to more elements than `registry.max_elements`, or than half of the"
        " memory allows.", "rises: the registry in force is old")] = 0  # fmt: skip
    restored_at: str | None = None
    store_error: Annotated[str | None, gauge("source_store_failed",
        "1 when the last good on disk is older than what is in force.",
        "`== 1` for 15 min: a restart without the registry would begin with older registrations",
        read=is_there)] = None  # fmt: skip


class ClockView(msgspec.Struct, frozen=True):
    """The time of this host's clock, and the time that is believed.

    `doubt`: None where the clock is believed; `why` says the reason. `used`: windows close and `enforce_from` arms
    by it; None where the time is not known yet, and nothing closes. `opens_by`: windows open by it; None where each
    window that has not ended is open. `offset_s`: of the host's clock to `used`, positive = ahead.
    """

    host: str | None = None
    used: str | None = None
    opens_by: str | None = None
    doubt: Annotated[Literal["ahead", "behind"] | None, gauge("clock_doubted",
        "1 while this host's clock is not believed.",
        "`== 1` for 10 min: mend NTP, see [operations.md](operations.md#clocks)",
        read=is_there)] = None  # fmt: skip
    why: str | None = None
    offset_s: Annotated[float, gauge("clock_offset_seconds",
        "How far this host's clock is ahead of the believed time; 0 where it is believed.")] = 0.0  # fmt: skip
    confirmed: Annotated[bool, gauge("clock_confirmed",
        "1 when NTP (as the kernel reports it) or a signed notification confirms the time.",
        "`== 0` for an hour: windows close late")] = False  # fmt: skip


class PolicyView(msgspec.Struct, frozen=True):
    """The policy whose rules the kernel has. `text`: mode, canary, scope, interfaces, limit and drain. `by`: what
    brought it there: `start`, `schedule` (`enforce_from`, `enforce_until`), `staleness` of sources, `trip`, the
    end of a trial, or who asked for the reload or the mode."""

    text: str
    canary_percent: Annotated[int, gauge("policy_canary_percent",
        "Share of client addresses for which the mode takes effect.", "differs from what was agreed")]  # fmt: skip
    since: Annotated[str, gauge("policy_since_timestamp_seconds", "When the policy in force came there, Unix time.",
        "changes when no change was planned")]  # fmt: skip
    by: str


class UnprogrammedView(msgspec.Struct, frozen=True):
    """A registration that cannot be in the kernel, and why."""

    id: str
    reason: str


def fold_categories(counts: Mapping[str, int]) -> dict[str, int]:
    """The MAX_CATEGORIES largest, and the rest as `other`."""
    largest = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_CATEGORIES]
    folded = {name: counts[name] for name in largest}
    rest = sum(counts.values()) - sum(folded.values())
    return {**folded, "other": folded.get("other", 0) + rest} if rest else folded


class RegistrationCounts(msgspec.Struct, frozen=True):
    """`unprogrammed_examples`: at most MAX_EXAMPLES."""

    total: int = 0
    effective: Annotated[int, gauge("registrations_effective", "Registrations that are active and in their window.",
        "falls by more than 5 % in 10 min")] = 0  # fmt: skip
    by_category: Annotated[dict[str, int], gauge("registrations",
        "Registrations, of every status; beyond 200 categories the smallest are `other`.",
        "falls by more than 5 % in 10 min", label="category")] = {}  # fmt: skip
    by_status: Annotated[dict[str, int], gauge("registrations_by_status", "Registrations, by status.",
        "revoked rises by hundreds at once", label="status")] = {}  # fmt: skip
    unprogrammed: Annotated[int, gauge("registrations_unprogrammed",
        "Registrations past a bound, which the kernel does not have; `gatewayd status` names them.",
        "`> 0`")] = 0  # fmt: skip
    in_former_form: Annotated[int, gauge("registrations_in_former_form",
        "Of these, registrations whose former form is in the kernel until there is room; not ready.",
        "`> 0`")] = 0  # fmt: skip
    unprogrammed_examples: tuple[UnprogrammedView, ...] = ()
    next_window_change_at: str | None = None


class CounterView(msgspec.Struct, frozen=True):
    """A counter of the kernel's, since the table was made."""

    packets: int
    bytes: int


def counter_views(readings: Mapping[str, CounterReading]) -> dict[str, CounterView]:
    """By name, sorted."""
    return {name: CounterView(each.packets, each.size_bytes) for name, each in sorted(readings.items())}


def _by_class(kind: str, number: str) -> Callable[[dict[str, CounterView]], dict[str, int]]:
    """One number of the counters `<class>_<kind>`, by class."""

    def read(counters: dict[str, CounterView]) -> dict[str, int]:
        ending = f"_{kind}"
        return {
            name.removesuffix(ending): getattr(each, number)
            for name, each in counters.items()
            if name.endswith(ending)
        }

    return read


_NEIGHBOURS: Final = gauge(
    "mark_neighbours",
    "Rules of other programs that set the ct mark over our bits, or copy our bits into the packet mark.",
    "`> 0` for 5 min: see [Beside another firewall](operations.md#beside-another-firewall)",
    label="kind",
)


class MarksView(msgspec.Struct, frozen=True):
    """Marks that came from elsewhere, and those that no longer say what is true.

    `unexplained`: as of the latest scan. `waiting_at_most_s`: how long a flow of `waiting` is left alone.
    `neighbours`: at most MAX_NEIGHBOURS.
    """

    carried: Annotated[int, counter("connections_carried",
        "Connections with a mark of ours that another program put in (conntrackd).")] = 0  # fmt: skip
    not_believed: Annotated[int, counter("marks_not_believed",
        "Marks of the other gateway or of another program that judged registered flows; they were cleared.",
        "rises in peace: which program? With two gateways: do both have the same registry?")] = 0  # fmt: skip
    unexplained: Annotated[int, gauge("flows_unexplained",
        "Flows marked registered that no registration or binding here explains.")] = 0  # fmt: skip
    waiting: Annotated[int, gauge("flows_waiting",
        "Of them, flows that are left alone until accounting has named their address.",
        "`> 0` for two interim intervals: accounting does not reach this gateway")] = 0  # fmt: skip
    waiting_at_most_s: float = 0.0
    draining: Annotated[int, gauge("flows_draining", "Flows that are registered no more and whose drain runs.")] = 0
    writers: Annotated[int, _NEIGHBOURS.of("writes")] = 0
    leakers: Annotated[int, _NEIGHBOURS.of("leaks")] = 0
    neighbours: tuple[Neighbour, ...] = ()


class AggregateView(msgspec.Struct, frozen=True):
    """Unregistered flows from a /24 or /48, as far as they were logged. `services`: words, the most used first."""

    prefix: str
    flows: int
    services: tuple[str, ...] = ()


class SameNameView(msgspec.Struct, frozen=True):
    """Several NAS that call themselves `name`, for sessions of the same ids. `sources`: where they speak from."""

    name: str
    sources: tuple[str, ...]


class SubscribersView(msgspec.Struct, frozen=True):
    """`left`: they go when their time is over, or when an accounting record names their address. `same_names`: they
    are told apart by their source address alone. `listener` None: bindings come by the API and lists."""

    sessions: Annotated[int, gauge("sessions", "Live sessions, of all subscribers.",
        "falls by a half in 10 min; near `subscribers.max_sessions`")] = 0  # fmt: skip
    restored: Annotated[int, gauge("sessions_restored",
        "Of them, sessions from before a restart that no accounting record has confirmed since.",
        "`> 0` for longer than three interim intervals")] = 0  # fmt: skip
    bindings: Annotated[int, gauge("bindings", "Addresses of registered subscribers.",
        "falls by a half in 10 min")] = 0  # fmt: skip
    conflicting: Annotated[int, counter("bindings_conflicting",
        "Times that a subscriber's address was bound in another registrant's own prefix (/24, /48 or longer)."
        " Both pass.",
        "rises: the registry and the NAS disagree; `gatewayd bindings` names both")] = 0  # fmt: skip
    left: Annotated[int, gauge("bindings_left",
        "Elements of bindings that a start found in the kernel and the journal does not know."
        " They go when their time is over, or when an accounting record names their address.",
        "`> 0`: the journal was damaged; look at the disk")] = 0  # fmt: skip
    same_names: Annotated[tuple[SameNameView, ...], gauge("nas_same_name",
        "Names that several NAS use for sessions of the same ids; `gatewayd status` says from where."
        " They are told apart by their source address.", "`> 0`: give each a name of its own",
        read=len)] = ()  # fmt: skip
    counts: SessionCounts = msgspec.field(default_factory=SessionCounts)
    tombstones: Annotated[int, gauge("session_tombstones",
        "Ended sessions and released addresses; a late record does not raise them.")] = 0  # fmt: skip
    tombstones_lost: Annotated[int, counter("session_tombstones_lost",
        "Tombstones forgotten before their time, at the bound.", "rises")] = 0  # fmt: skip
    refreshed: Annotated[int, counter("binding_refreshes",
        "Elements of bindings asserted again in the kernel before their timeout.",
        "stands still for an hour while there are bindings")] = 0  # fmt: skip
    unanswered: Annotated[int, counter("accounting_unanswered",
        "Accounting records taken and not answered, as the journal had no room; the sender repeats.",
        "rises")] = 0  # fmt: skip
    journal: JournalStats = msgspec.field(default_factory=JournalStats)
    listener: ListenerStats | None = None


def _label(value: str) -> dict[str, int]:
    return {value: 1}


class StatusView(msgspec.Struct, frozen=True):
    """Everything on one screen. `configured_mode` comes at `enforce_from` and ends at
    `enforce_until`. `reload_error`: why the latest reload
    was refused. `warnings`: dangers for registered customers from outside of gatewayd; one sentence each.

    `counters` by the kernel's names: `<class>_packets`, `<class>_flows`. `unregistered`: at most MAX_AGGREGATES.
    `held`: all that waits for `gatewayd accept`. `conntrack`: None while connection tracking is not loaded.
    `subscribers`: None where the configuration has no such section.
    """

    version: Annotated[str, gauge("build_info", "1, with the version as label.",
        "`count by (version)` differs between gateways for a day", label="version", read=_label)]  # fmt: skip
    started_at: Annotated[str, gauge("start_time_seconds", "When the daemon started, Unix time.",
        "`changes(…[1h]) > 2`: it restarts")]  # fmt: skip
    now: str
    mode: Annotated[Mode, gauge("mode", "1 for the mode in force.", label="mode", read=one_of(get_args(Mode)))]
    configured_mode: Annotated[Mode, gauge("configured_mode",
        "1 for the mode of the configuration, in force or not yet.",
        "differs from `gatewayd_mode` where nothing is scheduled", label="mode",
        read=one_of(get_args(Mode)))]  # fmt: skip
    enforce_from: str | None
    armed: Annotated[bool, gauge("armed", "1 when a mode other than observe is in force.",
        "differs from what was agreed for this gateway")]  # fmt: skip
    epoch: Annotated[int, gauge("epoch", "Epoch in which unregistered flows are judged.")]
    ready: Annotated[bool, gauge("ready", "1 when the allowlist is loaded and read back from the kernel.",
        "`== 0` for 2 min")]  # fmt: skip
    reasons: tuple[str, ...]
    sources: Annotated[tuple[SourceView, ...], Each("source", "name")]
    registrations: RegistrationCounts
    kernel: Stats
    counters: Annotated[dict[str, CounterView], counter("packets",
        "Packets counted by the rules, by class. `uncrossed`: in scope, between no two named sides.",
        "registered falls to a half of the same hour last week; rejected or uncrossed rises after a change",
        label="class", read=_by_class("packets", "packets")), counter("bytes", "Bytes counted, by class.",
        label="class", read=_by_class("packets", "bytes")), counter("flows",
        "Flows judged by the rules, by class; a flow counts with its first packet, a refused one with each.",
        "unregistered rises as registered falls: an address changed", label="class",
        read=_by_class("flows", "packets"))]  # fmt: skip
    watch: WatchView
    unregistered: tuple[AggregateView, ...] = ()
    interfaces: InterfacesView = InterfacesView()
    interfaces_unmatched: Annotated[tuple[str, ...], gauge("interfaces_unmatched",
        "Names of `policy.interfaces` that no interface has now.", "`> 0` for 5 min", read=len)] = ()  # fmt: skip
    enforce_until: str | None = None
    reload_error: Annotated[str | None, gauge("config_reload_failed",
        "1 while the latest reload is refused and the former settings are in force.", "`== 1` for 5 min",
        read=is_there)] = None  # fmt: skip
    overrides: OverrideCounts = OverrideCounts()
    policy: PolicyView | None = None
    warnings: tuple[str, ...] = ()
    marks: MarksView = MarksView()
    conntrack: ConntrackSize | None = None
    held: tuple[HoldView, ...] = ()
    clock: ClockView = ClockView()
    loop: LoopView = LoopView()
    log_lost: Annotated[int, counter("log_records_lost", "Records of the log that its output did not take in time.",
        "rises: who reads the output?")] = 0  # fmt: skip
    report_failures: Annotated[dict[str, int], counter("report_failures",
        "Faults of tasks that only report (watchdog and readiness, counters, surroundings).",
        "rises: a fault of gatewayd; please report it", label="task")] = {}  # fmt: skip
    listeners: Annotated[tuple[ListenerView, ...], Each("listener", "name")] = ()
    near_misses: NearMissView = msgspec.field(default_factory=NearMissView)
    state_files: Annotated[tuple[StateFileView, ...], Each("file", "name")] = ()
    subscribers: SubscribersView | None = None
    assertions: AssertionsView = AssertionsView()
    providers: ProvidersView = ProvidersView()
    provisional: ProvisionalView = ProvisionalView()
    arming: ArmingView = ArmingView()
    host: HostView = HostView()
    impact: ImpactView = msgspec.field(default_factory=ImpactView)
