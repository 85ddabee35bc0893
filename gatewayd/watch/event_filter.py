"""A socket filter that leaves unwanted connection events in the kernel (Documentation/networking/filter.rst).

Some other rule on the gateway may well track every flow of every customer; we want the events of those that
our rules marked. The program looks for CTA_MARK with the classic BPF extension SKF_AD_NLATTR and compares,
so an event that is not ours costs no copy and no Python.

It runs on each event message from its nlmsghdr on. The kernel leaves CTA_MARK out of an event when the mark
is 0; it is then taken as 0.

Connections that another program makes (conntrackd carries over those of the other gateway) pass with any bit of
ours: their nlmsghdr names the netlink port of that program, where an event that a packet caused has 0 there
(net/netfilter/nf_conntrack_netlink.c: ctnetlink_conntrack_event, item->portid; seen on 6.18).
"""

from __future__ import annotations

import sys
from struct import Struct

from gatewayd.kernel.conntrack_codec import CT_NEW, CTA_MARK

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, k."""

_SOCK_FILTER = Struct("=HBBI")
_LD_IMMEDIATE, _LDX_IMMEDIATE = 0x00, 0x01
_LD_WORD_ABSOLUTE, _LD_WORD_INDIRECT = 0x20, 0x40
_LD_HALF_ABSOLUTE = 0x28
_AND, _JUMP_EQUAL, _TAX, _TXA, _RETURN = 0x54, 0x15, 0x07, 0x87, 0x06
_TYPE_OFFSET, _PORT_OFFSET = 4, 12
_SKF_AD_NLATTR = 0xFFFFF000 + 12
_FIRST_ATTRIBUTE = 20
_WHOLE_MESSAGE = 0xFFFFFFFF


def mark_filter(value: int, mask: int, carried: int = 0) -> tuple[Instruction, ...]:
    """The program that passes events with `ct mark & mask == value`, and connections that another program made with
    `ct mark & carried != 0`; it drops all others.

    Raises ValueError when `value` has bits outside `mask`: such a filter would pass nothing.
    """
    if not 0 <= mask <= 0xFFFFFFFF or value & ~mask:
        raise ValueError(f"mark {value:#x} goes past its mask {mask:#x}")
    # Loads are big endian; the header is in the order of the host.
    new = int.from_bytes(CT_NEW.to_bytes(2, sys.byteorder), "big")
    return (
        (_LD_IMMEDIATE, 0, 0, _FIRST_ATTRIBUTE),
        (_LDX_IMMEDIATE, 0, 0, CTA_MARK),
        (_LD_WORD_ABSOLUTE, 0, 0, _SKF_AD_NLATTR),  # A: offset of CTA_MARK, 0 when it is not there
        (_JUMP_EQUAL, 2, 0, 0),
        (_TAX, 0, 0, 0),
        (_LD_WORD_INDIRECT, 0, 0, 4),  # behind the attribute's header; the mark is big endian
        (_TAX, 0, 0, 0),
        (_AND, 0, 0, mask),
        (_JUMP_EQUAL, 7, 0, value),
        (_LD_WORD_ABSOLUTE, 0, 0, _PORT_OFFSET),
        (_JUMP_EQUAL, 6, 0, 0),
        (_LD_HALF_ABSOLUTE, 0, 0, _TYPE_OFFSET),
        (_JUMP_EQUAL, 0, 4, new),
        (_TXA, 0, 0, 0),
        (_AND, 0, 0, carried),
        (_JUMP_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _WHOLE_MESSAGE),
        (_RETURN, 0, 0, 0),
    )


def pack_filter(program: tuple[Instruction, ...]) -> bytes:
    """The instructions as an array of struct sock_filter, for SO_ATTACH_FILTER."""
    return b"".join(_SOCK_FILTER.pack(*instruction) for instruction in program)
