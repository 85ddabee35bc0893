"""A mask: which bits of a flow are significant. One kernel hash set for every mask in use.

The key of an element is the significant parts, each padded to 4 bytes as nft registers are:

    client [. peer] [. protocol [. port]] [. the client's own port]

`c…` sets hold registrations' own clients, `b…` sets addresses that a subscriber has for a while (bindings), whose
elements go by themselves unless asserted again. In both, a flow matches from either end, and the service's port may
be that of either end. `e…` sets hold endpoints of licensed providers: only what is sent to one matches, by its
destination port.

`selector` says how the service takes part:

    ""         any service; not in the key
    a bundle   `ipsec`, …: not in the key either, the rules look here only for flows of the bundle's services
    "proto"    the protocol is in the key (esp, gre; udp = all its ports)
    "portN"    protocol and the N leading bits of the service's port are in the key, N = 1..16
    "near"     it decides nothing: prefixes that clients of registrations lie in, for the log (compile/near.py)

Measured for 1,000,000 registrations of `ipsec` (4 services) over 12 prefix lengths: an element per client and
service 4 M elements, 395 MiB, 2.3 s; one set per bundle 1 M elements, 102 MiB, 0.4 s. A set for every list of
services would cost a new flow 10–60 µs at 50 lists; bundles are five at most, and every other service is an
element of its own.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

import msgspec

from gatewayd.model.prefix import Family, format_address
from gatewayd.model.service import BUNDLES

ANY_PEER = -1
"""`peer_length` of masks without a peer in the key."""

NOT_BOUND = -1
"""`source_bits` of masks of registrations' own clients."""

NEAR = "near"
"""`selector` of masks whose sets make no flow registered."""

ENDPOINT = -2
"""`source_bits` of masks of providers' endpoints, whose prefix is in the place of the client's."""

Role = Literal["client", "bound", "endpoint"]

_NAME = re.compile(
    r"(?P<role>[bce])(?P<family>[46])_(?P<client>\d{1,3})(?:_p(?P<peer>\d{1,3}))?"
    r"(?:_(?P<selector>proto|near|port(?:1[0-6]|[1-9])|" + "|".join(BUNDLES) + r"))?"
    r"(?:_s(?P<source>1[0-6]|[1-9]))?(?:_g(?P<generation>[1-9]\d*))?"
)


_LETTERS: dict[Role, str] = {"client": "c", "bound": "b", "endpoint": "e"}


class Mask(msgspec.Struct, frozen=True, gc=False, order=True, cache_hash=True):
    """`client_length`, `peer_length`: prefix lengths; ANY_PEER where any peer will do.

    `source_bits`: NOT_BOUND, ENDPOINT, or of bindings the leading bits of the client's port in the key, 1..16 for
    a port block (CGNAT) and 0 for a whole address.
    """

    family: Family
    client_length: int
    peer_length: int = ANY_PEER
    selector: str = ""
    source_bits: int = NOT_BOUND

    @property
    def is_bound(self) -> bool:
        """Whether its elements are of bindings, with an element timeout."""
        return self.source_bits >= 0

    @property
    def is_endpoint(self) -> bool:
        """Whether its elements are endpoints of licensed providers."""
        return self.source_bits == ENDPOINT

    @property
    def role(self) -> Role:
        return "endpoint" if self.is_endpoint else ("bound" if self.is_bound else "client")

    @property
    def is_near(self) -> bool:
        """Whether its elements make no flow registered."""
        return self.selector == NEAR

    @property
    def port_length(self) -> int:
        """Significant leading bits of the port; 0 where the port is not in the key."""
        return int(self.selector[4:]) if self.selector.startswith("port") else 0

    @property
    def has_protocol(self) -> bool:
        return self.selector == "proto" or self.selector.startswith("port")

    @property
    def key_length(self) -> int:
        """Bytes of an element's key."""
        address = 4 if self.family == 4 else 16
        parts = 1 if self.peer_length == ANY_PEER else 2
        return address * parts + 4 * (self.has_protocol + (self.port_length > 0) + (self.source_bits > 0))

    def __str__(self) -> str:
        peer = "" if self.peer_length == ANY_PEER else f"_p{self.peer_length}"
        selector = f"_{self.selector}" if self.selector else ""
        source = f"_s{self.source_bits}" if self.source_bits > 0 else ""
        return f"{_LETTERS[self.role]}{self.family}_{self.client_length}{peer}{selector}{source}"


def set_name(mask: Mask, generation: int) -> str:
    """The kernel set's name: `c4_29_p32_ipsec`, and `…_g2` for one made to replace a set that was outgrown."""
    return f"{mask}_g{generation}" if generation else str(mask)


def describe_key(name: str, key: bytes) -> str:
    """A key of the set of this name as nft shows it: `192.0.2.0 . 198.51.100.7 . 17 . 500`."""
    parsed = parse_set_name(name)
    if parsed is None or len(key) != parsed[0].key_length:
        return key.hex()
    mask = parsed[0]
    width = 4 if mask.family == 4 else 16
    addresses = width * (1 if mask.peer_length == ANY_PEER else 2)
    parts = [format_address(key[start : start + width]) for start in range(0, addresses, width)]
    if mask.has_protocol:
        parts.append(str(key[addresses]))
    if mask.port_length:
        parts.append(str(int.from_bytes(key[addresses + 4 : addresses + 6], "big")))
    if mask.source_bits > 0:
        parts.append(str(int.from_bytes(key[-4:-2], "big")))
    return " . ".join(parts)


@lru_cache(maxsize=1024)
def parse_set_name(name: str) -> tuple[Mask, int] | None:
    """The mask and generation a set's name says; None if it is not a name of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    family: Family = 4 if match["family"] == "4" else 6
    mask = Mask(
        family,
        int(match["client"]),
        ANY_PEER if match["peer"] is None else int(match["peer"]),
        match["selector"] or "",
        int(match["source"] or 0) if match["role"] == "b" else (ENDPOINT if match["role"] == "e" else NOT_BOUND),
    )
    generation = int(match["generation"] or 0)
    widest = 32 if family == 4 else 128
    if mask.client_length > widest or mask.peer_length > widest or set_name(mask, generation) != name:
        return None
    return mask, generation
