"""What keeps a flood of the accounting port from its senders' neighbours. Pure.

A datagram of a stranger (a sender that is no client) costs some 10 µs of the loop, so 100,000 a second would be all
of it. While strangers send more than STRANGERS_PER_S, the kernel drops theirs before they take room in the socket.
A classic BPF program lets the prefixes of clients through (socket(7), SO_ATTACH_FILTER). It stands for SHIELD_S;
then strangers are seen and counted, until they are too many again.

A client may flood too, or its address may be forged. Of one source address at most so many datagrams a second are
looked at; the rest is dropped for the price of a look into a dict.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from gatewayd.model.prefix import Family, Prefix, mask_bytes

STRANGERS_PER_S: Final = 500
"""A NAS that is missing in the configuration, with all its repeats, sends less."""
SHIELD_S: Final = 10.0
SOURCE_PER_S: Final = 20_000.0
"""Datagrams of one source address; more than the loop takes of honest ones."""
SOURCE_BURST: Final = 20_000.0
MAX_SOURCES: Final = 1024

MAX_INSTRUCTIONS: Final = 4096
"""include/uapi/linux/bpf_common.h: BPF_MAXINSNS."""
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K."""
_NETWORK_HEADER: Final = 0xFFF00000
"""include/uapi/linux/filter.h: SKF_NET_OFF. The data of a UDP socket's filter begin at the UDP header."""
_SOURCE_AT: Final[dict[Family, int]] = {4: 12, 6: 8}
_WORD: Final = 4
_INSTRUCTION: Final = struct.Struct("=HBBI")
_ALL: Final = 0xFFFFFFFF

_Instruction = tuple[int, int, int, int]


class SourceRates:
    """A token bucket for each source address, of at most `most`; the one that sent longest ago goes first."""

    __slots__ = ("_buckets", "_burst", "_most", "_per_s")

    def __init__(
        self, *, per_s: float = SOURCE_PER_S, burst: float = SOURCE_BURST, most: int = MAX_SOURCES
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, source: bytes, now: float) -> bool:
        """Whether one more of this source is to be looked at."""
        buckets = self._buckets
        bucket = buckets.get(source)
        if bucket is None:
            left = self._burst
            if len(buckets) >= self._most:
                buckets.popitem(last=False)
        else:
            left = bucket[0] + (now - bucket[1]) * self._per_s
            if left > self._burst:
                left = self._burst
            buckets.move_to_end(source)
        if left < 1:
            return False
        buckets[source] = (left - 1, now)
        return True


class Shield:
    """Says while strangers are to be dropped in the kernel. `now` is in seconds and never goes back."""

    __slots__ = ("_began_s", "_count", "_most", "_until_s")

    def __init__(self, *, strangers_per_s: int = STRANGERS_PER_S) -> None:
        self._most = strangers_per_s
        self._count = 0
        self._began_s = 0.0
        self._until_s = 0.0

    def count(self, now: float) -> bool:
        """A stranger sent. Whether that raises the shield."""
        if now - self._began_s >= 1:
            self._began_s, self._count = now, 0
        self._count += 1
        if self._count <= self._most or now < self._until_s:
            return False
        self._until_s = now + SHIELD_S
        return True


def filter_of(prefixes: Iterable[Prefix], family: Family) -> bytes | None:
    """A classic BPF program that passes datagrams from these prefixes, of this family, and drops the rest: `struct
    sock_filter` in a row. None where the kernel takes none that long."""
    program: list[_Instruction] = []
    for prefix in prefixes:
        if prefix.family == family:
            program += _passing(prefix, _SOURCE_AT[family])
    program.append((_RETURN, 0, 0, 0))
    if len(program) > MAX_INSTRUCTIONS:
        return None
    return b"".join(_INSTRUCTION.pack(*each) for each in program)


def _passing(prefix: Prefix, source_at: int) -> list[_Instruction]:
    """Passes what is from the prefix; the rest goes on behind it."""
    mask = mask_bytes(len(prefix.packed), prefix.length)
    words: list[list[_Instruction]] = []
    for at in range(0, len(mask), _WORD):
        bits = int.from_bytes(mask[at : at + _WORD], "big")
        if bits:
            masking = [(_AND, 0, 0, bits)] if bits != _ALL else []
            words.append([(_LOAD, 0, 0, _NETWORK_HEADER + source_at + at), *masking])
    program: list[_Instruction] = [(_RETURN, 0, 0, _ALL)]
    values = [int.from_bytes(prefix.packed[at : at + _WORD], "big") for at in range(0, len(mask), _WORD)]
    for value, loading in reversed(list(zip(values, words, strict=False))):
        program = [*loading, (_EQUAL, 0, len(program), value), *program]
    return program
