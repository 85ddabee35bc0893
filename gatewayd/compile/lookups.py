"""The look-ups of the sets of all masks in use: nft text of these chains. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.prefix import Family, format_address, mask_bytes
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS

FAMILIES: tuple[Family, ...] = (4, 6)
PORT_PROTOCOLS = "{ " + ", ".join(str(number) for number in sorted(PROTOCOLS_WITH_PORTS)) + " }"


def chain(name: str, lines: Iterable[str]) -> list[str]:
    return ["", f"chain {name} {{", *(f"\t{line}" for line in lines), "}"]


def lookup_chains(hooks: Mapping[Mask, str], ends: Mapping[Family, str]) -> list[str]:
    """`look_up`, and the stages behind it in the order of a packet's way. `ends`: by family, the chain of a packet
    that nothing registers.

        look_up              to the look-ups of the bundle that the destination port, or the protocol, is of
        classifyN_<bundle>   the look-ups of this bundle
        classifyN_ports      those with the destination port in the key
        classifyN_rest       those for a protocol, for any service, and those with the source port in the key
        answeredN_<bundle>   the look-ups of the bundle that the source port is of

    Each ends in a `goto` to the next: only a packet that has passed all of them gets to its family's end. A chain
    that another program flushes ends the way, and the policy of the base chain accepts. A return that says "not
    found" would be the same from an empty chain as from a whole one.

    A test for each bundle in turn, without a map before them, costs a new flow more than the look-ups behind it:
    1.7 × as many new flows a second with the map, at 31 k registrations and 298 look-ups (6.18).
    """
    look_up: list[str] = []
    chains: list[str] = []
    for family in FAMILIES:
        groups = _groups(family, hooks)
        bundles = sorted(groups.keys() & BUNDLES.keys())
        rest = f"classify{family}_rest"
        first = f"classify{family}_ports" if "ports" in groups else rest
        here = f"meta nfproto ipv{family} "
        look_up += [here + line for line in _to_bundles("dport", bundles, f"classify{family}")]
        look_up.append(f"{here}goto {first}")
        for name in bundles:
            chains += _stage(f"classify{family}_{name}", _lookups(groups[name], hooks), first)
        if "ports" in groups:
            with_ports = [f"meta l4proto != {PORT_PROTOCOLS} goto {rest}", *_lookups(groups["ports"], hooks)]
            chains += _stage(first, with_ports, rest)
        chains += _rest_chains(family, groups, hooks, ends[family])
    return [*chain("look_up", look_up), *chains]


def answer_ways() -> list[str]:
    """From here the look-ups of a packet whose source port alone is a service's."""
    return [f"meta nfproto ipv{family} goto classify{family}_rest" for family in FAMILIES]


def _groups(family: Family, hooks: Mapping[Mask, str]) -> dict[str, list[Mask]]:
    """By bundle; "ports": with a port in the key; "proto" and "": the rest."""
    groups: dict[str, list[Mask]] = {}
    for mask in hooks:
        if mask.family == family and not (mask.is_near or mask.is_endpoint):
            group = "ports" if mask.port_length and mask.selector not in BUNDLES else mask.selector
            groups.setdefault(group, []).append(mask)
    return groups


def _stage(name: str, lines: Iterable[str], following: str) -> list[str]:
    return chain(name, [*lines, f"goto {following}"])


def _rest_chains(
    family: Family, groups: Mapping[str, Sequence[Mask]], hooks: Mapping[Mask, str], end: str
) -> list[str]:
    bundles = [name for name in sorted(groups.keys() & BUNDLES.keys()) if _ported(name)]
    lines = [line for name in ("proto", "") for line in _lookups(groups.get(name, []), hooks)]
    by_source_port = [
        *_lookups(groups.get("ports", []), hooks, "sport"),
        *_to_bundles("sport", bundles, f"answered{family}"),
    ]
    if by_source_port:
        lines += [f"meta l4proto != {PORT_PROTOCOLS} goto {end}", *by_source_port]
    chains = _stage(f"classify{family}_rest", lines, end)
    for name in bundles:
        chains += _stage(f"answered{family}_{name}", _lookups(groups[name], hooks), end)
    return chains


def _ported(bundle: str) -> list[str]:
    return [f"{each.protocol} . {each.low}" for each in sorted(BUNDLES[bundle]) if each.low == each.high]


def _whole(bundle: str) -> list[str]:
    return [f"{each.protocol}" for each in sorted(BUNDLES[bundle]) if each.low != each.high]


def _to_bundles(port: str, names: Sequence[str], prefix: str) -> list[str]:
    """Go to the look-ups of the packet's bundle. No service is in two, so a packet is in one at most by a port of
    it; by a protocol, all of which is of a bundle, its `dport` look-ups stand for both roles.

    A map is never all: while rules are replaced, a packet that is on its way through the old ones finds their maps
    empty (the kernel makes the elements of a map inactive in the next generation, nf_tables_api.c:
    nft_mapelem_deactivate, since 6.10 and in stable kernels). Seen on 6.18: 6 of a million registered flows refused
    in 450 replacements. Sets that are no maps keep theirs. So a packet that the map should have known leaves: its
    flow is judged by the next one.
    """
    lines = _map_and_set(f"meta l4proto . th {port}", {name: _ported(name) for name in names}, prefix)
    if port == "dport":
        lines += _map_and_set("meta l4proto", {name: _whole(name) for name in names}, prefix)
    return lines


def _map_and_set(key: str, bundles: Mapping[str, list[str]], prefix: str) -> list[str]:
    """`bundles`: values of the key by the name of their bundle."""
    values = [each for found in bundles.values() for each in found]
    if not values:
        return []
    ways = ", ".join(f"{each} : goto {prefix}_{name}" for name, found in bundles.items() for each in found)
    return [f"{key} vmap {{ {ways} }}", f"{key} {{ {', '.join(values)} }} accept"]


def _lookups(masks: Sequence[Mask], hooks: Mapping[Mask, str], service: str = "dport") -> list[str]:
    """The look-ups of the masks' sets: first for the client as source, then as destination of what comes from the
    far end. `service`: the port that is the service's."""
    return [
        f"{_guard(mask)}{key_of(mask, client, peer, service)} @{hooks[mask]} goto registered"
        for client, peer in (("saddr", "daddr"), ("daddr", "saddr"))
        for mask in masks
    ]


def _guard(mask: Mask) -> str:
    """Other protocols have something else where a port would be."""
    needs_one = mask.source_bits > 0 and not mask.port_length
    return f"meta l4proto {PORT_PROTOCOLS} " if needs_one else ""


def key_of(mask: Mask, client: str, peer: str, service: str) -> str:
    """A block of ports is the client's: the source port of what it sends, the destination port of what it gets."""
    word = "ip" if mask.family == 4 else "ip6"
    key = masked(word, client, mask.family, mask.client_length)
    if mask.peer_length != ANY_PEER:
        key += " . " + masked(word, peer, mask.family, mask.peer_length)
    if mask.has_protocol:
        key += " . meta l4proto"
    if mask.port_length:
        key += " . " + _masked_port(service, mask.port_length)
    if mask.source_bits > 0:
        key += " . " + _masked_port("sport" if client == "saddr" else "dport", mask.source_bits)
    return key


def _masked_port(field: str, bits: int) -> str:
    return f"th {field}" if bits == 16 else f"th {field} & 0x{(0xFFFF << (16 - bits)) & 0xFFFF:04x}"


def masked(word: str, field: str, family: Family, length: int) -> str:
    width = 4 if family == 4 else 16
    if length == width * 8:
        return f"{word} {field}"
    return f"{word} {field} & {format_address(mask_bytes(width, length))}"
