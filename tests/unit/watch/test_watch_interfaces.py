"""Interfaces against the names of the policy."""

from __future__ import annotations

import pytest

from gatewayd.api.metrics import samples_of
from gatewayd.settings.model import InterfaceSettings
from gatewayd.watch.interfaces import (
    MAX_NAMES,
    InterfacesView,
    PatternView,
    Turn,
    match_interfaces,
    turns_of,
)

SIDES = InterfaceSettings(inside=("ppp*", "eth1.100"), outside=("eth0",))


def test_each_name_has_its_interfaces_of_which_few_are_named() -> None:
    lines = tuple(f"ppp{number}" for number in range(40))
    found = match_interfaces(SIDES, ("lo", "eth0", *lines))
    assert found.inside == (PatternView("ppp*", 40, lines[:MAX_NAMES]), PatternView("eth1.100", 0))
    assert found.outside == (PatternView("eth0", 1, ("eth0",)),)
    assert found.unmatched == ("eth1.100",)
    assert found.reason is None  # the rules judge what comes by ppp*
    assert found.warnings == ("no interface is named eth1.100 now (policy.interfaces.inside)",)


def test_a_whole_side_without_an_interface_is_a_reason() -> None:
    found = match_interfaces(SIDES, ("lo", "eth0"))
    assert found.reason == (
        "no interface has a name of policy.interfaces.inside (ppp*, eth1.100): the rules judge no packet, in any"
        " mode, until one has"
    )
    assert found.reason == found.warnings[0]


def test_where_all_are_there_nothing_is_said() -> None:
    found = match_interfaces(SIDES, ("eth0", "eth1.100", "ppp7"))
    assert (found.unmatched, found.reason, found.warnings) == ((), None, ())
    assert match_interfaces(InterfaceSettings(), ("lo",)).reason is None


NONE, SOME, MORE = ("eth0",), ("eth0", "ppp0", "eth1.100"), ("eth0", "ppp0", "ppp1", "eth1.100")


@pytest.mark.parametrize(
    ("before", "now", "turns"),
    [
        (None, SOME, []),
        (None, NONE, [Turn("inside", "ppp*", 0), Turn("inside", "eth1.100", 0)]),
        (SOME, MORE, []),
        (MORE, NONE, [Turn("inside", "ppp*", 0), Turn("inside", "eth1.100", 0)]),
        (NONE, NONE, []),
        (NONE, MORE, [Turn("inside", "ppp*", 2), Turn("inside", "eth1.100", 1)]),
        (MORE, MORE[1:], [Turn("outside", "eth0", 0)]),
    ],
)
def test_the_first_and_the_last_of_a_name_are_turns(
    before: tuple[str, ...] | None, now: tuple[str, ...], turns: list[Turn]
) -> None:
    former = None if before is None else match_interfaces(SIDES, before)
    assert turns_of(former, match_interfaces(SIDES, now)) == turns


def test_the_numbers_are_metrics_by_pattern() -> None:
    found = match_interfaces(SIDES, MORE)
    view = InterfacesView(len(MORE), found.inside, found.outside, found.reason, looks=3, failures=1)
    assert [(metric.name, *labels, *value) for metric, labels, value in samples_of(view)] == [
        ("interfaces", 4),
        ("interfaces_inside", ("pattern", "eth1.100"), 1),
        ("interfaces_inside", ("pattern", "ppp*"), 2),
        ("interfaces_outside", ("pattern", "eth0"), 1),
        ("interface_looks", 3),
        ("interface_watch_failures", 1),
    ]
    assert [metric.name for metric, _, _ in samples_of(InterfacesView())] == [
        "interface_looks", "interface_watch_failures",
    ]  # fmt: skip
