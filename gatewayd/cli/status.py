"""`gatewayd status`: one screen, what is wrong first."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gatewayd.api.views import SourceView, StatusView
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.output import (
    BAD,
    DOUBTFUL,
    GOOD,
    Line,
    ago,
    count,
    print_headline,
    print_json,
    print_lines,
    size,
    some,
)


@click.command("status")
@daemon_options
def command(endpoint: Endpoint, as_json: bool) -> None:
    """Show what the daemon is doing, on one screen.

    The first line says whether the kernel has the allowlist and, if not, why. Exit status 0 when the daemon
    answers, ready or not; a probe should ask /readyz.
    """
    body = endpoint.get("/v1/status")
    view = endpoint.parse(body, StatusView)
    if as_json:
        print_json(body)
        return
    print_headline(headline(view), GOOD if view.ready else BAD)
    print_lines(describe_status(view))


def headline(view: StatusView) -> str:
    return "READY" if view.ready else f"NOT READY: {'; '.join(view.reasons) or 'no reason given'}"


def describe_status(view: StatusView) -> Iterator[Line]:
    """Everything under the first line."""
    yield Line("mode", *_mode(view))
    if view.reload_error:
        yield Line("reload refused", view.reload_error, BAD)
    yield from _registrations(view)
    for source in view.sources:
        yield from _source(view.now, source)
    yield from _kernel(view)
    yield from _traffic(view)
    yield from _watch(view)
    for number, aggregate in enumerate(view.unregistered):
        label = "" if number else "unregistered"
        services = some(aggregate.services, none="no service")
        yield Line(label, f"{aggregate.prefix}: {count(aggregate.flows, 'flow')}, {services}")
    yield Line("daemon", f"gatewayd {view.version}, started {ago(view.now, view.started_at)}, now {view.now}")


def _mode(view: StatusView) -> tuple[str, str]:
    facts: list[str] = [view.mode]
    if view.mode == "observe":
        facts.append("nothing is blocked")
    if view.configured_mode != view.mode:
        when = f"from {view.starts_at} ({ago(view.now, view.starts_at)})" if view.starts_at else "not in force"
        facts.append(f"configured is {view.configured_mode}, {when}")
    return ", ".join(facts), DOUBTFUL if view.armed else ""


def _registrations(view: StatusView) -> Iterator[Line]:
    counts = view.registrations
    categories = sorted(counts.by_category.items(), key=lambda item: (-item[1], item[0]))
    yield Line("registrations", f"{counts.effective:,} effective of {counts.total:,}{_tally(categories)}")
    idle = [(status, number) for status, number in sorted(counts.by_status.items()) if status != "active"]
    if idle:
        yield Line("", f"not active{_tally(idle)}")
    if counts.unprogrammed:
        yield Line("", f"NOT PROGRAMMED: {count(counts.unprogrammed, 'registration')}", BAD)
        for example in counts.unprogrammed_examples[:5]:
            yield Line("", f"  {example.id}: {example.reason}")
    if counts.next_window_change_at:
        yield Line("", f"next window opens or closes {ago(view.now, counts.next_window_change_at)}")


def _source(now: str, source: SourceView) -> Iterator[Line]:
    facts = [
        source.state.upper() if source.state == "failing" else source.state,
        count(source.registrations, "registration"),
        f"last read {ago(now, source.last_success_at)}",
    ]
    if source.next_attempt_at:
        facts.append(f"next {ago(now, source.next_attempt_at)}")
    style = {"ok": "", "waiting": DOUBTFUL, "failing": BAD}[source.state]
    yield Line("source", f"{source.name}: {', '.join(facts)}", style)
    if source.last_error and source.state != "ok":
        yield Line("", source.last_error, style)
    if source.rejected:
        codes = sorted(source.rejected_by_code.items(), key=lambda item: (-item[1], item[0]))
        yield Line("", f"{count(source.rejected, 'record')} rejected{_tally(codes)}", DOUBTFUL)
    if source.conflicts:
        yield Line("", f"{count(source.conflicts, 'record')} of ids that an earlier source has", DOUBTFUL)


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
    if kernel.last_error:
        yield Line("", f"last error: {kernel.last_error}", DOUBTFUL)


def _traffic(view: StatusView) -> Iterator[Line]:
    """The kernel's counters: `<class>_flows` count first packets, `<class>_packets` all of them."""
    flows, packets = [], []
    for name, counter in view.counters.items():
        word, _, kind = name.rpartition("_")
        if kind == "flows":
            flows.append(f"{counter.packets:,} {word}")
        elif kind == "packets":
            packets.append(f"{counter.packets:,} {word} ({size(counter.bytes)})")
    yield Line("flows", ", ".join(flows) or "not counted yet")
    yield Line("packets", ", ".join(packets) or "not counted yet")


def _watch(view: StatusView) -> Iterator[Line]:
    watch = view.watch
    yield Line(
        "watch",
        f"{count(watch.flows_tracked, 'flow')} tracked, {count(watch.packets, 'packet event')}, "
        f"{count(watch.connections, 'connection event')}, {count(watch.late_admissions, 'late admission')}",
    )
    troubles = [
        f"{number:,} {word}"
        for number, word in (
            (watch.overruns, "lost"),
            (watch.malformed, "malformed"),
            (watch.flows_evicted, "evicted"),
            (watch.resyncs, "resyncs"),
        )
        if number
    ]
    if troubles:
        yield Line("", f"events: {', '.join(troubles)}", DOUBTFUL)


def _tally(numbers: list[tuple[str, int]]) -> str:
    """`: bank 3, embassy 1`, or nothing."""
    words = ", ".join(f"{word} {number:,}" for word, number in numbers)
    return f": {words}" if words else ""
