"""Inputs made of inputs: some changes at random, of the kinds that readers of lengths and of texts stumble over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

MAX_BYTES = 65536
_NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 40, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF)
_TEXTS = (
    b"\0", b"\xff", b"\xc3", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\n", b"\r", b"\t", b" ", b'"', b"'", b"\\", b"{",
    b"}", b"[", b"]", b",", b":", b"#", b"-", b"0", b"-1", b"1e999", b"NaN", b"null", b"true",
    b"99999999999999999999",
)  # fmt: skip


class Mutator:
    """`words` are a target's own."""

    def __init__(self, random: Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> None:
        self._random = random
        self._corpus = corpus
        self._words = (*_TEXTS, *words, *words)
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._set_byte, self._set_number, self._set_number, self._delete, self._insert,
            self._repeat, self._copy, self._cut, self._word, self._word, self._splice, self._nest,
        )  # fmt: skip

    def mutate(self, raw: bytes) -> bytes:
        """One to eight changes, few more often than many."""
        made = bytearray(raw)
        for _ in range(1 << self._random.choice((0, 0, 0, 1, 1, 2, 3))):
            self._random.choice(self._ways)(made)
        return bytes(made[:MAX_BYTES])

    def _at(self, made: bytearray, room: int = 0) -> int:
        return self._random.randint(0, max(0, len(made) - room))

    def _flip(self, made: bytearray) -> None:
        if made:
            made[self._random.randrange(len(made))] ^= 1 << self._random.randrange(8)

    def _set_byte(self, made: bytearray) -> None:
        if made:
            made[self._random.randrange(len(made))] = self._random.randrange(256)

    def _set_number(self, made: bytearray) -> None:
        """A length or a count, wherever it is: one, two, four or eight bytes in either order."""
        size = self._random.choice((1, 2, 2, 4, 8))
        at = self._at(made, size) & (~1 if self._random.random() < 0.7 else ~0)
        order: Literal["little", "big"] = self._random.choice(("little", "big"))
        if self._random.random() < 0.5:
            number = self._random.choice(_NUMBERS)
        else:
            number = int.from_bytes(made[at : at + size], order) + self._random.randint(-8, 8)
        made[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, order)

    def _delete(self, made: bytearray) -> None:
        at = self._at(made)
        del made[at : at + self._size()]

    def _insert(self, made: bytearray) -> None:
        at = self._at(made)
        made[at:at] = self._random.randbytes(self._size())

    def _repeat(self, made: bytearray) -> None:
        """A part again and again."""
        at = self._at(made)
        made[at:at] = made[at : at + self._size()] * self._random.choice((1, 1, 2, 10, 100, 1000))

    def _copy(self, made: bytearray) -> None:
        at, to = self._at(made), self._at(made)
        part = made[at : at + self._size()]
        made[to : to + len(part)] = part

    def _cut(self, made: bytearray) -> None:
        del made[self._at(made) :]

    def _word(self, made: bytearray) -> None:
        at = self._at(made)
        made[at : at + self._random.choice((0, 0, 1, 2, 4, 8))] = self._random.choice(self._words)

    def _splice(self, made: bytearray) -> None:
        """The rest of another input."""
        if self._corpus:
            other = self._random.choice(self._corpus)
            made[self._at(made) :] = other[self._random.randint(0, len(other)) :]

    def _nest(self, made: bytearray) -> None:
        made[:] = self._random.choice((b"[", b"{", b"(", b'{"a":', b"- ")) * self._size() + made

    def _size(self) -> int:
        return self._random.choice((1, 1, 2, 4, 4, 8, 16, 40, 200))
