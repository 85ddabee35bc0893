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


def classifying_chains(family: Family, hooks: Mapping[Mask, str]) -> list[str]:
    """`classifyN` goes to the look-ups of the packet's own bundle (`classifyN_bundle`), then to those of protocols
    and ports in use, and last to those for any service.

    A test for each bundle in turn, without a map before them, costs a new flow more than the look-ups behind it:
    1.7 × as many new flows a second with the map, at 31 k registrations and 298 look-ups (6.18).

    `answeredN` is what depends on the port once more, the source port being the service's.
    """
    groups: dict[str, list[Mask]] = {}
    for mask in hooks:
        if mask.family == family and not (mask.is_near or mask.is_endpoint):
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
