"""What is registered under an id, and what was in an earlier run."""

from __future__ import annotations

from math import inf

from gatewayd.model import Registration, parse_prefix
from gatewayd.model.registration import run_slices
from gatewayd.registry.layers import Overrides, SourceSet
from gatewayd.registry.lookups import Earlier, Instead, Registered, in_force_of
from gatewayd.sources.override_file import Filter, OverrideFile, Pin


def named(id: str, category: str = "bank") -> Registration:
    return Registration(id, category, "active", (parse_prefix("203.0.113.0/28"),))


FILES = (
    OverrideFile(
        "a.yaml", (Pin(named("PIN"), "agreed", 50.0, 1, "a.yaml"),), (Filter("OUT", None, "bad", inf, 2, "a.yaml"),)
    ),
)


def test_pins_and_filters_lie_over_the_sources() -> None:
    found = Registered(Overrides(FILES, 0.0), {"A": named("A"), "OUT": named("OUT")}.get)
    assert found.get("A") == named("A")
    assert found.get("OUT") is None
    pin = found.get("PIN")
    assert pin is not None
    assert pin.valid_until_s == 50.0
    assert found.get("NONE") is None


def test_others_stand_in_the_place_of_some() -> None:
    found = Instead({"A": named("A"), "B": named("B")}, {"A": None, "C": named("C")})
    assert [found.get(id) for id in "ABC"] == [None, named("B"), named("C")]
    registered = [named("A"), named("B")]
    assert in_force_of(registered, {}) is registered
    assert in_force_of(registered, {"A": None, "B": named("B", "isp")}) == [named("B", "isp")]


def test_an_earlier_run_is_made_again_of_what_was_kept() -> None:
    reading = {"A": named("A"), "OUT": named("OUT"), "B": named("B")}
    earlier = Earlier({"national": reading}, ("national", "gone"), FILES)
    found = run_slices(earlier.in_force_in_slices(0.0, {"B": None, "C": named("C")}))
    assert set(found) == {"A", "PIN", "C"}
    readings = SourceSet(("national", "gone"))
    readings.put("national", reading)
    assert not earlier.is_same(readings, ("national", "gone"), ())
    assert earlier.is_same(readings, ("national", "gone"), FILES)
