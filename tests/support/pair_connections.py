"""TCP through a pair of gateways: connections held open with data on them, and new ones all the time.

TCP repeats what a failover loses. So a loss is a connection that is reset, that cannot be made, or whose data never
comes back.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from errno import EINPROGRESS
from typing import Final

from gatewayd.lab.lab import Side
from gatewayd.lab.traffic import transparent_socket
from tests.support.background import Background
from tests.support.pair import Pair

_WORD: Final = b"gatewayd"
_EVERY_S: Final = 0.05
_NEW_EVERY_S: Final = 0.2
_PATIENCE_S: Final = 30.0
"""SYN and data are repeated after 1, 3, 7, 15 s."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where a server listens, and an address that opens connections to it from the other side."""

    name: str
    client: str
    server: str
    port: int
    opener: Side = "customers"


@dataclass(slots=True)
class _Connection:
    service: Service
    is_held: bool
    sent: int = 0
    echoed: int = 0
    is_connected: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """`failed`: by service and what became of it."""

    held: int
    new: int
    failed: Counter[str]


class PairConnections(Background):
    """One held connection of each service, and new ones, from a thread of its own until `stop`."""

    def __init__(self, pair: Pair, services: Sequence[Service]) -> None:
        super().__init__("pair-connections")
        self._namespaces = {"customers": pair.inside.namespace, "internet": pair.outside.namespace}
        self._services = tuple(services)
        self._selector = selectors.DefaultSelector()
        self._made: dict[socket.socket, _Connection] = {}
        self._echoing: set[socket.socket] = set()
        self._failed: Counter[str] = Counter()
        self._finished = 0
        self._stack = ExitStack()
        self._stack.enter_context(self._selector)
        for service in self._services:
            self._listen(service)
            self._connect(service, is_held=True)

    def stop(self) -> ConnectionReport:
        """No more new ones and no more data; then all that is under way is waited for."""
        self._finish()
        held = 0
        for each in self._made.values():
            held += each.is_held
            if not each.is_connected or each.echoed < each.sent:
                self._failed[f"{each.service.name}: {'silent' if each.is_connected else 'never connected'}"] += 1
        return ConnectionReport(held, self._finished, self._failed)

    def _run(self) -> None:
        send_s = new_s = time.monotonic()
        while not self._stopping.is_set():
            self._turn(_EVERY_S)
            now = time.monotonic()
            if now >= send_s:
                send_s = now + _EVERY_S
                self._speak()
            if now >= new_s:
                new_s = now + _NEW_EVERY_S
                for service in self._services:
                    self._connect(service, is_held=False)
        deadline = time.monotonic() + _PATIENCE_S
        while self._is_waiting() and time.monotonic() < deadline:
            self._turn(_EVERY_S)

    def _is_waiting(self) -> bool:
        return any(not each.is_connected or each.echoed < each.sent for each in self._made.values())

    def _listen(self, service: Service) -> None:
        far: Side = "internet" if service.opener == "customers" else "customers"
        with self._namespaces[far].entered():
            listener = self._stack.enter_context(transparent_socket(_family(service.server)))
        listener.bind((service.server, service.port))
        listener.listen(64)
        self._selector.register(listener, selectors.EVENT_READ, "listener")

    def _connect(self, service: Service, *, is_held: bool) -> None:
        with self._namespaces[service.opener].entered():
            made = self._stack.enter_context(transparent_socket(_family(service.client)))
        made.bind((service.client, 0))
        code = made.connect_ex((service.server, service.port))
        if code not in (0, EINPROGRESS):
            self._failed[f"{service.name}: {code}"] += 1
            return
        self._made[made] = _Connection(service, is_held)
        self._selector.register(made, selectors.EVENT_WRITE, "made")

    def _speak(self) -> None:
        for made, connection in list(self._made.items()):
            if connection.is_connected and connection.is_held:
                self._send(made, connection)

    def _send(self, made: socket.socket, connection: _Connection) -> None:
        try:
            connection.sent += made.send(_WORD)
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(made, error)

    def _turn(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            found = key.fileobj
            assert isinstance(found, socket.socket)
            if key.data == "listener":
                self._accept(found)
            elif key.data == "echo":
                self._echo(found)
            elif found in self._made:
                self._advance(found, self._made[found])

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            self._stack.enter_context(accepted)
            self._selector.register(accepted, selectors.EVENT_READ, "echo")

    def _echo(self, accepted: socket.socket) -> None:
        # The client's end says whether it was cut.
        with suppress(ConnectionError, TimeoutError):
            if said := accepted.recv(4096):
                accepted.send(said)
                return
        self._selector.unregister(accepted)
        accepted.close()

    def _advance(self, made: socket.socket, connection: _Connection) -> None:
        try:
            if not connection.is_connected:
                if (code := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0:
                    raise OSError(code, "connect")
                connection.is_connected = True
                self._selector.modify(made, selectors.EVENT_READ, "made")
                self._send(made, connection)
                return
            said = made.recv(4096)
            if not said:
                raise OSError(0, "closed")
            connection.echoed += len(said)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(made, error)
            return
        if not connection.is_held and connection.echoed >= connection.sent:
            self._finished += 1
            self._end(made, None)

    def _end(self, made: socket.socket, error: OSError | None) -> None:
        connection = self._made.pop(made)
        self._selector.unregister(made)
        made.close()
        if error is not None:
            kind = "held" if connection.is_held else "new"
            self._failed[f"{connection.service.name} ({kind}): {error.strerror}"] += 1

    def _close(self) -> None:
        self._stack.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
