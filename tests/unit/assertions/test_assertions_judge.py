"""What an assertion says of a registry and a policy, and which of them a change breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gatewayd.allowlist import Allowlist
from gatewayd.assertions.judge import (
    AssertionsBroken,
    Broken,
    FlowState,
    Outcome,
    World,
    in_force,
    judge,
    route_warnings,
    scope_warnings,
    would_break_in_slices,
)
from gatewayd.model import Flow, Registration, parse_services
from gatewayd.model.assertion import Assertion
from gatewayd.model.registration import run_slices
from tests.support.asserting import assertion
from tests.support.owning import registration
from tests.support.reconciling import policy

BANK = registration("BANK", "203.0.113.0/28", services=("ipsec", "wireguard"))
NOW = 1_000.0


def world(*registrations: Registration, **fields: Any) -> World:
    allowlist = Allowlist()
    for each in registrations:
        allowlist.upsert(each)
    is_retained = fields.pop("is_retained", lambda _: False)
    return World(allowlist, policy(**fields), NOW, is_retained)


def outcome(each: Assertion, at: World) -> Outcome:
    return judge(each, at.policy, at.state_of)


def breaks(before: World, after: World, *assertions: Assertion) -> tuple[Broken, ...]:
    return run_slices(would_break_in_slices(assertions, before, after))


def test_must_pass_holds_while_each_of_its_services_is_registered() -> None:
    ipsec = assertion(service="ipsec")
    assert outcome(ipsec, world(BANK)) == Outcome(holds=True)
    only_ike = registration("BANK", "203.0.113.0/28", services=("udp/500",))
    found = outcome(ipsec, world(only_ike))
    assert not found.holds
    assert found.reason == "udp/4500: BANK covers the source, but its services are udp/500, not udp/4500"


def test_must_not_pass_holds_while_none_of_its_services_is_registered() -> None:
    each = assertion(kind="must_not_pass", service="ipsec")
    assert outcome(each, world()) == Outcome(holds=True)
    found = outcome(each, world(registration("BANK", "203.0.113.0/28", services=("esp",))))
    assert not found.holds
    assert found.reason.startswith("esp: registered by BANK")


def test_a_service_out_of_scope_passes() -> None:
    at = world(scope=("ipsec",))
    assert outcome(assertion(), at).holds
    assert not outcome(assertion(kind="must_not_pass"), at).holds


def test_an_element_that_nobody_registers_lets_it_pass_too() -> None:
    at = world(is_retained=lambda _: True)
    assert outcome(assertion(), at).holds
    found = outcome(assertion(kind="must_not_pass"), at)
    assert found.reason == "udp/51820: an element in the kernel lets it pass, and nobody registers it"


@pytest.mark.parametrize(
    ("mode", "cut", "words"),
    [
        ("observe", 0, ""),
        ("mark", 0, ""),
        ("limit", 1, ", and mode limit drops its packets above the limit"),
        ("reject", 2, ", and mode reject refuses it"),
    ],
)
def test_what_a_mode_takes_from_a_flow_that_must_pass(mode: str, cut: int, words: str) -> None:
    found = outcome(assertion(), world(mode=mode))
    assert (found.holds, found.cut) == (False, cut)
    assert found.reason == f"udp/51820: no registration covers 203.0.113.5 or 198.51.100.7{words}"


def test_a_client_beyond_the_canary_is_not_cut() -> None:
    each = assertion()
    at = world(mode="reject")
    for percent in range(1, 101):
        canary = replace(at, policy=replace(at.policy, canary_percent=percent))
        if outcome(each, canary).cut:
            break
    assert percent > 1
    assert not outcome(each, replace(at, policy=replace(at.policy, canary_percent=percent - 1))).cut


def test_a_change_breaks_what_held_before_and_does_not_after() -> None:
    each, other = assertion(line=7), assertion("office", "203.0.113.200")
    (found,) = breaks(world(BANK), world(), each, other)
    assert found.assertion == each
    assert str(found) == (
        "must_pass hbl (a.yaml:7): udp/51820: no registration covers 203.0.113.5 or 198.51.100.7; "
        "it is there for: the NOC has their number"
    )
    assert breaks(world(), world(BANK), each) == ()
    assert str(AssertionsBroken((found, found))) == f"{found}\n{found}"
    fraud = assertion(kind="must_not_pass")
    assert [broken.assertion for broken in breaks(world(), world(BANK), fraud)] == [fraud]


def test_a_policy_that_cuts_more_breaks_what_failed_before() -> None:
    each = assertion()
    for before, after in (("observe", "limit"), ("limit", "reject"), ("mark", "reject")):
        assert breaks(world(mode=before), world(mode=after), each)
        assert not breaks(world(mode=after), world(mode=before), each)
    assert not breaks(world(mode="reject"), world(mode="reject"), each)
    assert not breaks(world(BANK), world(BANK, mode="reject"), each)


def test_a_wider_scope_breaks_what_nobody_registered() -> None:
    assert breaks(world(scope=("ipsec",)), world(), assertion())
    assert breaks(world(), world(scope=("ipsec",)), assertion(kind="must_not_pass"))


def test_the_kernel_may_be_asked_in_place_of_the_registry() -> None:
    def absent(_: Flow) -> FlowState:
        return FlowState("unregistered", "no element")

    found = judge(assertion(service="gre"), policy(), absent)
    assert found == Outcome(holds=False, reason="gre: no element")


def test_warnings_name_file_line_and_service() -> None:
    scope = parse_services(("udp/500", "wireguard"))
    good, part = assertion(), assertion("swift", service="ipsec", line=4)
    never = assertion("fraud", service="gre", kind="must_not_pass", line=9)
    assert scope_warnings((good, part, never), scope) == (
        "a.yaml:4: must_pass swift: udp/4500, esp, ah is not in policy.scope and passes in every mode, "
        "registered or not",
        "a.yaml:9: must_not_pass fraud: gre is not in policy.scope and passes in every mode, "
        "so the assertion fails",
    )


def test_ends_that_no_named_side_leads_to_are_said() -> None:
    sides = replace(policy(), inside=("ppp*",), outside=("eth0",))
    far, near = assertion(), assertion("near", "203.0.113.6", "203.0.113.7", line=3)
    unknown = assertion("unknown", "192.0.2.1")

    def route(address: bytes) -> str | None:
        return {203: "ppp7", 198: "eth0", 192: None}[address[0]]

    assert route_warnings((far, near, unknown), sides, route) == (
        "a.yaml:3: must_pass near: by the routes of this host its packets go between ppp7 and ppp7, which are not "
        "inside and outside (policy.interfaces): the rules judge none of them",
    )
    assert route_warnings((far, near, unknown), policy(), route) == ()


def test_an_assertion_ends_and_the_first_of_a_name_counts() -> None:
    one, again, over = assertion(), assertion(line=5), assertion("old", until_s=NOW)
    assert in_force((one, again, over), NOW) == (one,)
    assert in_force((one, again, over), NOW - 1) == (one, over)
