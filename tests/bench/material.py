"""What is measured with: registrations, their prefixes, hosts. The same at every run, made once in `material`."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from gatewayd.lab.world import announced_prefixes, encode_ndjson, generate_records
from gatewayd.model import Prefix, parse_prefix

SEED = 20240101


def host_keys(count: int) -> list[bytes]:
    """`count` different IPv4 addresses of 16 million, in no order."""
    numbers = random.Random(SEED).sample(range(16 << 20), count)
    return [(0x0A000000 | number).to_bytes(4, "big") for number in numbers]


def host_texts(count: int) -> list[str]:
    return [f"{key[0]}.{key[1]}.{key[2]}.{key[3]}" for key in host_keys(count)]


def snapshot(material: Path, size: int) -> Path:
    """NDJSON of `size` registrations over the prefixes announced in Pakistan."""

    def write(path: Path) -> None:
        randomness = random.Random(SEED)
        records = generate_records(announced_prefixes(4), announced_prefixes(6), randomness, size)
        path.write_bytes(encode_ndjson(records))

    return keep_made(material / f"registrations-{size}.ndjson", write)


def packed_snapshot(material: Path, size: int) -> Path:
    """The same as a feed serves it."""

    def write(path: Path) -> None:
        path.write_bytes(gzip.compress(snapshot(material, size).read_bytes(), 6))

    return keep_made(material / f"registrations-{size}.ndjson.gz", write)


def client_prefixes(material: Path, size: int) -> Path:
    """The IPv4 client prefixes of those registrations, one a line, those under another left out: an interval set
    takes no overlaps."""

    def write(path: Path) -> None:
        found: set[Prefix] = set()
        for line in snapshot(material, size).read_bytes().splitlines():
            clients = msgspec.json.decode(line)["clients"]
            found.update(parse_prefix(each) for each in clients if ":" not in each)
        path.write_text("".join(f"{each}\n" for each in outermost_prefixes(found)))

    return keep_made(material / f"prefixes-{size}.txt", write)


def outermost_prefixes(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Those that lie under no other of them, sorted, IPv4 first."""
    kept: list[Prefix] = []
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.family, prefix.packed, prefix.length)):
        if not kept or not kept[-1].covers(prefix.packed):
            kept.append(prefix)
    return kept


def nft_set(name: str, option: str, elements: Sequence[str], table: str = "bench") -> str:
    """A ruleset of one set of IPv4 addresses or prefixes, for `nft -f`."""
    lines = ",\n".join(elements)
    return f"table inet {table} {{\nset {name} {{\ntype ipv4_addr\n{option}\nelements = {{\n{lines}\n}}\n}}\n}}\n"


def keep_made(path: Path, write: Callable[[Path], None]) -> Path:
    """The file, written now if it is not there; never half."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        write(fresh)
        fresh.replace(path)
    return path


FIRST_ADDRESS = 0x0B000000
LENGTHS = {24: 19, 26: 17, 27: 28, 28: 65, 29: 336, 30: 198, 32: 337}
"""Of a thousand client prefixes of the registrations that the other rows read."""


def disjoint_prefixes(count: int) -> list[Prefix]:
    """As many as asked for, none within another, in no order: an interval set takes no overlaps. Of a million
    registrations over one country's addresses most lie under another. IPv4; each lies in either half of a block of
    its own, so that few of them touch."""
    randomness = random.Random(SEED)
    lengths = sorted(randomness.choices(list(LENGTHS), list(LENGTHS.values()), k=count))
    prefixes, address = [], FIRST_ADDRESS
    for length in lengths:
        size = 1 << (32 - length)
        prefixes.append(Prefix((address + size * randomness.getrandbits(1)).to_bytes(4, "big"), length))
        address += 2 * size
    randomness.shuffle(prefixes)
    return prefixes
