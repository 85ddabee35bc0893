"""TCP through the gateway by the kernel's own stacks: connect from any address to any address, and an echo.

Both ends use IP_TRANSPARENT (ip(7)), so that a socket may have an address that no interface has.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from errno import EINPROGRESS
from typing import Self

from gatewayd.lab.lab import End
from gatewayd.lab.packets import parse_flow, refused_packet
from gatewayd.lab.tap import Tap, Tokens
from gatewayd.model import Flow, format_address
from gatewayd.model.service import TCP

IPV6_TRANSPARENT = 75
"""include/uapi/linux/in6.h."""
MAX_HANDSHAKES_AT_ONCE = 100
"""Three descriptors each at the most; the usual limit of a process is 1024."""
_BACKLOG = 4 * MAX_HANDSHAKES_AT_ONCE
_ABORT_ON_CLOSE = struct.pack("ii", 1, 0)
_RESETS = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError)


def _socket(family: int) -> socket.socket:
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


class HandshakeProbe:
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
            listener = _socket(socket.AF_INET if width == 4 else socket.AF_INET6)
            self._stack.callback(listener.close)
            listener.bind(("0.0.0.0" if width == 4 else "::", port))
            listener.listen(_BACKLOG)
            self._listeners.add(listener)
            self._selector.register(listener, selectors.EVENT_READ)

    def _connect(self, number: int, flow: Flow) -> None:
        attempt = _socket(socket.AF_INET if len(flow.source) == 4 else socket.AF_INET6)
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
