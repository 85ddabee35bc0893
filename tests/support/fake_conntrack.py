"""Connection tracking in memory: what `kernel.conntrack.Conntrack` offers, and how the kernel chooses by mark."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

import msgspec

from gatewayd.kernel.conntrack_codec import AF_UNSPEC, key_of_flow
from gatewayd.model import Flow
from gatewayd.model.flow import ConnectionEvent, ConnectionKey, ConnectionKind

BATCH = 3
"""Connections in one batch of a dump: few, so that a dump is several."""


class FakeConntrack:
    """`before_dump`, `before_change` may raise to make a request fail. `dumps`, `changes`: what was asked."""

    def __init__(self) -> None:
        self.connections: dict[bytes, ConnectionEvent] = {}
        self.answers: dict[bytes, bytes] = {}
        """The original tuple by the reply tuple, both as CTA_TUPLE_ORIG."""
        self.dumps: list[tuple[int, int]] = []
        self.sources: list[bytes | None] = []
        self.changes: list[tuple[frozenset[bytes], int, int]] = []
        self.patience_s = 0.0
        """How long a dump takes, by the loop's time."""
        self.before_dump: Callable[[], None] = lambda: None
        self.after_first_batch: Callable[[], None] = lambda: None
        self.before_change: Callable[[], None] = lambda: None

    def put(self, flow: Flow, mark: int, *, packets: int = 1, zone: int = 0) -> ConnectionEvent:
        """A connection of the flow with this mark, in place of one that was there."""
        event = connection_event(flow, mark, "listed", number=len(self.connections) + 1, packets=packets)
        event = msgspec.structs.replace(event, zone=zone)
        self.connections[event.identity] = event
        back = Flow(flow.protocol, flow.destination, flow.source, flow.destination_port, flow.source_port)
        self.answers[_identity(tuple_of(back), zone)] = event.identity
        return event

    def end(self, flow: Flow) -> None:
        del self.connections[tuple_of(flow)]

    def mark_of(self, flow: Flow, zone: int = 0) -> int:
        return self.connections[_identity(tuple_of(flow), zone)].mark

    async def dump(
        self, *, mark: int, mask: int, family: int = AF_UNSPEC,
        source: bytes | None = None, answered_by: bytes | None = None,
    ) -> AsyncGenerator[list[ConnectionEvent], None]:  # fmt: skip
        self.dumps.append((mark, mask))
        self.sources.append(source or answered_by)
        self.before_dump()
        if self.patience_s:
            await asyncio.sleep(self.patience_s)
        chosen = [
            event
            for event in self.connections.values()
            if event.mark & mask == mark
            and source in (None, event.flow.source)
            and answered_by in (None, event.flow.destination)
        ]
        for start in range(0, len(chosen), BATCH):
            await asyncio.sleep(0)
            yield chosen[start : start + BATCH]
            if start == 0:
                self.after_first_batch()

    async def change_marks(self, connections: Iterable[ConnectionKey], value: int, mask: int) -> int:
        keys = list(connections)
        return len(keys) - len(await self.change_known_marks(keys, value, mask))

    async def change_known_marks(
        self, connections: Iterable[ConnectionKey], value: int, mask: int
    ) -> list[ConnectionKey]:
        """By the original tuple or that of the answers."""
        keys = list(connections)
        self.before_change()
        self.changes.append((frozenset(key.tuple_bytes for key in keys), value, mask))
        await asyncio.sleep(0)
        missing = []
        for key in keys:
            identity = _identity(key.tuple_bytes, key.zone)
            found = self.answers.get(identity, identity)
            known = self.connections.get(found)
            if known is None:
                missing.append(key)
            else:
                mark = known.mark & ~mask | value
                self.connections[found] = msgspec.structs.replace(known, mark=mark)
        return missing

    def key_of(self, flow: Flow) -> ConnectionKey | None:
        return key_of_flow(flow)


def connection_event(
    flow: Flow, mark: int, kind: ConnectionKind = "new", *, number: int = 1, packets: int = 1
) -> ConnectionEvent:
    """As the kernel tells of a connection of this flow."""
    return ConnectionEvent(kind, flow, mark, number, packets, packets * 100, 0, 0, tuple_of(flow), 0)


def tuple_of(flow: Flow) -> bytes:
    """Its CTA_TUPLE_ORIG; for GRE, which has call ids that a flow lacks, something as unique."""
    key = key_of_flow(flow)
    return key.tuple_bytes if key is not None else b"gre " + flow.source + flow.destination


def _identity(tuple_bytes: bytes, zone: int) -> bytes:
    return tuple_bytes + zone.to_bytes(2, "big") if zone else tuple_bytes
