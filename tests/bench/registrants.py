"""Addresses of registrants, from all over the registry, and flows of theirs that it lets pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from gatewayd.demo.cast import FAR
from gatewayd.lab.traffic import flow_of
from gatewayd.lab.world import Record
from gatewayd.model import Flow, format_address, parse_prefix
from tests.bench.material import snapshot

PORT = 51820
"""WireGuard's."""


def registered_sources(material: Path, size: int, most: int) -> list[str]:
    """At most so many IPv4 addresses, each of a registration that may speak WireGuard to anybody, for ever."""
    found = dict.fromkeys(_sources(snapshot(material, size)))
    return list(islice(found, 0, None, max(1, len(found) // most)))[:most]


def _sources(path: Path) -> Iterator[str]:
    decode = msgspec.json.Decoder(Record).decode
    with path.open("rb") as lines:
        for record in map(decode, lines):
            is_open = record.status == "active" and not record.peers and record.valid_until is None
            if is_open and "wireguard" in record.services:
                clients = (parse_prefix(each) for each in record.clients if ":" not in each)
                yield from (format_address(each.packed) for each in clients)


def registered_flow(source: str, source_port: int) -> Flow:
    return flow_of(source, FAR, f"udp/{PORT}", source_port)
