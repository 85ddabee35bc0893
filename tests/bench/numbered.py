"""Registrations by mobile number: a registry with as many of them as wanted, and the numbers themselves.

`generate_records` registers one of ten by number, as a country may; who serves mobile subscribers alone has more.
Only those that are effective are taken, so that every number stands for somebody who is registered now.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgspec

from gatewayd.lab.world import MAX_NUMBERS, Record, announced_prefixes, encode_ndjson, generate_records
from tests.bench.material import SEED, keep_made

UNLISTED = 5_000_000
"""From here on no number is registered."""
_CANDIDATES = MAX_NUMBERS // 2


@dataclass(frozen=True, slots=True)
class Numbered:
    """`registry`: NDJSON. `numbers`: of the registrations by number, for the sender, 4 bytes each, little-endian.

    `open_numbers`: of those that may speak WireGuard to anybody.
    """

    registry: Path
    numbers: Path
    open_numbers: Path

    def count(self) -> int:
        return self.numbers.stat().st_size // 4


def numbered_registry(material: Path, size: int, share: float) -> Numbered:
    """`size` registrations, of which `share` (0..1) are by mobile number. Made once."""
    name = f"numbered-{size}-{round(100 * share)}"
    files = Numbered(*(material / f"{name}.{kind}" for kind in ("ndjson", "numbers", "open")))

    def write(path: Path) -> None:
        by_number = round(size * share)
        records = list(chain(islice(_records(True), by_number), islice(_records(False), size - by_number)))
        path.write_bytes(encode_ndjson(records))

    keep_made(files.registry, write)
    keep_made(files.numbers, lambda path: _write_numbers(path, files.registry, is_open=False))
    keep_made(files.open_numbers, lambda path: _write_numbers(path, files.registry, is_open=True))
    return files


def read_numbers(path: Path) -> list[int]:
    return [number for (number,) in struct.iter_unpack("<I", path.read_bytes())]


def _records(by_number: bool) -> Iterator[Record]:
    drawn = generate_records(announced_prefixes(4), announced_prefixes(6), random.Random(SEED), _CANDIDATES)
    for record in drawn:
        is_effective = record.status == "active" and (record.valid_until or "9") > "2090"
        if is_effective and (record.subscriber is not None) is by_number:
            yield record


def _write_numbers(path: Path, registry: Path, *, is_open: bool) -> None:
    """Registration n is of mobile_number(n), and its id ends in n."""
    decode = msgspec.json.Decoder(Record).decode
    with registry.open("rb") as lines:
        found = [
            int(record.id.rpartition("-")[2])
            for record in map(decode, lines)
            if record.subscriber is not None
            and (not is_open or (not record.peers and (not record.services or "wireguard" in record.services)))
        ]
    path.write_bytes(b"".join(struct.pack("<I", number) for number in found))
