"""Prefixes to values, and every prefix that covers an address: a small interface over `pytricia`.

pytricia 1.3 (patricia.c, the MRT radix tree), where it is not what one expects:

- any look-up but `has_key` is a longest match, also `get`, `[]` and `in` with a whole prefix as key;
- `len()` walks the tree (80 ms at 1 M prefixes), so we count ourselves;
- a key with host bits set is stored as given; an address of the other family is looked up as if it were
  ours; an unknown key is a ValueError. Keys are canonical `Prefix`es and families have their own tree;
- a miss costs as much as a hit: the descent ends at a leaf and only then compares;
- values live in C without garbage collector support: a value must not refer to the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

import pytricia

from gatewayd.model import Prefix

_AF_INET, _AF_INET6 = 2, 10
"""include/linux/socket.h; pytricia takes the host's numbers and pure modules do not import `socket`."""

_Value = TypeVar("_Value")
_Key = tuple[bytes, int]
_HEAD_BITS = 16


class _Tree(Generic[_Value]):
    """The prefixes of one family. `heads`: how many prefixes touch each leading pair of bytes, none at zero.

    The heads answer most misses without a descent (0.1 µs instead of 1.7 µs at 1 M prefixes): the far end of
    a client's flow is seldom in a network that has clients. At most 65536 of them.
    """

    __slots__ = ("delete", "has_key", "heads", "insert", "longest_key", "parent_key", "values")

    def __init__(self, bits: int, family: int) -> None:
        trie = pytricia.PyTricia(bits, family, True)
        self.heads: dict[bytes, int] = {}
        self.insert: Callable[[_Key, _Value | tuple[_Value, ...]], None] = trie.insert
        self.delete: Callable[[_Key], None] = trie.delete
        self.has_key: Callable[[_Key], bool] = trie.has_key
        self.longest_key: Callable[[bytes], _Key | None] = trie.get_key
        self.parent_key: Callable[[_Key], _Key | None] = trie.parent
        self.values: Callable[[_Key], _Value | tuple[_Value, ...]] = trie.__getitem__


class Radix(Generic[_Value]):
    """Prefixes of both families, each with one or more values; an owner of no thread but its caller's.

    A prefix with one value holds it bare, one with several holds a tuple: a million lists would cost 72 MB.
    So a value is never a tuple or None; values are told apart by identity. Inserting or removing a value
    copies those that share its prefix: 0.05 ms at ten thousand on one prefix, and no good at a million.
    """

    __slots__ = ("_ipv4", "_ipv6", "_size")

    def __init__(self) -> None:
        self._ipv4: _Tree[_Value] = _Tree(32, _AF_INET)
        self._ipv6: _Tree[_Value] = _Tree(128, _AF_INET6)
        self._size = 0

    def __len__(self) -> int:
        """How many (prefix, value) pairs."""
        return self._size

    def insert(self, prefix: Prefix, value: _Value) -> None:
        """Add one pair. The caller does not insert the same pair twice."""
        packed, length = key = (prefix.packed, prefix.length)
        tree = self._ipv4 if len(packed) == 4 else self._ipv6
        if tree.has_key(key):
            tree.insert(key, (*_as_tuple(tree.values(key)), value))
        else:
            tree.insert(key, value)
            heads = tree.heads
            for head in (packed[:2],) if length >= _HEAD_BITS else _heads_of(prefix):
                heads[head] = heads.get(head, 0) + 1
        self._size += 1

    def remove(self, prefix: Prefix, value: _Value) -> None:
        """Take one pair out. KeyError, and nothing changed, if it is not there: a bug of the caller."""
        tree, key = self._tree_of(prefix.packed), (prefix.packed, prefix.length)
        held = self.exact(prefix)
        position = next((place for place, other in enumerate(held) if other is value), None)
        if position is None:
            raise KeyError(str(prefix))
        rest = held[:position] + held[position + 1 :]
        if rest:
            tree.insert(key, rest if len(rest) > 1 else rest[0])
        else:
            tree.delete(key)
            for head in _heads_of(prefix):
                tree.heads[head] -= 1
                if not tree.heads[head]:
                    del tree.heads[head]
        self._size -= 1

    def exact(self, prefix: Prefix) -> tuple[_Value, ...]:
        """The values at this very prefix, in order of insertion."""
        tree, key = self._tree_of(prefix.packed), (prefix.packed, prefix.length)
        return _as_tuple(tree.values(key)) if tree.has_key(key) else ()

    def covering(self, address: bytes) -> Sequence[_Value]:
        """All values at all prefixes that cover the address, longest prefix first."""
        tree = self._ipv4 if len(address) == 4 else self._ipv6
        if address[:2] not in tree.heads:
            return ()
        key = tree.longest_key(address)
        if key is None:
            return ()
        held = tree.values(key)
        parent_key = tree.parent_key
        key = parent_key(key)
        if key is None:
            return _as_tuple(held)
        found = [*_as_tuple(held)]
        while key is not None:
            found += _as_tuple(tree.values(key))
            key = parent_key(key)
        return found

    def covering_longer(self, address: bytes, shortest: int) -> tuple[_Value, ...]:
        """Of `covering` those at prefixes of the length `shortest` or longer, 1 or more."""
        tree = self._tree_of(address)
        found: tuple[_Value, ...] = ()
        if address[:2] in tree.heads:
            key = tree.longest_key(address)
            while key is not None and key[1] >= shortest:
                found += _as_tuple(tree.values(key))
                key = tree.parent_key(key)
        return found

    def _tree_of(self, packed: bytes) -> _Tree[_Value]:
        return self._ipv4 if len(packed) == 4 else self._ipv6


def _as_tuple(held: _Value | tuple[_Value, ...]) -> tuple[_Value, ...]:
    return held if type(held) is tuple else (cast("_Value", held),)


def _heads_of(prefix: Prefix) -> Iterator[bytes]:
    """The leading pairs of bytes that the prefix touches: one from /16 on, 256 for a /8."""
    first = int.from_bytes(prefix.packed[:2], "big")
    for head in range(first, first + (1 << max(0, _HEAD_BITS - prefix.length))):
        yield head.to_bytes(2, "big")
