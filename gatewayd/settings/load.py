"""The text of a configuration file → Settings, or every fault of it in one go; and the text of the example file.

It knows yaml, and `edit` does. It uses the composer, not the constructor: no Python object
is ever made from a tag. The Python loader is used rather than libyaml's, whose composer recurses in C without
a bound.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping

import yaml
from yaml.reader import ReaderError

from gatewayd.errors import SettingsInvalid
from gatewayd.settings.model import SETTINGS, Settings
from gatewayd.settings.readers import (
    FAULTY,
    Key,
    ListNode,
    ListOf,
    MappingNode,
    Node,
    OrNull,
    Place,
    Reader,
    Report,
    ScalarNode,
    Value,
    Written,
    quote,
)
from gatewayd.settings.schema import section_in

MAX_DEPTH = 16
MAX_VALUES = 50_000
"""Bounds on nesting and on values once aliases are expanded; the schema itself is 6 deep."""

_START = Place(1, 1)
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(_TAG + kind for kind in ("null", "bool", "int", "float", "str", "timestamp", "value"))


class _Unreadable(Exception):
    """The text is no document that could be walked; nothing more can be said about it."""

    def __init__(self, place: Place, what: str) -> None:
        self.place = place
        self.what = what
        super().__init__(what)


def load_settings(text: str, filename: str) -> Settings:
    """Settings of the whole file. Raises SettingsInvalid with one line per fault, in file order.

    `filename` only names the file in the faults.
    """
    report = Report()
    settings = load_document(text, SETTINGS, report)
    if not isinstance(settings, Settings):
        raise SettingsInvalid(report.lines(filename))
    return settings


def load_document(text: str, schema: Reader, report: Report) -> object:
    """What `schema` makes of a whole file, or FAULTY once its faults are in `report`."""
    try:
        document = compose_text(text)
        root = MappingNode(_START) if document is None else _Tree().convert(document, 0)
    except _Unreadable as error:
        report.add(error.place, "", error.what)
        return FAULTY
    return schema.read(root, "", report)


class _BoundedLoader(yaml.SafeLoader):
    """Stops at MAX_DEPTH, long before the interpreter's own limit."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if parent is not None and self.depth > MAX_DEPTH:
            raise _Unreadable(
                _place(parent.start_mark),
                f"is nested too deeply, expected at most {MAX_DEPTH} levels",
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose_text(text: str) -> yaml.Node | None:
    """The root node of the one document in `text`; None for an empty text."""
    try:
        loader = _BoundedLoader(text)
    except ReaderError as error:
        before = text[: error.position]
        place = Place(before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
        character = f"U+{ord(text[error.position]):04X}"
        raise _Unreadable(place, f"the character {character} is not allowed, expected YAML text") from None
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _Unreadable(*_explain(error, text)) from None
    except (ValueError, OverflowError) as error:
        # PyYAML 6.0.3 scanner: chr() of "\UFFFFFFFF", int() of a %YAML version of thousands of digits.
        raise _Unreadable(_place(loader.get_mark()), f"is not valid YAML: {error}, expected YAML text") from None
    return node


def _explain(error: yaml.MarkedYAMLError, text: str) -> tuple[Place, str]:
    mark = error.problem_mark or error.context_mark
    place = _START if mark is None else _place(mark)
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        return place, "is not valid YAML: a tab stands here, expected spaces"
    what = "is not valid YAML: " + ", ".join(part for part in (error.context, error.problem) if part)
    if error.context_mark is not None and error.context_mark is not mark:
        what += f" (from line {error.context_mark.line + 1})"
    return place, what


def _place(mark: yaml.Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


class _Tree:
    """yaml's nodes → ours, aliases expanded, within both bounds (an alias may contain itself)."""

    def __init__(self) -> None:
        self._values = 0

    def convert(self, node: yaml.Node, depth: int) -> Node:
        place = _place(node.start_mark)
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise _Unreadable(
                place, f"has aliases that contain themselves or expand to more than {MAX_VALUES} values"
            )
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return ListNode(place, tuple(self.convert(item, depth + 1) for item in node.value))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            pairs = ((self.convert(key, depth + 1), self.convert(value, depth + 1)) for key, value in node.value)
            return MappingNode(place, tuple(pairs))
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS:
            return ScalarNode(place, node.value, is_null=node.tag == _TAG + "null")
        raise _Unreadable(place, f"the tag {quote(node.tag.removeprefix(_TAG))} is not known, expected no tag")


# -- the example file ---------------------------------------------------------------------------------------

_HEADER = """\
# gatewayd: every key, with its default. Install as /etc/gatewayd/gatewayd.yaml.
#
#   gatewayd check FILE         prints every fault of a file
#   gatewayd reload             reads it again; a file with faults changes nothing, and the command names them
#
# A key left out has the default shown here. Only registry.sources must be given. Unknown keys are faults.
# Durations are a number and ms, s, m, h, d or w. In brackets stands the range of a value, and `restart` where a
# reload refuses a change of the key.
"""
_COMMENT_COLUMN = 36
_WIDTH = 116


def write_example() -> str:
    """The example file, from the declarations of the keys. A section that may be absent is commented out."""
    shown: set[type] = set()
    blocks = [_HEADER]
    for name, each in SETTINGS.keys.items():
        lines = list(_lines_of_key(name, each, "", shown))
        if isinstance(each.reader, OrNull):
            lines = [line if line.startswith("# ") else f"#{line}" for line in lines]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _lines_of_key(name: str, each: Key, indent: str, shown: set[type]) -> Iterator[str]:
    """A section (or a list of them) is shown whole where it comes first; later the key has its example."""
    comment = _comment_of(each)
    is_list = isinstance(each.reader, ListOf)
    section = section_in(each.reader.item if isinstance(each.reader, ListOf) else each.reader)
    if section is None or section.cls in shown:
        yield from _commented(f"{indent}{name}: {write_value(each.example)}", comment, indent)
        return
    shown.add(section.cls)
    yield from _comment(comment, indent)
    yield f"{indent}{name}:"
    inner = indent + ("    " if is_list else "  ")
    lines = [line for key, value in section.keys.items() for line in _lines_of_key(key, value, inner, shown)]
    if is_list:
        first = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
        lines[first] = f"{indent}  - {lines[first].lstrip()}"
        lines += [f"{indent}  - {write_value(item)}" for item in each.example or ()]
    yield from lines


def _comment_of(key: Key) -> str:
    """The sentence, after the words that the value can be, and before its range."""
    reader = key.reader.reader if isinstance(key.reader, OrNull) else key.reader
    hint = reader.hint if isinstance(reader, Value) else ""
    is_words = "|" in hint
    notes = "; ".join(note for note in ("" if is_words else hint, "restart" if key.restart else "") if note)
    return f"{hint + ': ' if is_words else ''}{key.sentence}{notes and f' ({notes})'}"


def _commented(line: str, comment: str, indent: str) -> Iterator[str]:
    """The comment beside `line` where there is room, else above it."""
    beside = f"{line.ljust(_COMMENT_COLUMN - 2)}  # {comment}"
    if "\n" in comment or len(beside) > _WIDTH:
        yield from _comment(comment, indent)
        yield line
    else:
        yield beside


def _comment(text: str, indent: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        yield from textwrap.wrap(
            paragraph,
            _WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_on_hyphens=False,
            break_long_words=False,
        )


def write_value(written: Written) -> str:
    """As YAML on one line; quoted where YAML 1.1 would see more than a word in it."""
    if written is None:
        return "null"
    if isinstance(written, str):
        is_plain = re.fullmatch(r"[A-Za-z0-9/._%-]+", written) and not written.startswith("0x")
        return written if is_plain else f'"{written}"'
    if isinstance(written, Mapping):
        return "{" + ", ".join(f"{name}: {write_value(each)}" for name, each in written.items()) + "}"
    return "[" + ", ".join(map(write_value, written)) + "]"
