"""The look-ups of endpoints of licensed providers: nft text of these chains. Pure.

    look_up          … and behind all others, where there is such a set:
    endpoints        which end is the client?
    to_endpoint      a packet to an endpoint, its service at the destination port: registered
    from_endpoint    a packet of an endpoint, its service at the source port: left alone

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

WAY = "endpoints"
"""The chain that a packet goes to which nothing else registers."""


def has_endpoints(hooks: Mapping[Mask, str]) -> bool:
    return any(mask.is_endpoint for mask in hooks)


def endpoint_chains(named: Sides, hooks: Mapping[Mask, str]) -> list[str]:
    """None where no set is one of endpoints."""
    families = [family for family in FAMILIES if any(mask.is_endpoint and mask.family == family for mask in hooks)]
    if not families:
        return []
    tests = client_tests(named)
    ways = [f"{test} goto to_endpoint" for test in tests] if tests else ["jump to_endpoint"]
    chains = chain(WAY, [*ways, "goto from_endpoint"])
    for name, end, port, verdict, flags in (
        ("to_endpoint", "daddr", "dport", "goto registered", "(syn | ack)"),
        ("from_endpoint", "saddr", "sport", "accept", "syn"),
    ):
        not_of_tcp = f"tcp flags & (syn | ack) == {flags} return"
        chains += chain(
            name, [not_of_tcp, *(f"meta nfproto ipv{family} goto {name}{family}" for family in families)]
        )
        for family in families:
            chains += chain(f"{name}{family}", _lookups(family, hooks, end, port, verdict))
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
