"""One end of the lab below its stack: capture what comes off the wire, send packets of any source."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import Self

from gatewayd.errors import EventsLost
from gatewayd.lab.lab import End
from gatewayd.lab.packets import build_packet
from gatewayd.model import Flow, format_address

# include/uapi/linux/if_packet.h, if_ether.h, asm-generic/socket.h
ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_RCVBUFFORCE = 33
_STATISTICS = Struct("=II")
_BUFFER_BYTES = 16 << 20
_CAPTURED_BYTES = 2048

_MAGIC = b"gwd\x01"
_TOKEN = Struct(">4s8sQ")


class Tap:
    """Captures at `end` and sends into it. Owns three sockets; close it, or use `with`.

    Packets are IP packets without link header, in order of arrival; what the end itself sends is not among
    them.
    """

    def __init__(self, end: End) -> None:
        self._name = end.interface
        with end.namespace.entered():
            # Protocol 0 until bound: nothing of another interface is queued meanwhile (packet(7)).
            self._capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
            # IPPROTO_RAW implies a header of our own; IPv6 likewise since Linux 4.5.
            self._ipv4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._ipv6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._capture.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self._capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            with suppress(PermissionError):  # inside a user namespace rmem_max stands
                self._capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER_BYTES)
            self._capture.bind((end.interface, ETH_P_ALL))

    def fileno(self) -> int:
        """Of the capturing socket, for select."""
        return self._capture.fileno()

    def packets(self) -> Iterator[bytes]:
        """All that have arrived and were not yet taken. Raises EventsLost if the buffer overran: then no
        packet may be called lost."""
        with suppress(BlockingIOError):
            while True:
                yield self._capture.recv(_CAPTURED_BYTES)
        _, dropped = _STATISTICS.unpack(self._capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
        if dropped:
            raise EventsLost(f"tap on {self._name}: {dropped} packets")

    def send(self, flow: Flow, payload: bytes) -> None:
        """One packet of `flow`, whatever its source. Raises ValueError for TCP."""
        packet = build_packet(flow, payload)
        sender = self._ipv4 if len(flow.source) == 4 else self._ipv6
        sender.sendto(packet, (format_address(flow.destination), 0))

    def close(self) -> None:
        for opened in (self._capture, self._ipv4, self._ipv6):
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def send_frame(end: End, frame: bytes) -> None:
    """An Ethernet frame onto the wire at `end`."""
    with end.namespace.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with wire:
        wire.bind((end.interface, 0))
        wire.send(frame)


class Tokens:
    """Numbered payloads of one run. A number is read back wherever its token stands in a packet, quoted or
    not."""

    def __init__(self) -> None:
        self._run = os.urandom(8)

    def payload(self, number: int) -> bytes:
        """20 bytes."""
        return _TOKEN.pack(_MAGIC, self._run, number)

    def number_in(self, packet: bytes) -> int | None:
        """The number that `packet` carries; None if it carries none of this run."""
        at = packet.find(_MAGIC)
        if at < 0 or len(packet) < at + _TOKEN.size:
            return None
        _, run, number = _TOKEN.unpack_from(packet, at)
        return int(number) if run == self._run else None
