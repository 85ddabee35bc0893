"""What is wrong, each with its reason and the command that mends it, in an order that does not move. Pure.

The kinds stand in the order of their danger to registered traffic. Of a kind, MAX_OF_KIND are listed, and the rest
is one line with the command that has all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

import msgspec

from gatewayd.api.near_misses import NearMissList
from gatewayd.api.standing import HeldList, RejectedList
from gatewayd.api.status import SourceView, StatusView
from gatewayd.api.text import ago, count, some, span
from gatewayd.model.moment import parse_time
from gatewayd.registry.state import ENDPOINTS
from gatewayd.trial.views import describe_notice, describe_order

Tone = Literal["good", "doubtful", "bad", "plain"]

MAX_OF_KIND: Final = 6


class Problem(msgspec.Struct, frozen=True):
    """`kind`: a few words. `subject`: an id, a source or a file, "" where there is one alone. `mend`: a command, or
    a change of the registry; "" where the reason says it. `link`: a question that explains the subject, or "".
    `count`: how many things it stands for."""

    kind: str
    subject: str
    reason: str
    mend: str
    tone: Tone
    link: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Findings:
    """The lists behind the status, as far as they are shown."""

    held: HeldList
    rejected: RejectedList
    near_misses: NearMissList


def problems_of(view: StatusView, findings: Findings) -> tuple[Problem, ...]:
    """All that a status and its lists complain of."""
    groups: tuple[tuple[Iterable[Problem], int, str], ...] = (
        (_assertions(view), view.assertions.failing, "gatewayd status"),
        (_arming(view), 0, ""),
        (_not_ready(view), 0, ""),
        (_not_programmed(view), view.registrations.unprogrammed, "gatewayd status --json"),
        (_sources(view), 0, "gatewayd status"),
        (_held(view, findings.held), 0, "gatewayd held"),
        (_near_misses(view, findings.near_misses), findings.near_misses.total, "gatewayd impact near-misses"),
        (_rejected(findings.rejected), findings.rejected.total, "gatewayd registrations --rejected"),
        (_overrides(view), 0, "gatewayd status"),
        (_surroundings(view), 0, "gatewayd status"),
        (_host(view), 0, "gatewayd doctor"),
        (_disk(view), 0, "gatewayd status"),
    )
    return tuple(each for found, total, command in groups for each in _bounded(found, total, command))


def _bounded(found: Iterable[Problem], total: int, command: str) -> Iterator[Problem]:
    """`total`: how many there are, where `found` has not all of them."""
    listed = list(found)
    yield from listed[:MAX_OF_KIND]
    more = max(total, len(listed)) - MAX_OF_KIND
    if listed and more > 0:
        last = listed[MAX_OF_KIND - 1]
        yield Problem(last.kind, "", f"and {more:,} more", command, last.tone, count=more)


def _assertions(view: StatusView) -> Iterator[Problem]:
    mend = "gatewayd mode observe" if view.armed else "gatewayd changes"
    for each in view.assertions.examples:
        reason = f"{each.kind.replace('_', ' ')}: {each.reason} ({each.comment}, {each.place})"
        yield Problem("assertion fails", each.name, reason, mend, "bad")


def _arming(view: StatusView) -> Iterator[Problem]:
    arming = view.arming
    if arming.trip is not None:
        yield Problem("tripped", "", f"observe since {arming.trip.at}: {arming.trip.text}", "gatewayd rearm", "bad")
    if arming.reverting is not None:
        reason = f"to {arming.reverting}: the kernel does not have it yet"
        yield Problem("reverting", "", reason, "gatewayd trial", "bad")
    for each in arming.notices:
        if each.kind != "ended":
            reason = describe_notice(each).removesuffix("; gatewayd trial --ack")
            yield Problem("reverted", "", reason, "gatewayd trial --ack", "bad")
    if arming.not_saved is not None:
        yield Problem("mode not saved", "", arming.not_saved, "df -h /var/lib/gatewayd", "bad")
    if order := describe_order(arming):
        reason = order.removesuffix("; gatewayd mode --write")
        yield Problem("mode differs", "", reason, "gatewayd mode --write", "doubtful")


def _not_ready(view: StatusView) -> Iterator[Problem]:
    for reason in view.reasons:
        yield Problem("not ready", "", reason, "gatewayd status", "bad")
    if view.kernel.not_in_kernel and not any("kernel" in each for each in view.reasons):
        reason = (
            f"{count(view.kernel.not_in_kernel, 'registered element')}; {view.kernel.last_error or 'on its way'}"
        )
        yield Problem("not in kernel", "", reason, "journalctl -u gatewayd -n 50", "bad")
    if view.reload_error:
        yield Problem("reload refused", "", view.reload_error, "gatewayd check", "bad")


def _not_programmed(view: StatusView) -> Iterator[Problem]:
    for each in view.registrations.unprogrammed_examples:
        mend = f"gatewayd registrations {each.id}"
        yield Problem("not programmed", each.id, each.reason, mend, "bad", each.id)


def _sources(view: StatusView) -> Iterator[Problem]:
    for each in view.sources:
        yield from _source(view.now, each)


def _source(now: str, source: SourceView) -> Iterator[Problem]:
    error = source.last_error or "no answer yet"
    read = f"last read {ago(now, source.last_success_at)}"
    if source.freshness == "stale":
        yield Problem("source stale", source.name, f"{read}; {error}", "gatewayd sync", "bad")
    elif source.state == "failing":
        yield Problem("source failing", source.name, f"{error}; {read}", "gatewayd sync", "bad")
    elif source.freshness == "overdue":
        yield Problem("source overdue", source.name, f"{read}; {error}", "gatewayd sync", "doubtful")
    if source.store_error:
        reason = f"a restart would begin with older registrations: {source.store_error}"
        yield Problem("not saved", source.name, reason, "df -h /var/lib/gatewayd", "bad")
    if source.kept:
        reason = f"{count(source.kept, 'record')} became unusable, in force as before"
        yield Problem("records kept", source.name, reason, "gatewayd registrations --rejected", "doubtful")


def _held(view: StatusView, held: HeldList) -> Iterator[Problem]:
    names = some([each.registrant for each in held.registrants] or [each.id for each in held.items], none="")
    for hold in view.held:
        for cause, number in sorted(hold.by_cause.items()):
            noun = "addition" if cause == ENDPOINTS else "removal"
            whose = f" ({names})" if names and cause != ENDPOINTS else ""
            held_s = max(parse_time(view.now) - parse_time(hold.since), 0)
            reason = f"{count(number, noun)}{whose} for {span(held_s)}: {hold.reason}"
            yield Problem("held", cause, reason, f"gatewayd held; gatewayd accept {hold.serial}", "bad")


def _near_misses(view: StatusView, found: NearMissList) -> Iterator[Problem]:
    """Of the latest, by id: a line that comes again does not change its place."""
    for each in sorted(found.items[:MAX_OF_KIND], key=lambda each: (each.id, each.reason)):
        company = f"{each.registrant}: " if each.registrant else ""
        flows = f"{count(each.flows, 'flow')}, the last {ago(view.now, each.last_seen)}"
        yield Problem("near miss", each.id, f"{company}{each.why}; {flows}", each.mend, "doubtful", each.id)


def _rejected(found: RejectedList) -> Iterator[Problem]:
    for each in found.items:
        field = f" ({each.field})" if each.field else ""
        reading = "a delta to serial" if each.is_delta else "serial"
        reason = f"{each.source}, line {each.line} of {reading} {each.serial}: {each.code}{field}"
        yield Problem("rejected", each.id or "no id", reason, f"registry: mend line {each.line}", "doubtful")


def _overrides(view: StatusView) -> Iterator[Problem]:
    for each in view.overrides.faults:
        place, _, fault = each.partition(": ")
        yield Problem("local file", place, f"{fault}; its former content is in force", "gatewayd check", "bad")
    for ending in view.provisional.soonest:
        reason = f"provisional, ends {ago(view.now, ending.ends_at)}"
        mend = f"registry: register {ending.id} for good"
        yield Problem("ending", ending.id, reason, mend, "doubtful", ending.id)


def _surroundings(view: StatusView) -> Iterator[Problem]:
    judged = view.interfaces.reason
    if judged is not None:
        yield Problem("interfaces", "", judged, "ip -br link", "bad")
    for each in view.warnings:
        if each != judged:
            yield Problem("warning", "", each, "gatewayd doctor", "bad")
    clock = view.clock
    if clock.doubt is not None:
        reason = f"this host says {clock.host}, {abs(clock.offset_s):,.0f} s {clock.doubt}: {clock.why}"
        yield Problem("clock", "", f"{reason}; windows go by {clock.used}", "timedatectl timesync-status", "bad")


def _host(view: StatusView) -> Iterator[Problem]:
    """What `gatewayd doctor` would say, as far as the daemon sees it; notes are left to it."""
    for each in view.host.findings:
        if each.severity != "note":
            tone: Tone = "bad" if each.severity == "fault" else "doubtful"
            mend = each.command or each.setting or "gatewayd doctor"
            yield Problem(f"host {each.severity}", each.check, f"{each.what}: {each.why}", mend, tone)


def _disk(view: StatusView) -> Iterator[Problem]:
    journal = None if view.subscribers is None else view.subscribers.journal
    if journal is not None and journal.suspended_for is not None:
        reason = f"answers to accounting are not on disk: {journal.suspended_for}"
        yield Problem("journal suspended", "", reason, "df -h /var/lib/gatewayd", "bad")
    failing = (each for each in view.state_files if each.last_error is not None)
    for each in islice(failing, MAX_OF_KIND):
        reason = f"{each.last_error}; no traffic depends on it"
        yield Problem("not written", f"{each.name}.sqlite", reason, "df -h /var/lib/gatewayd", "doubtful")
