"""PPTP (RFC 2637): a control connection over TCP, whose call gives the GRE packets their numbers.

Neither end is a program of the distribution: those need PPP in the kernel. The control connection is asked once a
second (Echo-Request), and each answer is accounted for.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress
from struct import Struct
from typing import Final

from gatewayd.model.service import GRE
from tests.proof.tunnels.raw import End, RawTunnel

PORT: Final = 1723
_COOKIE: Final = 0x1A2B3C4D
_HEADER: Final = Struct(">HHIHH")
_START: Final = Struct(">HBBIIHH64s64s")
_CALL: Final = Struct(">HHIIIIHHHH64s64s")
_CALL_REPLY: Final = Struct(">HHBBHIHHI")
_ECHO: Final = Struct(">I")
_ECHO_REPLY: Final = Struct(">IBBH")
START, START_REPLY, ECHO, ECHO_REPLY, CALL, CALL_REPLY = 1, 2, 5, 6, 7, 8
_GRE: Final = Struct(">HHHHI")
"""Version 1 with key and sequence number, payload PPP (§4.1)."""
_PPP_IPV4: Final = b"\xff\x03\x00\x21"
_ECHO_EVERY_S: Final = 1.0
_RETRY_S: Final = 1.0
_VERSION: Final = 0x0100
_CALL_IDS: Final = {"near": 0x1111, "far": 0x2222}


def message(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), 1, _COOKIE, kind, 0) + body


class _Control:
    """One end of a control connection: whole messages out of bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setblocking(False)
        self._buffer = b""

    def send(self, kind: int, body: bytes) -> None:
        self.connection.send(message(kind, body))

    def received(self) -> list[tuple[int, bytes]]:
        """Raises OSError when the connection is no more."""
        with suppress(BlockingIOError):
            while piece := self.connection.recv(4096):
                self._buffer += piece
            raise ConnectionResetError("closed by the other end")
        found = []
        while len(self._buffer) >= _HEADER.size:
            length, _, cookie, kind, _ = _HEADER.unpack_from(self._buffer)
            assert cookie == _COOKIE
            if len(self._buffer) < length:
                break
            found.append((kind, self._buffer[_HEADER.size : length]))
            self._buffer = self._buffer[length:]
        return found


class Pptp(RawTunnel):
    kind = "PPTP"
    services = ("pptp",)
    protocol = GRE

    def prepare(self, stack: ExitStack) -> None:
        self.echoes_sent = self.echoes_answered = self.calls = 0
        self.refused = 0
        """Connections that were reset or refused."""
        self._peer_call: dict[str, int] = {}
        self._client: _Control | None = None
        self._servers: list[_Control] = []
        self._connecting: socket.socket | None = None
        self._due_s = 0.0
        family = socket.AF_INET6 if self.plan.family == 6 else socket.AF_INET
        with self.host("far").entered():
            self._listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((self.plan.far, PORT))
            self._listener.listen()
            self._listener.setblocking(False)
        self.watch(self._listener, self._accept)
        stack.callback(self._hang_up)

    def handshakes(self) -> int:
        """Calls that were answered."""
        return self.calls

    def wrap(self, end: End, packet: bytes) -> bytes | None:
        side = "near" if end is self.ends["near"] else "far"
        if side not in self._peer_call:
            return None
        payload = _PPP_IPV4 + packet
        return _GRE.pack(0x3001, 0x880B, len(payload), self._peer_call[side], end.count) + payload

    def unwrap(self, end: End, body: bytes) -> bytes | None:
        side = "near" if end is self.ends["near"] else "far"
        if len(body) < _GRE.size or _GRE.unpack_from(body)[3] != _CALL_IDS[side]:
            return None
        payload = body[_GRE.size :]
        return payload[len(_PPP_IPV4) :] if payload.startswith(_PPP_IPV4) else None

    def turn(self) -> None:
        now = time.monotonic()
        if self._connecting is not None:
            self._look_at_connecting()
        if now < self._due_s:
            return
        if self._client is None and self._connecting is None:
            self._due_s = now + _RETRY_S
            self._connect()
        elif self._client is not None and "near" in self._peer_call:
            self._due_s = now + _ECHO_EVERY_S
            self.echoes_sent += 1
            with suppress(OSError):
                self._client.send(ECHO, _ECHO.pack(self.echoes_sent))

    def _connect(self) -> None:
        family = socket.AF_INET6 if self.plan.family == 6 else socket.AF_INET
        with self.host("near").entered():
            self._connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._connecting.bind((self.outer, 0))
            self._connecting.connect_ex((self.plan.far, PORT))

    def _look_at_connecting(self) -> None:
        assert self._connecting is not None
        made, error = self._connecting, self._connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.refused += 1
            made.close()
            self._connecting = None
            return
        try:
            made.getpeername()
        except OSError:
            return
        self._connecting, self._client = None, _Control(made)
        self._client.send(START, _START.pack(_VERSION, 0, 0, 1, 1, 1, 1, b"near", b"proof"))
        self.watch(made, self._hear_server)

    def _hear_server(self) -> None:
        assert self._client is not None
        try:
            for kind, body in self._client.received():
                if kind == START_REPLY and body[2] == 1:
                    call = _CALL.pack(_CALL_IDS["near"], 1, 300, 100_000_000, 3, 3, 64, 0, 0, 0, b"", b"")
                    self._client.send(CALL, call)
                elif kind == CALL_REPLY and body[4] == 1:
                    self._peer_call["near"] = _CALL_REPLY.unpack(body)[0]
                    self.calls += 1
                elif kind == ECHO_REPLY:
                    self.echoes_answered += 1
        except OSError:
            self.refused += 1
            self.unwatch(self._client.connection)
            self._client.connection.close()
            self._client = None
            self._peer_call.pop("near", None)

    def _accept(self) -> None:
        with suppress(OSError):
            server = _Control(self._listener.accept()[0])
            self._servers.append(server)
            self.watch(server.connection, lambda: self._hear_client(server))

    def _hear_client(self, server: _Control) -> None:
        try:
            for kind, body in server.received():
                if kind == START:
                    reply = _START.pack(_VERSION, 1, 0, 1, 1, 1, 1, b"far", b"proof")
                    server.send(START_REPLY, reply)
                elif kind == CALL:
                    theirs = _CALL.unpack(body)[0]
                    self._peer_call["far"] = theirs
                    server.send(CALL_REPLY, _CALL_REPLY.pack(_CALL_IDS["far"], theirs, 1, 0, 0, 0, 64, 0, 0))
                elif kind == ECHO:
                    server.send(ECHO_REPLY, _ECHO_REPLY.pack(*_ECHO.unpack(body), 1, 0, 0))
        except OSError:
            self.unwatch(server.connection)
            server.connection.close()
            self._servers.remove(server)

    def _hang_up(self) -> None:
        for each in (*self._servers, *([self._client] if self._client else [])):
            each.connection.close()
        if self._connecting is not None:
            self._connecting.close()
