"""A kernel in memory: atomic, and it refuses what the real one refuses. Tests cut it short and tamper with it."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gatewayd.assertions.lookups import Element, RulesReading
from gatewayd.compile.rule_sets import COUNTED_TIMEOUT_S, key_bytes
from gatewayd.compile.ruleset import COUNTERS, parse_tag
from gatewayd.errors import OperationRefused, RulesetRefused
from gatewayd.model.mask import Mask, describe_key, parse_set_name
from gatewayd.model.transaction import (
    AddElements,
    Counted,
    CounterReading,
    CreateSet,
    CreateTable,
    DeleteSet,
    ElementChange,
    ElementOperation,
    ExternalChanges,
    ExternalCommit,
    ObservedSet,
    Operation,
    RefreshElements,
    RemoveElements,
    Ruleset,
    RulesTag,
    TableReading,
    Transaction,
    describe_operation,
)

_REFERENCE = re.compile(r"@(?!nh,)(\w+)")
_DECLARED_SET = re.compile(r"^\tset (\w+) \{\n\t*type (.*)\n\t*size (\d+)$", re.MULTILINE)
_PIECE = 500
_NO_CHANGES = ExternalChanges((), False)


@lru_cache(maxsize=256)
def _sets_in(text: str) -> tuple[tuple[tuple[str, int, int], ...], frozenset[str]]:
    """Sets that rules declare, with length of a key and size, and those that they look into."""
    declared = tuple((name, key_bytes(key), int(size)) for name, key, size in _DECLARED_SET.findall(text))
    return declared, frozenset(_REFERENCE.findall(text))


@lru_cache(maxsize=256)
def _tag_of(text: str) -> RulesTag | None:
    comment = re.search(r'comment "([^"]*)"', text)
    return parse_tag(comment[1]) if comment else None


@dataclass(slots=True)
class FakeSet:
    """A set as the fake keeps it. `until`: when elements of a set with a timeout go. `counts`: flows of the
    elements in which the rules count, and when these go; they are no keys."""

    mask: Mask | None
    key_length: int
    capacity: int
    keys: set[bytes] = field(default_factory=set)
    timeout_s: int = 0
    until: dict[bytes, float] = field(default_factory=dict)
    counts: dict[bytes, tuple[int, float]] = field(default_factory=dict)

    def put(self, keys: Sequence[bytes], now: float) -> None:
        for key in keys if self.timeout_s else ():
            self.until.setdefault(key, now + self.timeout_s)
        self.keys.update(keys)

    def drop(self, key: bytes) -> None:
        self.keys.discard(key)
        self.until.pop(key, None)

    def expire(self, now: float) -> None:
        for key in [key for key, until_s in self.until.items() if until_s <= now] if self.until else ():
            self.drop(key)


@dataclass(slots=True)
class FakeTable:
    """The table; `rules` is the text in force."""

    sets: dict[str, FakeSet] = field(default_factory=dict)
    rules: str = ""
    used: frozenset[str] = frozenset()

    def copy(self, operations: Sequence[Operation] | None = None) -> FakeTable:
        """For these operations: sets that they leave alone are the same objects. None: for any."""
        named = {each.set_name for each in operations or () if isinstance(each, ElementOperation)}
        names = self.sets.keys() if operations is None else named
        sets = {
            name: replace(found, keys=set(found.keys), until=dict(found.until)) if name in names else found
            for name, found in self.sets.items()
        }
        return FakeTable(sets, self.rules, self.used)


class FakeTables:
    """Dataplane without a kernel. `before_write` is called ahead of every write and may raise to cut it short.

    `tells_counts`: whether sets are listed with their element count, as kernels from 6.17 do. `monotonic`: by
    which elements with a timeout go.
    """

    def __init__(self, *, tells_counts: bool = True, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        self.table: FakeTable | None = None
        self._monotonic = monotonic
        self.generation = 1
        self.handle = 1
        self.tells_counts = tells_counts
        self.before_write: Callable[[Transaction | Ruleset], None] = lambda _: None
        self._on_change: Callable[[], None] | None = None
        self._received: list[ExternalCommit] = []
        self._lost = False

    async def read_table(self) -> TableReading:
        self._expire()
        if self.table is None:
            return TableReading(False, generation=self.generation)
        sets = tuple(
            ObservedSet(
                name,
                found.key_length,
                found.capacity,
                found.mask is not None and found.mask.is_bound == (found.timeout_s > 0),
                len(found.keys) if self.tells_counts else None,
                found.timeout_s,
            )
            for name, found in self.table.sets.items()
        )
        return TableReading(True, sets, self.table.rules, _tag_of(self.table.rules), self.generation)

    async def read_elements(self, set_name: str) -> AsyncIterator[Sequence[bytes]]:
        self._expire()
        found = None if self.table is None else self.table.sets.get(set_name)
        if found is None:
            raise OperationRefused(f"list elements of {set_name}", errno.ENOENT)
        keys = list(found.keys)
        for start in range(0, len(keys), _PIECE):
            yield keys[start : start + _PIECE]

    async def commit(self, transaction: Transaction) -> None:
        self.before_write(transaction)
        self._expire()
        table = None if self.table is None else self.table.copy(transaction.operations)
        for operation in transaction.operations:
            table = _apply(table, operation, self._monotonic())
        if table != self.table or any(_begins_anew(operation) for operation in transaction.operations):
            self.generation += 1
        self.table = table

    async def replace_rules(self, ruleset: Ruleset) -> None:
        self.before_write(ruleset)
        table = FakeTable() if self.table is None else self.table.copy(())
        declared, used = _sets_in(ruleset.text)
        for name, key_length, size in declared:
            if name not in table.sets:
                table.sets[name] = FakeSet(None, key_length, size)
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
        self.handle += present
        self.generation += present
        return present

    async def read_rules(self) -> RulesReading:
        """As kernel.passage has it."""
        table = self.table or FakeTable()
        used = frozenset(name for name in table.used if parse_set_name(name) is not None)
        return RulesReading((await self.read_table()).tag, used)

    async def find_elements(self, elements: Sequence[Element]) -> frozenset[Element]:
        """As kernel.passage has it."""
        self._expire()
        sets = {} if self.table is None else self.table.sets
        wrong = [name for name, key in elements if name in sets and len(key) != sets[name].key_length]
        if wrong:
            raise OperationRefused(f"look up an element of {wrong[0]}", errno.EINVAL)
        return frozenset(each for each in elements if each[0] in sets and each[1] in sets[each[0]].keys)

    # -- the rules count -----------------------------------------------------------------------------------

    async def read_handle(self) -> int:
        return 0 if self.table is None else self.handle

    async def read_counts(self, set_name: str) -> AsyncIterator[Sequence[Counted]]:
        found = None if self.table is None else self.table.sets.get(set_name)
        now = self._monotonic()
        counts = [] if found is None else [Counted(key, *each) for key, each in found.counts.items()]
        for start in range(0, len(counts), _PIECE):
            piece = (each._replace(left_s=each.left_s - now) for each in counts[start : start + _PIECE])
            yield [each for each in piece if each.left_s > 0]

    def count(self, set_name: str, key: bytes, flows: int = 1) -> bool:
        """As a rule does; whether there was a place."""
        assert self.table is not None
        counts, now = self.table.sets[set_name].counts, self._monotonic()
        for gone in [each for each, (_, until_s) in counts.items() if until_s <= now]:
            del counts[gone]
        if key not in counts and len(counts) >= self.table.sets[set_name].capacity:
            return False
        counts[key] = counts.get(key, (0, 0.0))[0] + flows, now + COUNTED_TIMEOUT_S
        return True

    def _expire(self) -> None:
        now = self._monotonic()
        for each in self.table.sets.values() if self.table is not None else ():
            each.expire(now)

    # -- other programs ------------------------------------------------------------------------------------

    def watch(self, on_change: Callable[[], None]) -> None:
        self.unwatch()
        self._on_change = on_change

    def unwatch(self) -> None:
        self._on_change, self._received, self._lost = None, [], False

    def take_changes(self) -> ExternalChanges:
        if not self._received and not self._lost:
            return _NO_CHANGES
        taken = ExternalChanges(tuple(self._received), self._lost)
        self._received, self._lost = [], False
        return taken

    def tamper(
        self, change: Callable[[], object], *, received: bool = True, program: str = "nft", pid: int = 99
    ) -> None:
        """Another program's commit: what `change` does to this fake, told to who watches.

        Not `received`: the notification is lost with all that is in it.
        """
        before = self.table and self.table.copy()
        change()
        self.generation += 1
        if self._on_change is None:
            return
        if received:
            elements, others = _differences(before, self.table)
            self._received.append(ExternalCommit(self.generation, pid, program, elements, others))
        self._lost = self._lost or not received
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


def _apply(table: FakeTable | None, operation: Operation, now: float) -> FakeTable | None:
    """The table after an operation. Raises OperationRefused with the errno that the kernel gives."""
    if isinstance(operation, CreateTable):
        return table or FakeTable()
    if isinstance(operation, ElementOperation) and not operation.keys:
        # Not a single message.
        return table
    if table is None:
        raise OperationRefused(describe_operation(operation), errno.ENOENT)
    match operation:
        case CreateSet(name, mask, capacity, timeout_s):
            if name in table.sets:
                raise OperationRefused(describe_operation(operation), errno.EEXIST)
            own = parse_set_name(name) is not None
            table.sets[name] = FakeSet(mask if own else None, mask.key_length, capacity, timeout_s=timeout_s)
        case DeleteSet(name):
            _find_set(table, operation, name)
            if name in table.used:
                raise OperationRefused(describe_operation(operation), errno.EBUSY)
            del table.sets[name]
        case _:
            found = _find_set(table, operation, operation.set_name)
            _check_lengths(found, operation, operation.keys)
            # What may have gone by itself is added before it is removed, as in kernel/tables_codec.py.
            if not isinstance(operation, RemoveElements) or _is_bound(operation):
                _put(found, operation, now)
            if not isinstance(operation, AddElements):
                _drop(found, operation)
            if isinstance(operation, RefreshElements):
                _put(found, operation, now)
    return table


def _is_bound(operation: RemoveElements) -> bool:
    parsed = parse_set_name(operation.set_name)
    return parsed is not None and parsed[0].is_bound


def _begins_anew(operation: Operation) -> bool:
    """Whether it is a change to the kernel also where nothing is different after it."""
    if isinstance(operation, RefreshElements) or (isinstance(operation, RemoveElements) and _is_bound(operation)):
        return bool(operation.keys)
    return False


def _put(found: FakeSet, operation: ElementOperation, now: float) -> None:
    found.put(operation.keys, now)
    if found.capacity and len(found.keys) > found.capacity:
        raise OperationRefused(describe_operation(operation), errno.ENFILE)


def _drop(found: FakeSet, operation: ElementOperation) -> None:
    for key in operation.keys:
        if key not in found.keys:
            shown = describe_key(operation.set_name, key)
            raise OperationRefused(describe_operation(operation), errno.ENOENT, shown)
        found.drop(key)


def _find_set(table: FakeTable, operation: Operation, name: str) -> FakeSet:
    found = table.sets.get(name)
    if found is None:
        raise OperationRefused(describe_operation(operation), errno.ENOENT)
    return found


def _check_lengths(found: FakeSet, operation: Operation, keys: Sequence[bytes]) -> None:
    if any(len(key) != found.key_length for key in keys):
        raise OperationRefused(describe_operation(operation), errno.EINVAL)
