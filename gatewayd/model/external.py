"""Rules of other programs that use our bits of the ct mark, and how full connection tracking is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from gatewayd.model.metric import counter, gauge

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
    """Connection tracking of a network namespace. `dropped`, `insert_failed`, `early_dropped`: since
    it was made; None where the kernel does not tell (CONFIG_NF_CONNTRACK_PROCFS)."""

    entries: Annotated[int, gauge("conntrack_entries",
        "Connections of everybody that the kernel tracks in our network namespace."
        " Absent while connection tracking is not loaded.",
        "over 80 % of the maximum for 5 min: **at the maximum new flows of everybody are dropped**")]  # fmt: skip
    most: Annotated[int, gauge("conntrack_max",
        "The bound: net.netfilter.nf_conntrack_max.")] = msgspec.field(name="max")  # fmt: skip
    dropped: Annotated[int | None, counter("conntrack_dropped",
        "Packets dropped because there was no room for their flow.", "rises: page somebody")] = None  # fmt: skip
    insert_failed: Annotated[int | None, counter("conntrack_insert_failed", "Flows that could not be entered.",
        "rises")] = None  # fmt: skip
    early_dropped: Annotated[int | None, counter("conntrack_early_dropped",
        "Flows thrown out because others needed their room.", "rises")] = None  # fmt: skip

    @property
    def fill(self) -> float:
        return self.entries / self.most if self.most else 0.0


class ElementChange(msgspec.Struct, frozen=True, gc=False):
    """An element of one of our sets came (`present`) or went."""

    set_name: str
    key: bytes
    present: bool


@dataclass(frozen=True, slots=True)
class ExternalCommit:
    """One transaction of somebody else; of changes outside our table only that there was one.

    `generation`: of the kernel's ruleset after it. `pid` is of the initial pid namespace. `elements`: the last
    that happened to each key; `unlisted`: there were more. `others`: chains, rules, sets or the table may have
    changed too, only a reading tells.
    """

    generation: int
    pid: int = 0
    program: str = ""
    elements: tuple[ElementChange, ...] = ()
    others: bool = False
    unlisted: bool = False


@dataclass(frozen=True, slots=True)
class ExternalChanges:
    """Since the last call, oldest first. `lost`: there were more, and it is not known which."""

    commits: tuple[ExternalCommit, ...] = ()
    lost: bool = False
