"""The page as values: what it says first, what is wrong, the numbers, the tables. JSON as they stand. Pure.

The sentences are made here, once: the server writes them as HTML, and a script draws the same JSON again.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gatewayd.api.status import StatusView
from gatewayd.api.text import ago, count, size, some
from gatewayd.page.problems import Findings, Problem, Tone, problems_of
from gatewayd.trial.views import TrialView


class Countdown(msgspec.Struct, frozen=True):
    """A trial that is pending. `left_s`: at `now` of the overview. `then`: what comes at its end."""

    text: str
    left_s: int
    then: str


class Fact(msgspec.Struct, frozen=True):
    """A number with its name; `note` is smaller print."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


class Table(msgspec.Struct, frozen=True):
    """Rows of texts, as many as there are columns; `tones` has one for each row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[Tone, ...] = ()
    note: str = ""


class Overview(msgspec.Struct, frozen=True):
    """`word`: READY or NOT READY, `headline` why or how much, and `looks` how much is to be looked at. `host`: the
    name of the gateway."""

    host: str
    version: str
    now: str
    word: str
    headline: str
    tone: Tone
    looks: str
    looks_tone: Tone
    mode: str
    mode_note: str
    mode_tone: Tone
    policy: str
    trial: Countdown | None
    problems: tuple[Problem, ...]
    facts: tuple[Fact, ...]
    tables: tuple[Table, ...]


def overview_of(host: str, view: StatusView, findings: Findings) -> Overview:
    problems = problems_of(view, findings)
    number = sum(each.count for each in problems)
    bad = sum(each.count for each in problems if each.tone == "bad")
    return Overview(
        host=host,
        version=view.version,
        now=view.now,
        word="READY" if view.ready else "NOT READY",
        headline=_headline(view),
        tone="bad" if not view.ready or view.assertions.failing else "good",
        looks=_looks(number, bad),
        looks_tone="bad" if bad else "doubtful" if problems else "good",
        mode=view.mode + _canary(view),
        mode_note=_mode_note(view),
        mode_tone="doubtful" if view.armed else "plain",
        policy="" if view.policy is None else f"{view.policy.text}; by {view.policy.by}",
        trial=None if view.arming.pending is None else _countdown(view.arming.pending),
        problems=problems,
        facts=tuple(_facts(view)),
        tables=tuple(_tables(view)),
    )


def _headline(view: StatusView) -> str:
    if not view.ready:
        return "; ".join(view.reasons) or "no reason given"
    return f"{view.registrations.effective:,} registrations in force, read back from the kernel"


def _looks(problems: int, bad: int) -> str:
    if not problems:
        return "nothing is wrong"
    return f"{count(problems, 'thing')} to look at" + (f", {bad:,} of them urgent" if bad else "")


def _canary(view: StatusView) -> str:
    percent = 100 if view.policy is None else view.policy.canary_percent
    return "" if percent == 100 or not view.armed else f", canary {percent} %"


def _mode_note(view: StatusView) -> str:
    if view.mode == "observe":
        note = "nothing is blocked"
    else:
        note = {"mark": "unregistered flows pass, marked", "limit": "unregistered flows are limited"}.get(
            view.mode, "unregistered flows in scope are refused"
        )
    if view.configured_mode == view.mode:
        return f"{note}, until {view.enforce_until}" if view.enforce_until and view.armed else note
    when = f" from {view.enforce_from}" if view.enforce_from else ""
    return f"{note}; the file says {view.configured_mode}{when}"


def _countdown(trial: TrialView) -> Countdown:
    if not trial.is_applied:
        return Countdown(f"TRIAL of {trial.to}", trial.left_s, "being applied")
    if trial.kind == "timed":
        return Countdown(f"TRIAL of {trial.to}", trial.left_s, f"then {trial.way_back}")
    return Countdown(f"TRIAL of {trial.to}", trial.left_s, f"then {trial.way_back}, unless gatewayd confirm")


def _facts(view: StatusView) -> Iterator[Fact]:
    counts, kernel = view.registrations, view.kernel
    yield Fact("registrations in force", f"{counts.effective:,}", f"of {counts.total:,}")
    yield Fact(
        "kernel elements", f"{kernel.elements_desired - kernel.not_in_kernel:,}",
        f"{kernel.not_in_kernel:,} missing, {kernel.surplus:,} surplus",
        "bad" if kernel.not_in_kernel else "plain",
    )  # fmt: skip
    yield Fact("registered flows now", f"{view.watch.flows_tracked:,}", _packets(view, "registered"))
    unregistered = view.counters.get("unregistered_flows")
    yield Fact(
        "unregistered flows", f"{0 if unregistered is None else unregistered.packets:,}",
        _packets(view, "unregistered"),
    )  # fmt: skip
    yield Fact(
        "late admissions", f"{view.watch.late_admissions:,}", f"{count(kernel.repairs, 'repair')} of the table"
    )
    if view.subscribers is not None:
        bindings = f"{view.subscribers.bindings:,} addresses bound"
        yield Fact("sessions", f"{view.subscribers.sessions:,}", bindings)
    if view.conntrack is not None:
        yield Fact("connection tracking", f"{view.conntrack.fill:.0%}", f"{view.conntrack.entries:,} entries")
    if view.assertions.total:
        holding = view.assertions.total - view.assertions.failing
        failing: Tone = "bad" if view.assertions.failing else "plain"
        yield Fact("assertions that hold", f"{holding:,}", f"of {view.assertions.total:,}", failing)
    yield Fact("verified", ago(view.now, kernel.last_verified_at), f"started {ago(view.now, view.started_at)}")


def _packets(view: StatusView, word: str) -> str:
    found = view.counters.get(f"{word}_packets")
    return "" if found is None else f"{size(found.bytes)} so far"


def _tables(view: StatusView) -> Iterator[Table]:
    tones: dict[str, Tone] = {"failing": "bad", "waiting": "doubtful", "stale": "bad", "overdue": "doubtful"}
    yield Table(
        "Sources",
        ("source", "state", "registrations", "last read", "next", "position"),
        tuple(
            (
                each.name,
                each.state if each.freshness == "fresh" else f"{each.state}, {each.freshness}",
                f"{each.registrations:,}",
                ago(view.now, each.last_success_at),
                ago(view.now, each.next_attempt_at) if each.next_attempt_at else "",
                f"signed, serial {each.serial}" if each.signed else "",
            )
            for each in view.sources
        ),
        tuple(tones.get(each.freshness, tones.get(each.state, "plain")) for each in view.sources),
    )
    sides = (("inside", view.interfaces.inside), ("outside", view.interfaces.outside))
    patterns = [(side, each) for side, found in sides for each in found]
    if patterns:
        yield Table(
            "Interfaces",
            ("name", "side", "there are", "such as"),
            tuple((each.pattern, side, f"{each.count:,}", some(each.names, none="-")) for side, each in patterns),
            tuple("plain" if each.count else "bad" for _, each in patterns),
        )
    categories = sorted(view.registrations.by_category.items(), key=lambda item: (-item[1], item[0]))
    yield Table(
        "Registrations by category",
        ("category", "registrations"),
        tuple((name, f"{number:,}") for name, number in categories[:8]),
        note=f"and {len(categories) - 8:,} more categories" if len(categories) > 8 else "",
    )
    yield Table(
        "Unregistered traffic",
        ("prefix", "flows", "services"),
        tuple((each.prefix, f"{each.flows:,}", some(each.services, none="-")) for each in view.unregistered[:8]),
        note="" if view.unregistered else "No unregistered flow was seen.",
    )
