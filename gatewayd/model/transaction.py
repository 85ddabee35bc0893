"""What the reconciler asks of the kernel, as values: operations, a transaction of them, a ruleset, a reading. And
what other programs do beside it: their transactions, their rules that use our mark, connection tracking's size.

A transaction is all or nothing in the kernel (nfnetlink batch). The fake refuses what the kernel refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import msgspec

from gatewayd.model.flow import Mode
from gatewayd.model.mask import Mask
from gatewayd.model.metric import counter, gauge


class CreateTable(msgspec.Struct, frozen=True, gc=False):
    """Make the table; no harm if it is there."""


class CreateSet(msgspec.Struct, frozen=True, gc=False):
    """Make an empty hash set for `mask` with room for `capacity` elements (NFTA_SET_DESC_SIZE); 0 = no bound.

    `timeout_s`: elements go by themselves after so long (NFTA_SET_TIMEOUT); 0 = never.
    """

    name: str
    mask: Mask
    capacity: int
    timeout_s: int = 0


class DeleteSet(msgspec.Struct, frozen=True, gc=False):
    """Remove a set; the kernel refuses while a rule uses it."""

    name: str


class AddElements(msgspec.Struct, frozen=True, gc=False):
    """Add keys, all of one length; a key that is there already is no error."""

    set_name: str
    keys: Sequence[bytes]


class RemoveElements(msgspec.Struct, frozen=True, gc=False):
    """Remove keys; the kernel refuses the transaction if one is not there. In a set of bindings one that went by
    itself meanwhile is no error."""

    set_name: str
    keys: Sequence[bytes]


class RefreshElements(msgspec.Struct, frozen=True, gc=False):
    """Keys of a set with timeouts begin their time again; one that is not there is added. No packet misses them."""

    set_name: str
    keys: Sequence[bytes]


Operation = CreateTable | CreateSet | DeleteSet | AddElements | RemoveElements | RefreshElements
ElementOperation = AddElements | RemoveElements | RefreshElements


_WORDS: dict[type, str] = {
    CreateTable: "create table",
    CreateSet: "create set",
    DeleteSet: "delete set",
    AddElements: "add elements to",
    RemoveElements: "remove elements from",
    RefreshElements: "refresh elements of",
}


def describe_operation(operation: Operation) -> str:
    """An operation in words for an error: what, and to which set."""
    match operation:
        case CreateTable():
            name = ""
        case CreateSet() | DeleteSet():
            name = operation.name
        case _:
            name = operation.set_name
    return f"{_WORDS[type(operation)]} {name}".rstrip()


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """Operations that the kernel does together or not at all. `cause` goes to the log."""

    operations: tuple[Operation, ...]
    cause: str

    def count_elements(self) -> int:
        return sum(len(op.keys) for op in self.operations if isinstance(op, ElementOperation))


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All chains, counters and rules of the table as nft text.

    `policy`: digest of what decides an effect (mode, scope, …) without the sets hooked in; a new policy is a
    new epoch. `set_names`: the allowlist sets the rules look into. `tag`: what the rules carry as a comment.
    """

    text: str
    policy: str
    epoch: int
    set_names: frozenset[str]
    tag: str


@dataclass(frozen=True, slots=True)
class RulesTag:
    """What the comment on the first rule in the kernel says of the rules that are there."""

    epoch: int
    policy: str
    digest: str
    mode: Mode = "observe"


@dataclass(frozen=True, slots=True)
class ObservedSet:
    """A set as the kernel lists it. `capacity` 0 = unbounded; `regular`: laid out as our own sets are.

    `count`: elements in it; None from kernels before 6.17, which do not say. `timeout_s`: 0 = elements stay.
    """

    name: str
    key_length: int
    capacity: int
    regular: bool
    count: int | None = None
    timeout_s: int = 0


@dataclass(frozen=True, slots=True)
class TableReading:
    """What is in our table, without the elements. `rules`: fingerprint of all chains and rules; "" if none.

    `generation`: the kernel's ruleset generation at the reading.
    """

    present: bool
    sets: tuple[ObservedSet, ...] = ()
    rules: str = ""
    tag: RulesTag | None = None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class CounterReading:
    """A named counter: packets and bytes since the table was made."""

    packets: int
    size_bytes: int


class Counted(NamedTuple):
    """An element of a set of counts. `flows`: its counter's packets; `left_s`: until it goes, unless it counts."""

    key: bytes
    flows: int
    left_s: float


# Other programs

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
        "Connections of all customers that the kernel tracks in our network namespace."
        " Absent while connection tracking is not loaded.",
        "over 80 % of the maximum for 5 min: **at the maximum the kernel drops new flows of every customer**",
    )]  # fmt: skip
    most: Annotated[int, gauge("conntrack_max",
        "The bound: net.netfilter.nf_conntrack_max.")] = msgspec.field(name="max")  # fmt: skip
    dropped: Annotated[int | None, counter("conntrack_dropped",
        "Packets that connection tracking dropped: its table was full, or two packets of a new flow raced.",
        "rises by hundreds: page an engineer")] = None  # fmt: skip
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
    """One transaction of another program; of changes outside our table only that there was one.

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
