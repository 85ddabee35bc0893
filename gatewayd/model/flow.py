"""A flow and what we decide of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from gatewayd.model.binding import Binding
from gatewayd.model.registration import Registration

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
