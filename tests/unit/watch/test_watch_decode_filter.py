"""The socket filter, run by an interpreter of the few instructions it is made of, over captured events."""

from __future__ import annotations

import struct
import sys

import pytest

from gatewayd.kernel.attributes import attributes_of, iter_attributes, message
from gatewayd.watch.decode import mark_filter, pack_filter
from tests.support.captures import CONNECTIONS

MARKED = bytes.fromhex(CONNECTIONS["udp4 new"])
UNMARKED = message(0x100, 0, 0, 2, 0)
MASK = 0xFF000000


def passes(packed: bytes, raw: bytes) -> bool:
    """Documentation/networking/filter.rst, for the opcodes in use; SKF_AD_NLATTR as nla_find does it."""
    program: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", packed))
    accumulator = index = at = 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        match code:
            case 0x00:
                accumulator = k
            case 0x01:
                index = k
            case 0x20 if k == 12:
                accumulator = int.from_bytes(raw[12:16], "big")
            case 0x28:
                accumulator = int.from_bytes(raw[k : k + 2], "big")
            case 0x87:
                accumulator = index
            case 0x20:
                assert k == 0xFFFFF00C
                found = (low - 4 for kind, low, _ in iter_attributes(raw, accumulator, len(raw)) if kind == index)
                accumulator = next(found, 0)
            case 0x40:
                accumulator = int.from_bytes(raw[index + k : index + k + 4], "big")
            case 0x54:
                accumulator &= k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x07:
                index = accumulator
            case 0x06:
                return k != 0
            case _:
                raise AssertionError(f"opcode {code:#x}")


@pytest.mark.parametrize(
    ("value", "mask", "marked", "unmarked"),
    [
        (0xA1000000, MASK, True, False),
        (0xA1000007, 0xFFFFFFFF, True, False),
        (0xA2000000, MASK, False, False),
        (0, MASK, False, True),
        (0, 0x00FFFFF0, True, True),
        (0, 0, True, True),
    ],
)
def test_only_events_whose_mark_matches_pass(value: int, mask: int, marked: bool, unmarked: bool) -> None:
    packed = pack_filter(mark_filter(value, mask))
    assert attributes_of(MARKED, 20, len(MARKED))[8] == b"\xa1\x00\x00\x07"
    assert passes(packed, MARKED) is marked
    assert passes(packed, UNMARKED) is unmarked


@pytest.mark.parametrize("name", CONNECTIONS)
def test_the_mark_is_found_wherever_it_stands(name: str) -> None:
    raw = bytes.fromhex(CONNECTIONS[name])
    assert passes(pack_filter(mark_filter(0xA1000000, MASK)), raw)
    assert not passes(pack_filter(mark_filter(0x21000000, MASK)), raw)


@pytest.mark.parametrize("name", [name for name in CONNECTIONS if "plain" not in name])
@pytest.mark.parametrize("port", [0, 4711])
@pytest.mark.parametrize("carried", [0, MASK, 0x10000000])
def test_of_what_a_program_made_all_with_bits_of_ours_pass(name: str, port: int, carried: int) -> None:
    raw = bytearray(bytes.fromhex(CONNECTIONS[name]))
    raw[12:16] = port.to_bytes(4, sys.byteorder)
    expected = bool(port) and carried == MASK and "destroy" not in name
    assert passes(pack_filter(mark_filter(0x40000000, 0x40000000, carried)), bytes(raw)) is expected


@pytest.mark.parametrize(("value", "mask"), [(1, MASK), (0, -1), (0, 1 << 32)])
def test_a_filter_that_could_pass_nothing_is_our_bug(value: int, mask: int) -> None:
    with pytest.raises(ValueError, match="mask"):
        mark_filter(value, mask)
