"""What the reconciler asks of the kernel, as values: operations, a transaction of them, a ruleset, a reading.

A transaction is all or nothing in the kernel (nfnetlink batch). The fake refuses what the kernel refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gatewayd.model.flow import Mode
from gatewayd.model.mask import Mask


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
    """Keys of a set with timeouts begin their time anew; one that is not there is added. No packet misses them."""

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
        case AddElements(name, _) | RemoveElements(name, _) | RefreshElements(name, _):
            pass
        case CreateSet(name, _, _, _) | DeleteSet(name):
            pass
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
