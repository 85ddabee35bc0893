"""Chains, rules and flowtables from the kernel's bytes; tests/lab/test_lab_doctor.py has a real kernel's."""

from __future__ import annotations

import sys
from struct import pack

import pytest

from gatewayd.doctor import rules_codec
from gatewayd.doctor.facts import BaseChain, Flowtable, Rule
from gatewayd.doctor.rules_codec import (
    RuleReading,
    chains_in,
    encode_dump,
    flowtables_in,
)
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec

BIT = 0x80000000


def message(kind: int, family: int, *attributes: bytes) -> bytes:
    return nl.message(kind, 0, 1, family, 0, *attributes)


def chain(name: str, hook: int, priority: int = 0, policy: int | None = None, family: int = 1) -> bytes:
    hooked = nl.nest(4, nl.be32(1, hook), nl.attribute(2, pack(">i", priority)))
    said = () if policy is None else (nl.be32(5, policy),)
    return message(tables_codec.NEWCHAIN, family, nl.text(1, "fw"), nl.text(3, name), hooked, *said)


def data(value: int) -> bytes:
    return nl.attribute(1, value.to_bytes(4, sys.byteorder))


def expression(name: str, *fields: bytes) -> bytes:
    return nl.nest(1, nl.text(1, name), nl.nest(2, *fields))


def rule(*expressions: bytes, table: str = "fw", family: int = 1, handle: int = 5) -> bytes:
    return message(
        tables_codec.NEWRULE, family, nl.text(1, table), nl.text(2, "c"), nl.be64(3, handle),
        nl.nest(4, *expressions),
    )  # fmt: skip


def verdict(code: int, chain: str = "") -> bytes:
    into = (nl.text(2, chain),) if chain else ()
    return expression("immediate", nl.nest(2, nl.nest(2, nl.be32(1, code & 0xFFFFFFFF), *into)))


COUNTER, LIMIT, NOTRACK = expression("counter"), expression("limit"), expression("notrack")
LOAD = expression("ct", nl.be32(1, 8), nl.be32(2, 3))
MASK = expression("bitwise", nl.nest(4, data(BIT)), nl.nest(5, data(0)))
EQUAL = expression("cmp", nl.be32(2, 0), nl.nest(3, data(BIT)))
NOT_NULL = expression("cmp", nl.be32(2, 1), nl.nest(3, data(0)))
ZONE = expression("ct", nl.be32(2, 17), nl.be32(4, 8))
STATE = expression("ct", nl.be32(1, 8), nl.be32(2, 0))
INVALID = expression("bitwise", nl.nest(4, data(1)), nl.nest(5, data(0)))
WRITE = expression("ct", nl.be32(2, 3), nl.be32(4, 8))


def target(name: str, info: bytes = b"") -> bytes:
    return expression("target", nl.text(1, name), nl.attribute(3, info))


def connmark(mark: int, mask: int, invert: int = 0) -> bytes:
    return expression("match", nl.text(1, "connmark"), nl.attribute(3, pack("=IIB3x", mark, mask, invert)))


def states(asked_for: int, inverted: int = 0) -> bytes:
    info = bytes(146) + pack("=HHH", 1, inverted, asked_for)
    return expression("match", nl.text(1, "conntrack"), nl.attribute(3, info))


def read(*expressions: bytes) -> Rule | None:
    return next(RuleReading("gatewayd", BIT).feed(rule(*expressions)), None)


def deeds(*expressions: bytes) -> set[str]:
    found = read(*expressions)
    return set() if found is None else set(found.deeds)


def test_base_chains_on_the_way_of_forwarded_packets() -> None:
    regular = message(tables_codec.NEWCHAIN, 1, nl.text(1, "fw"), nl.text(3, "jumped"))
    ours = message(tables_codec.NEWCHAIN, 1, nl.text(1, "gatewayd"), nl.text(3, "forward"))
    raw = b"".join(
        (
            chain("f", 2, -5, 0), chain("in", 1), chain("unknown", 9), chain("arp", 0, family=3),
            chain("dev", 0, family=5), regular, ours, chain("open", 4, 7, 1),
        )
    )  # fmt: skip
    assert list(chains_in(raw, "gatewayd")) == [
        BaseChain("inet", "fw", "f", "forward", -5, True),
        BaseChain("netdev", "fw", "dev", "ingress", 0, False),
        BaseChain("inet", "fw", "open", "postrouting", 7, False),
    ]


def test_flowtables() -> None:
    devices = nl.nest(3, nl.text(1, "eth0"), nl.text(1, "eth1"))
    raw = message(
        tables_codec.NEWFLOWTABLE, 2, nl.text(1, "fw"), nl.text(2, "fast"), nl.nest(3, devices), nl.be32(7, 1)
    )
    bare = message(tables_codec.NEWFLOWTABLE, 99, nl.text(1, "fw"), nl.text(2, "bare"))
    assert list(flowtables_in(raw + bare, "gatewayd")) == [
        Flowtable("ip", "fw", "fast", ("eth0", "eth1"), True),
        Flowtable("99", "fw", "bare", ()),
    ]
    assert encode_dump(tables_codec.GETFLOWTABLE, 7)[4:6] == tables_codec.GETFLOWTABLE.to_bytes(2, sys.byteorder)


def test_rules_are_numbered_in_their_chain_and_harmless_ones_left_out() -> None:
    reading = RuleReading("gatewayd", BIT)
    raw = message(nl.NLMSG_DONE, 0) + rule(COUNTER) + rule(NOTRACK, table="gatewayd") + rule(NOTRACK, handle=6)
    (found,) = reading.feed(raw)
    assert (found.number, found.handle, found.is_bare) == (2, 6, True)
    broken = message(tables_codec.NEWRULE, 1, nl.text(1, "fw"), nl.attribute(4, b"\x03\0\0\0"))
    assert list(reading.feed(broken)) == []


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        ((NOTRACK,), {"notrack"}),
        ((target("NOTRACK"),), {"notrack"}),
        ((target("CT", pack("=HH", 1, 0)),), {"notrack"}),
        ((target("CT", pack("=HH", 0, 3)),), {"zone"}),
        ((target("CT", pack("=HH", 4, 0)),), {"zone"}),
        ((target("CT", b"\0"),), set()),
        ((target("LOG"),), set()),
        ((ZONE,), {"zone"}),
        ((expression("flow_offload", nl.text(1, "fast")),), {"offloads"}),
        ((COUNTER, verdict(0)), {"drops", "drops_all"}),
        ((LIMIT, verdict(0)), {"drops"}),
        ((LOAD, EQUAL, verdict(0)), {"drops"}),
        ((target("REJECT"),), {"drops", "drops_all"}),
        ((expression("reject"),), {"drops", "drops_all"}),
        ((expression("immediate"),), set()),
        ((verdict(1),), {"accepts_all"}),
        ((COUNTER, verdict(-5)), {"returns"}),
        ((LIMIT, verdict(-5)), set()),
        ((verdict(2),), set()),
        ((COUNTER, LOAD), set()),
        ((STATE, INVALID, NOT_NULL, COUNTER, verdict(0)), {"drops", "drops_invalid"}),
        ((STATE, INVALID, NOT_NULL, verdict(1)), set()),
        ((STATE, MASK, NOT_NULL, verdict(0)), {"drops"}),
        ((states(1), COUNTER, target("REJECT")), {"drops", "drops_invalid"}),
        ((states(2), verdict(0)), {"drops"}),
        ((states(1, inverted=1), verdict(0)), {"drops"}),
        ((expression("match", nl.text(1, "conntrack")), verdict(0)), {"drops"}),
        ((expression("match", nl.text(1, "tcp")), verdict(0)), {"drops"}),
        ((), set()),
        ((LOAD, MASK, EQUAL, COUNTER, verdict(1)), {"accepts_registered"}),
        ((LOAD, MASK, NOT_NULL, verdict(1)), {"accepts_registered"}),
        ((ZONE, MASK, EQUAL, verdict(1)), {"zone"}),
        ((LOAD, MASK, expression("cmp", nl.be32(2, 0), nl.nest(3, data(7))), verdict(1)), set()),
        ((LOAD, expression("bitwise"), EQUAL, verdict(1)), set()),
        ((connmark(BIT, BIT), COUNTER, verdict(1)), {"accepts_registered"}),
        ((connmark(BIT, BIT, 1), verdict(1)), set()),
        ((expression("match", nl.text(1, "tcp")), verdict(1)), set()),
        ((expression("match", nl.text(1, "connmark")), verdict(1)), set()),
    ],
)
def test_what_a_rule_does(expressions: tuple[bytes, ...], expected: set[str]) -> None:
    assert deeds(*expressions) == expected


@pytest.mark.parametrize(("code", "deed"), [(-3, "jumps"), (-4, "goes")])
def test_where_every_packet_goes_on(code: int, deed: str) -> None:
    found = read(COUNTER, verdict(code, "DOCKER-USER"))
    assert found is not None
    assert (found.deeds, found.into) == ({deed}, "DOCKER-USER")
    assert read(LOAD, EQUAL, verdict(code, "some")) is None


def test_the_flowtable_and_the_bits_of_the_mark() -> None:
    found = read(expression("flow_offload", nl.text(1, "fast")))
    assert found is not None
    assert found.flowtable == "fast"
    found = read(WRITE)
    assert found is not None
    assert (found.writes, found.leaks, found.is_target) == (0xFFFFFFFF, 0, False)
    found = read(LOAD, expression("meta", nl.be32(2, 3), nl.be32(3, 8)))
    assert found is not None
    assert (found.writes, found.leaks, found.is_bare) == (0, 0xFFFFFFFF, True)


def test_a_rule_that_leaves_the_mark_alone_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly every rule of a firewall has `ct state`: bit by bit, 50,000 of them would take two minutes."""
    asked: list[int] = []

    def judge(raw: bytes, mask: int) -> tuple[()]:
        asked.append(mask)
        return ()

    monkeypatch.setattr(rules_codec, "judge_expressions", judge)
    assert read(expression("ct", nl.be32(1, 8), nl.be32(2, 0)), EQUAL, verdict(1)) is None
    assert asked == [0xFFFFFFFF]
