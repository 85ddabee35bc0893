"""Registrations to elements: which mask each part of a registration falls under, and the key it has there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from gatewayd.model.grant import Grant
from gatewayd.model.mask import ANY_PEER, NOT_BOUND, Mask
from gatewayd.model.registration import Registration
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS, Service

WIDEST_LISTED_RANGE = 64
"""A port range up to this wide is one element a port; a wider one is cut into aligned powers of two."""

MOST_ELEMENTS = 4096
"""A registration that would need more elements than this is not programmed, and is reported."""

_ANY: tuple[tuple[str, bytes], ...] = (("", b""),)


def count_elements(wanted: Registration | Grant) -> int:
    """How many elements it compiles to, without making them; of a port block, how many at most."""
    if isinstance(wanted, Grant):
        registration, blocks = wanted.registration, source_blocks(wanted.ports)
        family = wanted.prefix.family
        peers = sum(peer.family == family for peer in registration.peers) if registration.peers else 1
        return peers * len(select_services(registration.services)) * len(blocks)
    return _count_elements(wanted)


def _count_elements(registration: Registration) -> int:
    peers = registration.peers
    if not peers:
        return len(registration.clients) * len(select_services(registration.services))
    pairs = 0
    for client in registration.clients:
        width = len(client.packed)
        pairs += sum(len(peer.packed) == width for peer in peers)
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
    return elements


def compile_grant(grant: Grant) -> list[tuple[Mask, bytes]]:
    """(mask, key) of every element that makes a subscriber's registration pass at an address.

    A port block is cut into aligned powers of two, and only protocols with ports can come out of one.
    """
    registration, prefix = grant.registration, grant.prefix
    width, length = len(prefix.packed), prefix.length
    blocks = source_blocks(grant.ports)
    ends = (
        [(peer.length, prefix.packed + peer.packed) for peer in registration.peers if len(peer.packed) == width]
        if registration.peers
        else [(ANY_PEER, prefix.packed)]
    )
    elements = []
    for selector, suffix in select_services(registration.services):
        if grant.ports is not None and selector == "proto" and suffix[0] not in PROTOCOLS_WITH_PORTS:
            continue
        for peer_length, key in ends:
            for bits, block in blocks:
                elements.append((_intern_mask(width, length, peer_length, selector, bits), key + suffix + block))
    return elements


@lru_cache(maxsize=65536)
def source_blocks(ports: tuple[int, int] | None) -> tuple[tuple[int, bytes], ...]:
    """(leading bits, what the source port adds to the key) of each block of a binding's ports."""
    if ports is None:
        return ((0, b""),)
    return tuple((bits, port.to_bytes(2, "big") + b"\0\0") for port, bits in _split_ports(*ports))


def _split_ports(low: int, high: int) -> Iterator[tuple[int, int]]:
    """As `split_range`; all ports are two halves, as a key has one bit of the port at least."""
    if (low, high) == (0, 65535):
        yield from ((0, 1), (32768, 1))
    else:
        yield from split_range(low, high)


@cache
def _intern_mask(
    width: int, client_length: int, peer_length: int, selector: str, source_bits: int = NOT_BOUND
) -> Mask:
    """One object for a mask, `width` being the bytes of an address; at most 2 · 129 · 130 · 23 · 18 of them exist,
    and DesiredSets bounds those in use."""
    return Mask(4 if width == 4 else 6, client_length, peer_length, selector, source_bits)


@lru_cache(maxsize=65536)
def select_services(services: tuple[Service, ...]) -> tuple[tuple[str, bytes], ...]:
    """(selector, what the service adds to the key) for each element a client needs; see model/mask.py."""
    if not services:
        return _ANY
    rest = set(services)
    chosen: list[tuple[str, bytes]] = []
    for name, members in BUNDLES.items():
        if rest.issuperset(members):
            chosen.append((name, b""))
            rest.difference_update(members)
    for service in sorted(rest):
        chosen.extend(_select_service(service))
    return tuple(chosen)


def _select_service(service: Service) -> Iterator[tuple[str, bytes]]:
    protocol = bytes((service.protocol, 0, 0, 0))
    if (service.low, service.high) == (0, 65535):
        yield "proto", protocol
    elif service.high - service.low < WIDEST_LISTED_RANGE:
        for port in range(service.low, service.high + 1):
            yield "port16", protocol + port.to_bytes(2, "big") + b"\0\0"
    else:
        for port, length in split_range(service.low, service.high):
            yield f"port{length}", protocol + port.to_bytes(2, "big") + b"\0\0"


def split_range(low: int, high: int) -> Iterator[tuple[int, int]]:
    """(first port, leading bits) of the fewest aligned blocks that make up low..high, not 0..65535."""
    while low <= high:
        bits = (low & -low).bit_length() - 1 if low else 16
        while low + (1 << bits) - 1 > high:
            bits -= 1
        yield low, 16 - bits
        low += 1 << bits
