"""The keys by which the rules look for a packet in the set of a mask: what ruleset.py says in nft's words. Pure.

A packet is looked up in both roles, and by the port of either end. Who asks has an element in the kernel that no
registration explains, and wants to know what passes by it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatewayd.model.flow import Flow
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.prefix import mask_address
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS


def keys_of(mask: Mask, flow: Flow) -> Iterator[bytes]:
    """Those of a flow's packet; none where the mask is of another family or service. The same may come twice."""
    if mask.family != (4 if len(flow.source) == 4 else 6):
        return
    has_ports = flow.protocol in PROTOCOLS_WITH_PORTS
    if not has_ports and (mask.port_length or mask.source_bits > 0):
        return
    source = flow.source, flow.source_port
    destination = flow.destination, flow.destination_port
    for _, port in (destination, source):
        bundle = BUNDLES.get(mask.selector)
        if bundle is not None and not any(service.matches(flow.protocol, port) for service in bundle):
            continue
        for (client, block), (peer, _) in ((source, destination), (destination, source)):
            key = mask_address(client, mask.client_length)
            if mask.peer_length != ANY_PEER:
                key += mask_address(peer, mask.peer_length)
            if mask.has_protocol:
                key += bytes((flow.protocol, 0, 0, 0))
            for bits, number in ((mask.port_length, port), (mask.source_bits, block)):
                if bits > 0:
                    key += (number & (0xFFFF << (16 - bits))).to_bytes(2, "big") + b"\0\0"
            yield key
