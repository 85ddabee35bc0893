"""The passage check: the way of a packet through a copy of all that the host's nf_tables have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from gatewayd.errors import MissingPrerequisite
from gatewayd.kernel.external_codec import FAMILIES
from gatewayd.lab.traffic import EPHEMERAL_PORT
from gatewayd.model.flow import Flow
from gatewayd.model.prefix import format_address
from gatewayd.model.service import PROTOCOLS_WITH_PORTS
from gatewayd.passage.copying import (
    DOUBTS,
    Place,
    Ruleset,
    base_chain_of,
    expressions_of,
    is_allowlist,
    is_left_empty,
    own_tables,
    select,
)
from gatewayd.passage.host import Way, has_mark_rules, read_legacy_tables, read_ruleset, read_way
from gatewayd.passage.scratch import Refused, Scratch
from gatewayd.passage.trace import PROBE_TABLE, Event, Met, chains_met, translated
from gatewayd.passage.views import ChainView, CopyView, Outcome, ProbeView, RuleView

MAX_NOTES: Final = 20
_HELPER: Final = (3).to_bytes(4, "big")
"""NFT_OBJECT_CT_HELPER."""


async def probe(flow: Flow, service: str, incoming: str | None, outgoing: str | None) -> ProbeView:
    """What becomes of the first packet of a flow that is new to connection tracking. Raises CannotProbe,
    KernelError, MissingPrerequisite."""
    if os.geteuid() != 0:
        raise MissingPrerequisite("a passage check reads all rules and makes network namespaces", "run it as root")
    if flow.protocol in PROTOCOLS_WITH_PORTS and not flow.source_port:
        flow = msgspec.structs.replace(flow, source_port=EPHEMERAL_PORT)
    way = read_way(flow, incoming, outgoing)
    asked = await _ask(flow, flow, way)
    seen = translated(asked.events, flow)
    if seen is not None:
        # The forward hook sees another flow: its route and its elements are asked for.
        behind = Flow(flow.protocol, flow.source, seen.destination, flow.source_port, seen.destination_port)
        way = read_way(behind, way.incoming.name, outgoing)
        asked = await _ask(flow, behind, way)
    return _view(flow, seen, service, way, asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a copy answered."""

    ruleset: Ruleset
    arrived: bool
    refused_packet: bool
    events: tuple[Event, ...]
    met: tuple[Met, ...]
    views: tuple[ChainView, ...]
    refused: tuple[Refused, ...]


async def _ask(flow: Flow, seen: Flow, way: Way) -> _Asked:
    devices = frozenset(each.name for each in (way.incoming, way.outgoing) if each is not None)
    ruleset = select(await read_ruleset(seen), devices, is_ipv6=len(flow.source) == 16)
    bases = {base.place: base for base in map(base_chain_of, ruleset.listed["chain"]) if base is not None}
    with Scratch(way, flow, seen=seen) as scratch:
        refused = await scratch.load(ruleset)
        observed = scratch.send(from_ingress=any(base.hook == "ingress" for base in bases.values()))
        met = chains_met((each for each in observed.events if each.place.table != PROBE_TABLE), bases)
        views = tuple(_chain_view(scratch, each) for each in met)
    return _Asked(
        ruleset,
        observed.arrived,
        observed.refused,
        tuple(observed.events),
        tuple(met),
        views,
        tuple(refused),
    )


def _chain_view(scratch: Scratch, met: Met) -> ChainView:
    family, table, chain = met.base.place
    handle = None if met.handle is None else scratch.host_handle(met.place, met.handle)
    rule = RuleView(met.place.chain, handle, scratch.rule_text(met.place, met.handle))
    return ChainView(FAMILIES[family], table, chain, met.base.hook, met.base.priority, met.verdict, rule)


def _view(flow: Flow, seen: Flow | None, service: str, way: Way, asked: _Asked) -> ProbeView:
    is_local = way.outgoing is None and seen is None
    views = tuple(each for each in asked.views if not is_local or each.hook in ("ingress", "prerouting"))
    outcome, reason = _outcome(asked, views, is_local=is_local)
    met = {place for each in asked.met for place in each.chains}
    doubts = tuple(_doubts(asked, met))
    notes = (*doubts, *_notes(flow, way, asked))
    listed = asked.ruleset.listed
    return ProbeView(
        src=format_address(flow.source),
        dst=format_address(flow.destination),
        service=service,
        incoming=way.incoming.name,
        outgoing=None if way.outgoing is None else way.outgoing.name,
        translated=None if seen is None else _end(seen),
        outcome=outcome,
        reason=reason,
        is_certain=not doubts,
        chains=views,
        copied=CopyView(
            len(listed["table"]),
            len(listed["chain"]),
            len(listed["rule"]) - sum(each.listed.kind == "rule" for each in asked.refused),
            len(asked.ruleset.found),
            sum(_is_left_empty(asked.ruleset)),
        ),
        notes=notes[:MAX_NOTES],
    )


def _end(flow: Flow) -> str:
    address = format_address(flow.destination)
    if not flow.destination_port:
        return address
    return f"[{address}]:{flow.destination_port}" if ":" in address else f"{address}:{flow.destination_port}"


def _is_left_empty(ruleset: Ruleset) -> Iterator[bool]:
    ours = own_tables(ruleset.listed["rule"])
    for each in ruleset.listed["set"]:
        yield each.place[:2] in ours and (is_allowlist(each.place) or is_left_empty(each.place))


def _outcome(asked: _Asked, views: Sequence[ChainView], *, is_local: bool) -> tuple[Outcome, str]:
    last = views[-1] if views else None
    where = "" if last is None else _place(last)
    if last is not None and last.verdict == "drop":
        word: Outcome = "rejected" if asked.refused_packet else "dropped"
        return word, f"{word} by {where}"
    if last is not None and last.verdict in ("queue", "stolen"):
        what = "gives it to a program in user space" if last.verdict == "queue" else "takes it"
        return "not known", f"{where} {what}"
    if is_local:
        return "for the host", "its destination is an address of this host, and no rule translates it"
    if asked.arrived:
        return "passes", "no chain drops it"
    return "not known", f"it is lost, and no rule says so; the last chain that it met: {where or 'none'}"


def _place(view: ChainView) -> str:
    rule = "its policy" if view.by.handle is None else f"rule {view.by.handle}"
    text = f" ({view.by.text})" if view.by.text else ""
    return f"table {view.family} {view.table} chain {view.by.chain} {rule}{text}"


def _doubts(asked: _Asked, met: set[Place]) -> Iterator[str]:
    """Why the answer may be another on the host: of the chains that the packet met."""
    for each in asked.refused:
        place = each.listed.place
        if each.listed.kind != "rule":
            yield f"{each.listed.kind} {place} could not be copied: {each.why}"
        elif place in met:
            yield f"rule {each.listed.handle} of {place} could not be copied: {each.why}"
    ours = own_tables(asked.ruleset.listed["rule"])
    for rule in asked.ruleset.listed["rule"]:
        if rule.place in met and rule.place[:2] not in ours:
            names = [each.name for each in expressions_of(rule)]
            yield from (
                f"rule {rule.handle} of {rule.place}: {name} {DOUBTS[name]}" for name in names if name in DOUBTS
            )


def _notes(flow: Flow, way: Way, asked: _Asked) -> Iterator[str]:
    """What is not asked here, on any host that has it."""
    is_ipv6 = len(flow.source) == 16
    for each in asked.ruleset.listed["flowtable"]:
        place = each.place
        yield f"flowtable {place} is not copied: packets of an established flow in it meet no forward chain"
    if any(each.get(3) == _HELPER for each in asked.ruleset.listed["object"]):
        yield "conntrack helpers expect no connection in the copy: a packet of one that is related is new here"
    legacy = read_legacy_tables(is_ipv6=is_ipv6)
    if legacy:
        yield f"tables of iptables-legacy are not copied: {', '.join(legacy)}"
    if has_mark_rules(is_ipv6=is_ipv6):
        yield "this host routes by packet mark too: the way was asked for without a mark"
    for end in (way.incoming, way.outgoing):
        if end is not None and end.master:
            yield f"{end.name} is a port of {end.master}: chains that see {end.master} are not asked"
