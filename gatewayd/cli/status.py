"""`gatewayd status`: one screen, what is wrong first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from gatewayd.api.status import ClockView, HeldView, MarksView, SourceView, StatusView
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.mode import describe_changes, headline_of
from gatewayd.cli.output import (
    BAD,
    DOUBTFUL,
    GOOD,
    Line,
    ago,
    count,
    headline_text,
    line_text,
    numbers_of,
    print_headline,
    print_json,
    print_lines,
    size,
    some,
    span,
)
from gatewayd.cli.status_assertions import describe_assertions, failing_in_a_word
from gatewayd.cli.status_subscribers import describe_subscribers
from gatewayd.doctor.findings import HostView, count_wrong, names_of
from gatewayd.model.moment import parse_time
from gatewayd.reconcile.dataplane import Found
from gatewayd.registry.layers import OverrideCounts
from gatewayd.registry.state import ENDPOINTS
from gatewayd.watch.interfaces import InterfacesView

if TYPE_CHECKING:
    from rich.text import Text

_MAX_LISTED: Final = 5
"""Of a kind that stand on the screen, a line each: faults of overrides, names of NAS, rules of others. `--json` has
more."""


@click.command("status")
@click.option("--watch", "is_watch", is_flag=True, help="Draw it again every 2 s, until Ctrl-C.")
@daemon_options
def command(endpoint: Endpoint, is_watch: bool, as_json: bool) -> None:
    """Show what the daemon is doing, on one screen.

    The first line says whether the kernel has the allowlist and, if not, why. Exit status 0 when the daemon
    answers, ready or not; a probe should ask /readyz.
    """
    if is_watch and as_json:
        raise click.UsageError("--watch draws a screen, and --json prints once: give one of them")
    if is_watch:
        from gatewayd.cli.status_watch import watch

        watch(endpoint, _texts)
        return
    body = endpoint.get("/v1/status")
    view = endpoint.parse(body, StatusView)
    if as_json:
        print_json(body)
        return
    print_headline(*headline(view))
    print_lines(describe_status(view))


def _texts(view: StatusView) -> list[Text]:
    return [headline_text(*headline(view)), *map(line_text, describe_status(view))]


def headline(view: StatusView) -> tuple[str, str]:
    """What there is to know if nothing else is read, and its style."""
    text = failing_in_a_word(view.assertions)
    text += "READY" if view.ready else f"NOT READY: {'; '.join(view.reasons) or 'no reason given'}"
    changes = headline_of(view.arming)
    text += f"; {changes}" if changes else ""
    failing = [each.name for each in view.sources if each.state == "failing"]
    stale = [each.name for each in view.sources if each.freshness == "stale"]
    for word, names in (("FAILING", failing), ("STALE", stale)):
        if names:
            text += f"; {word}: source {', '.join(names)}"
    return (
        text,
        BAD if not view.ready or view.assertions.failing else DOUBTFUL if failing or stale or changes else GOOD,
    )


def describe_status(view: StatusView) -> Iterator[Line]:
    """Everything under the first line."""
    yield from describe_assertions(view.now, view.assertions)
    yield Line("mode", *_mode(view))
    yield from describe_changes(view.arming)
    if view.policy is not None:
        yield Line("policy", f"{view.policy.text}; since {ago(view.now, view.policy.since)}, by {view.policy.by}")
    for number, warning in enumerate(view.warnings):
        yield Line("" if number else "WARNING", warning, BAD)
    yield from _clock(view.clock)
    if view.reload_error:
        yield Line("reload refused", view.reload_error, BAD)
    for source in view.sources:
        yield from _held(view.now, source.name, source.held)
    sources = {source.name for source in view.sources}
    for hold in view.held:
        for cause in sorted(hold.by_cause.keys() - sources):
            held = HeldView(hold.serial, hold.since, hold.by_cause[cause], hold.reason)
            yield from _held(view.now, cause, held)
    yield from _registrations(view)
    for source in view.sources:
        yield from _source(view.now, source)
    yield from _overrides(view.overrides)
    if view.subscribers is not None:
        yield from describe_subscribers(view.subscribers)
    yield from _kernel(view)
    yield from _interfaces(view.interfaces)
    yield from _traffic(view)
    yield from _host(view.host)
    yield from _watch(view)
    yield from _marks(view.marks)
    yield from _state_files(view)
    for number, aggregate in enumerate(view.unregistered):
        label = "" if number else "unregistered"
        services = some(aggregate.services, none="no service")
        yield Line(label, f"{aggregate.prefix}: {count(aggregate.flows, 'flow')}, {services}")
    yield Line("daemon", f"gatewayd {view.version}, started {ago(view.now, view.started_at)}, now {view.now}")


def _host(host: HostView) -> Iterator[Line]:
    if host.has_findings:
        number = count_wrong(host.findings)
        yield Line("host", f"{count(number, 'finding')}: {names_of(host.findings)} (gatewayd doctor)", DOUBTFUL)
    if host.error is not None:
        yield Line("" if host.has_findings else "host", f"the latest look failed: {host.error}", DOUBTFUL)


def _mode(view: StatusView) -> tuple[str, str]:
    facts: list[str] = [view.mode]
    if view.mode == "observe":
        facts.append("nothing is blocked")
    if view.configured_mode != view.mode:
        facts.append(f"configured is {view.configured_mode}, {_when(view)}")
    elif view.enforce_until and view.armed:
        facts.append(f"until {view.enforce_until} ({ago(view.now, view.enforce_until)})")
    return ", ".join(facts), DOUBTFUL if view.armed else ""


def _when(view: StatusView) -> str:
    """When the mode of the configuration is in force, where it is not."""
    if view.enforce_until and parse_time(view.enforce_until) <= parse_time(view.now):
        return f"until {view.enforce_until} ({ago(view.now, view.enforce_until)})"
    if view.enforce_from:
        return f"from {view.enforce_from} ({ago(view.now, view.enforce_from)})"
    if view.arming.trip is not None:
        return "but the gateway has tripped"
    by_word = (view.arming.pending, view.arming.order, view.arming.reverting)
    return "not in force" if by_word == (None,) * 3 else "but an operator decided otherwise"


def _clock(clock: ClockView) -> Iterator[Line]:
    """Only where it is doubted: both times, and what that means."""
    if clock.doubt is None:
        return
    off = span(abs(clock.offset_s))
    yield Line("CLOCK", f"this host says {clock.host}, {off} {clock.doubt}: not believed, {clock.why}", BAD)
    opens = f"open by {clock.opens_by}" if clock.opens_by else "are open before they begin"
    opens = "open by it" if clock.opens_by == clock.used else opens
    yield Line("", f"windows close and `enforce_from` arms by {clock.used}, windows {opens}; mend NTP", DOUBTFUL)


def _registrations(view: StatusView) -> Iterator[Line]:
    counts = view.registrations
    categories = sorted(counts.by_category.items(), key=lambda item: (-item[1], item[0]))
    yield Line("registrations", f"{counts.effective:,} effective of {counts.total:,}{numbers_of(categories)}")
    idle = [(status, number) for status, number in sorted(counts.by_status.items()) if status != "active"]
    if idle:
        yield Line("", f"not active{numbers_of(idle)}")
    if counts.unprogrammed:
        yield Line("", f"NOT PROGRAMMED: {count(counts.unprogrammed, 'registration')}", BAD)
        for example in counts.unprogrammed_examples[:5]:
            yield Line("", f"  {example.id}: {example.reason}")
    yield from _extended(view)
    if counts.next_window_change_at:
        yield Line("", f"next window opens or closes {ago(view.now, counts.next_window_change_at)}")


def _extended(view: StatusView) -> Iterator[Line]:
    """Providers, whom every client may use, and what ends by itself."""
    providers, provisional = view.providers, view.provisional
    if providers.registrations:
        what = f"{count(providers.registrations, 'provider')} with {count(providers.endpoints, 'endpoint')}"
        yield Line("", f"{what}: every client's flow to one is registered", DOUBTFUL)
    if provisional.total:
        yield Line("", f"{provisional.total:,} provisional, {provisional.ending:,} of them end within 3 days")
    for each in provisional.soonest:
        yield Line("", f"  {each.id} ends {ago(view.now, each.ends_at)}", DOUBTFUL)


def _held(now: str, cause: str, held: HeldView | None) -> Iterator[Line]:
    """Nothing is cut by it, but only a human can end it: above all that is merely reported."""
    if held is not None:
        noun = "addition" if cause == ENDPOINTS else "removal"
        what = f"{count(held.count, noun)} of serial {held.serial} for {_since(now, held.since)}"
        yield Line("HELD", f"{cause}: {what} ({held.reason}); gatewayd accept {held.serial}", BAD)


def _source(now: str, source: SourceView) -> Iterator[Line]:
    facts = [
        source.state.upper() if source.state == "failing" else source.state,
        count(source.registrations, "registration"),
        f"last read {ago(now, source.last_success_at)}",
    ]
    if source.next_attempt_at:
        facts.append(f"next {ago(now, source.next_attempt_at)}")
    style = {"ok": "", "waiting": DOUBTFUL, "failing": BAD}[source.state]
    if source.freshness != "fresh":
        word = source.freshness.upper() if source.freshness == "stale" else source.freshness
        since = source.not_fresh_since
        facts.insert(1, f"{word} for {_since(now, since)}" if since else word)
    shown = BAD if source.freshness == "stale" else style or (DOUBTFUL if source.freshness == "overdue" else "")
    yield Line("source", f"{source.name}: {', '.join(facts)}", shown)
    if source.last_error and source.state != "ok":
        yield Line("", source.last_error, style)
    yield from _position(now, source)
    if source.restored_at:
        text = f"in force as an earlier run saved it on disk {ago(now, source.restored_at)}"
        yield Line("", text, shown)  # a source that has confirmed it since is as good as read
    if source.store_error:
        yield Line("", f"NOT SAVED: a restart would begin with older registrations: {source.store_error}", BAD)
    if source.kept:
        yield Line("", f"{count(source.kept, 'record')} became unusable, in force as before", DOUBTFUL)
    if source.rejected:
        codes = sorted(source.rejected_by_code.items(), key=lambda item: (-item[1], item[0]))
        yield Line("", f"{count(source.rejected, 'record')} rejected{numbers_of(codes)}", DOUBTFUL)
    if source.conflicts:
        yield Line("", f"{count(source.conflicts, 'record')} of ids that an earlier source has", DOUBTFUL)


def _position(now: str, source: SourceView) -> Iterator[Line]:
    """Where in the feed it is; nothing for a plain file."""
    facts = ["signed"] if source.signed else []
    if source.serial is not None:
        facts.append(f"serial {source.serial}" + (f" of session {source.session}" if source.session else ""))
    if source.issued_at:
        facts.append(f"issued {ago(now, source.issued_at)}")
    if facts:
        yield Line("", ", ".join(facts))


def _counted(*numbers: tuple[int, str]) -> list[str]:
    """Those that are not 0, each with its word."""
    return [f"{number:,} {word}" for number, word in numbers if number]


def _overrides(overrides: OverrideCounts) -> Iterator[Line]:
    if overrides == OverrideCounts():
        return
    facts = [count(overrides.pins, "pin"), count(overrides.filters, "filter")]
    facts += _counted(
        (overrides.filtered, "dropped"),
        (overrides.trimmed, "trimmed"),
        (overrides.shadowed, "shadowed"),
        (overrides.expired, "expired"),
    )
    yield Line("overrides", ", ".join(facts))
    if overrides.conflicts:
        text = f"{count(overrides.conflicts, 'pin')} over a filter or over other content of the registry"
        yield Line("", text, DOUBTFUL)
    if overrides.faults:
        yield Line("", f"FAULTS: {len(overrides.faults):,}, the former content of those files is in force", BAD)
        for fault in overrides.faults[:_MAX_LISTED]:
            yield Line("", f"  {fault}", BAD)
        if len(overrides.faults) > _MAX_LISTED:
            yield Line("", f"  and {len(overrides.faults) - _MAX_LISTED:,} more", BAD)


def _kernel(view: StatusView) -> Iterator[Line]:
    kernel = view.kernel
    if kernel.not_in_kernel:
        yield Line("kernel", f"NOT IN KERNEL: {count(kernel.not_in_kernel, 'registered element')}", BAD)
    label = "" if kernel.not_in_kernel else "kernel"
    yield Line(
        label,
        f"table {kernel.table}: {count(kernel.elements_desired, 'element')} in {count(kernel.sets, 'set')}, "
        f"{kernel.not_in_kernel:,} not in kernel, {kernel.surplus:,} surplus, {kernel.pending:,} pending",
    )
    yield Line(
        "",
        f"last commit {ago(view.now, kernel.last_commit_at)}, "
        f"verified {ago(view.now, kernel.last_verified_at)}, {count(kernel.transactions, 'transaction')}, "
        f"{count(kernel.failures, 'failure')}, {count(kernel.repairs, 'repair')}",
    )
    if view.conntrack is not None:
        share = view.conntrack.entries / view.conntrack.most if view.conntrack.most else 0.0
        text = f"connection tracking: {view.conntrack.entries:,} of {view.conntrack.most:,} entries ({share:.0%})"
        if view.conntrack.dropped:
            text += f", {count(view.conntrack.dropped, 'packet')} dropped because there was no room"
        yield Line("", text, DOUBTFUL if view.conntrack.dropped else "")
    if kernel.found is not None:
        yield Line("", found_at_start(kernel.found), DOUBTFUL)
    if kernel.retained:
        yield Line(
            "", f"{count(kernel.retained, 'element')} beyond the last good, until every source answers", DOUBTFUL
        )
    if kernel.last_error:
        yield Line("", f"last error: {kernel.last_error}", DOUBTFUL)


def found_at_start(found: Found) -> str:
    """Of an earlier run, before the kernel is read."""
    elements = "elements" if found.elements is None else count(found.elements, "element")
    rules = "no rules of ours" if found.mode is None else f"rules of mode {found.mode}"
    return f"in force from before this start, not read yet: {rules}, {elements} in {count(found.sets, 'set')}"


def _interfaces(interfaces: InterfacesView) -> Iterator[Line]:
    """How many have each name of `policy.interfaces`; nothing where none is named."""
    sides = [
        f"{side}: " + ", ".join(f"{f'{each.count:,}' if each.count else 'no'} {each.pattern}" for each in patterns)
        for side, patterns in (("inside", interfaces.inside), ("outside", interfaces.outside))
        if patterns
    ]
    if sides:
        is_whole = all(each.count for each in (*interfaces.inside, *interfaces.outside))
        yield Line("interfaces", "; ".join(sides), "" if is_whole else DOUBTFUL)


_OF_IMPACT: Final = {"reclassified", "unplaced", "repeated", "uncertain", "over_limit"}
"""Words that say something where they are not 0."""


def _traffic(view: StatusView) -> Iterator[Line]:
    """The kernel's counters: `<class>_flows` count first packets, `<class>_packets` all of them."""
    flows, packets = [], []
    for name, counter in view.counters.items():
        word, _, kind = name.rpartition("_")
        if word in _OF_IMPACT and not counter.packets:
            continue
        if kind == "flows":
            flows.append(f"{counter.packets:,} {word}")
        elif kind == "packets":
            packets.append(f"{counter.packets:,} {word} ({size(counter.bytes)})")
    yield Line("flows", ", ".join(flows) or "not counted yet")
    yield Line("packets", ", ".join(packets) or "not counted yet")


def _state_files(view: StatusView) -> Iterator[Line]:
    """Files that are not written. No traffic depends on them."""
    for each in view.state_files:
        if each.last_error is not None:
            waits = "it is left as it is" if each.state == "newer" else "its rows wait in memory"
            yield Line(
                "NOT WRITTEN",
                f"{each.name}.sqlite: {each.last_error}; {waits}, and no traffic depends on it",
                DOUBTFUL,
            )
        if each.lost:
            yield Line("", f"{count(each.lost, 'row')} of {each.name}.sqlite lost", DOUBTFUL)


def _watch(view: StatusView) -> Iterator[Line]:
    watch = view.watch
    yield Line(
        "watch",
        f"{count(watch.flows_tracked, 'flow')} tracked, {count(watch.packets, 'packet event')}, "
        f"{count(watch.connections, 'connection event')}, {count(watch.late_admissions, 'late admission')}",
    )
    troubles = _counted(
        (watch.overruns, "lost"),
        (watch.malformed, "malformed"),
        (watch.flows_evicted, "evicted"),
        (watch.resyncs, "resyncs"),
    )
    if troubles:
        yield Line("", f"events: {', '.join(troubles)}", DOUBTFUL)


def _marks(marks: MarksView) -> Iterator[Line]:
    """Nothing in peace."""
    facts = _counted(
        (marks.draining, "draining"),
        (marks.unexplained, "registered by their mark alone"),
        (marks.waiting, "waiting for accounting"),
        (marks.not_believed, "not believed"),
    )
    if facts:
        yield Line("marks", f"flows: {', '.join(facts)}", DOUBTFUL if marks.unexplained else "")
    for number, each in enumerate(marks.neighbours[:_MAX_LISTED]):
        text = f"{each.deed} our bits: {each.family} {each.table} {each.chain} handle {each.handle}"
        yield Line("" if facts or number else "marks", text, DOUBTFUL)


def _since(now: str, then: str) -> str:
    """How long it has lasted; clocks that were set back make it nothing, not less."""
    return span(max(parse_time(now) - parse_time(then), 0))
