"""Names of interfaces that are there, and of those that are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile.interfaces import (
    client_tests,
    crosses,
    crossing,
    interface_warnings,
    knows_inside,
    names_like,
    no_client_test,
    unmatched,
)
from tests.support.rulesets import OBSERVE, REJECT

PRESENT = ("lo", "eth0", "eth1", "eth1.100", "eth1.200", "ppp0", "ppp17")


@pytest.mark.parametrize(
    ("patterns", "absent"),
    [
        ((), ()),
        (("eth0", "ppp*", "eth1.*"), ()),
        (("eth1.100", "eth1.10", "ppp", "pppoe*", "eth0*"), ("eth1.10", "ppp", "pppoe*")),
        (("eth0.100", "wan"), ("eth0.100", "wan")),
    ],
)
def test_a_name_is_there_or_is_the_beginning_of_one_with_a_star(
    patterns: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    assert unmatched(patterns, PRESENT) == absent
    assert unmatched(patterns, ()) == patterns


@pytest.mark.parametrize(
    ("inside", "outside", "ways"),
    [
        ((), (), {("eth0", "eth0"): True, ("lo", "eth1"): True}),
        (
            ("ppp*", "eth1"),
            ("eth0",),
            {("ppp7", "eth0"): True, ("eth0", "eth1"): True, ("ppp7", "eth1"): False, ("eth0", "eth0"): False,
             ("eth1.100", "eth0"): False},
        ),
        (("ppp*",), (), {("ppp7", "lo"): True, ("lo", "ppp7"): True, ("eth0", "eth1"): False}),
        ((), ("eth0",), {("ppp7", "eth0"): True, ("eth0", "eth0"): True, ("ppp7", "eth1"): False}),
    ],
)  # fmt: skip
def test_rules_judge_what_goes_between_inside_and_outside(
    inside: tuple[str, ...], outside: tuple[str, ...], ways: dict[tuple[str, str], bool]
) -> None:
    policy = replace(OBSERVE, inside=inside, outside=outside)
    assert {way: crosses(policy, *way) for way in ways} == ways


def test_names_that_are_all_there_are_not_worth_a_word() -> None:
    assert interface_warnings(replace(OBSERVE, inside=("ppp*", "eth1"), outside=("eth0",)), PRESENT) == ()
    assert interface_warnings(OBSERVE, ()) == ()


def test_a_side_of_which_nothing_is_there_turns_enforcement_off_and_that_is_said_first() -> None:
    policy = replace(REJECT, inside=("pppoe*",), outside=("eth0.5", "eth0", "wan"))
    assert interface_warnings(policy, PRESENT) == (
        "no interface has a name of policy.interfaces.inside (pppoe*): the rules judge no packet, in any mode,"
        " until one has",
        "no interface is named pppoe* now (policy.interfaces.inside)",
        "no interface is named eth0.5 now (policy.interfaces.outside); is eth0 meant?",
        "no interface is named wan now (policy.interfaces.outside)",
    )
    assert interface_warnings(replace(REJECT, inside=("eth1.", "eth0")), PRESENT) == (
        "no interface is named eth1. now (policy.interfaces.inside); is eth1 or eth1.100 or eth1.200 meant?",
    )


@pytest.mark.parametrize(
    ("inside", "outside", "clients"),
    [
        ((), (), []),
        (("ppp*",), (), ['iifname "ppp*"']),
        ((), ("eth0",), ['oifname "eth0"']),
        (("eth1",), ("eth*",), []),
        (("eth*",), ("eth1",), []),
        (("vlan7",), ("vlan7",), []),
    ],
)
def test_clients_are_known_where_no_interface_may_be_of_both_sides(
    inside: tuple[str, ...], outside: tuple[str, ...], clients: list[str]
) -> None:
    policy = replace(OBSERVE, inside=inside, outside=outside)
    assert client_tests(policy) == clients
    assert knows_inside(policy) == bool(clients)


def test_between_two_sides_each_pair_crosses_in_both_directions_and_once() -> None:
    assert crossing(replace(OBSERVE, inside=("ppp*",), outside=("eth0",))) == [
        'iifname "ppp*" oifname "eth0"',
        'iifname "eth0" oifname "ppp*"',
    ]
    assert len(crossing(replace(OBSERVE, inside=("eth0",), outside=("eth0",)))) == 1
    assert crossing(OBSERVE) == []


def test_several_names_are_one_set_and_a_single_one_is_compared_without() -> None:
    assert client_tests(replace(OBSERVE, inside=("eth2", "ppp*", "eth1"))) == [
        'iifname { "eth1", "eth2" }',
        'iifname "ppp*"',
    ]
    assert client_tests(replace(OBSERVE, inside=("eth1",))) == ['iifname "eth1"']


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("ppp*", ["ppp0", "ppp17"]), ("ppp0", ["ppp0"]), ("*", ["ppp0", "ppp17", "eth0"]), ("e", [])],
)
def test_a_pattern_stands_for_names(pattern: str, names: list[str]) -> None:
    assert names_like(pattern, ["ppp0", "ppp17", "eth0"]) == names


@pytest.mark.parametrize(
    ("inside", "outside", "test"),
    [
        ((), (), ""),
        (("eth1",), ("eth0",), 'iifname != "eth1"'),
        ((), ("eth0", "eth2", "wan*"), 'oifname != { "eth0", "eth2" } oifname != "wan*"'),
    ],
)
def test_the_far_ends_packet_is_the_one_that_no_test_of_a_client_fits(
    inside: tuple[str, ...], outside: tuple[str, ...], test: str
) -> None:
    assert no_client_test(replace(OBSERVE, inside=inside, outside=outside)) == test
