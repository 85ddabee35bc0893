"""Which client addresses are in the canary: nft's `jhash … mod 100`, computed here as the kernel computes it
(include/linux/jhash.h; net/netfilter/nft_hash.c scales with reciprocal_scale)."""

from __future__ import annotations

import sys

from gatewayd.compile.ruleset import CANARY_SEED, knows_inside
from gatewayd.model.flow import Canary, Flow
from gatewayd.model.policy import Policy

_M = 0xFFFFFFFF
_INITIAL = 0xDEADBEEF


def judge_canary(policy: Policy, flow: Flow) -> Canary | None:
    """Whether the client of a flow that its source opened is in the canary; None at 100 %. "source", "destination":
    only this end is in it. The rules go by the end inside then, and which that is only a packet tells."""
    if policy.canary_percent >= 100:
        return None
    source, destination = (canary_bucket(each) < policy.canary_percent for each in (flow.source, flow.destination))
    if source != destination and knows_inside(policy):
        return "source" if source else "destination"
    return "in" if source else "out"


def canary_bucket(address: bytes) -> int:
    """0..99; the address is in a canary of P percent when this is below P."""
    return (jhash(address, CANARY_SEED) * 100) >> 32


def jhash(raw: bytes, seed: int) -> int:
    """Bob Jenkins' lookup3 as the kernel has it; words in host byte order, as the kernel reads them."""
    length = len(raw)
    a = b = c = (_INITIAL + length + seed) & _M
    offset = 0
    while length > 12:
        a = (a + _word(raw, offset)) & _M
        b = (b + _word(raw, offset + 4)) & _M
        c = (c + _word(raw, offset + 8)) & _M
        a, b, c = _mix(a, b, c)
        length -= 12
        offset += 12
    tail = raw[offset:].ljust(12, b"\0")
    a = (a + int.from_bytes(tail[0:4], "little")) & _M
    b = (b + int.from_bytes(tail[4:8], "little")) & _M
    c = (c + int.from_bytes(tail[8:12], "little")) & _M
    return _final(a, b, c)


def _word(raw: bytes, offset: int) -> int:
    return int.from_bytes(raw[offset : offset + 4], sys.byteorder)


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & _M


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """__jhash_mix: six like steps in which the words change roles."""
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _M) ^ _rotate(c, bits)
        c = (c + b) & _M
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rotate(b, 14)) & _M
    a = ((a ^ c) - _rotate(c, 11)) & _M
    b = ((b ^ a) - _rotate(a, 25)) & _M
    c = ((c ^ b) - _rotate(b, 16)) & _M
    a = ((a ^ c) - _rotate(c, 4)) & _M
    b = ((b ^ a) - _rotate(a, 14)) & _M
    return ((c ^ b) - _rotate(b, 24)) & _M
