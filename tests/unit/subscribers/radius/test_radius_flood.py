from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.model.prefix import Family, Prefix, parse_address, parse_prefix
from gatewayd.subscribers.radius.clients import Client, ClientTable
from gatewayd.subscribers.radius.flood import (
    MAX_INSTRUCTIONS,
    SHIELD_S,
    STRANGERS_PER_S,
    Shield,
    SourceRates,
    filter_of,
)

ONE, OTHER = b"\x0a\0\0\1", b"\x0a\0\0\2"


# Rates of sources


def test_a_source_has_its_burst_and_then_its_rate() -> None:
    rates = SourceRates(per_s=10, burst=3)
    assert [rates.admit(ONE, 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [rates.admit(ONE, 0.1) for _ in range(2)] == [True, False]
    assert [rates.admit(ONE, 100.0) for _ in range(4)] == [True, True, True, False]


def test_one_source_takes_nothing_from_another() -> None:
    rates = SourceRates(per_s=10, burst=1)
    assert rates.admit(ONE, 0.0)
    assert not rates.admit(ONE, 0.0)
    assert rates.admit(OTHER, 0.0)


def test_sources_are_bounded_and_the_one_that_sent_longest_ago_goes() -> None:
    rates = SourceRates(per_s=1, burst=1, most=2)
    for source in (ONE, OTHER, ONE, b"\x0a\0\0\3"):
        rates.admit(source, 0.0)
    assert len(rates) == 2
    assert not rates.admit(ONE, 0.0), "it is remembered"


# The shield


def test_a_few_strangers_raise_no_shield() -> None:
    shield = Shield(strangers_per_s=3)
    assert not any(shield.count(now / 2) for now in range(100))


def test_many_strangers_raise_the_shield_once_for_its_time() -> None:
    shield = Shield(strangers_per_s=3)
    assert [shield.count(5.0) for _ in range(6)] == [False, False, False, True, False, False]
    assert not any(shield.count(5.0 + SHIELD_S - 0.1) for _ in range(10)), "those that were in the queue"
    assert [shield.count(5.0 + SHIELD_S + 1) for _ in range(4)] == [False, False, False, True]


def test_a_misconfigured_nas_is_below_the_bound() -> None:
    assert STRANGERS_PER_S >= 500


# The program


def passes(program: bytes, source: bytes) -> bool:
    """What the kernel would do with it: a machine for the instructions that it is made of."""
    at, word = 0, 0
    instructions = list(struct.iter_unpack("=HBBI", program))
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        match code:
            case 0x20:
                start = k - 0xFFF00000 - (12 if len(source) == 4 else 8)
                word = int.from_bytes(source[start : start + 4], "big")
            case 0x54:
                word &= k
            case 0x15:
                at += if_true if word == k else if_false
            case 0x06:
                return bool(k)
            case _:
                raise AssertionError(f"code {code:#x}")


def program_of(prefixes: Iterable[Prefix], family: Family) -> bytes:
    program = filter_of(prefixes, family)
    assert program is not None
    return program


@pytest.mark.parametrize(
    ("prefix", "within", "without"),
    [
        ("10.0.0.5/32", ["10.0.0.5"], ["10.0.0.4", "10.0.0.6", "11.0.0.5"]),
        ("10.1.0.0/16", ["10.1.0.0", "10.1.255.255"], ["10.0.255.255", "10.2.0.0"]),
        ("2001:db8::5/128", ["2001:db8::5"], ["2001:db8::4", "2001:db8:1::5", "2001:db9::5"]),
        ("2001:db8::/33", ["2001:db8:7fff::1"], ["2001:db8:8000::1", "2001:db7::1"]),
        ("2001:db8::/32", ["2001:db8:ffff::"], ["2001:db9::"]),
    ],
)
def test_the_program_passes_what_is_of_a_client(prefix: str, within: list[str], without: list[str]) -> None:
    parsed = parse_prefix(prefix)
    program = program_of([parsed], parsed.family)
    assert all(passes(program, parse_address(each)) for each in within)
    assert not any(passes(program, parse_address(each)) for each in without)


def test_a_client_may_be_everybody() -> None:
    assert passes(program_of([Prefix(bytes(4), 0)], 4), ONE)
    assert passes(program_of([Prefix(bytes(16), 0)], 6), bytes(16))


def test_without_clients_of_a_family_nothing_of_it_passes() -> None:
    assert not passes(program_of([parse_prefix("2001:db8::/32")], 4), ONE)


def test_a_program_that_the_kernel_would_not_take_is_none() -> None:
    def hosts(count: int) -> list[Prefix]:
        return [
            Prefix(each.network_address.packed, 32) for each in ip_network("10.0.0.0/19").subnets(new_prefix=32)
        ][:count]

    whole = program_of(hosts(MAX_INSTRUCTIONS // 3), 4)
    assert len(whole) <= 8 * MAX_INSTRUCTIONS
    assert passes(whole, hosts(MAX_INSTRUCTIONS // 3)[-1].packed)
    assert filter_of(hosts(MAX_INSTRUCTIONS // 3 + 1), 4) is None


ADDRESSES = st.sampled_from([bytes([10, 0, third, fourth]) for third in (0, 1, 255) for fourth in (0, 1, 128)])


@given(st.lists(st.tuples(ADDRESSES, st.integers(8, 32)), max_size=5), ADDRESSES)
@example([(bytes([10, 0, 0, 0]), 32)], bytes([10, 0, 0, 0]))
def test_the_program_and_the_table_of_clients_agree(pairs: list[tuple[bytes, int]], source: bytes) -> None:
    clients = [
        Client(Prefix(ip_network((address, length), strict=False).network_address.packed, length), (b"s",))
        for address, length in pairs
    ]
    table = ClientTable(clients)
    assert passes(program_of(table.prefixes, 4), source) == (table.find(source) is not None)
