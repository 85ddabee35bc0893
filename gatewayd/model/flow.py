"""A flow, what we decide of it, and its connection as connection tracking has it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from gatewayd.model.registration import Binding, Registration

DecisionWord = Literal["registered", "unregistered", "out_of_scope"]
Effect = Literal["pass", "observe", "mark", "limit", "reject"]
Canary = Literal["in", "out", "source", "destination"]
"""Of a flow's client. "source", "destination": only this end is in it, and which end is inside is not known."""
Mode = Literal["observe", "mark", "limit", "reject"]


class Flow(msgspec.Struct, frozen=True, gc=False):
    """Who opened it and what answers, as a rule in the forward hook sees them: after DNAT, before SNAT. Addresses
    packed, of one family; ports 0 where there are none."""

    protocol: int
    source: bytes
    destination: bytes
    source_port: int = 0
    destination_port: int = 0


def reverse_flow(flow: Flow) -> Flow:
    """The same conversation as the other end starts it."""
    return Flow(flow.protocol, flow.destination, flow.source, flow.destination_port, flow.source_port)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Ours, of a flow; the verdict is the kernel's. `registrations`: those that make it registered.

    `reason` is a sentence for people: what matched, or which condition of the nearest registration failed, by
    address and by binding; it never has a digest in it. `bindings`: those through which registrations match that do
    not match by a client prefix too; empty where all do.
    """

    word: DecisionWord
    registrations: tuple[Registration, ...]
    reason: str
    bindings: tuple[Binding, ...] = ()


# Connections of connection tracking, as the kernel tells of them

AF_INET: Final = 2
AF_INET6: Final = 10
ConnectionKind = Literal["new", "update", "destroy", "listed"]


class ConnectionKey(msgspec.Struct, frozen=True, gc=False):
    """What the kernel finds a connection by. `tuple_bytes`: a CTA_TUPLE_ORIG, header included, with the original
    tuple or the reply tuple: ctnetlink looks for either (nf_conntrack_find_get)."""

    tuple_bytes: bytes
    family: int
    zone: int = 0


class ConnectionEvent(msgspec.Struct, frozen=True, gc=False):
    """One connection: an event, or an item of a dump (`listed`).

    `flow` is the tuple that a rule in the forward hook sees in the original direction: after DNAT and before SNAT,
    so from the source of the original tuple to the source of the reply tuple. In the reply direction a rule sees
    the same, reversed.
    Counters are 0 while `net.netfilter.nf_conntrack_acct` is off. `id` is the kernel's, 0 when not given.
    `tuple_bytes`: the CTA_TUPLE_ORIG attribute as received, header included, fit to be sent back.
    `sender_port`: of an event, the netlink port of the program whose request caused it (conntrackd, conntrack); 0
    where a packet or a timeout did.
    """

    kind: ConnectionKind
    flow: Flow
    mark: int
    id: int
    packets_original: int
    bytes_original: int
    packets_reply: int
    bytes_reply: int
    tuple_bytes: bytes
    zone: int
    sender_port: int = 0

    @property
    def key(self) -> ConnectionKey:
        family = AF_INET if len(self.flow.source) == 4 else AF_INET6
        return ConnectionKey(self.tuple_bytes, family, self.zone)

    @property
    def identity(self) -> bytes:
        """The original tuple, and the zone where there is one: two zones may have the same tuple."""
        return self.tuple_bytes + self.zone.to_bytes(2, "big") if self.zone else self.tuple_bytes
