"""Tunnels whose packets we build ourselves: GRE, ESP and AH around IPv4, from one tun device to another.

Few kernels have all three, and the distribution has no program for them in user space. On the wire they are as the
standards say: RFC 2784, RFC 4303 with the NULL cipher, RFC 4302 with an empty check value.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from struct import Struct, pack
from typing import ClassVar, Final

from gatewayd.lab.namespace import Namespace
from gatewayd.model.service import AH, ESP, GRE, IPIP
from tests.proof.tunnels.tunnel import Tunnel

INTERFACE: Final = "raw0"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
"""include/uapi/linux/if_tun.h."""
_MAX_PACKET: Final = 65535
_BUFFER_BYTES: Final = 4 << 20
_LOOK_EVERY_S: Final = 0.5
_IPV4_IN_GRE: Final = 0x0800
_GRE: Final = Struct(">HH")
_ESP: Final = Struct(">II")
_AH: Final = Struct(">BBHII12s")
_SPI: Final = 0x67770015


class End:
    """One end of a raw tunnel: a tun device, and a raw socket of the protocol at the outer address."""

    def __init__(self, namespace: Namespace, protocol: int, outer: str, peer: str, inside: str) -> None:
        self.peer = peer
        self.count = 0
        self.is_ipv6 = ":" in outer
        with namespace.entered():
            self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(self.tun, _TUNSETIFF, pack("16sH22x", INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI))
            family = socket.AF_INET6 if self.is_ipv6 else socket.AF_INET
            self.raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self.raw.bind((outer, 0))
        namespace.bring_up(INTERFACE, f"{inside}/30")

    def send(self, packet: bytes) -> None:
        """A packet of the protocol to the other end; a refusal that came back for an earlier one is no error."""
        with suppress(OSError):
            self.raw.sendto(packet, (self.peer, 0))

    def received(self) -> list[bytes]:
        """Packets of the other end, without their IP header."""
        found = []
        with suppress(BlockingIOError):
            while True:
                try:
                    packet, sender = self.raw.recvfrom(_MAX_PACKET)
                except BlockingIOError:
                    raise
                except OSError:
                    continue
                if sender[0] == self.peer:
                    found.append(packet if self.is_ipv6 else packet[(packet[0] & 0xF) * 4 :])
        return found

    def packets(self) -> list[bytes]:
        """IPv4 that the kernel wants to send through the tunnel."""
        found = []
        with suppress(BlockingIOError):
            while True:
                packet = os.read(self.tun, _MAX_PACKET)
                if packet[0] >> 4 == 4:
                    found.append(packet)
        return found

    def deliver(self, packet: bytes) -> None:
        with suppress(OSError):
            os.write(self.tun, packet)

    def close(self) -> None:
        os.close(self.tun)
        self.raw.close()


class RawTunnel(Tunnel):
    protocol: ClassVar[int]

    def begin(self) -> None:
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._stopping = threading.Event()
        outer = {"near": self.outer, "far": self.plan.far}
        inside = dict(zip(("near", "far"), self.plan.inside, strict=True))
        self.ends: dict[str, End] = {}
        for side, other in (("near", "far"), ("far", "near")):
            end = End(self.host(side), self.protocol, outer[side], outer[other], inside[side])
            self._stack.callback(end.close)
            self.ends[side] = end
            self.watch(end.tun, partial(self._wrap_all, end))
            self.watch(end.raw, partial(self._unwrap_all, end))
        self.prepare(self._stack)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def watch(self, file: int | socket.socket, work: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, work)

    def unwatch(self, file: int | socket.socket) -> None:
        self._selector.unregister(file)

    def prepare(self, stack: ExitStack) -> None:
        """More than the two ends."""

    def turn(self) -> None:
        """Of the thread, some times a second."""

    def wrap(self, end: End, packet: bytes) -> bytes | None:
        raise NotImplementedError

    def unwrap(self, end: End, body: bytes) -> bytes | None:
        raise NotImplementedError

    def handshakes(self) -> int | None:
        return None

    def finish(self) -> None:
        if hasattr(self, "_thread"):
            self._stopping.set()
            self._thread.join()
            self._stack.close()

    def _wrap_all(self, end: End) -> None:
        for packet in end.packets():
            end.count += 1
            if (wrapped := self.wrap(end, packet)) is not None:
                end.send(wrapped)

    def _unwrap_all(self, end: End) -> None:
        for body in end.received():
            if (packet := self.unwrap(end, body)) is not None:
                end.deliver(packet)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(_LOOK_EVERY_S):
                key.data()
            self.turn()


class Gre(RawTunnel):
    kind = "GRE"
    services = ("gre",)
    protocol = GRE

    def wrap(self, end: End, packet: bytes) -> bytes:
        return _GRE.pack(0, _IPV4_IN_GRE) + packet

    def unwrap(self, end: End, body: bytes) -> bytes | None:
        return body[_GRE.size :] if body[: _GRE.size] == _GRE.pack(0, _IPV4_IN_GRE) else None


class Esp(RawTunnel):
    kind = "ESP"
    services = ("esp",)
    protocol = ESP

    def wrap(self, end: End, packet: bytes) -> bytes:
        # RFC 4303 §2.4: padded to four bytes with 1, 2, …; then the length of the padding and the next header.
        padding = bytes(range(1, 1 + -(len(packet) + 2) % 4))
        return _ESP.pack(_SPI, end.count) + packet + padding + bytes([len(padding), IPIP])

    def unwrap(self, end: End, body: bytes) -> bytes | None:
        if len(body) < _ESP.size + 2 or _ESP.unpack_from(body)[0] != _SPI or body[-1] != IPIP:
            return None
        return body[_ESP.size : -2 - body[-2]]


class Ah(RawTunnel):
    kind = "AH"
    services = ("ah",)
    protocol = AH

    def wrap(self, end: End, packet: bytes) -> bytes:
        return _AH.pack(IPIP, 4, 0, _SPI, end.count, bytes(12)) + packet

    def unwrap(self, end: End, body: bytes) -> bytes | None:
        if len(body) < _AH.size or _AH.unpack_from(body)[3] != _SPI:
            return None
        return body[_AH.size :]
