"""Views of the registry behind what is in force."""

from __future__ import annotations

from math import inf

from gatewayd.api.standing import (
    HeldEndpointsView,
    HeldRegistrant,
    RejectedView,
    held_endpoints_view,
    held_removal_view,
    override_view,
    rejected_view,
    standing_view,
    step_view,
)
from gatewayd.model import Extension, Registration, parse_prefix, parse_services
from gatewayd.model.registration import RejectedRecord
from gatewayd.registry.endpoint_guard import HeldBack
from gatewayd.registry.history import Step
from gatewayd.registry.standing import HeldRemoval, OverrideNote, Standing


def registration(*clients: str) -> Registration:
    return Registration("a", "bank", "active", tuple(map(parse_prefix, clients)))


WHOLE, HALF = registration("203.0.113.0/28", "198.51.100.0/28"), registration("203.0.113.0/28")
FILTER = OverrideNote("filter", "198.51.100.0/24", "20.yaml", 5, "hijacked", inf)
PIN = OverrideNote("pin", "a", "10.yaml", 3, "by phone", 4e9)
HELD = HeldRemoval("a", (HALF, WHOLE), HALF, "national", 900.0)


def test_an_override_says_where_it_stands_and_how_long() -> None:
    assert str(override_view(FILTER)) == "filter of 198.51.100.0/24 in 20.yaml:5 (hijacked)"
    assert str(override_view(PIN)) == "pin of a in 10.yaml:3 (by phone), until 2096-10-02T07:06:40Z"


def test_a_registration_in_peace_is_of_its_source() -> None:
    view = standing_view(Standing("a", "national", WHOLE, ("desk",), None, (), WHOLE, None))
    assert (view.source, view.also_in, view.dropped, view.trimmed) == ("national", ("desk",), False, False)
    assert not view.is_out_of_force


def test_what_a_filter_drops_is_out_of_force_unless_it_is_held() -> None:
    view = standing_view(Standing("a", "national", WHOLE, (), None, (FILTER,), None, None))
    assert (view.dropped, view.is_out_of_force, view.filters) == (True, True, (override_view(FILTER),))
    view = standing_view(Standing("a", "national", WHOLE, (), None, (FILTER,), None, HELD))
    assert (view.dropped, view.is_out_of_force, view.held_cause) == (True, False, "national")
    assert view.held_since == "1970-01-01T00:15:00Z"


def test_what_a_filter_leaves_less_of_is_trimmed_and_a_pin_is_not() -> None:
    view = standing_view(Standing("a", "national", WHOLE, (), None, (FILTER,), HALF, None))
    assert (view.trimmed, view.clients) == (True, ("203.0.113.0/28", "198.51.100.0/28"))
    view = standing_view(Standing("a", None, None, (), PIN, (), HALF, None))
    assert (view.trimmed, view.clients, view.pin) == (False, (), override_view(PIN))


def test_a_held_removal_names_the_prefixes_that_would_go() -> None:
    view = held_removal_view(HELD, 3)
    assert (view.prefixes, view.becomes, view.flows) == (("198.51.100.0/28",), "another form", 3)
    view = held_removal_view(HeldRemoval("a", (HALF,), None, "desk", 900.0), 0)
    assert (view.prefixes, view.becomes) == (("203.0.113.0/28",), "nothing")


def test_a_company_of_which_all_is_held_would_have_nothing_left() -> None:
    assert not HeldRegistrant("co-1", 2, 3).is_whole
    assert HeldRegistrant("co-1", 3, 3).is_whole


def provider(*endpoints: str) -> Registration:
    extension = Extension("co-1", endpoints=tuple(map(parse_prefix, endpoints)))
    return Registration("p", "provider", "active", (), services=parse_services(["ipsec"]), extension=extension)


def test_endpoints_that_wait_are_shown_beside_those_in_force() -> None:
    before, wanted = provider("198.51.100.0/28"), provider("192.0.2.0/28", "198.51.100.0/28")
    view = held_endpoints_view("p", HeldBack(wanted, before, "national", 900.0))
    assert view == HeldEndpointsView(
        "p", "co-1", ("192.0.2.0/28", "198.51.100.0/28"), ("ipsec",), ("198.51.100.0/28",), "national",
        "1970-01-01T00:15:00Z",
    )  # fmt: skip
    assert held_endpoints_view("p", HeldBack(wanted, None, "desk", 900.0)).replaces == ()


def test_of_endpoints_held_before_a_start_those_in_force_are_shown_until_the_registry_names_the_rest() -> None:
    view = held_endpoints_view("p", HeldBack(None, provider("198.51.100.0/28"), "national", 900.0))
    assert (view.registrant, view.endpoints, view.services) == (None, (), ())
    assert view.replaces == ("198.51.100.0/28",)


def test_a_step_is_as_it_was_noted() -> None:
    view = step_view(Step(900.0, "operator/accept", 7, "ahmed", (), ("a",), ("b",), 4))
    assert (view.at, view.by, view.went, view.changed, view.omitted) == (
        "1970-01-01T00:15:00Z", "ahmed", ("a",), ("b",), 4,
    )  # fmt: skip


def test_a_rejected_record_is_its_place_and_its_reason() -> None:
    view = rejected_view("national", RejectedRecord(7, 12, None, "not_json", "", is_delta=True))
    assert view == RejectedView("national", 7, 12, None, "not_json", "", True)
