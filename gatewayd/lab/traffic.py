"""What becomes of flows at the gateway, by real packets and real handshakes.

    with Lab() as lab:
        for flow, outcome in zip(flows, probe(lab, flows)): ...

Blocks; from a coroutine use `asyncio.to_thread`.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from errno import EINPROGRESS
from typing import Literal, Self

from gatewayd.errors import ServiceInvalid
from gatewayd.lab.lab import End, Lab, Side
from gatewayd.lab.packets import is_icmp, parse_flow, refused_packet
from gatewayd.lab.tap import Tap, Tokens
from gatewayd.model import Flow, format_address, parse_address, parse_service, reverse_flow
from gatewayd.model.service import PROTOCOLS_WITH_PORTS, TCP

Outcome = Literal["passed", "rejected", "lost"]

DEFAULT_DEADLINE_S = 10.0
"""A machine may be busy with something else."""
_PACKETS_AT_ONCE = 256
IPV6_TRANSPARENT = 75
"""include/uapi/linux/in6.h."""
MAX_HANDSHAKES_AT_ONCE = 100
"""Three descriptors each at the most; the usual limit of a process is 1024."""
_BACKLOG = 4 * MAX_HANDSHAKES_AT_ONCE
_ABORT_ON_CLOSE = struct.pack("ii", 1, 0)
_RESETS = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError)
EPHEMERAL_PORT = 40000
"""Source port of `flow_of` where none is asked for."""


def flow_of(source: str, destination: str, service: str, source_port: int | None = None) -> Flow:
    """A flow in words: `flow_of("39.32.0.1", "198.51.100.7", "udp/51820")`.

    `source_port` is ignored where the protocol has no ports; a new one makes a new flow for connection tracking.
    Raises PrefixInvalid, or ServiceInvalid: a bundle or a port range is more than one flow.
    """
    found = parse_service(service)
    if len(found) != 1 or (found[0].protocol in PROTOCOLS_WITH_PORTS and found[0].low != found[0].high):
        raise ServiceInvalid(service, "one protocol, and one port where it has ports, make a flow")
    protocol, port = found[0].protocol, found[0].low
    if protocol not in PROTOCOLS_WITH_PORTS:
        source_port = 0
    elif source_port is None:
        source_port = EPHEMERAL_PORT
    return Flow(protocol, parse_address(source), parse_address(destination), source_port, port)


def probe(
    lab: Lab,
    flows: Sequence[Flow],
    *,
    start: Side = "customers",
    answered: bool = False,
    deadline_s: float = DEFAULT_DEADLINE_S,
) -> list[Outcome]:
    """Send a packet of each flow, or make its TCP handshake, from `start`; the outcomes in the order of `flows`.

    - passed: it arrived at the other side (TCP: connected, and an echo came back).
    - rejected: an ICMP "administratively prohibited" that quotes it, or a TCP reset, came back.
    - lost: neither within `deadline_s`, which starts again for the packets and for each hundred handshakes. No
      time is spent when nothing is lost.

    `answered`: the far end answers each packet, and passed means that the answer came back; flows are then
    two-way. `start="internet"`: the far end initiates; a flow's source is then the far end's address.
    Raises EventsLost if what arrived could not all be seen.

    What nft rejects is lost, not rejected, for ipip, ipv6, l2tpv3 and for AH over IPv6: the kernel answers only
    if the body sums up as if it had a checksum (6.18, nf_reject_verify_csum; in AH over IPv6 it sees the inner
    protocol).
    """
    near, far = (lab.inside, lab.outside) if start == "customers" else (lab.outside, lab.inside)
    outcomes: dict[int, Outcome] = {}
    handshakes = [number for number, flow in enumerate(flows) if flow.protocol == TCP]
    packets = {number: flow for number, flow in enumerate(flows) if flow.protocol != TCP}
    if packets:
        outcomes |= _probe_packets(near, far, packets, answered, deadline_s)
    for group in _groups(handshakes, MAX_HANDSHAKES_AT_ONCE):
        with _Handshakes(near, far, {number: flows[number] for number in group}) as attempt:
            attempt.wait(deadline_s)
            outcomes |= {number: "passed" for number in attempt.passed}
            outcomes |= {number: "rejected" for number in attempt.rejected}
    return [outcomes.get(number, "lost") for number in range(len(flows))]


def _groups(numbers: list[int], size: int) -> Iterator[list[int]]:
    return (numbers[at : at + size] for at in range(0, len(numbers), size))


def _probe_packets(
    near: End, far: End, flows: dict[int, Flow], answered: bool, deadline_s: float
) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    tokens = Tokens()

    def look() -> None:
        for number, flow in arrivals(far_tap, tokens, flows):
            if answered:
                far_tap.send(reverse_flow(flow), tokens.payload(number))
            else:
                outcomes[number] = "passed"
        for number, is_refused in returns(near_tap, tokens):
            if is_refused or answered:
                outcomes[number] = "rejected" if is_refused else "passed"

    with Tap(near) as near_tap, Tap(far) as far_tap:
        for group in _groups(list(flows), _PACKETS_AT_ONCE):
            for number in group:
                near_tap.send(flows[number], tokens.payload(number))
            look()
        deadline = time.monotonic() + deadline_s
        while len(outcomes) < len(flows) and (left_s := deadline - time.monotonic()) > 0:
            if select.select([near_tap, far_tap], [], [], left_s)[0]:
                look()
    return outcomes


def returns(tap: Tap, tokens: Tokens) -> Iterator[tuple[int, bool]]:
    """(number, whether it was refused) of the packets that came back to their sender: an answer from the other
    side, or an ICMP refusal that quotes the packet."""
    for packet in tap.packets():
        quoted = refused_packet(packet)
        number = tokens.number_in(packet if quoted is None else quoted)
        if number is not None and (quoted is not None or not is_icmp(packet)):
            yield number, quoted is not None


def arrivals(tap: Tap, tokens: Tokens, flows: Mapping[int, Flow] | Sequence[Flow]) -> Iterator[tuple[int, Flow]]:
    """(number, flow) of the run's packets that `tap` has captured, for number n of `flows` (a sequence: n
    modulo its length). An ICMP error that quotes one is no arrival, nor is an answer that was routed back to
    who gave it."""
    for packet in tap.packets():
        number = None if is_icmp(packet) else tokens.number_in(packet)
        if number is None:
            continue
        flow = flows[number] if isinstance(flows, Mapping) else flows[number % len(flows)]
        seen = parse_flow(packet)
        if seen is not None and (seen.source, seen.destination) == (flow.source, flow.destination):
            yield number, flow


def transparent_socket(family: int) -> socket.socket:
    """A non-blocking TCP socket of the thread's namespace that may bind to any address, and leaves no
    TIME_WAIT."""
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)
    if family == socket.AF_INET:
        made.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


class _Handshakes:
    """One connection for each flow (by number). `passed` and `rejected` fill while `wait` runs; use
    `with`."""

    def __init__(self, near: End, far: End, flows: Mapping[int, Flow]) -> None:
        self.passed: set[int] = set()
        self.rejected: set[int] = set()
        self._tokens = Tokens()
        self._count = len(flows)
        self._attempts: dict[socket.socket, int] = {}
        self._number_of: dict[Flow, int] = {}
        self._listeners: set[socket.socket] = set()
        self._accepted: set[socket.socket] = set()
        with ExitStack() as stack:
            self._stack = stack
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._tap = stack.enter_context(Tap(near))
            self._selector.register(self._tap, selectors.EVENT_READ)
            with far.namespace.entered():
                self._listen(flows)
            with near.namespace.entered():
                for number, flow in flows.items():
                    self._connect(number, flow)
            self._stack = stack.pop_all()

    def _listen(self, flows: Mapping[int, Flow]) -> None:
        for width, port in sorted({(len(flow.source), flow.destination_port) for flow in flows.values()}):
            listener = transparent_socket(socket.AF_INET if width == 4 else socket.AF_INET6)
            self._stack.callback(listener.close)
            listener.bind(("0.0.0.0" if width == 4 else "::", port))
            listener.listen(_BACKLOG)
            self._listeners.add(listener)
            self._selector.register(listener, selectors.EVENT_READ)

    def _connect(self, number: int, flow: Flow) -> None:
        attempt = transparent_socket(socket.AF_INET if len(flow.source) == 4 else socket.AF_INET6)
        self._stack.callback(attempt.close)
        attempt.bind((format_address(flow.source), flow.source_port))
        code = attempt.connect_ex((format_address(flow.destination), flow.destination_port))
        if code not in (0, EINPROGRESS):
            raise OSError(code, f"connect: {os.strerror(code)}")
        source_port = attempt.getsockname()[1]
        sent = Flow(TCP, flow.source, flow.destination, source_port, flow.destination_port)
        self._number_of[sent] = number
        self._attempts[attempt] = number
        self._selector.register(attempt, selectors.EVENT_WRITE)

    def wait(self, deadline_s: float) -> None:
        """Until each handshake has passed or was rejected, or `deadline_s` is over."""
        deadline = time.monotonic() + deadline_s
        while self._attempts and (left_s := deadline - time.monotonic()) > 0:
            ready = self._selector.select(left_s)
            # The tap before the sockets: it has seen the refusal by the time a socket knows of one.
            self._look_for_refusals()
            for key, _ in ready:
                found = key.fileobj
                if isinstance(found, socket.socket):
                    self._turn(found)

    def _turn(self, found: socket.socket) -> None:
        if found in self._listeners:
            self._accept(found)
        elif found in self._attempts:
            self._advance(found)
        elif found in self._accepted:
            self._echo(found)

    def _look_for_refusals(self) -> None:
        """By the tuple: a SYN carries no token. An ICMP error that comes while connect(2) still holds its
        socket is only noted by the kernel (tcp_v4_err: sk_err_soft) and would be heard of after the next SYN,
        a second later."""
        for packet in self._tap.packets():
            quoted = refused_packet(packet)
            flow = parse_flow(quoted) if quoted is not None else None
            number = self._number_of.get(flow) if flow is not None else None
            if number is not None:
                for attempt in [a for a, n in self._attempts.items() if n == number]:
                    self._decide(attempt, self.rejected)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)
                self._stack.callback(accepted.close)
                self._accepted.add(accepted)
                self._selector.register(accepted, selectors.EVENT_READ)

    def _echo(self, accepted: socket.socket) -> None:
        try:
            received = accepted.recv(4096)
            if received:
                accepted.send(received)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._accepted.discard(accepted)
        self._selector.unregister(accepted)

    def _advance(self, attempt: socket.socket) -> None:
        """Connected: send the token, wait for its echo. The echo is there: passed."""
        number = self._attempts[attempt]
        try:
            if self._selector.get_key(attempt).events == selectors.EVENT_WRITE:
                attempt.send(self._tokens.payload(number))
                self._selector.modify(attempt, selectors.EVENT_READ)
            elif self._tokens.number_in(attempt.recv(4096)) == number:
                self._decide(attempt, self.passed)
            else:
                self._decide(attempt, set())
        except BlockingIOError:
            pass
        except _RESETS:
            self._decide(attempt, self.rejected)
        except OSError:
            self._decide(attempt, set())

    def _decide(self, attempt: socket.socket, outcome: set[int]) -> None:
        outcome.add(self._attempts.pop(attempt))
        self._selector.unregister(attempt)
        attempt.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
