"""The nodes of a document, and the readers that turn a node into a value.

A reader reports each fault and returns FAULTY. It never raises for the content of the file and never stops at the
first fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from gatewayd.model.msisdn import may_name_person

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SectionT = TypeVar("_SectionT", bound="DataclassInstance")

_MAX_QUOTE = 60


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Line and column, from 1, as editors count."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """`text` with quotes and escapes resolved; `is_null` for `null`, `~` and nothing at all, unquoted."""

    place: Place
    text: str
    is_null: bool = False


@dataclass(frozen=True, slots=True)
class ListNode:
    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MappingNode:
    """Pairs as written: keys may repeat and need not be scalars."""

    place: Place
    pairs: tuple[tuple[Node, Node], ...] = ()


Node = ScalarNode | ListNode | MappingNode
Written = str | None | Sequence["Written"] | Mapping[str, "Written"]
"""A value in the operator's words: texts, null, lists and mappings."""


def node_of(written: Written) -> Node:
    """`written` as if a file had it."""
    place = Place(1, 1)
    if written is None or isinstance(written, str):
        return ScalarNode(place, written or "", is_null=written is None)
    if isinstance(written, Mapping):
        return MappingNode(place, tuple((ScalarNode(place, key), node_of(each)) for key, each in written.items()))
    return ListNode(place, tuple(node_of(each) for each in written))


def child_of(node: Node, key: str) -> Node | None:
    """The value under `key` of a mapping, the first if it is given more often."""
    if isinstance(node, MappingNode):
        for key_node, value in node.pairs:
            if isinstance(key_node, ScalarNode) and key_node.text == key:
                return value
    return None


def describe_node(node: Node) -> str:
    """What a node of the wrong kind is, for a fault."""
    match node:
        case ScalarNode(is_null=True):
            return "is empty"
        case ScalarNode():
            return "is a single value"
        case ListNode():
            return "is a list"
        case _:
            return "is a mapping"


class Faulty(Enum):
    """The value that is not there because its fault has been reported."""

    FAULTY = "faulty"


FAULTY: Final = Faulty.FAULTY


class Report:
    """The faults found so far."""

    def __init__(self) -> None:
        self._faults: list[tuple[Place, str]] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, place: Place, path: str, what: str) -> None:
        """`what`: what is wrong, what is expected. `path` is empty for the file as a whole."""
        self._faults.append((place, f"{path or '(file)'}: {what}"))

    def lines(self, filename: str) -> tuple[str, ...]:
        """`file:line:column: path: what is wrong, what is expected`, in file order, without repeats."""
        ordered = sorted(self._faults, key=lambda fault: fault[0])
        lines = (f"{filename}:{place.line}:{place.column}: {text}" for place, text in ordered)
        return tuple(dict.fromkeys(lines))


class Reader(Protocol):
    @property
    def expected(self) -> str:
        """Completes a fault: what should stand there."""

    def read(self, node: Node, path: str, report: Report) -> object:
        """The value of `node`, or FAULTY once its faults are in `report`."""


def quote(text: str) -> str:
    """Text from the file as it may be shown: bounded, printable, without user, password and query of a URL."""
    text = re.sub(r"(?s)//.*@", "//***@", text)
    text = re.sub(r"(?s)(://[^?#]*[?#]).*", r"\1***", text)
    return repr(text if len(text) <= _MAX_QUOTE else text[: _MAX_QUOTE - 3] + "...")


def quote_url(text: str) -> str:
    """As `quote`, of what should be a URL and may have lost its beginning."""
    if "//" not in text:
        text = re.sub(r"(?s).*@", "***@", text)
    return quote(re.sub(r"(?s)([?#]).*", r"\1***", text))


def join_path(path: str, key: str) -> str:
    if may_name_person(key):
        word = "(a key that is not repeated)"
    else:
        word = key if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key) else quote(key)
    return f"{path}.{word}" if path else word


def keep_private(_: str) -> str:
    """For `Value.show`: what stands there is not repeated."""
    return "this value"


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar. `parse` raises ValueError that says what is wrong; `expected` completes the sentence.

    `show` makes the part of a fault that repeats the text. `hint`: the range or the words, for the example file.
    `unit`: the end of the name of a field with such a value, `_s` for seconds.
    """

    expected: str
    parse: Callable[[str], object]
    show: Callable[[str], str] = quote
    hint: str = ""
    unit: str = ""

    def read(self, node: Node, path: str, report: Report) -> object:
        if not isinstance(node, ScalarNode) or node.is_null:
            report.add(node.place, path, f"{describe_node(node)}, expected {self.expected}")
            return FAULTY
        try:
            return self.parse(node.text)
        except ValueError as error:
            report.add(node.place, path, f"{self.show(node.text)} {error}, expected {self.expected}")
            return FAULTY


@dataclass(frozen=True, slots=True)
class OrNull:
    """`null` means None."""

    reader: Reader

    @property
    def expected(self) -> str:
        return self.reader.expected

    def read(self, node: Node, path: str, report: Report) -> object:
        if isinstance(node, ScalarNode) and node.is_null:
            return None
        return self.reader.read(node, path, report)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list read item by item into a tuple; no two items alike (in attribute `unique_by`, if given).

    `unit` as in Value.
    """

    item: Reader
    expected: str
    at_least: int = 0
    unique_by: str = ""
    unit: str = ""

    def read(self, node: Node, path: str, report: Report) -> object:
        if not isinstance(node, ListNode):
            report.add(node.place, path, f"{describe_node(node)}, expected {self.expected}")
            return FAULTY
        if len(node.items) < self.at_least:
            report.add(node.place, path, f"is an empty list, expected {self.expected}")
            return FAULTY
        before = len(report)
        values: list[object] = []
        first_lines: dict[object, int] = {}
        for index, item in enumerate(node.items):
            item_path = f"{path}[{index}]"
            value = self.item.read(item, item_path, report)
            values.append(value)
            identity = self._identify(item, value)
            if identity in first_lines:
                what = f"{self.unique_by} {quote(str(identity))}".lstrip()
                line = first_lines[identity]
                report.add(item.place, item_path, f"{what} is given twice, expected it once (first at line {line})")
            elif identity is not None:
                first_lines[identity] = item.place.line
        return tuple(values) if len(report) == before else FAULTY

    def _identify(self, item: Node, value: object) -> object:
        """What must not come twice, also of an item with faults. None if there is nothing to go by."""
        if value is not FAULTY:
            return getattr(value, self.unique_by) if self.unique_by else value
        name = child_of(item, self.unique_by)
        return name.text if isinstance(name, ScalarNode) else None


def unique_pairs(node: MappingNode, path: str, report: Report) -> Iterator[tuple[str, ScalarNode, Node]]:
    """Key text, key and value of each pair; keys that are no scalar or come again are reported instead."""
    first_lines: dict[str, int] = {}
    for key, value in node.pairs:
        if not isinstance(key, ScalarNode):
            report.add(key.place, path, f"a key {describe_node(key)}, expected a word")
        elif key.text in first_lines:
            line = first_lines[key.text]
            key_path = join_path(path, key.text)
            report.add(key.place, key_path, f"is given twice, expected it once (first at line {line})")
        else:
            first_lines[key.text] = key.place.line
            yield key.text, key, value


@dataclass(frozen=True, slots=True)
class PairsOf:
    """A mapping whose keys the operator chooses, as a tuple of `make(key, value)`. `base`: what is in it for keys
    that are not given."""

    key: Value
    value: Value
    make: Callable[[Any, Any], object]
    expected: str
    base: Mapping[str, object] = field(default_factory=dict)

    def read(self, node: Node, path: str, report: Report) -> object:
        if not isinstance(node, MappingNode):
            report.add(node.place, path, f"{describe_node(node)}, expected {self.expected}")
            return FAULTY
        before = len(report)
        made = [each for key, each in self.base.items() if child_of(node, key) is None]
        for text, key_node, value_node in unique_pairs(node, path, report):
            key_path = join_path(path, text)
            key = self.key.read(key_node, key_path, report)
            value = self.value.read(value_node, key_path, report)
            if key is not FAULTY and value is not FAULTY:
                made.append(self.make(key, value))
        return tuple(made) if len(report) == before else FAULTY


@dataclass(frozen=True, slots=True)
class Found:
    """Where a section's keys were found, for the checks across keys."""

    section: MappingNode
    path: str
    report: Report

    def add(self, keys: str, what: str) -> None:
        """Report `what` of a key (dotted: of a nested section), at its place if it is in the file."""
        node: Node = self.section
        for key in keys.split("."):
            child = child_of(node, key)
            if child is None:
                break
            node = child
        self.report.add(node.place, f"{self.path}.{keys}".lstrip("."), what)


@dataclass(frozen=True, slots=True)
class Key:
    """A key that `reader` reads into the section's `field`.

    `sentence`: its meaning. `example`: its value in the example file, in an operator's words. `restart`: a reload
    refuses a change. `former`: its name in an older version, which is refused with the name that it has now.
    """

    field: str
    reader: Reader
    sentence: str = ""
    example: Written = None
    restart: bool = False
    former: str = ""


@dataclass(frozen=True, slots=True)
class Check(Generic[_SectionT]):
    """What must hold across `keys` (field names); it runs whenever none of these is faulty."""

    keys: tuple[str, ...]
    run: Callable[[_SectionT, Found], None]


@dataclass(frozen=True, slots=True)
class Section(Generic[_SectionT]):
    """A mapping with known keys, made into `cls`."""

    cls: type[_SectionT]
    keys: dict[str, Key]
    checks: tuple[Check[_SectionT], ...] = ()

    @property
    def expected(self) -> str:
        return f"a mapping of {', '.join(self.keys)}"

    def read(self, node: Node, path: str, report: Report) -> object:
        if isinstance(node, ScalarNode) and node.is_null:
            node = MappingNode(node.place)  # a heading with everything under it commented out
        if not isinstance(node, MappingNode):
            report.add(node.place, path, f"{describe_node(node)}, expected {self.expected}")
            return FAULTY
        before = len(report)
        found = Found(node, path, report)
        values = self._read_keys(found)
        self._read_missing(found, values)
        faulty = {name for name, value in values.items() if value is FAULTY}
        # For the checks: a faulty field has its default, or FAULTY where there is none; no check looks at it.
        kept = _required_fields(self.cls) | (values.keys() - faulty)
        section = self.cls(**{name: values[name] for name in kept})
        for check in self.checks:
            if faulty.isdisjoint(check.keys):
                check.run(section, found)
        return section if len(report) == before else FAULTY

    def _read_keys(self, found: Found) -> dict[str, Any]:
        """Values by field, FAULTY ones included; unknown keys are reported."""
        values = {}
        for text, key_node, value_node in unique_pairs(found.section, found.path, found.report):
            path = join_path(found.path, text)
            key = self.keys.get(text)
            if key is None:
                found.report.add(key_node.place, path, self._describe_unknown(text))
            else:
                values[key.field] = key.reader.read(value_node, path, found.report)
        return values

    def _describe_unknown(self, text: str) -> str:
        renamed = next((name for name, key in self.keys.items() if key.former == text), None)
        if renamed is not None:
            return f"was renamed, expected {renamed}"
        near = get_close_matches(text, self.keys, 1)
        return f"unknown key, expected {near[0] if near else 'one of ' + ', '.join(self.keys)}"

    def _read_missing(self, found: Found, values: dict[str, Any]) -> None:
        """Put FAULTY, or an empty section, where a required key is not there."""
        required = _required_fields(self.cls)
        for name, key in self.keys.items():
            if key.field not in required or key.field in values:
                continue
            path = join_path(found.path, name)
            if isinstance(key.reader, Section):
                empty = MappingNode(found.section.place)
                values[key.field] = key.reader.read(empty, path, found.report)
            else:
                values[key.field] = FAULTY
                found.report.add(found.section.place, path, f"is missing, expected {key.reader.expected}")


def _required_fields(cls: type[DataclassInstance]) -> frozenset[str]:
    return frozenset(
        each.name
        for each in fields(cls)
        if each.init and each.default is MISSING and each.default_factory is MISSING
    )
