"""Which packets the policy is about, and the way of one until it is looked up: nft text of these chains. Pure.

interfaces, protocol and ports decide; the look-ups are in `lookups`, and what comes of them in `effects`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from gatewayd.model.policy import Policy
from gatewayd.model.service import PROTOCOLS_WITH_PORTS, Service

PORT_PROTOCOLS = "{ " + ", ".join(str(number) for number in sorted(PROTOCOLS_WITH_PORTS)) + " }"


_LOG_COPY = 128
"""Bytes of a packet that NFLOG copies: headers, IPv6 extension headers included, of which we read addresses,
protocol and ports."""


def chain(name: str, lines: Iterable[str]) -> list[str]:
    return ["", f"chain {name} {{", *(f"\t{line}" for line in lines), "}"]


def as_hex(value: int) -> str:
    return f"0x{value:08x}"


def interface_tests(policy: Policy) -> list[str]:
    """Traffic that does not cross between inside and outside leaves."""
    crossing = _crossing(policy)
    return [f"{test} goto scope" for test in crossing] if crossing else ["goto scope"]


def _crossing(policy: Policy) -> list[str]:
    """Tests, one of which is true of a packet between inside and outside; a side without names is any interface.
    None where neither side has names."""
    inside, outside = _interfaces(policy.inside), _interfaces(policy.outside)
    if inside and outside:
        pairs = [*product(inside, outside), *product(outside, inside)]
        return list(dict.fromkeys(f"iifname {incoming} oifname {outgoing}" for incoming, outgoing in pairs))
    return [f"{word} {names}" for word in ("iifname", "oifname") for names in inside or outside]


def in_policy(policy: Policy) -> list[str]:
    """Return if a packet is between inside and outside and has a service in scope at either end, else accept. A
    mark alone never brings anything else before the policy."""
    whole, ports = _scope_by_protocol(policy.scope)
    ways = {protocol: "return" for protocol in whole} | {
        protocol: f"goto in_scope_{protocol}" for protocol in ports
    }
    lines = []
    if ways:
        targets = ", ".join(f"{protocol} : {way}" for protocol, way in sorted(ways.items()))
        lines.append(f"meta l4proto vmap {{ {targets} }}")
    chains = []
    for protocol, listed in sorted(ports.items()):
        either = [f"th {port} {listed} return" for port in ("dport", "sport")]
        chains += chain(f"in_scope_{protocol}", [*either, "accept"])
    chains += chain("in_scope", [*lines, "accept"])
    crossing = [f"{test} goto in_scope" for test in _crossing(policy)]
    return chains + chain("in_policy", [*crossing, "accept"] if crossing else ["goto in_scope"])


def _interfaces(names: tuple[str, ...]) -> list[str]:
    """Values to compare an interface's name with. Before 1.0.3 nft refuses a wildcard in a set."""
    wild = sorted(f'"{name}"' for name in names if name.endswith("*"))
    plain = sorted(f'"{name}"' for name in names if not name.endswith("*"))
    return ([f"{{ {', '.join(plain)} }}"] if plain else []) + wild


def knows_inside(policy: Policy) -> bool:
    """Whether the rules can tell a packet's end inside from the one outside."""
    return bool(client_tests(policy))


def client_tests(policy: Policy) -> list[str]:
    """Tests, one of which is true of a packet that a client sent, among those that cross; none where that cannot be
    told: no interface is named, or one is named for both sides."""
    if _may_meet(policy.inside, policy.outside):
        return []
    if policy.inside:
        return [f"iifname {names}" for names in _interfaces(policy.inside)]
    return [f"oifname {names}" for names in _interfaces(policy.outside)]


def _may_meet(inside: Iterable[str], outside: Iterable[str]) -> bool:
    """Whether an interface may have a name of both sides; a `*` at the end stands for anything."""
    return any(
        (one.endswith("*") and other.startswith(one[:-1]))
        or (other.endswith("*") and one.startswith(other[:-1]))
        or one == other
        for one, other in product(inside, outside)
    )


def scope_chains(scope: tuple[Service, ...]) -> list[str]:
    """One look-up of the protocol; ports are looked at for protocols that have some in scope."""
    whole, ports = _scope_by_protocol(scope)
    ways = {protocol: "judge" for protocol in whole} | {protocol: f"scope_{protocol}" for protocol in ports}
    if not ways:
        return chain("scope", [])
    targets = ", ".join(f"{protocol} : goto {target}" for protocol, target in sorted(ways.items()))
    chains = chain("scope", [f"meta l4proto vmap {{ {targets} }}"])
    for protocol, listed in sorted(ports.items()):
        # `new` is every packet of a flow until it was answered.
        answer = f"ct state new,untracked th sport {listed} goto answer"
        chains += chain(f"scope_{protocol}", [f"th dport {listed} goto judge", answer])
    return chains


def _scope_by_protocol(scope: tuple[Service, ...]) -> tuple[set[int], dict[int, str]]:
    """Protocols that are in scope whole; of others their ports, as an nft set."""
    whole = {service.protocol for service in scope if (service.low, service.high) == (0, 65535)}
    ports: dict[int, list[str]] = {}
    for service in sorted(scope):
        if service.protocol not in whole:
            single = service.low == service.high
            ports.setdefault(service.protocol, []).append(
                f"{service.low}" if single else f"{service.low}-{service.high}"
            )
    return whole, {protocol: f"{{ {', '.join(values)} }}" for protocol, values in ports.items()}


def judging_chains(policy: Policy, epoch: int) -> list[str]:
    layout = policy.mark_layout
    judge = ["ct direction reply goto reply", "goto judge_packet"]
    judge_packet = [
        "jump look_up",
        f"ct mark set ct mark & {as_hex(layout.others)} | {as_hex(layout.judged(epoch))}",
        "counter name unregistered_flows",
        f"limit rate {policy.log_packets_s}/second burst {policy.log_packets_s} packets "
        f"log group {policy.log_group} snaplen {_LOG_COPY} queue-threshold 1",
        "goto unregistered",
    ]
    from_client = client_tests(policy)
    if from_client:
        reply = [*_server_answers(policy.scope), *(f"{test} goto judge_packet" for test in from_client), "accept"]
    else:
        reply = ["jump look_up", "accept"]
    answer = [
        *_by_family("jump answered{}"),
        *_by_family("jump classify{}_rest"),
        "accept",
    ]
    look_up = [
        *_by_family("jump classify{}"),
        f"meta l4proto != {PORT_PROTOCOLS} return",
        *_by_family("jump answered{}"),
    ]
    return [
        *chain("judge", judge),
        *chain("judge_packet", judge_packet),
        *chain("reply", reply),
        *(chain("answer", answer) if _has_ports(policy.scope) else []),
        *chain("look_up", look_up),
    ]


def _by_family(way: str) -> list[str]:
    """No map: see _to_bundle."""
    return [f"meta nfproto ipv{family} {way.format(family)}" for family in (4, 6)]


def _server_answers(scope: tuple[Service, ...]) -> list[str]:
    """Accept the answers of servers inside to somebody whose own port happens to be in scope: the server's port is
    a system port, and no service in scope."""
    lines = []
    for protocol in sorted({each.protocol for each in scope if each.protocol in PROTOCOLS_WITH_PORTS}):
        taken = [(each.low, each.high) for each in scope if each.protocol == protocol]
        free = ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in _gaps(taken))
        if free:
            lines.append(f"meta l4proto {protocol} th sport {{ {free} }} accept")
    return lines


_LAST_SERVER_PORT = 1023
"""Ports that no client takes for itself (RFC 6335 §6: system ports)."""


def _gaps(taken: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is left of 1..1023."""
    low = 1
    for first, last in (*sorted(taken), (_LAST_SERVER_PORT + 1, _LAST_SERVER_PORT + 1)):
        high = min(first - 1, _LAST_SERVER_PORT)
        if low <= high:
            yield low, high
        low = max(low, last + 1)


def _has_ports(scope: tuple[Service, ...]) -> bool:
    """Whether the scope has single ports of a protocol, rather than all of them."""
    return any((each.low, each.high) != (0, 65535) for each in scope)
