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

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeAlias, TypeVar, cast

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
        self.insert: Callable[[_Key, _Held[_Value]], None] = trie.insert
        self.delete: Callable[[_Key], None] = trie.delete
        self.has_key: Callable[[_Key], bool] = trie.has_key
        self.longest_key: Callable[[bytes], _Key | None] = trie.get_key
        self.parent_key: Callable[[_Key], _Key | None] = trie.parent
        self.values: Callable[[_Key], _Held[_Value]] = trie.__getitem__


CROWD = 32
"""Values at one prefix from which on they are a Crowd; one that has shrunk to a half is a tuple again."""


class Crowd(Generic[_Value]):
    """Many values at one prefix, in order of arrival, found by the other end that they are for.

    A flow of one customer's /28 would be held against each of its 50,000 registrations: 10 ms a flow. To add or
    remove one copies none of the others.
    """

    __slots__ = ("_by_peer", "_for_any", "_peers_of", "values")

    def __init__(self, values: Iterable[_Value], peers_of: Callable[[_Value], Sequence[Prefix]]) -> None:
        self._peers_of = peers_of
        self.values: dict[int, _Value] = {}
        """By identity."""
        self._for_any: dict[int, _Value] = {}
        """Those that name no peer."""
        self._by_peer: Radix[_Value] = Radix()
        for value in values:
            self.add(value)

    def add(self, value: _Value) -> None:
        self.values[id(value)] = value
        peers = self._peers_of(value)
        for peer in peers:
            self._by_peer.insert(peer, value)
        if not peers:
            self._for_any[id(value)] = value

    def remove(self, value: _Value) -> bool:
        """Whether it was there."""
        if self.values.pop(id(value), None) is None:
            return False
        for peer in self._peers_of(value):
            self._by_peer.remove(peer, value)
        self._for_any.pop(id(value), None)
        return True

    def facing(self, other: bytes) -> Sequence[_Value]:
        """Those for any peer, and those with a peer that covers the address, perhaps several times each."""
        return [*self._for_any.values(), *self._by_peer.covering(other)]


_Held: TypeAlias = "_Value | tuple[_Value, ...] | Crowd[_Value]"


class Radix(Generic[_Value]):
    """Prefixes of both families, each with one or more values; an owner of no thread but its caller's.

    A prefix with one value holds it bare, one with several holds a tuple: a million lists would cost 72 MB.
    So a value is never a tuple or None; values are told apart by identity. Inserting or removing a value
    copies those that share its prefix: 0.05 ms at ten thousand on one prefix, and no good at a million. `peers_of`:
    of a value; with it, more than `few` at one prefix are a Crowd (0: CROWD).
    """

    __slots__ = ("_few", "_ipv4", "_ipv6", "_peers_of", "_size")

    def __init__(self, peers_of: Callable[[_Value], Sequence[Prefix]] | None = None, few: int = 0) -> None:
        self._ipv4: _Tree[_Value] = _Tree(32, _AF_INET)
        self._ipv6: _Tree[_Value] = _Tree(128, _AF_INET6)
        self._peers_of = peers_of
        self._few = few
        self._size = 0

    def __len__(self) -> int:
        """How many (prefix, value) pairs."""
        return self._size

    def insert(self, prefix: Prefix, value: _Value) -> None:
        """Add one pair. The caller does not insert the same pair twice."""
        packed, length = key = (prefix.packed, prefix.length)
        tree = self._ipv4 if len(packed) == 4 else self._ipv6
        if tree.has_key(key):
            self._join(tree, key, value)
        else:
            tree.insert(key, value)
            heads = tree.heads
            for head in (packed[:2],) if length >= _HEAD_BITS else _heads_of(prefix):
                heads[head] = heads.get(head, 0) + 1
        self._size += 1

    def remove(self, prefix: Prefix, value: _Value) -> None:
        """Take one pair out. KeyError, and nothing changed, if it is not there: a bug of the caller."""
        tree, key = self._tree_of(prefix.packed), (prefix.packed, prefix.length)
        if not tree.has_key(key) or not self._leave(tree, key, value):
            raise KeyError(str(prefix))
        if not tree.has_key(key):
            for head in _heads_of(prefix):
                tree.heads[head] -= 1
                if not tree.heads[head]:
                    del tree.heads[head]
        self._size -= 1

    def _join(self, tree: _Tree[_Value], key: _Key, value: _Value) -> None:
        """One more value at a prefix that has some."""
        held = tree.values(key)
        if isinstance(held, Crowd):
            held.add(value)
            return
        values = (*_as_tuple(held), value)
        is_crowd = self._peers_of is not None and len(values) > (self._few or CROWD)
        tree.insert(key, Crowd(values, self._peers_of) if self._peers_of and is_crowd else values)

    def _leave(self, tree: _Tree[_Value], key: _Key, value: _Value) -> bool:
        """One value less at a prefix, which goes with its last one; whether it was there."""
        held = tree.values(key)
        if isinstance(held, Crowd):
            if not held.remove(value):
                return False
            if len(held.values) <= (self._few or CROWD) // 2:
                tree.insert(key, tuple(held.values.values()))
            return True
        values = _as_tuple(held)
        rest = tuple([other for other in values if other is not value])
        if len(rest) == len(values):
            return False
        if rest:
            tree.insert(key, rest if len(rest) > 1 else rest[0])
        else:
            tree.delete(key)
        return True

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

    def facing(self, address: bytes, other: bytes) -> Sequence[_Value]:
        """As `covering`, of a crowd without those whose peers do not cover `other`; perhaps several times each."""
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
            return held.facing(other) if type(held) is Crowd else _as_tuple(held)
        found = [*(held.facing(other) if type(held) is Crowd else _as_tuple(held))]
        while key is not None:
            held = tree.values(key)
            found += held.facing(other) if type(held) is Crowd else _as_tuple(held)
            key = parent_key(key)
        return found

    def around(self, address: bytes, other: bytes, most: int) -> Sequence[_Value]:
        """As `covering`, of a crowd those whose peers cover `other` and some others; about `most` of each."""
        tree = self._ipv4 if len(address) == 4 else self._ipv6
        key = tree.longest_key(address) if address[:2] in tree.heads else None
        found: list[_Value] = []
        while key is not None and len(found) < most:
            held = tree.values(key)
            if type(held) is Crowd:
                found += islice(held.facing(other), most)
                found += islice(held.values.values(), most)
            else:
                found += _as_tuple(held)
            key = tree.parent_key(key)
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


def _as_tuple(held: _Held[_Value]) -> tuple[_Value, ...]:
    if type(held) is tuple:
        return held
    return tuple(held.values.values()) if type(held) is Crowd else (cast("_Value", held),)


def _heads_of(prefix: Prefix) -> Iterator[bytes]:
    """The leading pairs of bytes that the prefix touches: one from /16 on, 256 for a /8."""
    first = int.from_bytes(prefix.packed[:2], "big")
    for head in range(first, first + (1 << max(0, _HEAD_BITS - prefix.length))):
        yield head.to_bytes(2, "big")
