"""A configuration document without yaml: scalars, lists and mappings, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass


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
