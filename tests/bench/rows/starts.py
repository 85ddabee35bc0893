"""From the Start of a registered subscriber to his first packet through the gateway, under other accounting.

The Start is sent from loopback of the gateway; from that moment on a packet of a new flow leaves the new address
every half of a millisecond. Measured is the time to the first that comes out at the far end, so up to half of a
millisecond of it is the probe's own. The answer to the Start is waited for as well. One Start at a time.

The peer is what an ISP writes in an afternoon: a process of pyrad that runs `nft add element` for a Start of a
registered number before it answers it. It keeps nothing on disk, knows no services, far ends or IPv6, and after a
restart it knows nobody.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.demo.cast import FAR
from gatewayd.lab.lab import Lab
from gatewayd.lab.packets import build_packet, parse_flow
from gatewayd.lab.tap import Tap
from gatewayd.lab.traffic import flow_of
from gatewayd.lab.world import mobile_number
from gatewayd.model import format_address
from gatewayd.subscribers.journal_file import JournalFile
from gatewayd.subscribers.journal_rows import SessionRow
from gatewayd.subscribers.service import JOURNAL_NAME
from tests.bench.accounting import Load, Place, Sending, Sent, build_radius_sender
from tests.bench.clock import percentile
from tests.bench.numbered import read_numbers
from tests.bench.pyrad_server import SET, TABLE
from tests.bench.radius_servers import pyrad_server
from tests.bench.registrants import PORT
from tests.bench.row import Context, Figures, Measure, Row, Subject, check
from tests.bench.rows.accounting import REGISTRATIONS, numbered_of, scale_of
from tests.bench.subscriber_daemon import MOBILE, SubscriberDaemon, subscriber_daemon
from tests.support.nas import START, Nas

STARTS, BACKGROUND = 500, 2000
PROBE_EVERY_S, PAUSE_S, LOOK_S = 0.0005, 0.005, 0.0001
REPEAT_S, PATIENCE_S = 2.0, 12.0
_FIRST_ADDRESS = 0x0AC80000
"""10.200.0.0, where the sender's sessions are not."""
_MAX_S = 120.0
_RULES = f"""table inet {TABLE} {{
    set {SET} {{
        type ipv4_addr
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr @{SET} accept
        udp dport {PORT} reject with icmpx admin-prohibited
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """Seconds from the Start to its answer, and to the first packet through; how many were sent till then."""

    answered_s: float
    passed_s: float
    probes: int
    repeats: int


class Prober:
    """Sends Starts and looks for the first packet. Its process has the sender's core."""

    def __init__(self, lab: Lab, nas: Nas) -> None:
        self._nas = nas
        self._far = Tap(lab.outside)
        with lab.inside.namespace.entered():
            self._near = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def close(self) -> None:
        self._far.close()
        self._near.close()

    def admit(self, session: str, number: int, address: bytes) -> Admission:
        """Raises RuntimeError if there is no answer, or no packet, in PATIENCE_S."""
        source = format_address(address)
        request = self._nas.encode(START, session, f"+{mobile_number(number)}", source, at=int(time.time()))
        for _ in self._far.packets():
            pass
        answered_s = passed_s = 0.0
        probes = repeats = 0
        began = due = time.perf_counter()
        repeat_at = began + REPEAT_S
        self._nas.send(request)
        while not (answered_s and passed_s):
            now = time.perf_counter()
            check(now - began < PATIENCE_S, f"a Start without {'a packet' if answered_s else 'an answer'}")
            if not answered_s and now >= repeat_at:
                repeats += 1
                repeat_at = now + REPEAT_S
                self._nas.send(request)
            if not passed_s and now >= due:
                packet = build_packet(flow_of(source, FAR, f"udp/{PORT}", 10_000 + probes % 50_000), b"probe")
                self._near.sendto(packet, (FAR, 0))
                probes += 1
                due = max(due + PROBE_EVERY_S, now)
            # Asleep in between: a core that is always busy is taken away by the host that has it.
            left_s = REPEAT_S if passed_s else max(0.0, due - time.perf_counter())
            waiting: list[Nas | Tap] = [self._nas, self._far]
            ready = select.select(waiting, [], [], left_s)[0]
            if self._nas in ready and not answered_s and self._nas.answer(request, LOOK_S) is not None:
                answered_s = time.perf_counter() - began
            if self._far in ready and not passed_s and self._has_passed(address):
                passed_s = time.perf_counter() - began
        return Admission(answered_s, passed_s, probes, repeats)

    def _has_passed(self, address: bytes) -> bool:
        """ICMP errors to the address are not its packets."""
        flows = [parse_flow(packet) for packet in self._far.packets()]
        return any(flow is not None and flow.source == address for flow in flows)


def gatewayd(context: Context) -> Figures:
    """In mode reject. What was answered is in the journal of a daemon that is killed after the last answer."""
    with subscriber_daemon(context, numbered_of(context)) as daemon:
        daemon.start_pinned()
        with Nas(daemon.lab.gateway, "bng-starts") as nas:
            figures = _measure(context, daemon.lab, nas, lambda last: _check_journal(daemon, last))
    return figures


def script(context: Context) -> Figures:
    with Lab(customer_prefixes=(MOBILE,)) as lab:
        lab.gateway.run(["nft", "-f", "-"], input=_RULES)
        with (
            pyrad_server(lab.gateway.command, context.scratch, numbered_of(context).numbers),
            Nas(lab.gateway, "bng-starts") as nas,
        ):
            return _measure(context, lab, nas, lambda _: None)


def _measure(context: Context, lab: Lab, nas: Nas, finish: Callable[[list[str]], None]) -> Figures:
    """`finish`: told the sessions at the moment of the last answer."""
    is_whole = context.size >= REGISTRATIONS
    numbers = read_numbers(numbered_of(context).open_numbers)[: STARTS if is_whole else 5]
    rate = BACKGROUND if is_whole else scale_of(context.size).rate
    place: Place = lab.gateway.command
    load = Load(scale_of(context.size).subscribers, numbered_of(context).numbers, rate, _MAX_S)
    prober = Prober(lab, nas)
    cores = os.sched_getaffinity(0)
    try:
        with Sending(build_radius_sender(context.material), place, load) as background:
            os.sched_setaffinity(0, {max(cores)})
            admissions = [_admit(prober, number, which) for which, number in enumerate(numbers)]
            others = background.stop()
        _admit(prober, numbers[0], len(numbers))
        finish([_session(which) for which in range(len(numbers) + 1)])
    finally:
        os.sched_setaffinity(0, cores)
        prober.close()
    return _figures(admissions, others)


def _admit(prober: Prober, number: int, which: int) -> Admission:
    time.sleep(PAUSE_S)
    return prober.admit(_session(which), number, (_FIRST_ADDRESS + which).to_bytes(4, "big"))


def _session(which: int) -> str:
    return f"start-{which}"


def _check_journal(daemon: SubscriberDaemon, sessions: list[str]) -> None:
    daemon.end(signal.SIGKILL)
    journal = JournalFile(daemon.directory / JOURNAL_NAME)
    rows = journal.open()
    journal.close()
    kept = {row.value.session for row in rows if isinstance(row.value, SessionRow)}
    lost = [each for each in sessions if each not in kept]
    check(not lost, f"{len(lost)} Starts were answered and are not in the journal")


def _figures(admissions: list[Admission], others: Sent) -> Figures:
    passed, answered = ([getattr(each, name) for each in admissions] for name in ("passed_s", "answered_s"))
    return {
        "p50_s": percentile(passed, 0.5),
        "p99_s": percentile(passed, 0.99),
        "longest_s": max(passed),
        "answer_p50_s": percentile(answered, 0.5),
        "answer_p99_s": percentile(answered, 0.99),
        "starts": len(admissions),
        "repeats": sum(each.repeats for each in admissions),
        "others": others.sent / others.seconds,
        "unanswered": others.unanswered,
    }


STARTS_ROW = Row(
    "starts",
    "RADIUS Start to the first packet of a new flow through, beside 2,000 other requests/s, 31 k registrations",
    (
        Measure("p50_s", "s", "passing p50"),
        Measure("p99_s", "s", "p99"),
        Measure("longest_s", "s", "longest"),
        Measure("answer_p50_s", "s", "answered p50"),
        Measure("answer_p99_s", "s", "p99"),
        Measure("starts", "", "Starts"),
        Measure("repeats", "", "repeated"),
        Measure("others", "/s", "others sent"),
        Measure("unanswered", "", "of them unanswered"),
    ),
    (
        Subject("gatewayd", gatewayd, needs="gcc"),
        Subject("script: pyrad Server, nft add element for each Start", script, needs="gcc"),
    ),
    own_sizes=(REGISTRATIONS,),
    max_runs=1,
)
