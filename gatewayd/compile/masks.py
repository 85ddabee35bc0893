"""Registrations to elements: which mask each part of a registration falls under, and the key it has there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from gatewayd.model.flow import Flow
from gatewayd.model.mask import ANY_PEER, ENDPOINT, NOT_BOUND, Mask
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.model.registration import BoundRegistration, Registration
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS, Service

WIDEST_LISTED_RANGE = 64
"""A port range up to this wide is one element a port; a wider one is cut into aligned powers of two."""

MAX_ELEMENTS = 4096
"""A registration that would need more elements than this is not programmed, and is reported."""

MAX_BOUND_ELEMENTS = 16384
"""The same of a binding, whose elements are more so that its masks may be few."""

ELEMENT_BYTES = 160
"""Memory of this process for one desired element, at most: the key 48 to 80, its place in a set 37 to 74.

Measured at a million (Python 3.11, x86-64): 37 for an IPv4 client alone, 134 with a peer, 154 for IPv6 with peer
and service."""

KERNEL_ELEMENT_BYTES = 128
"""Memory of the kernel for one element, at most.

Measured on 6.18: 65 for an IPv4 client, 113 for IPv6 with peer and service; a timeout adds 16."""

PORT_GRAINS = (4, 8, 12, 16)
"""Leading bits of the client's port in the keys of a binding: 4,096, 256, 16 and 1 ports, whatever a NAT gives out.

A block of 1,000 ports from 1,024 on takes 26 elements, 40 at most; 2,000 take 22, 35 at most; 63, 126, 252, 504,
1,008, 2,016 and 4,032 take 18 to 27; 256, 512 and 4,096 that are aligned take 1, 2 and 1.

A plan of blocks below 4,096 ports has three masks: none of its blocks has an aligned 4,096 in it. The fourth is for
wide blocks. Without it 4,096 ports take 16 elements instead of 1. All from 1,024 on take 252 instead of 27: with 64
peers and two services that is past MAX_BOUND_ELEMENTS, and the subscriber is not programmed. Without 8 bits 1,000
ports take 70; without 12, 251.
"""

GRAINS = {4: (16, 24, 32), 6: (48, 56, 64, 128)}
"""Lengths of a binding's own prefix in its keys; a /60 is sixteen /64."""

PEER_GRAINS = {4: (8, 16, 24, 32), 6: (32, 48, 64, 128)}
"""Lengths of a binding's peers in its keys, unless it would take more than MAX_CUT elements."""

SERVICE_GRAINS = (4, 8, 12, 16)
"""Leading bits of the destination port in the keys of a binding, likewise."""

MAX_CUT = 256
"""Elements of a binding that are made for the sake of few masks; 1,000 ports to 64 peers would be 1,664."""

ANY_GRAIN = tuple(range(1, 17))
"""Every number of leading bits that a port in a key may have."""

_ANY: tuple[tuple[str, bytes], ...] = (("", b""),)


def count_elements(wanted: Registration | BoundRegistration) -> int:
    """How many elements it compiles to, without making them; of a port block, how many at most."""
    return _shape(wanted)[0] if isinstance(wanted, BoundRegistration) else _count_elements(wanted)


def count_programmed(registration: Registration) -> int:
    """As `count_elements`, and 0 where it is past MAX_ELEMENTS: then none is made. Asked of each of a million."""
    if registration.peers or registration.extension is not None:
        count = _count_elements(registration)
    else:
        count = len(registration.clients) * len(select_services(registration.services))
    return count if count <= MAX_ELEMENTS else 0


def _count_elements(registration: Registration) -> int:
    clients, peers = registration.clients, registration.peers
    pairs = len(clients)
    if registration.extension is not None:
        pairs += len(registration.extension.endpoints)
    if peers:
        narrow_clients = sum(len(client.packed) == 4 for client in clients)
        narrow_peers = sum(len(peer.packed) == 4 for peer in peers)
        pairs = narrow_clients * narrow_peers + (pairs - narrow_clients) * (len(peers) - narrow_peers)
    return pairs * len(select_services(registration.services))


def compile_elements(registration: Registration) -> list[tuple[Mask, bytes]]:
    """(mask, key) of every element that makes the registration pass. Windows and status are not looked at."""
    selectors = select_services(registration.services)
    elements = []
    for client in registration.clients:
        packed, length = client.packed, client.length
        width = len(packed)
        if not registration.peers:
            for selector, suffix in selectors:
                elements.append((_intern_mask(width, length, ANY_PEER, selector), packed + suffix))
            continue
        for peer in registration.peers:
            if len(peer.packed) == width:
                key = packed + peer.packed
                for selector, suffix in selectors:
                    elements.append((_intern_mask(width, length, peer.length, selector), key + suffix))
    if registration.extension is not None:
        for endpoint in registration.extension.endpoints:
            packed, length = endpoint.packed, endpoint.length
            for selector, suffix in selectors:
                mask = _intern_mask(len(packed), length, ANY_PEER, selector, ENDPOINT)
                elements.append((mask, packed + suffix))
    return elements


def compile_bound(bound: BoundRegistration) -> list[tuple[Mask, bytes]]:
    """(mask, key) of every element that makes a subscriber's registration pass at an address.

    Prefix and ports are cut into pieces of few sizes, and only protocols with ports can come out of a port block.
    """
    count, peers, services = _shape(bound)
    if not count:
        return []
    width = len(bound.prefix.packed)
    blocks = source_blocks(bound.ports)
    elements = []
    # One past the bound is not programmed: its millions of pieces are not made.
    is_past = count > MAX_BOUND_ELEMENTS
    for client in (bound.prefix,) if is_past else cut_prefix(bound.prefix, GRAINS[bound.prefix.family]):
        packed, length = client.packed, client.length
        for selector, suffix in services:
            if bound.ports is not None and selector == "proto" and suffix[0] not in PROTOCOLS_WITH_PORTS:
                continue
            for peer in peers:
                peer_length, key = (ANY_PEER, packed) if peer is None else (peer.length, packed + peer.packed)
                for bits, block in blocks:
                    elements.append(
                        (_intern_mask(width, length, peer_length, selector, bits), key + suffix + block)
                    )
    return elements


def is_former(mask: Mask) -> bool:
    """Whether no binding is put into such a set any more: it is from an earlier version."""
    return mask.is_bound and (
        mask.client_length not in GRAINS[mask.family] or mask.source_bits not in (0, *PORT_GRAINS)
    )


def _shape(bound: BoundRegistration) -> tuple[int, tuple[Prefix | None, ...], tuple[tuple[str, bytes], ...]]:
    """How many elements, to which peers (None = any) and with which services: both cut into few sizes or, where
    that would be many elements, as they are."""
    registration, family = bound.registration, bound.prefix.family
    places = count_cut(bound.prefix.length, GRAINS[family]) * len(source_blocks(bound.ports))
    own = tuple(peer for peer in registration.peers if peer.family == family)
    peers: tuple[Prefix | None, ...] = own if registration.peers else (None,)
    services = select_services(registration.services, SERVICE_GRAINS)
    pieces = sum(count_cut(peer.length, PEER_GRAINS[family]) for peer in own) if registration.peers else 1
    if places * pieces * len(services) > MAX_CUT:
        services = select_services(registration.services)
        return places * len(peers) * len(services), peers, services
    if registration.peers:
        # Peers of a registration may overlap, and no element comes twice.
        peers = tuple(dict.fromkeys(each for peer in own for each in cut_prefix(peer, PEER_GRAINS[family])))
    return places * len(peers) * len(services), peers, services


def count_cut(length: int, grains: tuple[int, ...]) -> int:
    """Into how many pieces `cut_prefix` would cut a prefix of this length."""
    return 1 << next(grain - length for grain in grains if grain >= length)


def cut_prefix(prefix: Prefix, grains: tuple[int, ...]) -> Iterator[Prefix]:
    """The prefixes of the next longer one of these lengths that make it up; itself, if it has one of them."""
    width = len(prefix.packed)
    length = next(grain for grain in grains if grain >= prefix.length)
    if length == prefix.length:
        yield prefix
        return
    first, step = int.from_bytes(prefix.packed, "big"), 1 << (width * 8 - length)
    for number in range(1 << (length - prefix.length)):
        yield Prefix((first + number * step).to_bytes(width, "big"), length)


@lru_cache(maxsize=65536)
def source_blocks(ports: tuple[int, int] | None) -> tuple[tuple[int, bytes], ...]:
    """(leading bits, what the client's port adds to the key) of each block of a binding's ports."""
    if ports is None:
        return ((0, b""),)
    return tuple((bits, port.to_bytes(2, "big") + b"\0\0") for port, bits in split_range(*ports, PORT_GRAINS))


@cache
def _intern_mask(
    width: int, client_length: int, peer_length: int, selector: str, source_bits: int = NOT_BOUND
) -> Mask:
    """One object for a mask, `width` being the bytes of an address; at most 2 · 129 · 130 · 23 · 19 of them exist,
    and DesiredSets bounds those in use."""
    return Mask(4 if width == 4 else 6, client_length, peer_length, selector, source_bits)


@lru_cache(maxsize=65536)
def select_services(
    services: tuple[Service, ...], grains: tuple[int, ...] = ANY_GRAIN
) -> tuple[tuple[str, bytes], ...]:
    """(selector, what the service adds to the key) for each element a client needs; see model/mask.py. `grains`: as
    of `split_range`."""
    if not services:
        return _ANY
    rest = set(services)
    chosen: list[tuple[str, bytes]] = []
    for name, members in BUNDLES.items():
        if rest.issuperset(members):
            chosen.append((name, b""))
            rest.difference_update(members)
    for service in sorted(rest):
        chosen.extend(_select_service(service, grains))
    return tuple(dict.fromkeys(chosen))  # ranges may overlap


def _select_service(service: Service, grains: tuple[int, ...]) -> Iterator[tuple[str, bytes]]:
    protocol = bytes((service.protocol, 0, 0, 0))
    if (service.low, service.high) == (0, 65535):
        yield "proto", protocol
    elif service.high - service.low < WIDEST_LISTED_RANGE:
        for port in range(service.low, service.high + 1):
            yield "port16", protocol + port.to_bytes(2, "big") + b"\0\0"
    else:
        for port, length in split_range(service.low, service.high, grains):
            yield f"port{length}", protocol + port.to_bytes(2, "big") + b"\0\0"


def split_range(low: int, high: int, grains: tuple[int, ...] = ANY_GRAIN) -> Iterator[tuple[int, int]]:
    """(first port, leading bits) of the fewest aligned blocks of these sizes that make up low..high."""
    while low <= high:
        bits = next(
            bits for bits in grains if low % (1 << (16 - bits)) == 0 and low + (1 << (16 - bits)) - 1 <= high
        )
        yield low, bits
        low += 1 << (16 - bits)


def keys_of(mask: Mask, flow: Flow) -> Iterator[bytes]:
    """Those of a flow's packet; none where the mask is of another family or service. The same may come twice."""
    if mask.is_near or mask.family != (4 if len(flow.source) == 4 else 6):
        return
    has_ports = flow.protocol in PROTOCOLS_WITH_PORTS
    if not has_ports and (mask.port_length or mask.source_bits > 0):
        return
    source = flow.source, flow.source_port
    destination = flow.destination, flow.destination_port
    # Of an endpoint only what is sent to it, by its own port.
    ends = (destination,) if mask.is_endpoint else (destination, source)
    roles = ((destination, source),) if mask.is_endpoint else ((source, destination), (destination, source))
    for _, port in ends:
        bundle = BUNDLES.get(mask.selector)
        if bundle is not None and not any(service.matches(flow.protocol, port) for service in bundle):
            continue
        for (client, block), (peer, _) in roles:
            key = mask_address(client, mask.client_length)
            if mask.peer_length != ANY_PEER:
                key += mask_address(peer, mask.peer_length)
            if mask.has_protocol:
                key += bytes((flow.protocol, 0, 0, 0))
            for bits, number in ((mask.port_length, port), (mask.source_bits, block)):
                if bits > 0:
                    key += (number & (0xFFFF << (16 - bits))).to_bytes(2, "big") + b"\0\0"
            yield key
