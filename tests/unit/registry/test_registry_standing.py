"""How an id stands: its source, its overrides, what is held of it."""

from __future__ import annotations

from math import inf

import msgspec
import pytest

from gatewayd.model import Registration, parse_address, parse_prefix
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry import standing
from gatewayd.registry.guard import HeldRemovals, Taken
from gatewayd.registry.layers import OverrideLayer, Overrides, SourceSet
from gatewayd.registry.limits import NOTHING_REMOVED
from gatewayd.registry.standing import (
    HeldPage,
    HeldRemoval,
    OverrideNote,
    filtered_at,
    held_page,
    notes_of,
    standing_of,
)
from gatewayd.sources.override_file import Filter, OverrideFile, Pin


def registration(id: str, *clients: str, category: str = "bank") -> Registration:
    prefixes = tuple(parse_prefix(each) for each in clients or ("203.0.113.0/28",))
    return Registration(id, category, "active", prefixes)


A, B, C = (
    registration("a", "203.0.113.0/28"),
    registration("b", "203.0.113.16/28"),
    registration("c", "203.0.113.32/28", "198.51.100.0/28"),
)
PINNED = registration("p", "192.0.2.1")
PIN = Pin(PINNED, "by phone", 5e9, 3, "10.yaml")
OVER_B = Pin(msgspec.structs.replace(B, category="bpo"), "moved", inf, 9, "10.yaml")
NO_A = Filter("a", None, "compromised", inf, 4, "20.yaml")
NO_NET = Filter(None, parse_prefix("198.51.100.0/24"), "hijacked", 4e9, 5, "20.yaml")
NOT_THERE = Filter("x", None, "typo", inf, 6, "20.yaml")


def readings() -> SourceSet:
    sources = SourceSet(["national", "desk", "empty"])
    sources.put("national", {"a": A, "c": C})
    sources.put("desk", {"a": B, "b": B})
    return sources


def overrides() -> Overrides:
    return Overrides(
        [OverrideFile("20.yaml", (), (NO_A, NO_NET, NOT_THERE)), OverrideFile("10.yaml", (PIN, OVER_B))]
    )


HELD = HeldRemovals(
    7,
    900.0,
    NOTHING_REMOVED,
    {"gone": (A,), "c": (A, B)},
    {"gone": Taken("national", 900.0), "c": Taken("desk", 950.0)},
)
A_NOTE = OverrideNote("filter", "a", "20.yaml", 4, "compromised", inf)
NET_NOTE = OverrideNote("filter", "198.51.100.0/24", "20.yaml", 5, "hijacked", 4e9)


def test_a_registration_has_its_source_and_those_that_have_it_too() -> None:
    found = standing_of("a", readings(), Overrides(), None)
    assert (found.source, found.in_source, found.also_in) == ("national", A, ("desk",))
    assert (found.pin, found.filters, found.held) == (None, (), None)
    assert found.registered is A
    assert found.is_known


def test_a_filtered_registration_has_the_filter_with_its_place() -> None:
    found = standing_of("a", readings(), overrides(), None)
    assert (found.registered, found.filters) == (None, (A_NOTE,))
    trimmed = standing_of("c", readings(), overrides(), None)
    assert trimmed.filters == (NET_NOTE,)
    assert trimmed.registered == registration("c", "203.0.113.32/28")


def test_a_pin_stands_for_its_id_whether_a_source_has_it_or_not() -> None:
    found = standing_of("p", readings(), overrides(), None)
    assert (found.source, found.in_source, found.registered) == (None, None, PINNED)
    assert found.pin == OverrideNote("pin", "p", "10.yaml", 3, "by phone", 5e9)
    over = standing_of("b", readings(), overrides(), None)
    assert (over.source, over.in_source, over.registered) == ("desk", B, OVER_B.registration)


def test_an_id_that_is_held_has_what_took_it_away_and_when() -> None:
    gone = standing_of("gone", readings(), overrides(), HELD)
    assert gone.held == HeldRemoval("gone", (A,), None, "national", 900.0)
    assert (gone.source, gone.registered, gone.is_known) == (None, None, True)
    replaced = standing_of("c", readings(), Overrides(), HELD)
    assert replaced.held == HeldRemoval("c", (A, B), C, "desk", 950.0)
    assert standing_of("b", readings(), Overrides(), HELD).held is None


@pytest.mark.parametrize(("id", "is_known"), [("x", True), ("nobody", False)])
def test_an_id_without_a_registration_is_known_by_a_filter_alone(id: str, is_known: bool) -> None:
    found = standing_of(id, readings(), overrides(), HELD)
    assert (found.is_known, found.registered) == (is_known, None)


def test_all_overrides_are_listed_by_file_and_line() -> None:
    assert [(each.kind, each.subject, each.line) for each in notes_of(overrides())] == [
        ("pin", "p", 3), ("pin", "b", 9), ("filter", "a", 4), ("filter", "198.51.100.0/24", 5), ("filter", "x", 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "ids"),
    [
        ("203.0.113.5", ["a"]),
        ("198.51.100.7", ["c"]),
        ("203.0.113.20", []),
        ("203.0.113.40", ["c"]),
        ("192.0.2.9", []),
    ],
)
def test_what_a_filter_takes_from_an_address_is_found(address: str, ids: list[str]) -> None:
    layer, sources = OverrideLayer(), readings()
    run_slices(layer.switch_in_slices(overrides(), {"a": A, "b": B, "c": C}))
    assert [each.id for each in filtered_at(parse_address(address), sources, layer, None)] == ids


def test_the_question_has_a_bound_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "MAX_FILTERED_LOOKED_AT", 0)
    layer, sources = OverrideLayer(), readings()
    run_slices(layer.switch_in_slices(overrides(), {"a": A}))
    assert filtered_at(parse_address("203.0.113.5"), sources, layer, None) == ()


def test_a_registration_that_is_gone_meanwhile_is_not_asked_about() -> None:
    layer, sources = OverrideLayer(), readings()
    run_slices(layer.switch_in_slices(overrides(), {"a": A}))
    run_slices(layer.amend_in_slices(Changes((registration("z"),), ())))
    layer.filtered.add("z")
    assert [each.id for each in filtered_at(parse_address("203.0.113.5"), sources, layer, None)] == ["a"]


def test_held_removals_come_in_pages() -> None:
    sources = readings()
    first = held_page(sources, Overrides(), HELD, 0, 1)
    assert (first.serial, first.total, first.offset) == (7, 2, 0)
    assert [each.id for each in first.items] == ["gone"]
    second = held_page(sources, Overrides(), HELD, 1, 5)
    assert second.items == (HeldRemoval("c", (A, B), C, "desk", 950.0),)
    assert held_page(sources, Overrides(), None, 0, 5) == HeldPage(0, 0, 0, ())
