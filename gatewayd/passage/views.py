"""What a probe came to, as JSON. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from gatewayd.errors import GatewaydError

Outcome = Literal["passes", "rejected", "dropped", "for the host", "not known"]


class CannotProbe(GatewaydError):
    """A passage check is not possible, or its answer would be a guess."""


class RuleView(msgspec.Struct, frozen=True):
    """`chain`: which has it; another than the base chain where that jumps. `handle`: on the host; None: the policy
    of the base chain. `text`: as nft prints it in the copy; sets without a name have one there."""

    chain: str
    handle: int | None
    text: str


class ChainView(msgspec.Struct, frozen=True):
    """A base chain that the packet met."""

    family: str
    table: str
    chain: str
    hook: str
    priority: int
    verdict: str
    by: RuleView


class CopyView(msgspec.Struct, frozen=True):
    """What was copied. `found`: elements of sets of gatewayd by which this packet can be registered. All others of
    those `left_empty` sets stayed on the host."""

    tables: int
    chains: int
    rules: int
    found: int
    left_empty: int


class ProbeView(msgspec.Struct, frozen=True):
    """`outgoing` None: the packet is for the host itself. `translated`: the destination behind DNAT. `is_certain`:
    every rule of each chain that the packet met was copied, and none is in `notes`."""

    src: str
    dst: str
    service: str
    incoming: str
    outgoing: str | None
    translated: str | None
    outcome: Outcome
    reason: str
    is_certain: bool
    chains: tuple[ChainView, ...]
    copied: CopyView
    notes: tuple[str, ...] = ()
