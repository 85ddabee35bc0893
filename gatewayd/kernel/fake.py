"""A kernel in memory: atomic, and it refuses what the real one refuses. Tests cut it short and tamper with it."""

from __future__ import annotations

import copy
import errno
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from gatewayd.compile.ruleset import COUNTERS, parse_tag
from gatewayd.errors import OperationRefused, RulesetRefused
from gatewayd.model.foreign import ElementChange, ForeignChanges, ForeignCommit
from gatewayd.model.mask import Mask, describe_key, parse_set_name
from gatewayd.model.transaction import (
    AddElements,
    CounterReading,
    CreateSet,
    CreateTable,
    DeleteSet,
    ObservedSet,
    Operation,
    RemoveElements,
    Ruleset,
    TableReading,
    Transaction,
    describe_operation,
)

_REFERENCE = re.compile(r"@(\w+)")
_DECLARED_SET = re.compile(r"^\tset (\w+) \{$", re.MULTILINE)
_PIECE = 500


@dataclass(slots=True)
class FakeSet:
    """A set as the fake keeps it."""

    mask: Mask | None
    key_length: int
    capacity: int
    keys: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class FakeTable:
    """The table; `rules` is the text in force."""

    sets: dict[str, FakeSet] = field(default_factory=dict)
    rules: str = ""
    used: frozenset[str] = frozenset()


class FakeTables:
    """Dataplane without a kernel. `before_write` is called ahead of every write and may raise to cut it short.

    `tells_counts`: whether sets are listed with their element count, as kernels from 6.17 do.
    """

    def __init__(self, *, tells_counts: bool = True) -> None:
        self.table: FakeTable | None = None
        self.generation = 1
        self.tells_counts = tells_counts
        self.before_write: Callable[[Transaction | Ruleset], None] = lambda _: None
        self._on_change: Callable[[], None] | None = None
        self._heard: list[ForeignCommit] = []
        self._lost = False

    async def read_table(self) -> TableReading:
        if self.table is None:
            return TableReading(False, generation=self.generation)
        sets = tuple(
            ObservedSet(
                name,
                found.key_length,
                found.capacity,
                found.mask is not None,
                len(found.keys) if self.tells_counts else None,
            )
            for name, found in self.table.sets.items()
        )
        comment = re.search(r'comment "([^"]*)"', self.table.rules)
        tag = parse_tag(comment[1]) if comment else None
        return TableReading(True, sets, self.table.rules, tag, self.generation)

    async def read_elements(self, set_name: str) -> AsyncIterator[Sequence[bytes]]:
        found = None if self.table is None else self.table.sets.get(set_name)
        if found is None:
            raise OperationRefused(f"list elements of {set_name}", errno.ENOENT)
        keys = list(found.keys)
        for start in range(0, len(keys), _PIECE):
            yield keys[start : start + _PIECE]

    async def commit(self, transaction: Transaction) -> None:
        self.before_write(transaction)
        table = copy.deepcopy(self.table)
        for operation in transaction.operations:
            table = _apply(table, operation)
        if table != self.table:
            self.generation += 1
        self.table = table

    async def replace_rules(self, ruleset: Ruleset) -> None:
        self.before_write(ruleset)
        table = copy.deepcopy(self.table) or FakeTable()
        for name in _DECLARED_SET.findall(ruleset.text):
            table.sets.setdefault(name, FakeSet(None, 16 if name.endswith("6") else 4, 65536))
        used = frozenset(_REFERENCE.findall(ruleset.text))
        absent = used - table.sets.keys()
        if absent:
            raise RulesetRefused(f"Error: No such file or directory: set {min(absent)}")
        table.rules, table.used = ruleset.text, used
        self.table = table
        self.generation += 1

    async def read_counters(self) -> dict[str, CounterReading]:
        if self.table is None or not self.table.rules:
            return {}
        return {name: CounterReading(0, 0) for name in COUNTERS}

    async def read_generation(self) -> int:
        return self.generation

    async def delete_table(self) -> bool:
        present = self.table is not None
        self.table = None
        self.generation += present
        return present

    # -- other programs ------------------------------------------------------------------------------------

    def watch(self, on_change: Callable[[], None]) -> None:
        self.unwatch()
        self._on_change = on_change

    def unwatch(self) -> None:
        self._on_change, self._heard, self._lost = None, [], False

    def take_changes(self) -> ForeignChanges:
        taken = ForeignChanges(tuple(self._heard), self._lost)
        self._heard, self._lost = [], False
        return taken

    def tamper(
        self, change: Callable[[], object], *, heard: bool = True, program: str = "nft", pid: int = 99
    ) -> None:
        """Another program's commit: what `change` does to this fake, told to who watches.

        Not `heard`: the notification is lost, and so is every word of it.
        """
        before = copy.deepcopy(self.table)
        change()
        self.generation += 1
        if self._on_change is None:
            return
        if heard:
            elements, others = _differences(before, self.table)
            self._heard.append(ForeignCommit(self.generation, pid, program, elements, others))
        self._lost = self._lost or not heard
        self._on_change()


def _differences(old: FakeTable | None, new: FakeTable | None) -> tuple[tuple[ElementChange, ...], bool]:
    """Elements that came or went in sets that stayed, and whether anything else is different."""
    if old is None or new is None:
        return (), old is not new
    changes: list[ElementChange] = []
    for name in old.sets.keys() & new.sets.keys():
        was, now = old.sets[name].keys, new.sets[name].keys
        changes += (ElementChange(name, key, False) for key in sorted(was - now))
        changes += (ElementChange(name, key, True) for key in sorted(now - was))
    return tuple(changes), old.sets.keys() != new.sets.keys() or old.rules != new.rules


def _apply(table: FakeTable | None, operation: Operation) -> FakeTable | None:
    """The table after an operation. Raises OperationRefused with the errno that the kernel gives."""
    if isinstance(operation, CreateTable):
        return table or FakeTable()
    if isinstance(operation, AddElements | RemoveElements) and not operation.keys:
        # Not a single message.
        return table
    if table is None:
        raise OperationRefused(describe_operation(operation), errno.ENOENT)
    match operation:
        case CreateSet(name, mask, capacity):
            if name in table.sets:
                raise OperationRefused(describe_operation(operation), errno.EEXIST)
            own = parse_set_name(name) is not None
            table.sets[name] = FakeSet(mask if own else None, mask.key_length, capacity)
        case DeleteSet(name):
            _find_set(table, operation, name)
            if name in table.used:
                raise OperationRefused(describe_operation(operation), errno.EBUSY)
            del table.sets[name]
        case AddElements(name, keys):
            found = _find_set(table, operation, name)
            _check_lengths(found, operation, keys)
            found.keys.update(keys)
            if found.capacity and len(found.keys) > found.capacity:
                raise OperationRefused(describe_operation(operation), errno.ENFILE)
        case _:
            keys = operation.keys
            found = _find_set(table, operation, operation.set_name)
            _check_lengths(found, operation, keys)
            for key in keys:
                if key not in found.keys:
                    shown = describe_key(operation.set_name, key)
                    raise OperationRefused(describe_operation(operation), errno.ENOENT, shown)
                found.keys.remove(key)
    return table


def _find_set(table: FakeTable, operation: Operation, name: str) -> FakeSet:
    found = table.sets.get(name)
    if found is None:
        raise OperationRefused(describe_operation(operation), errno.ENOENT)
    return found


def _check_lengths(found: FakeSet, operation: Operation, keys: Sequence[bytes]) -> None:
    if any(len(key) != found.key_length for key in keys):
        raise OperationRefused(describe_operation(operation), errno.EINVAL)
