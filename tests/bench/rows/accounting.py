"""RADIUS accounting as it comes day by day, of a million subscribers, at a rate that does not wait for answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.accounting import Load, Place, Sent, build_radius_sender, here, send
from tests.bench.daemon import cpu_of
from tests.bench.numbered import Numbered, numbered_registry
from tests.bench.radius_servers import freeradius, pyrad_server
from tests.bench.row import Context, Figures, Measure, Row, Subject, check
from tests.bench.subscriber_daemon import subscriber_daemon

REGISTRATIONS = 31_000
BY_NUMBER = 1 / 3
RATE, SECONDS, STEP_S = 5000, 20.0, 2.0
STEPS = (1000, 2000, 3000, 4000, 5000, 6000, 8000, 10000, 15000, 20000, 30000, 40000)
STEP_PATIENCE_MS = 2500
"""Of a step a request that needed one repeat is enough to fail it."""
STEP_P50_S = 0.05
"""Nor is a rate kept up with that fills the sockets' buffers for as long as the step lasts."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Of a run: the whole at REGISTRATIONS, and little to see that it works below."""

    subscribers: int
    rate: int
    seconds: float
    steps: tuple[int, ...]
    step_s: float


def scale_of(size: int) -> Scale:
    if size >= REGISTRATIONS:
        return Scale(1_000_000, RATE, SECONDS, STEPS, STEP_S)
    return Scale(32 * size, 200, 0.5, (200, 400), 0.2)


def numbered_of(context: Context) -> Numbered:
    return numbered_registry(context.material, context.size, BY_NUMBER)


def gatewayd(context: Context) -> Figures:
    """The whole daemon, in mode reject: sessions, bindings, kernel, journal, then the answer."""
    with subscriber_daemon(context, numbered_of(context)) as daemon:
        daemon.start_pinned()
        before = daemon.subscribers()
        figures = _measure(context, daemon.lab.gateway.command, daemon.pid, daemon.subscribers)
        after = daemon.subscribers()
        check(after["bindings"] > before["bindings"], "no registered subscriber got an address")
        check(not after["listener"]["rejected"] and not after["listener"]["unusable"], "requests were refused")
        return figures


def peer_freeradius(context: Context) -> Figures:
    with freeradius(here, context.scratch) as process:
        return _measure(context, here, process)


def peer_pyrad(context: Context) -> Figures:
    with pyrad_server(here, context.scratch) as process:
        return _measure(context, here, process)


def _measure(
    context: Context, place: Place, server: int, subscribers: Callable[[], dict[str, Any]] | None = None
) -> Figures:
    """The rate for its time, then the steps. `server`: process id. `subscribers`: what our status says."""
    scale = scale_of(context.size)
    program = build_radius_sender(context.material)
    load = Load(scale.subscribers, numbered_of(context).numbers, scale.rate, scale.seconds)
    groups = subscribers()["journal"]["groups"] if subscribers is not None else 0
    cpu_s = cpu_of(server)
    sent = send(program, place, load)
    check(sent.answered > 0, "no answer at all")
    figures = {
        "rate": sent.sent / sent.seconds,
        "unanswered": sent.unanswered,
        "repeats": sent.repeats,
        "p50_s": sent.p50_s,
        "p99_s": sent.p99_s,
        "cpu_s": (cpu_of(server) - cpu_s) / sent.answered,
    }
    if subscribers is not None:
        figures["groups"] = (subscribers()["journal"]["groups"] - groups) / sent.seconds
    steps = scale.steps
    has_held = is_kept_up(sent)
    if has_held:
        steps = tuple(rate for rate in steps if rate > scale.rate)
    highest = scale.rate if has_held else 0
    for rate in _held(program, place, replace(load, seconds=scale.step_s, give_up_ms=STEP_PATIENCE_MS), steps):
        highest = rate
    return {**figures, "highest": highest}


def is_kept_up(sent: Sent) -> bool:
    return not sent.unanswered and not sent.repeats and sent.p50_s <= STEP_P50_S


def _held(program: Path, place: Place, load: Load, steps: tuple[int, ...]) -> Iterator[int]:
    """Rates from the lowest on, up to the first that is too much twice: the machine may have been elsewhere."""
    for number, rate in enumerate(steps):
        seeds = (2 + 2 * number, 3 + 2 * number)
        if not any(is_kept_up(send(program, place, replace(load, rate=rate, seed=seed))) for seed in seeds):
            return
        yield rate


ACCOUNTING = Row(
    "accounting",
    "RADIUS accounting of 1 M subscribers, 5,000 requests/s for 20 s, 31 k registrations",
    (
        Measure("rate", "/s", "sent", more_is_better=True),
        Measure("unanswered", "", "unanswered for good"),
        Measure("repeats", "", "repeated after 2 s"),
        Measure("p50_s", "s", "answered p50"),
        Measure("p99_s", "s", "p99"),
        Measure("cpu_s", "s", "processor time a request"),
        Measure("groups", "/s", "groups written"),
        Measure("highest", "/s", "highest rate kept up with", more_is_better=True),
    ),
    (
        Subject("gatewayd", gatewayd, needs="gcc"),
        Subject("FreeRADIUS, detail file", peer_freeradius, needs="freeradius"),
        Subject("script: pyrad Server, sessions in a dict", peer_pyrad, needs="gcc"),
    ),
    own_sizes=(REGISTRATIONS,),
    max_runs=1,
)
