"""Another program that holds nf_tables: one transaction that takes the kernel seconds, and every other waits."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gatewayd.lab.namespace import Namespace

ELEMENTS = 30_000
"""Of an interval set over two fields. What the kernel does for it is quadratic: some 5 s (6.18)."""


def write_large_ruleset(path: Path, elements: int = ELEMENTS) -> None:
    """A table of another program, for `nft -f`."""
    spread = random.Random(1)
    words = []
    for number in range(elements):
        low = 0x0A000000 + number * 8
        first, last = (_address(low + each) for each in (0, spread.randint(1, 6)))
        words.append(f"{first}-{last} . {spread.randint(1, 30000)}-{spread.randint(30001, 65000)}")
    text = f"set s {{ type ipv4_addr . inet_service; flags interval; elements = {{ {', '.join(words)} }}; }}"
    path.write_text(f"table ip other {{\n{text}\n}}\ndelete table ip other\n")


def _address(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


@contextmanager
def holding(namespace: Namespace, ruleset: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program works on the ruleset again and again, until the block ends."""
    loop = f"while :; do nft -f {ruleset}; done"
    process = namespace.popen(["sh", "-c", loop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
