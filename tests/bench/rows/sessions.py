"""What live sessions cost: memory, a restart with them in the journal, a NAS that loses all of its own."""

from __future__ import annotations

import time
from functools import partial

from gatewayd.subscribers.service import JOURNAL_NAME
from tests.bench.accounting import Load, Sending, build_radius_sender, fill
from tests.bench.daemon import HealthWatch
from tests.bench.numbered import numbered_registry
from tests.bench.row import Context, Figures, Measure, Row, Subject, check
from tests.bench.rows.accounting import BY_NUMBER, REGISTRATIONS
from tests.bench.subscriber_daemon import SubscriberDaemon, subscriber_daemon
from tests.support.lab_daemon import holds
from tests.support.nas import Nas

SESSIONS = 1_000_000
WINDOW = 512
CALM_S = 5.0
REBOOTED = 50_000
GRACE_S = 3
OTHERS_RATE, OTHERS, LEAD_S = 1000, 20_000, 1.0
_LOOK_EVERY_S = 0.1
_GONE_WITHIN_S = 60.0
_MAX_S = 100.0


def memory(context: Context) -> Figures:
    """Every registration by number, each with a live session; the other sessions are of nobody registered."""
    registered = min(REGISTRATIONS, max(1, context.size // 32))
    numbered = numbered_registry(context.material, registered, 1.0)
    with subscriber_daemon(context, numbered) as daemon:
        daemon.start_pinned()
        time.sleep(CALM_S if context.size >= SESSIONS else 0.0)
        before_mb, cpu_s = daemon.memory_mb()["VmRSS"], daemon.cpu_s()
        load = Load(context.size, numbered.numbers, window=WINDOW)
        sent = fill(build_radius_sender(context.material), daemon.lab.gateway.command, load)
        cpu_s = daemon.cpu_s() - cpu_s
        time.sleep(CALM_S if context.size >= SESSIONS else 0.0)
        after_mb = daemon.memory_mb()["VmRSS"]
        check(daemon.subscribers()["sessions"] == context.size, f"{daemon.subscribers()['sessions']} sessions")
        return {
            "before_mb": before_mb,
            "rss_mb": after_mb,
            "bytes": max(0.0, after_mb - before_mb) * 1e6 / context.size,
            "registered": numbered.count(),
            "rate": sent.answered / sent.seconds,
            "cpu_s": cpu_s / sent.answered,
        }


def restart(context: Context, *, is_reboot: bool) -> Figures:
    """N sessions of N registered subscribers. `is_reboot`: the kernel has nothing of them."""
    numbered = numbered_registry(context.material, context.size, 1.0)
    with subscriber_daemon(context, numbered) as daemon:
        daemon.start_pinned()
        load = Load(context.size, numbered.numbers, window=WINDOW)
        fill(build_radius_sender(context.material), daemon.lab.gateway.command, load)
        elements = daemon.steady_elements()
        check(elements >= context.size, f"{elements} elements for {context.size} sessions")
        daemon.end()
        if is_reboot:
            daemon.lab.gateway.run(["nft", "flush", "ruleset"])
        journal_mb = (daemon.directory / JOURNAL_NAME).stat().st_size / 1e6
        ready_s = daemon.start_pinned()
        kernel_s = ready_s + daemon.wait_elements(elements)
        found = daemon.subscribers()
        check(found["sessions"] == found["restored"] == context.size, f"{found['restored']} were restored")
        return {"s": kernel_s, "ready_s": ready_s, "cpu_s": daemon.cpu_s(), "journal_mb": journal_mb}


def reboot(context: Context, *, grace_s: int) -> Figures:
    """All N sessions of one NAS end by its Accounting-On, while the other NAS go on."""
    registered = min(REGISTRATIONS, context.size)
    numbered = numbered_registry(context.material, registered, BY_NUMBER)
    program = build_radius_sender(context.material)
    with subscriber_daemon(context, numbered, grace=f"{grace_s}s") as daemon:
        daemon.start_pinned()
        place = daemon.lab.gateway.command
        bare = daemon.steady_elements()
        fill(program, place, Load(context.size, numbered.numbers, nas=1, window=WINDOW))
        check(daemon.steady_elements() > bare, "no registered subscriber got an address")
        others = Load(
            OTHERS, None, OTHERS_RATE if context.size >= REBOOTED else 100, _MAX_S, first_nas=1, nas=19,
            unlisted=6_000_000, place=4_000_000,
        )  # fmt: skip
        with Sending(program, place, others) as background, HealthWatch(daemon.lab) as health:
            time.sleep(LEAD_S)
            # A NAS is a name and a place: radius_sender.c has the first of them send from here.
            with Nas(daemon.lab.gateway, "bng-00.core.example", source="127.0.1.1") as nas:
                began = time.perf_counter()
                nas.restart()
                answered_s = time.perf_counter() - began
            gone_s = _wait_ended(daemon, context.size, began)
            daemon.wait_elements(bare)
            sent = background.stop()
            health.stop()
        return {
            "answered_s": answered_s,
            "s": gone_s,
            **health.figures(),
            "others_p99_s": sent.p99_s,
            "others_longest_s": sent.longest_s,
            "unanswered": sent.unanswered,
        }


def _wait_ended(daemon: SubscriberDaemon, count: int, began: float) -> float:
    """Seconds since `began` until so many sessions have ended by the restart."""

    def ended() -> bool:
        time.sleep(_LOOK_EVERY_S)
        found: int = daemon.subscribers()["counts"]["ended_by_restart"]
        return found >= count

    check(holds(ended, _GONE_WITHIN_S), f"sessions are left {_GONE_WITHIN_S:g} s after the restart of their NAS")
    return time.perf_counter() - began


SESSIONS_ROW = Row(
    "sessions",
    "memory of N live sessions, one of 32 of a registered subscriber",
    (
        Measure("before_mb", "MB", "before"),
        Measure("rss_mb", "MB", "with them"),
        Measure("bytes", "bytes", "a session"),
        Measure("registered", "", "of them registered"),
        Measure("rate", "/s", "Starts answered", more_is_better=True),
        Measure("cpu_s", "s", "processor time a Start"),
    ),
    (Subject("gatewayd", memory, needs="gcc"),),
    own_sizes=(SESSIONS,),
    max_runs=1,
)

BINDINGS = Row(
    "bindings",
    "start to ready and all bindings in the kernel, N sessions of registered subscribers in the journal",
    (
        Measure("s", "s", "all in the kernel"),
        Measure("ready_s", "s", "ready"),
        Measure("cpu_s", "s", "processor time"),
        Measure("journal_mb", "MB", "journal"),
    ),
    (
        Subject("gatewayd, after a reboot", partial(restart, is_reboot=True), needs="gcc"),
        Subject("gatewayd, restart, kernel filled", partial(restart, is_reboot=False), needs="gcc"),
    ),
    own_sizes=(REGISTRATIONS,),
    max_runs=1,
)

REBOOT = Row(
    "reboot",
    "a NAS with N sessions says Accounting-On, beside 1,000 requests/s of other NAS",
    (
        Measure("answered_s", "s", "answered"),
        Measure("s", "s", "all sessions ended"),
        Measure("health_p99_s", "s", "/healthz p99"),
        Measure("health_max_s", "s", "/healthz slowest"),
        Measure("others_p99_s", "s", "others answered p99"),
        Measure("others_longest_s", "s", "slowest"),
        Measure("unanswered", "", "others unanswered"),
    ),
    (
        Subject("gatewayd, no grace", partial(reboot, grace_s=0), needs="gcc"),
        Subject(f"gatewayd, grace {GRACE_S} s", partial(reboot, grace_s=GRACE_S), needs="gcc"),
    ),
    own_sizes=(REBOOTED,),
    max_runs=1,
)
