"""A connection of connection tracking, as the kernel tells of it, and what the kernel finds it by."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from gatewayd.model.flow import Flow

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
