"""Flows of registered clients, in the sender's format, and a registry of any number of masks."""

from __future__ import annotations

import datetime
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gatewayd.lab.world import Record, encode_ndjson
from gatewayd.model.service import UDP, parse_services
from tests.bench.gateways import SCOPE
from tests.bench.material import snapshot

SOURCE_PORT = 10_000
FAR_END = "198.51.100.7"
"""Of the documentation range (RFC 5737): where flows go whose registration names no far end."""
_FLOW = struct.Struct("!4s4sHH")
_SCOPE_PORTS = {
    service.low for service in parse_services(SCOPE) if service.protocol == UDP and service.low == service.high
}
MASK_REGISTRATIONS = 31_000
_CLIENT_LENGTHS = range(32, 16, -1)


@dataclass(frozen=True, slots=True)
class FlowFiles:
    """Flows, and the same in the other direction."""

    there: Path
    back: Path


def registered_flows(material: Path, size: int, count: int) -> FlowFiles:
    """At most `count` flows over UDP and IPv4, each of another registration of the snapshot, from all over it."""
    files = _files(material, f"flows-{size}-{count}")
    if not files.back.exists():
        flows = sorted(_flows_in(snapshot(material, size).read_bytes().splitlines()))
        _write(files, flows[:: max(1, len(flows) // count)][:count])
    return files


def unregistered_flows(material: Path, count: int) -> FlowFiles:
    """Of so many addresses of 10.0.0.0/8, which no registration of the snapshot has, forty of a /24."""
    files = _files(material, f"unregistered-{count}")
    if not files.back.exists():
        numbers = range(count)
        _write(files, [_flow(f"10.9.{each // 40}.{each % 40 + 1}", FAR_END, max(_SCOPE_PORTS)) for each in numbers])
    return files


def _flows_in(lines: Sequence[bytes]) -> set[bytes]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    decode = msgspec.json.Decoder(Record).decode
    return {flow for line in lines for flow in _flows_of(decode(line), now)}


def _flows_of(record: Record, now: str) -> Iterator[bytes]:
    is_effective = record.valid_from <= now and (record.valid_until is None or now < record.valid_until)
    clients = [each for each in record.clients if ":" not in each]
    peers = [each for each in record.peers if ":" not in each]
    if record.status != "active" or not is_effective or not clients or (record.peers and not peers):
        return
    ports = {service.low for service in parse_services(record.services) if service.protocol == UDP} & _SCOPE_PORTS
    if not record.services:
        ports = _SCOPE_PORTS
    if ports:
        yield _flow(clients[0], peers[0] if peers else FAR_END, max(ports))


def registry_of_masks(material: Path, masks: int) -> tuple[Path, FlowFiles]:
    """31,000 registrations spread over so many masks, none of them under another, and flows of those that the rules
    look for last: the longest client prefixes come first, among equal ones the shortest far ends
    (compile/ruleset.py)."""
    registry = material / f"masks-{masks}.ndjson"
    files = _files(material, f"masks-{masks}")
    if not files.back.exists():
        lengths = [*_CLIENT_LENGTHS][:masks]
        kinds = [(client, peer) for client in lengths for peer in (None, 30, 31, 32)[: -(-masks // len(lengths))]]
        records: list[Record] = []
        last: list[bytes] = []
        address = 40 << 24
        for client, peer in reversed(kinds):
            for _ in range(MASK_REGISTRATIONS // masks):
                source = socket.inet_ntoa(address.to_bytes(4, "big"))
                address += 1 << (32 - client)
                records.append(_record(len(records), f"{source}/{client}", peer))
                if (client, peer) == kinds[-1]:
                    last.append(_flow(source, FAR_END, max(_SCOPE_PORTS)))
        registry.write_bytes(encode_ndjson(records))
        _write(files, last)
    return registry, files


def _record(number: int, client: str, peer_length: int | None) -> Record:
    far_end = int.from_bytes(socket.inet_aton(FAR_END), "big")
    peers: tuple[str, ...] = ()
    if peer_length is not None:
        network = far_end >> (32 - peer_length) << (32 - peer_length)
        peers = (f"{socket.inet_ntoa(network.to_bytes(4, 'big'))}/{peer_length}",)
    return Record(
        f"PK-2024-{number:06}", "bank", "active", (client,), None, peers, (), "2024-01-01T00:00:00Z", None
    )


def _flow(client: str, peer: str, port: int) -> bytes:
    addresses = (socket.inet_aton(each.partition("/")[0]) for each in (client, peer))
    return _FLOW.pack(*addresses, SOURCE_PORT, port)


def _files(material: Path, name: str) -> FlowFiles:
    return FlowFiles(material / f"{name}.flows", material / f"{name}.back")


def _write(files: FlowFiles, flows: Sequence[bytes]) -> None:
    files.there.write_bytes(b"".join(flows))
    back = []
    for flow in flows:
        source, destination, source_port, port = _FLOW.unpack(flow)
        back.append(_FLOW.pack(destination, source, port, source_port))
    files.back.write_bytes(b"".join(back))
