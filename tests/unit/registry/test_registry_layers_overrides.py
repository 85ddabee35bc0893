"""Local overrides: what they do to a registration."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import Extension, Prefix, Registration, parse_prefix
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry import layers
from gatewayd.registry.layers import (
    NO_OVERRIDES,
    OverrideCounts,
    OverrideLayer,
    Overrides,
    PrefixSet,
    ids_within_in_slices,
)
from gatewayd.sources.override_file import Filter, OverrideFile, Pin
from tests.support.changes import construct_changes
from tests.support.strategies import prefix_sets, prefixes, registrations

NOW = 1_700_000_000.0


def registration(id: str = "a", *clients: str, subscriber: bytes | None = None) -> Registration:
    parsed = tuple(sorted(parse_prefix(text) for text in clients or ("203.0.113.0/28",)))
    return Registration(id, "bpo", "active", parsed, subscriber)


def pin(registration: Registration, until_s: float = inf) -> Pin:
    return Pin(registration, "agreed", until_s, 1)


def drop(what: str, until_s: float = inf) -> Filter:
    is_prefix = "/" in what
    return Filter(None if is_prefix else what, parse_prefix(what) if is_prefix else None, "bad", until_s, 1)


def overrides(*all: Pin | Filter, now: float = NOW) -> Overrides:
    return Overrides([file_of("a.yaml", *all)], now)


def file_of(name: str, *all: Pin | Filter) -> OverrideFile:
    return OverrideFile(
        name,
        tuple(each for each in all if isinstance(each, Pin)),
        tuple(each for each in all if isinstance(each, Filter)),
    )


def test_without_overrides_a_registration_is_what_it_is() -> None:
    one = registration()
    assert NO_OVERRIDES.apply_to(one) is one
    assert NO_OVERRIDES.in_force("a", one) is one
    assert NO_OVERRIDES.in_force("a", None) is None
    assert not NO_OVERRIDES


def test_a_filter_drops_a_registration_by_its_id() -> None:
    assert overrides(drop("a")).apply_to(registration("a")) is None
    one = registration("b")
    assert overrides(drop("a")).apply_to(one) is one


@pytest.mark.parametrize(
    ("filtered", "clients", "left"),
    [
        ("203.0.113.0/24", ["203.0.113.0/28"], None),
        ("203.0.113.0/28", ["203.0.113.0/28"], None),
        ("203.0.113.0/24", ["203.0.113.0/28", "198.51.100.0/28"], ["198.51.100.0/28"]),
        ("203.0.113.0/29", ["203.0.113.0/28"], ["203.0.113.0/28"]),
        ("203.0.113.16/28", ["203.0.113.0/28"], ["203.0.113.0/28"]),
        ("2001:db8::/32", ["2001:db8:1::/48", "203.0.113.0/28"], ["203.0.113.0/28"]),
        ("2001:db8::/32", ["203.0.113.0/28"], ["203.0.113.0/28"]),
    ],
)
def test_a_filter_drops_the_client_prefixes_that_lie_in_it(
    filtered: str, clients: list[str], left: list[str] | None
) -> None:
    expected = None if left is None else registration("a", *left)
    assert overrides(drop(filtered)).apply_to(registration("a", *clients)) == expected


def test_a_registration_with_a_subscriber_outlives_its_client_prefixes() -> None:
    one = registration(subscriber=bytes(32))
    left = overrides(drop("203.0.113.0/24")).apply_to(one)
    assert left == msgspec.structs.replace(one, clients=())


def test_a_pin_wins_over_the_registry_and_over_filters() -> None:
    mine = registration("a", "203.0.113.16/28")
    all = overrides(pin(mine), drop("a"), drop("203.0.113.0/24"))
    assert all.apply_to(registration("a")) is mine
    assert all.in_force("a", None) is mine
    assert [each.id or str(each.prefix) for each in all.filters_of(mine)] == ["a", "203.0.113.0/24"]
    assert all.filters_of(registration("b", "192.0.2.0/28")) == ()


def test_the_earlier_file_has_the_pin_while_it_lasts() -> None:
    early, late = registration("a", "192.0.2.0/28"), registration("a", "192.0.2.16/28")
    files = [file_of("1.yaml", pin(early, NOW + 10)), file_of("2.yaml", pin(late))]
    both = Overrides(files, NOW)
    assert both.in_force("a", None) is early
    assert (both.shadowed, both.expired, both.next_change()) == (1, 0, NOW + 10)
    after = Overrides(files, NOW + 10)
    assert after.in_force("a", None) is late
    assert (after.shadowed, after.expired, after.next_change()) == (0, 1, None)


def test_filters_end_on_time() -> None:
    all = [drop("a", NOW + 5), drop("203.0.113.0/24", NOW + 7)]
    assert overrides(*all).next_change() == NOW + 5
    later = overrides(*all, now=NOW + 5)
    assert later.apply_to(registration("a")) is None
    assert later.apply_to(registration("a", "192.0.2.0/28")) is not None
    assert not overrides(*all, now=NOW + 7)


@given(prefix_sets(maximum=4), prefixes())
def test_a_prefix_set_agrees_with_a_scan(some: tuple[Prefix, ...], asked: Prefix) -> None:
    covering = [each for each in some if each.length <= asked.length and each.covers(asked.packed)]
    expected = min(covering, key=lambda each: each.length, default=None)
    assert PrefixSet(some).cover_of(asked) == expected


# -- the layer ---------------------------------------------------------------------------------------------


class Layered:
    """A registry with overrides over it, and beside it what is in force by the changes given."""

    def __init__(self, *all: Registration) -> None:
        self.layer = OverrideLayer()
        self.registry: dict[str, Registration] = {}
        self.in_force: dict[str, Registration] = {}
        self.take({each.id: each for each in all})

    def take(self, new: dict[str, Registration]) -> Changes | None:
        changes = construct_changes(self.registry, new)
        self.registry = new
        return self.apply(run_slices(self.layer.amend_in_slices(changes)) if changes else None)

    def switch(self, new: Overrides) -> Changes | None:
        return self.apply(run_slices(self.layer.switch_in_slices(new, self.registry)))

    def apply(self, changes: Changes | None) -> Changes | None:
        if changes is not None:
            self.in_force.update({each.id: each for each in changes.upserts})
            for id in changes.withdrawals:
                self.in_force.pop(id, None)
        expected = {
            id: in_force
            for id in self.registry.keys() | self.layer.overrides.pins.keys()
            if (in_force := self.layer.overrides.in_force(id, self.registry.get(id))) is not None
        }
        assert self.in_force == expected
        return changes


def test_changes_of_the_registry_become_changes_of_what_is_in_force() -> None:
    layered = Layered(registration("a"), registration("b"))
    mine = registration("p", "192.0.2.0/28")
    assert layered.switch(overrides(pin(mine), drop("b"))) == Changes((mine,), ("b",))
    assert layered.take({"c": registration("c"), "b": registration("b", "192.0.2.0/28")}) == Changes(
        (registration("c"),), ("b", "a")
    )
    layered.take({"p": registration("p")})
    assert layered.in_force == {"p": mine}
    layered.take({})
    assert layered.in_force == {"p": mine}


def test_only_what_is_touched_is_looked_at_again() -> None:
    layered = Layered(registration("a"), registration("b", "192.0.2.0/28"), registration("c", "10.0.0.0/28"))
    old = overrides(drop("192.0.2.0/24"), drop("x"), pin(registration("p")), pin(registration("q")))
    new = overrides(drop("203.0.113.0/24"), drop("x", NOW + 1), pin(registration("p")), drop("y"))
    layered.switch(old)
    looked_at: list[str] = []

    class Watched(dict[str, Registration]):
        def get(self, id: str, default: object = None) -> Any:
            looked_at.append(id)
            return super().get(id, default)

    run_slices(layered.layer.switch_in_slices(new, Watched(layered.registry)))
    assert set(looked_at) == {"a", "b", "q", "y"}
    assert run_slices(ids_within_in_slices(layered.registry, [parse_prefix("192.0.2.0/24")])) == {"b": None}


def test_overrides_are_counted() -> None:
    layered = Layered(
        registration("a"),
        registration("b", "203.0.113.0/28", "192.0.2.0/28"),
        registration("c", "192.0.2.0/28"),
        registration("same", "192.0.2.0/28"),
    )
    layered.switch(
        overrides(
            drop("203.0.113.0/24"),
            drop("p"),
            drop("old", NOW),
            pin(registration("p", "198.51.100.0/28")),
            pin(registration("c", "198.51.100.0/28")),
            pin(registration("same", "192.0.2.0/28")),
        )
    )
    assert layered.layer.counts() == OverrideCounts(
        pins=3, filters=2, filtered=1, trimmed=1, conflicts=2, shadowed=0, expired=1
    )
    assert layered.layer.filtered == {"a"}
    layered.switch(NO_OVERRIDES)
    assert layered.layer.counts() == OverrideCounts(0, 0, 0, 0, 0, 0, 0)


def test_a_registry_that_does_not_show_through_is_no_change() -> None:
    layered = Layered()
    mine = registration("p")
    layered.switch(overrides(pin(mine)))
    layered.take({"p": registration("p", "192.0.2.0/28")})
    assert layered.take({}) is None
    assert layered.switch(overrides(pin(mine), drop("z"))) is None


def test_long_work_yields_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SLICE", 1)
    all = {id: registration(id) for id in "abc"}
    layer = OverrideLayer()
    assert len(list(layer.switch_in_slices(overrides(drop("203.0.113.0/24")), all))) == 6
    assert len(list(layer.amend_in_slices(Changes(tuple(all.values()), ("x", "y"))))) == 5


ids = st.sampled_from("abcde")
pins = st.builds(pin, registrations(ids), st.just(inf) | st.sampled_from([NOW - 1, NOW + 1]))
filters = st.builds(
    lambda what, until_s: Filter(
        what if isinstance(what, str) else None, what if isinstance(what, Prefix) else None, "c", until_s, 1
    ),
    ids | prefixes(),
    st.just(inf) | st.sampled_from([NOW - 1, NOW + 1]),
)
files = st.builds(
    lambda all_pins, all_filters: OverrideFile("a", tuple(all_pins), tuple(all_filters)),
    st.lists(pins, max_size=2, unique_by=lambda each: each.id),
    st.lists(filters, max_size=3),
)
registries = st.lists(registrations(ids), max_size=5, unique_by=lambda each: each.id).map(
    lambda all: {each.id: each for each in all}
)


@given(st.lists(registries, max_size=3), st.lists(st.lists(files, max_size=3), max_size=3))
def test_overrides_taken_away_again_leave_the_registry(
    readings: list[dict[str, Registration]], stages: list[list[OverrideFile]]
) -> None:
    layered = Layered()
    for number in range(max(len(readings), len(stages))):
        if number < len(readings):
            layered.take(readings[number])
        if number < len(stages):
            layered.switch(Overrides(stages[number], NOW))
    layered.switch(NO_OVERRIDES)
    assert layered.in_force == layered.registry
    assert layered.layer.counts() == OverrideCounts(0, 0, 0, 0, 0, 0, 0)


@given(st.lists(files, max_size=4), st.randoms(use_true_random=False), registries)
def test_the_order_of_files_matters_only_to_pins_of_the_same_id(
    some: list[OverrideFile], random: Random, registry: dict[str, Registration]
) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)
    one, other = Overrides(some, NOW), Overrides(shuffled, NOW)
    assert one.pins.keys() == other.pins.keys()
    assert (one.shadowed, one.expired, one.next_change()) == (other.shadowed, other.expired, other.next_change())
    for id, each in registry.items():
        if id not in one.pins:
            assert one.in_force(id, each) == other.in_force(id, each)


def test_all_of_a_registry_has_pins_and_filters_over_it() -> None:
    a, b = registration("a"), registration("b", "192.0.2.0/28", "203.0.113.0/28")
    pinned = registration("p", "198.51.100.0/28")
    it = Layered(a, b)
    it.switch(overrides(drop("a"), drop("192.0.2.0/24"), pin(pinned)))
    assert list(it.layer.touched_by_filters()) == ["a", "b"]
    assert it.layer.overrides.names("a")
    assert it.layer.overrides.names("p")
    assert not it.layer.overrides.names("b")
    wanted = run_slices(it.layer.amend_all_in_slices(it.registry))
    assert wanted == [registration("b", "203.0.113.0/28"), pinned]
    it.take({"a": a})
    assert list(it.layer.touched_by_filters()) == ["a"]
    only_filtered = OverrideLayer()
    run_slices(only_filtered.switch_in_slices(overrides(drop("a")), {"a": a}))
    assert run_slices(only_filtered.amend_all_in_slices({})) == []


def test_a_filter_by_prefix_takes_endpoints_as_it_takes_clients() -> None:
    def provider(*endpoints: str) -> Registration:
        extension = Extension("co-9", endpoints=tuple(sorted(map(parse_prefix, endpoints))))
        return Registration("VPN", "provider", "active", (), services=(), extension=extension)

    found = overrides(drop("198.51.100.0/24"))
    both, left = provider("198.51.100.7/32", "192.0.2.0/24"), provider("192.0.2.0/24")
    assert found.apply_to(both) == left
    assert found.apply_to(left) is left
    assert found.apply_to(provider("198.51.100.0/24")) is None
    assert [str(each.prefix) for each in found.filters_of(both)] == ["198.51.100.0/24"]
    within = ids_within_in_slices({"VPN": both, "OTHER": left}, [parse_prefix("198.51.100.0/24")])
    assert list(run_slices(within)) == ["VPN"]
