"""Registered traffic of every kind while a fault is made: none of it may be missing afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from typing import Protocol

from gatewayd.demo.cast import ELSEWHERE, FAR
from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.stream import Stream, StreamReport
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow, format_address
from tests.soak.world import FAR_IPV6, handshakes, inbound, traffic
from tests.support.lab_daemon import holds

RATE_PPS = 200.0
"""Of each stream."""
_PACKETS = 60_000
"""Of a stream before a new flow comes again: five minutes."""
_HANDSHAKE_PAUSE_S = 0.2
_HANDSHAKE_DEADLINE_S = 60.0
BOUNDED_DEADLINE_S = 5.0
"""Where losses are expected: nothing waits for long for what does not come."""


@dataclass(frozen=True, slots=True)
class Account:
    """Packets and handshakes of registered flows. `refused`: by an answer of the gateway. `lost`: neither arrived
    nor refused. `notes`: which they were."""

    sent: int
    lost: int
    refused: int
    notes: tuple[str, ...] = ()

    def __add__(self, other: Account) -> Account:
        return Account(
            self.sent + other.sent, self.lost + other.lost, self.refused + other.refused, self.notes + other.notes
        )


class Traffic(Protocol):
    """What runs while a fault is made."""

    def flows(self) -> AbstractContextManager[None]:
        """Traffic flows, and is counted, within it."""
        ...

    def wait_sent(self, packets: int) -> None:
        """Until so many more of each kind are under way, whatever becomes of them."""

    def wait_arrivals(self, packets: int) -> None:
        """Until so many more of each kind have arrived. Raises AssertionError."""

    def account(self) -> Account:
        """Of the last `flows`, which is over."""
        ...


@cache
def outbound_flows() -> list[Flow]:
    """Opened by the customers: a lasting flow and a new one by turns, both families, blocks of ports too."""
    return traffic(_PACKETS)


@cache
def inbound_flows() -> list[Flow]:
    """Opened by the far end: a lasting flow and a new one by turns."""
    lasting = [
        flow_of(FAR, "39.32.0.3", "udp/4500", 1000),
        flow_of(ELSEWHERE, "39.32.64.9", "gre"),
        flow_of(FAR_IPV6, "2400:adc1:7::5", "udp/1194", 1000),
        flow_of(FAR, "39.32.0.4", "esp"),
    ]

    def new() -> Iterator[Flow]:
        for number in range(_PACKETS):
            port = 2000 + number % 60_000
            yield flow_of(FAR, f"39.32.0.{8 + number % 8}", "udp/500", port)
            yield flow_of(ELSEWHERE, "39.36.0.1", "udp/51820", port)
            yield flow_of(FAR_IPV6, f"2400:adc1:7::{number + 16:x}", "udp/1194", port)
            yield flow_of(f"2001:db8:7::{number + 16:x}", "2400:adc0:100::11", "udp/51820", port)

    fresh = islice(new(), _PACKETS // 2)
    return list(chain.from_iterable((lasting[number % len(lasting)], flow) for number, flow in enumerate(fresh)))


class Handshakes:
    """TCP handshakes, and single packets from the far end, again and again in a thread of its own."""

    def __init__(self, lab: Lab, deadline_s: float) -> None:
        self._lab = lab
        self._deadline_s = deadline_s
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._account = Account(0, 0, 0)
        self._thread = threading.Thread(target=self._run, name="handshakes", daemon=True)

    def stop(self) -> Account:
        """Raises what ended the thread, if anything did."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._account

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._try(handshakes(), "customers")
                self._try(inbound(), "internet")
                self._stopping.wait(_HANDSHAKE_PAUSE_S)
        except BaseException as failure:
            self._failure = failure

    def _try(self, flows: list[Flow], start: Side) -> None:
        outcomes = probe(self._lab, flows, start=start, deadline_s=self._deadline_s)
        found = zip(flows, outcomes, strict=True)
        notes = tuple(f"{outcome}: {words_of(flow)}" for flow, outcome in found if outcome != "passed")
        self._account += Account(len(flows), outcomes.count("lost"), outcomes.count("rejected"), notes)


class RegisteredTraffic:
    """Two streams and handshakes; see Traffic. `deadline_s`: after it, a handshake is lost."""

    def __init__(self, lab: Lab, deadline_s: float = _HANDSHAKE_DEADLINE_S) -> None:
        self._lab = lab
        self._deadline_s = deadline_s
        self._streams: list[Stream] = []
        self._handshakes: Handshakes | None = None
        self._account = Account(0, 0, 0)

    @contextmanager
    def flows(self) -> Iterator[None]:
        outwards = Stream(self._lab, outbound_flows(), rate_pps=RATE_PPS)
        inwards = Stream(self._lab, inbound_flows(), rate_pps=RATE_PPS, start="internet", answered=True)
        self._streams, self._handshakes = [outwards, inwards], Handshakes(self._lab, self._deadline_s)
        with outwards, inwards:
            try:
                self._handshakes.start()
                yield
            finally:
                found = self._handshakes.stop()
        reports = [each.stop() for each in self._streams]
        self._account = found + _account_of(reports[0], outbound_flows()) + _account_of(reports[1], inbound_flows())
        unanswered = reports[1].arrived - reports[1].answered
        self._account += Account(
            reports[1].arrived, unanswered, 0, (f"{unanswered} answers",) if unanswered else ()
        )

    def wait_sent(self, packets: int) -> None:
        wanted = [each.sent + packets for each in self._streams]
        assert holds(lambda: all(each.sent >= most for each, most in zip(self._streams, wanted, strict=True)))

    def wait_arrivals(self, packets: int) -> None:
        for each in self._streams:
            assert each.wait_for_arrivals(packets, 30.0), "no registered packet arrives"

    def account(self) -> Account:
        return self._account


def _account_of(report: StreamReport, flows: list[Flow]) -> Account:
    rejected = set(report.rejected)
    notes = tuple(
        f"packet {number} of {report.sent}, {_fate(number in rejected)}: {words_of(flows[number % len(flows)])}"
        for number in report.lost[:5]
    )
    return Account(report.sent, len(report.lost) - len(rejected), len(rejected), notes)


def _fate(is_refused: bool) -> str:
    return "refused" if is_refused else "lost"


def words_of(flow: Flow) -> str:
    """For people."""
    ends = f"{format_address(flow.source)} > {format_address(flow.destination)}"
    return f"{ends} protocol {flow.protocol} ports {flow.source_port} {flow.destination_port}"
