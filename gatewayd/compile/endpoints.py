"""The look-ups of endpoints of licensed providers: nft text of these chains. Pure.

    look_up           … and behind all others, where there is such a set:
    endpointsN        which end is the client?
    to_endpointN      a packet to an endpoint, its service at the destination port: registered
    from_endpointN    a packet of an endpoint, its service at the source port: left alone

A flow from inside to an endpoint is registered, and never one from it. So no packet of the endpoint makes a flow
registered. It may be the first of a client's flow all the same: after a flush, a failover, a reboot or an idle hour
the far end's packet comes first. It looks like one that opens a flow where both ends have the service's port, as
IKE has, or none, as ESP. It is passed without a mark. Of TCP the flags tell: a SYN is no answer, and a SYN with ACK
opens nothing. If the client answers, the client's packet is to an endpoint,
and the flow is registered. If it does not, nothing becomes of it.

The limits. What an endpoint sends from its service's port is not refused. Where no interface
is named, any end may be the client: then a packet to an endpoint is registered from wherever it comes, also from
outside to an endpoint inside.

Without endpoints in the registry there is no rule of these. With them only packets that nothing else registers come
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gatewayd.compile.interfaces import Sides, client_tests
from gatewayd.compile.lookups import FAMILIES, PORT_PROTOCOLS, chain, key_of
from gatewayd.model.mask import Mask
from gatewayd.model.prefix import Family
from gatewayd.model.service import BUNDLES

MISSED = "missed"
"""The chain of a packet that nothing registers."""


def ends_of_lookups(hooks: Mapping[Mask, str]) -> dict[Family, str]:
    """By family, the chain behind all other look-ups."""
    return {family: f"endpoints{family}" if _are_some(family, hooks) else MISSED for family in FAMILIES}


def _are_some(family: Family, hooks: Mapping[Mask, str]) -> bool:
    return any(mask.is_endpoint and mask.family == family for mask in hooks)


def endpoint_chains(named: Sides, hooks: Mapping[Mask, str], leaving: Sequence[str] = ()) -> list[str]:
    """None where no set is one of endpoints. `leaving`: rules for packets that are not looked up here."""
    tests = client_tests(named)
    chains: list[str] = []
    for family in FAMILIES:
        if not _are_some(family, hooks):
            continue
        answers = f"from_endpoint{family}"
        behind = MISSED if tests else answers
        to = [
            f"tcp flags & (syn | ack) == (syn | ack) goto {behind}",
            *_lookups(family, hooks, "daddr", "dport", "goto registered"),
        ]
        ways = [f"{test} goto to_endpoint{family}" for test in tests] or to
        chains += chain(f"endpoints{family}", [*leaving, *ways, f"goto {answers}"])
        if tests:
            chains += chain(f"to_endpoint{family}", [*to, f"goto {behind}"])
        opening = f"tcp flags & (syn | ack) == syn goto {MISSED}"
        found = _lookups(family, hooks, "saddr", "sport", "accept")
        chains += chain(answers, [opening, *found, f"goto {MISSED}"])
    return chains


def _lookups(family: Family, hooks: Mapping[Mask, str], end: str, port: str, verdict: str) -> list[str]:
    lines = []
    for mask, name in hooks.items():
        if mask.is_endpoint and mask.family == family:
            look_up = f"{key_of(mask, end, '', port)} @{name} {verdict}"
            lines += [f"{test}{look_up}" for test in _tests(mask.selector, port)]
    return lines


def _tests(selector: str, port: str) -> Sequence[str]:
    """What is of a bundle; what has ports at all."""
    if selector not in BUNDLES:
        return [f"meta l4proto {PORT_PROTOCOLS} "] if selector != "proto" else [""]
    members = sorted(BUNDLES[selector])
    ported = [f"{each.protocol} . {each.low}" for each in members if each.low == each.high]
    whole = [f"{each.protocol}" for each in members if each.low != each.high]
    tests = [f"meta l4proto . th {port} {{ {', '.join(ported)} }} "] if ported else []
    return [*tests, *([f"meta l4proto {{ {', '.join(whole)} }} "] if whole else [])]
