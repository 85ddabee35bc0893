"""As many prefixes as asked for, none within another: an interval set takes no overlaps, and of a million
registrations over one country's addresses most lie under another (material.client_prefixes leaves 42 thousand)."""

from __future__ import annotations

import random

from gatewayd.model import Prefix
from tests.bench.material import SEED

FIRST_ADDRESS = 0x0B000000
LENGTHS = {24: 19, 26: 17, 27: 28, 28: 65, 29: 336, 30: 198, 32: 337}
"""Of a thousand client prefixes of the registrations that the other rows read."""


def disjoint_prefixes(count: int) -> list[Prefix]:
    """IPv4, in no order. Each lies in either half of a block of its own, so that few of them touch."""
    randomness = random.Random(SEED)
    lengths = sorted(randomness.choices(list(LENGTHS), list(LENGTHS.values()), k=count))
    prefixes, address = [], FIRST_ADDRESS
    for length in lengths:
        size = 1 << (32 - length)
        prefixes.append(Prefix((address + size * randomness.getrandbits(1)).to_bytes(4, "big"), length))
        address += 2 * size
    randomness.shuffle(prefixes)
    return prefixes
