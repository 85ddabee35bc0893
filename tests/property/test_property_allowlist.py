"""The allowlist against a scan with `ipaddress` that shares no code with it."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gatewayd.allowlist import Allowlist, Radix, Schedule, decide, matching_registrations, radix, registered_by
from gatewayd.model import Binding, Flow, Prefix, Registration, Service, reverse_flow
from tests.support.strategies import (
    addresses,
    flows,
    moments,
    prefixes,
    providers,
    registration_ids,
    registrations,
    service_profiles,
)

unhurried = settings(deadline=None)
unique_registrations = st.lists(
    registrations() | providers(), max_size=12, unique_by=lambda registration: registration.id
)


def scan_covers(prefix: Prefix, address: bytes) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network((prefix.packed, prefix.length))


def scan_serves(services: tuple[Service, ...], flow: Flow) -> bool:
    return any(
        service.protocol == flow.protocol and flow.destination_port in range(service.low, service.high + 1)
        for service in services
    )


def scan_registers(registration: Registration, flow: Flow, now: float) -> bool:
    """The rule, word for word."""
    active = registration.status == "active" and registration.valid_from_s <= now < registration.valid_until_s
    out = any(scan_covers(prefix, flow.source) for prefix in registration.clients) and (
        not registration.peers or any(scan_covers(prefix, flow.destination) for prefix in registration.peers)
    )
    back = any(scan_covers(prefix, flow.destination) for prefix in registration.clients) and (
        not registration.peers or any(scan_covers(prefix, flow.source) for prefix in registration.peers)
    )
    if any(scan_covers(prefix, flow.destination) for prefix in registration.endpoints):
        out = True  # and never back
    return active and (out or back) and (not registration.services or scan_serves(registration.services, flow))


def scan_left_alone(held: list[Registration], flow: Flow, now: float) -> bool:
    """What an endpoint sends may be an answer; of TCP a flow's first packet is none."""
    return flow.protocol != 6 and any(
        scan_registers(each, reverse_flow(flow), now) for each in held if each.endpoints
    )


def scan(held: list[Registration], flow: Flow, now: float) -> set[str]:
    return {registration.id for registration in held if scan_registers(registration, flow, now)}


def ids_of(some: tuple[Registration, ...]) -> set[str]:
    ids = [registration.id for registration in some]
    assert len(ids) == len(set(ids)), "a registration is named twice"
    return set(ids)


def allowlist_of(held: list[Registration]) -> Allowlist:
    allowlist = Allowlist()
    for registration in held:
        assert allowlist.upsert(registration) is None
    return allowlist


@unhurried
@given(registrations(), flows(), moments())
def test_one_registration_registers_a_flow_exactly_when_the_design_says_so(
    registration: Registration, flow: Flow, now: float
) -> None:
    assert registered_by(flow, registration, now) == scan_registers(registration, flow, now)


@unhurried
@given(unique_registrations, service_profiles(), flows(), moments())
def test_the_decision_is_that_of_a_scan_and_its_reason_names_who_decided(
    held: list[Registration], scope: tuple[Service, ...], flow: Flow, now: float
) -> None:
    decision = decide(allowlist_of(held), scope, flow, now)
    expected = scan(held, flow, now)
    assert ids_of(decision.registrations) == expected
    if not scan_serves(scope, flow):
        assert decision.word == "out_of_scope"
        assert "outside the scope" in decision.reason
    elif expected:
        assert decision.word == "registered"
        assert decision.reason.startswith(f"registered by {decision.registrations[0].id} (")
    elif scan_left_alone(held, flow, now):
        assert decision.word == "out_of_scope"
        assert "this may be an answer" in decision.reason
    else:
        assert decision.word == "unregistered"
        known = any(
            scan_covers(prefix, end)
            for registration in held
            for prefix in (*registration.clients, *registration.endpoints)
            for end in (flow.source, flow.destination)
        )
        assert (" covers the " in decision.reason or " has as an endpoint the " in decision.reason) == known
        assert ("no registration covers" in decision.reason) == (not known)


@unhurried
@given(st.data(), unique_registrations, service_profiles(), flows(), moments())
def test_the_order_of_arrival_changes_no_decision_and_no_reason(
    data: st.DataObject, held: list[Registration], scope: tuple[Service, ...], flow: Flow, now: float
) -> None:
    shuffled = data.draw(st.permutations(held))
    assert decide(allowlist_of(held), scope, flow, now) == decide(allowlist_of(shuffled), scope, flow, now)


@unhurried
@given(unique_registrations, flows(), moments())
def test_the_hot_path_names_the_same_registrations_through_any_index(
    held: list[Registration], flow: Flow, now: float
) -> None:
    class Scan:
        def covering(self, address: bytes) -> list[Registration]:
            return [each for each in held if any(scan_covers(prefix, address) for prefix in each.clients)]

        def facing(self, address: bytes, other: bytes) -> list[Registration]:
            return self.covering(address)

        def bindings_facing(self, address: bytes, port: int) -> list[Binding]:
            return []

        def registrations_of(self, subscriber: bytes) -> list[Registration]:
            return []

        def endpoints_at(self, address: bytes) -> list[Registration]:
            return [each for each in held if any(scan_covers(prefix, address) for prefix in each.endpoints)]

    expected = scan(held, flow, now)
    assert ids_of(allowlist_of(held).matching(flow, now)) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radix, "CROWD", 1)
        assert ids_of(allowlist_of(held).matching(flow, now)) == expected
    assert ids_of(matching_registrations(Scan(), flow, now)) == expected


@unhurried
@given(st.lists(registrations(), max_size=12), moments(), moments())
def test_every_change_of_effectiveness_is_due_on_time(
    upserts: list[Registration], start: float, pause: float
) -> None:
    schedule = Schedule()
    held: dict[str, Registration] = {}
    for registration in upserts:
        held[registration.id] = registration
        schedule.watch(registration, start)
    now = start
    while (moment := schedule.next_change()) is not None:
        assert moment > now
        later = moment + pause
        due = schedule.due(later)
        assert len(due) == len(set(due))
        changed = {each.id for each in held.values() if each.is_effective(now) != each.is_effective(later)}
        assert changed <= set(due)
        for registration_id in due:
            schedule.watch(held[registration_id], later)
        now = later
    assert len(schedule) == 0
    assert all(each.is_effective(now) == each.is_effective(1e12) for each in held.values())


class AllowlistMachine(RuleBasedStateMachine):
    """Upserts and withdrawals in any order; the model is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.allowlist = Allowlist()
        self.held: dict[str, Registration] = {}

    @rule(registration=registrations())
    def upsert(self, registration: Registration) -> None:
        assert self.allowlist.upsert(registration) == self.held.get(registration.id)
        self.held[registration.id] = registration

    @rule(registration_id=registration_ids())
    def withdraw(self, registration_id: str) -> None:
        assert self.allowlist.withdraw(registration_id) == self.held.pop(registration_id, None)

    @rule(flow=flows(), now=moments())
    def match(self, flow: Flow, now: float) -> None:
        assert ids_of(self.allowlist.matching(flow, now)) == scan(list(self.held.values()), flow, now)

    @rule(address=addresses())
    def cover(self, address: bytes) -> None:
        expected = {
            each.id: max(prefix.length for prefix in each.clients if scan_covers(prefix, address))
            for each in self.held.values()
            if any(scan_covers(prefix, address) for prefix in each.clients)
        }
        found = self.allowlist.covering(address)
        assert ids_of(found) == set(expected)
        lengths = [expected[each.id] for each in found]
        assert lengths == sorted(lengths, reverse=True)

    @invariant()
    def holds_what_was_put_in(self) -> None:
        assert {each.id: each for each in self.allowlist} == self.held
        assert len(self.allowlist) == len(self.held)
        assert self.allowlist.count_by_category() == Counter(each.category for each in self.held.values())
        assert self.allowlist.count_by_status() == Counter(each.status for each in self.held.values())


class RadixMachine(RuleBasedStateMachine):
    """Pairs come and go; the model is a list of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.radix: Radix[object] = Radix()
        self.pairs: list[tuple[Prefix, object]] = []

    @rule(prefix=prefixes())
    def insert(self, prefix: Prefix) -> None:
        value = object()
        self.radix.insert(prefix, value)
        self.pairs.append((prefix, value))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.pairs:
            pair = self.pairs.pop(data.draw(st.integers(0, len(self.pairs) - 1)))
            self.radix.remove(*pair)

    @rule(address=addresses())
    def cover(self, address: bytes) -> None:
        expected = [pair for pair in self.pairs if scan_covers(pair[0], address)]
        expected.sort(key=lambda pair: -pair[0].length)
        assert list(self.radix.covering(address)) == [value for _, value in expected]

    @rule(prefix=prefixes())
    def look_up(self, prefix: Prefix) -> None:
        assert list(self.radix.exact(prefix)) == [value for at, value in self.pairs if at == prefix]

    @invariant()
    def counts(self) -> None:
        assert len(self.radix) == len(self.pairs)


class CrowdedAllowlistMachine(AllowlistMachine):
    """Two registrations at one prefix are a crowd already."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(radix, "CROWD", 1)

    def teardown(self) -> None:
        self.patch.undo()


TestAllowlistMachine = AllowlistMachine.TestCase
TestCrowdedAllowlistMachine = CrowdedAllowlistMachine.TestCase
TestCrowdedAllowlistMachine.settings = unhurried
TestRadixMachine = RadixMachine.TestCase
for _case in (TestAllowlistMachine, TestRadixMachine):
    _case.settings = settings(unhurried, max_examples=60, stateful_step_count=40)
