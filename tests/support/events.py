"""What the event tests share: a marked namespace, senders, and an event source that remembers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gatewayd.kernel.attributes import NLM_F_ACK, NLM_F_REQUEST, message
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.conntrack_codec import CT_DELETE
from gatewayd.kernel.netlink import open_netfilter_socket
from gatewayd.lab.namespace import Namespace
from gatewayd.model import Flow, parse_address
from gatewayd.model.flow import ConnectionEvent
from gatewayd.watch.source import EventSource, PacketLog, SourceName

MARK, MASK, GROUP, NEAR_GROUP = 0xA1000000, 0xFF000000, 77, 78
DEADLINE_S = 15.0
MARK_TUNNELS = """
table inet lab {
  chain zones {
    type filter hook output priority -300
    udp dport 51830 ct zone set 7
    udp dport 51831 ct original zone set 9
  }
  chain out {
    type filter hook output priority 0
    udp dport 51820-51899 ct mark set 0xa1000007
    tcp dport 1194 ct mark set 0xa1000007
    meta l4proto { 47, 50, 51 } ct mark set 0xa1000007
    udp dport 40000 ct mark set 0x21000000 log prefix "gatewayd u" group 77
  }
}
"""


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fail when it does not within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the kernel
            await asyncio.sleep(0.005)


class Heard:
    """An event source in a namespace, and what it said."""

    def __init__(self, namespace: Namespace, *, mark: int = MARK, mask: int = MASK, **arguments: Any) -> None:
        self.packets: list[Flow] = []
        self.near: list[Flow] = []
        self.connections: list[ConnectionEvent] = []
        self.lost: list[SourceName] = []
        self.take: Callable[[list[ConnectionEvent]], int] = len
        """How many connection events there is time for."""
        self.source = EventSource(
            logs=(PacketLog("nflog", GROUP, self.on_packets), PacketLog("near", NEAR_GROUP, self.on_near)),
            mark=mark, mask=mask,
            on_connections=self.on_connections, on_lost=self.lost.append, **arguments,
        )  # fmt: skip
        with namespace.entered():
            self.source.open()

    def on_packets(self, flows: list[Flow]) -> int:
        self.packets += flows
        return len(flows)

    def on_near(self, flows: list[Flow]) -> int:
        self.near += flows
        return len(flows)

    def on_connections(self, events: list[ConnectionEvent]) -> int:
        taken = self.take(events)
        self.connections += events[:taken]
        return taken

    def flows(self, kind: str) -> list[Flow]:
        return [event.flow for event in self.connections if event.kind == kind]

    async def __aenter__(self) -> Heard:
        self.source.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.source.close()


class Sender:
    """UDP from one bound port of a namespace's loopback."""

    def __init__(self, namespace: Namespace, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with namespace.entered():
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.address, self.port = address, self.socket.getsockname()[1]

    def send(self, address: str, *ports: int) -> None:
        for port in ports:
            try:
                self.socket.sendto(b"x" * 32, (address, port))
            except ConnectionRefusedError:  # the answer to an earlier datagram
                self.socket.sendto(b"x" * 32, (address, port))

    def flow(self, address: str, port: int) -> Flow:
        return Flow(17, parse_address(self.address), parse_address(address), self.port, port)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def send_raw(namespace: Namespace, protocol: int, address: str, raw: bytes) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.entered(), socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        sender.sendto(raw, (address, 0))


def flush_connections(namespace: Namespace) -> None:
    with namespace.entered(), open_netfilter_socket(1 << 16) as opened:
        opened.settimeout(DEADLINE_S)
        opened.send(message(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, 1, 0, 0))
        opened.recv(4096)


@contextmanager
def opened_conntrack(namespace: Namespace, **arguments: Any) -> Iterator[Conntrack]:
    conntrack = Conntrack(**arguments)
    with namespace.entered():
        conntrack.open()
    try:
        yield conntrack
    finally:
        conntrack.close()


async def listed(conntrack: Conntrack, mark: int, mask: int) -> list[ConnectionEvent]:
    return [event async for batch in conntrack.dump(mark=mark, mask=mask) for event in batch]
