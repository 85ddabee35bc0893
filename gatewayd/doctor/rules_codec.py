"""Chains, rules and flowtables of every table, from the bytes of the kernel's lists. Pure.

A rule is looked at expression by expression (include/uapi/linux/netfilter/nf_tables.h); of iptables-nft the targets
CT and REJECT are read from their binary form (xt_CT.h), and the match connmark. A rule that is not understood does
nothing of what is looked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import Final

from gatewayd.doctor.facts import BaseChain, Deed, Flowtable, Hook, Rule
from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.external_codec import FAMILIES, judge_expressions

_INET_HOOKS: Final[dict[int, Hook]] = {
    0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting", 5: "ingress",
}  # fmt: skip
_NETDEV_HOOKS: Final[dict[int, Hook]] = {0: "ingress", 1: "egress"}
_ON_THE_WAY: Final = frozenset({"ingress", "prerouting", "forward", "postrouting", "egress"})

_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICES = 1, 2, 3
_DROP, _ACCEPT = 0, 1
_JUMP, _GOTO, _RETURN = 0xFFFFFFFD, 0xFFFFFFFC, 0xFFFFFFFB
"""NFT_JUMP, NFT_GOTO, NFT_RETURN."""
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 2, 3, 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_CT_DREG, _CT_KEY, _CT_SREG, _CT_MARK, _CT_ZONE = 1, 2, 4, 3, 17
_CMP_OP, _CMP_DATA, _EQUAL, _NOT_EQUAL = 2, 3, 0, 1
_BITWISE_MASK, _BITWISE_XOR = 4, 5
_IMMEDIATE_DATA, _DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 2, 1, 2, 1, 2
_XT_NAME, _XT_INFO = 1, 3
_FLOW_OFFLOAD_TABLE = 1
_FLOWTABLE_NAME, _FLOWTABLE_HOOK, _FLOWTABLE_FLAGS, _HARDWARE = 2, 3, 7, 1
_CT_TARGET = Struct("=HH")
"""struct xt_ct_target_info: flags, zone."""
_ALL: Final = 0xFFFFFFFF
_XT_CT_NOTRACK, _XT_CT_ZONE_FLAGS = 0x1, 0x4 | 0x8 | 0x10
_CONNMARK_MATCH = Struct("=IIB")
"""struct xt_connmark_mtinfo1: mark, mask, invert."""
_CONNTRACK_MATCH = Struct("=HHH")
_STATES_END: Final = 152
"""struct xt_conntrack_mtinfo3 up to state_mask; match_flags, invert_flags and state_mask are the last of it."""
_CT_STATE, _XT_STATE, _INVALID = 0, 0x1, 0x1
"""NFT_CT_STATE; XT_CONNTRACK_STATE; the bit of INVALID, of nf_tables and of iptables."""
_PASSIVE: Final = frozenset({"counter", "log", "limit", "comment", "last"})
"""They decide nothing about a packet, or, as `limit`, about few: a limited drop is none of all."""


def encode_dump(kind: int, sequence: int) -> bytes:
    """A request for all of a kind, of every family."""
    return nl.message(kind, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, sequence, 0, 0)


def chains_in(datagram: bytes, own_table: str) -> Iterator[BaseChain]:
    """Base chains that forwarded packets meet. Raises EventMalformed."""
    for family, fields in _objects(datagram, codec.NEWCHAIN, own_table):
        if _CHAIN_HOOK not in fields:
            continue
        hooked = _nested(fields[_CHAIN_HOOK])
        hooks = _NETDEV_HOOKS if family == "netdev" else _INET_HOOKS
        hook = hooks.get(nl.uint_of(hooked.get(_HOOK_NUMBER, b"")))
        if hook is None or hook not in _ON_THE_WAY or family == "arp":
            continue
        priority = int.from_bytes(hooked.get(_HOOK_PRIORITY, b""), "big", signed=True)
        policy = nl.uint_of(fields.get(_CHAIN_POLICY, _ACCEPT.to_bytes(4, "big")))
        name = nl.string_of(fields.get(_CHAIN_NAME, b""))
        yield BaseChain(family, _text(fields), name, hook, priority, policy == _DROP)


def flowtables_in(datagram: bytes, own_table: str) -> Iterator[Flowtable]:
    """Raises EventMalformed."""
    for family, fields in _objects(datagram, codec.NEWFLOWTABLE, own_table):
        hook = _nested(fields.get(_FLOWTABLE_HOOK, b""))
        names = hook.get(_HOOK_DEVICES, b"")
        devices = tuple(nl.string_of(names[low:high]) for _, low, high in nl.iter_attributes(names, 0, len(names)))
        name = nl.string_of(fields.get(_FLOWTABLE_NAME, b""))
        flags = nl.uint_of(fields.get(_FLOWTABLE_FLAGS, b""))
        yield Flowtable(family, _text(fields), name, devices, bool(flags & _HARDWARE))


class RuleReading:
    """Datagrams of the list of rules, in their order. `registered`: the bit of the ct mark that says so."""

    def __init__(self, own_table: str, registered: int) -> None:
        self._own_table = own_table
        self._registered = registered
        self._numbers: dict[tuple[str, str, str], int] = {}

    def feed(self, datagram: bytes) -> Iterator[Rule]:
        """Rules that do something of what is looked for. Raises EventMalformed where a message does not parse."""
        for family, fields in _objects(datagram, codec.NEWRULE, self._own_table):
            chain = family, _text(fields), nl.string_of(fields.get(_RULE_CHAIN, b""))
            self._numbers[chain] = self._numbers.get(chain, 0) + 1
            raw = fields.get(_RULE_EXPRESSIONS, b"")
            rule = None
            with suppress(EventMalformed):
                rule = self._judge(raw, chain, nl.uint_of(fields.get(_RULE_HANDLE, b"")))
            if rule is not None:
                yield rule

    def _judge(self, raw: bytes, chain: tuple[str, str, str], handle: int) -> Rule | None:
        expressions = [
            (nl.string_of(each.get(_EXPRESSION_NAME, b"")), _nested(each.get(_EXPRESSION_DATA, b"")))
            for each in (nl.attributes_of(raw, low, high) for _, low, high in nl.iter_attributes(raw, 0, len(raw)))
        ]
        deeds = frozenset(_deeds(expressions))
        if _admits(expressions, self._registered):
            deeds |= {"accepts_registered"}
        touches = any(name in ("ct", "target") for name, _ in expressions)
        writes, leaks = _mark_bits(raw) if touches else (0, 0)
        if not (deeds or writes or leaks):
            return None
        active = [name for name, _ in expressions if name not in _PASSIVE]
        table = next((fields for name, fields in expressions if name == "flow_offload"), {})
        return Rule(
            *chain,
            handle,
            self._numbers[chain],
            deeds,
            writes,
            leaks,
            nl.string_of(table.get(_FLOW_OFFLOAD_TABLE, b"")),
            is_bare=len(active) == 1 or active == ["ct", "meta"],
            is_target=bool(active) and active[-1] == "target",
            into=_target_chain(expressions) if deeds & {"jumps", "goes"} else "",
        )


def _deeds(expressions: list[tuple[str, dict[int, bytes]]]) -> Iterator[Deed]:
    for name, fields in expressions:
        if name == "notrack":
            yield "notrack"
        elif name == "flow_offload":
            yield "offloads"
        elif name == "ct" and _CT_SREG in fields and nl.uint_of(fields.get(_CT_KEY, b"")) == _CT_ZONE:
            yield "zone"
        elif name == "target":
            yield from _target_deeds(nl.string_of(fields.get(_XT_NAME, b"")), fields.get(_XT_INFO, b""))
    if not expressions:
        return
    is_of_all = all(name in _PASSIVE - {"limit"} for name, _ in expressions[:-1])
    if _is_drop(*expressions[-1]):
        yield "drops"
        if is_of_all:
            yield "drops_all"
        if _asks_for_invalid([each for each in expressions if each[0] not in _PASSIVE]):
            yield "drops_invalid"
    elif is_of_all and expressions[-1][0] == "immediate" and (deed := _ENDS.get(_verdict(expressions[-1][1]))):
        yield deed


def _asks_for_invalid(active: list[tuple[str, dict[int, bytes]]]) -> bool:
    """Whether the rule is about packets of the state INVALID, and asks nothing else."""
    names, fields = [name for name, _ in active[:-1]], [each for _, each in active]
    if names == ["match"]:
        info = fields[0].get(_XT_INFO, b"")
        if nl.string_of(fields[0].get(_XT_NAME, b"")) != "conntrack" or len(info) < _STATES_END:
            return False
        asked, inverted, states = _CONNTRACK_MATCH.unpack_from(info, _STATES_END - _CONNTRACK_MATCH.size)
        return bool(asked == _XT_STATE and not inverted and states & _INVALID)
    if names != ["ct", "bitwise", "cmp"] or nl.uint_of(fields[0].get(_CT_KEY, b"")) != _CT_STATE:
        return False
    mask = _number(fields[1].get(_BITWISE_MASK, b"")) or 0
    asked_for = nl.uint_of(fields[2].get(_CMP_OP, b"")), _number(fields[2].get(_CMP_DATA, b""))
    return bool(mask & _INVALID and asked_for == (_NOT_EQUAL, 0))


_ENDS: Final[dict[int | None, Deed]] = {
    _ACCEPT: "accepts_all", _JUMP: "jumps", _GOTO: "goes", _RETURN: "returns",
}  # fmt: skip


def _target_deeds(name: str, info: bytes) -> Iterator[Deed]:
    if name == "NOTRACK":
        yield "notrack"
    elif name == "CT" and len(info) >= _CT_TARGET.size:
        flags, zone = _CT_TARGET.unpack_from(info)
        if flags & _XT_CT_NOTRACK:
            yield "notrack"
        if zone or flags & _XT_CT_ZONE_FLAGS:
            yield "zone"


def _is_drop(name: str, fields: dict[int, bytes]) -> bool:
    if name == "target":
        return nl.string_of(fields.get(_XT_NAME, b"")) in ("REJECT", "DROP")
    return name == "reject" or (name == "immediate" and _verdict(fields) == _DROP)


def _verdict(fields: dict[int, bytes]) -> int | None:
    """Of an immediate."""
    verdict = _verdict_fields(fields)
    return nl.uint_of(verdict[_VERDICT_CODE]) if _VERDICT_CODE in verdict else None


def _target_chain(expressions: list[tuple[str, dict[int, bytes]]]) -> str:
    return nl.string_of(_verdict_fields(expressions[-1][1]).get(_VERDICT_CHAIN, b""))


def _verdict_fields(fields: dict[int, bytes]) -> dict[int, bytes]:
    return _nested(_nested(fields.get(_IMMEDIATE_DATA, b"")).get(_DATA_VERDICT, b""))


def _admits(expressions: list[tuple[str, dict[int, bytes]]], registered: int) -> bool:
    """Whether it accepts every flow with our bit, and asks nothing else."""
    active = [each for each in expressions if each[0] not in _PASSIVE]
    if not active or active[-1][0] != "immediate" or _verdict(active[-1][1]) != _ACCEPT:
        return False
    names, fields = [name for name, _ in active], [each for _, each in active]
    if names == ["match", "immediate"]:
        info = fields[0].get(_XT_INFO, b"")
        if nl.string_of(fields[0].get(_XT_NAME, b"")) != "connmark" or len(info) < _CONNMARK_MATCH.size:
            return False
        return bool(_CONNMARK_MATCH.unpack_from(info) == (registered, registered, 0))
    if names != ["ct", "bitwise", "cmp", "immediate"] or nl.uint_of(fields[0].get(_CT_KEY, b"")) != _CT_MARK:
        return False
    mask, xor = _number(fields[1].get(_BITWISE_MASK, b"")), _number(fields[1].get(_BITWISE_XOR, b""))
    asked = nl.uint_of(fields[2].get(_CMP_OP, b"")), _number(fields[2].get(_CMP_DATA, b""))
    return (mask, xor) == (registered, 0) and asked in ((_EQUAL, registered), (_NOT_EQUAL, 0))


def _mark_bits(raw: bytes) -> tuple[int, int]:
    """Bits of the ct mark that the rule writes, and those that it copies into the packet mark."""
    writes = leaks = 0
    if not judge_expressions(raw, _ALL):  # nearly every rule: `ct state` is an expression of the same name
        return 0, 0
    for bit in (1 << number for number in range(32)):
        deeds = judge_expressions(raw, bit)
        writes |= bit * ("writes" in deeds)
        leaks |= bit * ("leaks" in deeds)
    return writes, leaks


def _objects(datagram: bytes, wanted: int, own_table: str) -> Iterator[tuple[str, dict[int, bytes]]]:
    """Family and attributes of each message that is not about our table."""
    for kind, _, _, start, end in nl.iter_messages(datagram):
        if kind == wanted:
            family = FAMILIES.get(datagram[start], str(datagram[start]))
            fields = nl.attributes_of(datagram, start + 4, end)
            if (family, _text(fields)) != ("inet", own_table):
                yield family, fields


def _text(fields: dict[int, bytes]) -> str:
    return nl.string_of(fields.get(_TABLE, b""))


def _nested(payload: bytes) -> dict[int, bytes]:
    return nl.attributes_of(payload, 0, len(payload))


def _number(data: bytes) -> int | None:
    """Of a NFTA_DATA_VALUE of 4 bytes, in the order of the host."""
    value = _nested(data).get(_DATA_VALUE, b"")
    return int.from_bytes(value, sys.byteorder) if len(value) == 4 else None
