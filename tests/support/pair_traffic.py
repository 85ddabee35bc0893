"""Numbered packets through a pair of gateways, and where each lost one went.

A packet that reaches no gateway is VRRP's own loss: the shared address is at no gateway, or at one that is gone.
One that a living gateway took in and did not send out, or refused, is lost *beyond* that, and its gateway is to
blame. Taps at both ends, before each gateway and behind it tell which.
"""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Self

from gatewayd.lab.lab import End, Side
from gatewayd.lab.packets import is_icmp, refused_packet
from gatewayd.lab.tap import Tap, Tokens
from gatewayd.model import Flow, reverse_flow
from tests.support.lab_daemon import holds
from tests.support.pair import Member, Pair

RATE_PPS: Final = 300.0
GRACE_S: Final = 5.0
"""After the last packet, for those under way; spent only where one is lost."""
DYING_S: Final = 0.25
"""A packet that a gateway took in so long before its end may end with it."""
_PACKETS_AT_ONCE: Final = 32
_MAX_WAIT_S: Final = 0.02
_LATEST: Final = 200
"""Packets that may be under way when the traffic stops."""
_PORTS: Final = range(20_000, 30_000)
"""Of new flows, below those that the kernel gives."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A flow, or many: with `is_new`, each packet has another port at the opener. The other end answers each."""

    name: str
    flow: Flow
    opener: Side = "customers"
    is_new: bool = False
    is_registered: bool = True


@dataclass(slots=True)
class Sent:
    """A packet. `taken_by` and `sent_by`: the gateways that it went into and came out of, a bit each."""

    lane: Lane
    flow: Flow
    side: Side
    at_s: float
    taken_by: int = 0
    sent_by: int = 0
    arrived_s: float = 0.0
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class PairReport:
    """Of registered packets: `gap` reached no living gateway; `beyond`, by lane, were lost for another reason, and
    `refused` of these were refused. `gap_s`: the longest that a lane was silent where such a packet was lost.
    Of unregistered ones: `leaked` arrived."""

    sent: int = 0
    gap: int = 0
    gap_s: float = 0.0
    beyond: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unregistered: int = 0
    leaked: Counter[str] = field(default_factory=Counter)


class _GatewayTap(Tap):
    """Before or behind a gateway: numbers of the packets that are for its interface, or come from it."""

    def __init__(self, end: End, bit: int, *, is_before: bool) -> None:
        super().__init__(end)
        self.bit, self.is_before = bit, is_before

    def numbers(self, tokens: Tokens) -> Iterator[int]:
        with suppress(BlockingIOError):
            while True:
                try:
                    packet, (_, _, kind, *_) = self._capture.recvfrom(2048)
                except BlockingIOError:
                    raise
                except OSError:
                    continue  # ENETDOWN, once: the cable is dead
                # A bridge floods what it cannot place, and what was sent to the other gateway is not for this one.
                if self.is_before and kind != socket.PACKET_HOST:
                    continue
                number = None if is_icmp(packet) else tokens.number_in(packet)
                if number is not None:
                    yield number


class PairTraffic:
    """Sends from a thread of its own until `stop`, or the end of `with`; then `report` is final."""

    def __init__(self, pair: Pair, lanes: Sequence[Lane], *, rate_pps: float = RATE_PPS) -> None:
        self._lanes = tuple(lanes)
        self._interval_s = 1 / rate_pps
        self._tokens = Tokens()
        self._sent: list[Sent] = []
        self._ports = itertools.cycle(_PORTS)
        self._passed: Counter[int] = Counter()
        self._of_lane: Counter[str] = Counter()
        self._enforced_s = 0.0
        self._gone: list[tuple[int, float, float]] = []
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pair-traffic", daemon=True)
        with ExitStack() as stack:
            self._ends: dict[Side, Tap] = {
                "customers": stack.enter_context(Tap(pair.inside)),
                "internet": stack.enter_context(Tap(pair.outside)),
            }
            self._gateways = [
                stack.enter_context(_GatewayTap(end, 1 << member.number, is_before=is_before))
                for member in pair.members
                for is_before, ends in ((True, member.arriving), (False, member.leaving))
                for end in ends
            ]
            self._poll = select.poll()
            for each in (*self._ends.values(), *self._gateways):
                self._poll.register(each, select.POLLIN)
            self._stack = stack.pop_all()

    # -- for the case ------------------------------------------------------------------------------------------

    def wait_through(self, member: Member, rounds: int = 3) -> None:
        """Until each registered lane had time for so many packets and answers through this gateway."""
        bit, wanted = 1 << member.number, 2 * rounds * sum(lane.is_registered for lane in self._lanes)
        before = self._passed[bit]
        found = holds(lambda: self._failure is not None or self._passed[bit] - before >= wanted, deadline_s=60.0)
        if self._failure is not None:
            raise self._failure
        assert found, f"{self._passed[bit] - before} packets came through gw{member.number}, not {wanted}"

    def wait_arrivals(self, lane: Lane, count: int = 5) -> None:
        """Until so many packets of this lane, or answers, have arrived from now on."""
        before = self._of_lane[lane.name]
        assert holds(lambda: self._of_lane[lane.name] - before >= count, deadline_s=60.0), f"{lane.name} is silent"

    def note_enforced(self, since_s: float | None = None) -> None:
        """An unregistered packet that is sent from now on, or since then, and arrives has leaked."""
        self._enforced_s = time.monotonic() if since_s is None else since_s

    def note_gone(self, member: Member) -> None:
        """From now on this gateway is dead."""
        self._gone.append((1 << member.number, time.monotonic() - DYING_S, float("inf")))

    def note_back(self, member: Member) -> None:
        """Its interfaces are up again."""
        now, bit = time.monotonic(), 1 << member.number
        self._gone = [(each, since, min(until, now) if each == bit else until) for each, since, until in self._gone]

    def stop(self) -> PairReport:
        """Stop sending, wait for what is under way, and report."""
        self._stopping.set()
        self._thread.join()
        self._stack.close()
        if self._failure is not None:
            raise self._failure
        return self.report()

    def report(self) -> PairReport:
        """As of now; while running, what is under way counts as lost."""
        gap = 0
        beyond, refused, leaked = Counter[str](), Counter[str](), Counter[str]()
        registered = [each for each in self._sent if each.lane.is_registered]
        for each in self._sent:
            if not each.lane.is_registered and each.arrived_s and each.at_s >= self._enforced_s:
                leaked[each.lane.name] += 1
        for each in registered:
            if each.arrived_s:
                continue
            if each.is_refused:
                refused[each.lane.name] += 1
            if self._is_of_gap(each):
                gap += 1
            else:
                beyond[each.lane.name] += 1
        return PairReport(
            len(registered),
            gap,
            self._gap_s(registered),
            beyond,
            refused,
            len(self._sent) - len(registered),
            leaked,
        )

    def _is_of_gap(self, sent: Sent) -> bool:
        dead = 0
        for bit, since, until in self._gone:
            if since <= sent.at_s <= until:
                dead |= bit
        # One that dies sends out by the wrong link, or by none.
        return not sent.is_refused and not (sent.taken_by | sent.sent_by) & ~dead

    def _gap_s(self, registered: Sequence[Sent]) -> float:
        """From the first packet lost in a row of one direction to the next that was sent and arrived."""
        longest = 0.0
        began: dict[tuple[str, Side], float] = {}
        for each in registered:
            if not each.arrived_s and self._is_of_gap(each):
                began.setdefault((each.lane.name, each.side), each.at_s)
            elif each.arrived_s and (since := began.pop((each.lane.name, each.side), None)) is not None:
                longest = max(longest, each.at_s - since)
        return longest

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            due_s, lanes = time.monotonic(), itertools.cycle(self._lanes)
            while not self._stopping.is_set():
                for _ in range(_PACKETS_AT_ONCE):
                    if due_s > time.monotonic():
                        break
                    self._open(next(lanes))
                    due_s += self._interval_s
                self._look(min(max(due_s - time.monotonic(), 0.0), _MAX_WAIT_S))
            deadline = time.monotonic() + GRACE_S
            while self._is_waiting() and time.monotonic() < deadline:
                self._look(_MAX_WAIT_S)
        except BaseException as failure:
            self._failure = failure

    def _open(self, lane: Lane) -> None:
        flow = _at_port(lane.flow, next(self._ports)) if lane.is_new else lane.flow
        self._send(lane, flow, lane.opener)

    def _send(self, lane: Lane, flow: Flow, side: Side) -> None:
        number = len(self._sent)
        self._sent.append(Sent(lane, flow, side, time.monotonic()))
        self._ends[side].send(flow, self._tokens.payload(number))

    def _is_waiting(self) -> bool:
        return any(not each.arrived_s and not each.is_refused for each in self._sent[-_LATEST:])

    def _look(self, timeout_s: float) -> None:
        if not self._poll.poll(timeout_s * 1000):
            return
        # Behind before in front, in front before the ends: what has arrived is known to have been there.
        for tap in self._gateways:
            for number in tap.numbers(self._tokens):
                if tap.is_before:
                    self._sent[number].taken_by |= tap.bit
                else:
                    self._sent[number].sent_by |= tap.bit
                    self._passed[tap.bit] += self._sent[number].lane.is_registered
        for side, end in self._ends.items():
            for packet in end.packets():
                self._note(side, packet)

    def _note(self, side: Side, packet: bytes) -> None:
        quoted = refused_packet(packet)
        number = self._tokens.number_in(packet if quoted is None else quoted)
        if number is None:
            return
        sent = self._sent[number]
        if quoted is not None:
            sent.is_refused = True
        elif side != sent.side and not is_icmp(packet):
            first = not sent.arrived_s
            sent.arrived_s = time.monotonic()
            self._of_lane[sent.lane.name] += 1
            if first and sent.side == sent.lane.opener:
                self._send(sent.lane, reverse_flow(sent.flow), side)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._stack.close()


def _at_port(flow: Flow, port: int) -> Flow:
    return Flow(flow.protocol, flow.source, flow.destination, port, flow.destination_port)
