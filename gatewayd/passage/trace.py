"""What the kernel says of a packet on its way through the chains (NFNLGRP_NFTRACE), and what follows from it. Pure.

include/uapi/linux/netfilter/nf_tables.h: nft_trace_attributes. This is what `nft monitor trace` shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from gatewayd.kernel import attributes as nl
from gatewayd.kernel.tables_codec import SUBSYSTEM
from gatewayd.lab.packets import parse_flow
from gatewayd.model.flow import Flow
from gatewayd.passage.copying import BaseChain, Place

PROBE_TABLE: Final = "gatewayd_probe"
"""Of the scratch namespace alone: its rules have the packet traced, and show the forward hook even where no other
table does."""
_TRACE: Final = SUBSYSTEM | 17
_KINDS: Final[dict[int, Literal["policy", "return", "rule"]]] = {1: "policy", 2: "return", 3: "rule"}
_VERDICTS: Final = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat"}
_CONTROL: Final = {-1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"}


class Event(NamedTuple):
    """`handle`: of a rule in the copy; 0 for a policy. `flow`: of the packet as it was then, None where the kernel
    left its headers out. `mark`: of the packet."""

    kind: Literal["policy", "return", "rule"]
    place: Place
    handle: int
    verdict: str
    flow: Flow | None
    mark: int


def read_events(datagram: bytes) -> Iterator[Event]:
    """Raises EventMalformed."""
    for number, _, _, start, end in nl.iter_messages(datagram):
        if number != _TRACE:
            continue
        fields = nl.attributes_of(datagram, start + 4, end)
        kind = _KINDS.get(nl.uint_of(fields.get(4, b"")))
        if kind is None:
            continue
        if kind == "policy":
            code = nl.uint_of(fields.get(16, b""))
        else:
            raw = fields.get(5, b"")
            code = int.from_bytes(nl.attributes_of(raw, 0, len(raw)).get(1, b""), "big", signed=True)
        verdict = _CONTROL[code] if code in _CONTROL else _VERDICTS.get(code & 0xFF, str(code))
        place = Place(datagram[start], nl.string_of(fields.get(1, b"")), nl.string_of(fields.get(2, b"")))
        flow = parse_flow(fields.get(8, b"") + fields.get(9, b""))
        yield Event(kind, place, nl.uint_of(fields.get(3, b"")), verdict, flow, nl.uint_of(fields.get(13, b"")))


@dataclass(frozen=True, slots=True)
class Met:
    """A base chain that the packet met. `verdict`: `accept`, `drop`, `queue`, …; `continue` where the trace ends in
    it. `place` and `handle`: where it came from; `handle` None: the policy of the base chain."""

    base: BaseChain
    verdict: str
    place: Place
    handle: int | None
    flow: Flow | None
    chains: tuple[Place, ...]


def chains_met(events: Iterable[Event], bases: Mapping[Place, BaseChain]) -> list[Met]:
    """In the order of the packet's way. A base chain begins with an event of its own: what it jumps to comes
    after the rule that jumps."""
    found: list[Met] = []
    for event in events:
        if event.kind == "return":
            continue
        base = bases.get(event.place)
        is_new = base is not None and (not found or found[-1].base is not base)
        if not is_new and not found:
            continue
        current = Met(base, "continue", event.place, None, event.flow, ()) if is_new and base else found.pop()
        verdict = current.verdict if event.verdict in _CONTROL.values() else event.verdict
        is_end = event.verdict not in _CONTROL.values()
        found.append(
            Met(
                current.base,
                verdict,
                event.place if is_end else current.place,
                (event.handle or None) if is_end else current.handle,
                current.flow or event.flow,
                tuple(dict.fromkeys((*current.chains, event.place))),
            )
        )
    return found


def translated(events: Iterable[Event], flow: Flow) -> Flow | None:
    """The flow that the forward hook saw, where it is another than the one that was sent."""
    forwarded = (each.flow for each in events if each.place[1:] == (PROBE_TABLE, "forward"))
    seen = next((each for each in forwarded if each is not None), None)
    return None if seen == flow else seen
