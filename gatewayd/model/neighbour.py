"""Rules of other programs that use our bits of the ct mark, and how full connection tracking is."""

from __future__ import annotations

from typing import Literal

import msgspec

Deed = Literal["writes", "leaks"]
"""*writes*: sets the ct mark and does not keep our bits. *leaks*: copies our bits into the packet mark."""


class Neighbour(msgspec.Struct, frozen=True, gc=False):
    """One rule, by the names that `nft -a list` shows."""

    deed: Deed
    family: str
    table: str
    chain: str
    handle: int

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.chain} handle {self.handle}"


class ConntrackSize(msgspec.Struct, frozen=True, gc=False):
    """Of a network namespace. `dropped`, `insert_failed`, `early_dropped`: since it was made; None where the kernel
    does not tell (CONFIG_NF_CONNTRACK_PROCFS)."""

    entries: int
    most: int
    dropped: int | None = None
    """Packets for whose flow there was no room."""
    insert_failed: int | None = None
    early_dropped: int | None = None
    """Flows thrown out, as others needed their room."""

    @property
    def fill(self) -> float:
        return self.entries / self.most if self.most else 0.0
