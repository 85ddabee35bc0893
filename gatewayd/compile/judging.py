"""The way of a packet until it is known as registered or not: nft text of these chains. Pure.

Interfaces, protocol and ports decide whether the policy is about it. Then it is looked up in the sets of all masks
in use (`classify…`, `answered…`). The effects of either result are in `effects`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Family, format_address, mask_bytes
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS, Service

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


def unmatched(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Those of `policy.interfaces` that no interface has now, by the `names` of all that there are."""
    present = tuple(names)
    return tuple(each for each in patterns if not any(_has_name(each, name) for name in present))


def _has_name(pattern: str, name: str) -> bool:
    """As nft compares: a `*` at the end stands for anything (`ppp*`), and nowhere else."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def interface_warnings(policy: Policy, names: Iterable[str]) -> tuple[str, ...]:
    """Sentences on names of the policy that no interface has now; what such a name turns off comes first."""
    present = sorted(names)
    sides = (("inside", policy.inside), ("outside", policy.outside))
    absent = [(side, name) for side, patterns in sides for name in unmatched(patterns, present)]
    said = [
        f"no interface has a name of policy.interfaces.{side} ({', '.join(patterns)}): the rules judge no packet,"
        f" in any mode, until one has"
        for side, patterns in sides
        if patterns and len(unmatched(patterns, present)) == len(patterns)
    ]
    for side, name in absent:
        stem = name.removesuffix("*")
        near = [each for each in present if each.startswith(stem) or stem.startswith(each)][:_MAX_NEAR]
        hint = f"; is {' or '.join(near)} meant?" if near else ""
        said.append(f"no interface is named {name} now (policy.interfaces.{side}){hint}")
    return tuple(said)


_MAX_NEAR = 3
"""Interfaces that a warning proposes."""


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


# The look-ups


def classifying_chains(family: Family, hooks: Mapping[Mask, str]) -> list[str]:
    """`classifyN` goes to the look-ups of the packet's own bundle (`classifyN_bundle`), then to those of protocols
    and ports in use, and last to those for any service.

    A test for each bundle in turn, without a map before them, costs a new flow more than the look-ups behind it:
    1.7 × as many new flows a second with the map, at 31 k registrations and 298 look-ups (6.18).

    `answeredN` is what depends on the port once more, the source port being the service's.
    """
    groups: dict[str, list[Mask]] = {}
    for mask in hooks:
        if mask.family == family:
            group = mask.selector if mask.selector in BUNDLES else ("ports" if mask.port_length else mask.selector)
            groups.setdefault(group, []).append(mask)
    chains: list[str] = []
    for group in sorted(groups.keys() & {*BUNDLES, "proto"}):
        chains += chain(f"classify{family}_{group}", _lookups(groups[group], hooks))
    bundles = sorted(groups.keys() & BUNDLES.keys())
    ways: dict[str, list[str]] = {}
    for name, port in (("classify", "dport"), ("answered", "sport")):
        to_bundle = _to_bundle(family, bundles, port)
        chains += chain(f"{name}{family}_bundle", to_bundle) if to_bundle else []
        ways[port] = [f"jump {name}{family}_bundle"] if to_bundle else []
        if "ports" in groups:
            chains += chain(f"{name}{family}_ports", _lookups(groups["ports"], hooks, port))
            ways[port].append(f"meta l4proto {PORT_PROTOCOLS} jump {name}{family}_ports")
    rest = [f"jump classify{family}_proto"] if "proto" in groups else []
    rest += _lookups(groups.get("", []), hooks)
    chains += chain(f"classify{family}_rest", rest)
    chains += chain(f"classify{family}", [*ways["dport"], f"goto classify{family}_rest"])
    return chains + chain(f"answered{family}", ways["sport"])


def _to_bundle(family: Family, names: Sequence[str], port: str) -> list[str]:
    """Go to the look-ups of the packet's bundle. No service is in two, so a packet is in one at most by a port of
    it; by a protocol, all of which is of a bundle, its `dport` look-ups stand for both roles.

    A map is never all: while rules are replaced, a packet that is on its way through the old ones finds their maps
    empty (the kernel makes the elements of a map inactive in the next generation, nf_tables_api.c:
    nft_mapelem_deactivate, since 6.10 and in stable kernels). Seen on 6.18: 6 of a million registered flows refused
    in 450 replacements. Sets that are no maps keep theirs, so behind each map the same is asked of sets.
    """
    by_port = {
        name: [f"{each.protocol} . {each.low}" for each in sorted(BUNDLES[name]) if each.low == each.high]
        for name in names
    }
    by_protocol = {
        name: [f"{each.protocol}" for each in sorted(BUNDLES[name]) if each.low != each.high]
        for name in names
        if port == "dport"
    }
    key = f"meta l4proto . th {port}"
    return [*_map_and_sets(family, key, by_port), *_map_and_sets(family, "meta l4proto", by_protocol)]


def _map_and_sets(family: Family, key: str, bundles: Mapping[str, list[str]]) -> list[str]:
    """`bundles`: values of the key by the name of their bundle."""
    found = {name: values for name, values in bundles.items() if values}
    if not found:
        return []
    ways = ", ".join(f"{each} : goto classify{family}_{name}" for name, values in found.items() for each in values)
    return [
        f"{key} vmap {{ {ways} }}",
        *(f"{key} {{ {', '.join(values)} }} goto classify{family}_{name}" for name, values in found.items()),
    ]


def _lookups(masks: Sequence[Mask], hooks: Mapping[Mask, str], service: str = "dport") -> list[str]:
    """The look-ups of the masks' sets: first for the client as source, then as destination of what comes from the
    far end. `service`: the port that is the service's."""
    return [
        f"{_guard(mask)}{_key(mask, client, peer, service)} @{hooks[mask]} goto registered"
        for client, peer in (("saddr", "daddr"), ("daddr", "saddr"))
        for mask in masks
    ]


def _guard(mask: Mask) -> str:
    """Other protocols have something else where a port would be."""
    needs_one = mask.source_bits > 0 and not mask.port_length
    return f"meta l4proto {PORT_PROTOCOLS} " if needs_one else ""


def _key(mask: Mask, client: str, peer: str, service: str) -> str:
    """A block of ports is the client's: the source port of what it sends, the destination port of what it gets."""
    word = "ip" if mask.family == 4 else "ip6"
    key = _masked(word, client, mask.family, mask.client_length)
    if mask.peer_length != ANY_PEER:
        key += " . " + _masked(word, peer, mask.family, mask.peer_length)
    if mask.has_protocol:
        key += " . meta l4proto"
    if mask.port_length:
        key += " . " + _masked_port(service, mask.port_length)
    if mask.source_bits > 0:
        key += " . " + _masked_port("sport" if client == "saddr" else "dport", mask.source_bits)
    return key


def _masked_port(field: str, bits: int) -> str:
    return f"th {field}" if bits == 16 else f"th {field} & 0x{(0xFFFF << (16 - bits)) & 0xFFFF:04x}"


def _masked(word: str, field: str, family: Family, length: int) -> str:
    width = 4 if family == 4 else 16
    if length == width * 8:
        return f"{word} {field}"
    return f"{word} {field} & {format_address(mask_bytes(width, length))}"
