"""Bindings in the allowlist against a loop over everything, with `ipaddress`, that shares no code with it."""

from __future__ import annotations

import ipaddress
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import SearchStrategy

from gatewayd.allowlist import Allowlist, decide, matching_registrations, registered_by
from gatewayd.model import (
    Binding,
    BoundRegistration,
    Flow,
    Prefix,
    Registration,
    parse_address,
    parse_prefix,
    parse_services,
)

unhurried = settings(deadline=None)

Ports = tuple[int, int] | None
Place = tuple[bytes, Prefix, Ports]

SUBSCRIBERS = tuple(bytes([number]) * 32 for number in (1, 2))
IDS = ("PK-1", "PK-2", "PK-3", "PK-4")
ADDRESSES = tuple(
    parse_address(each)
    for each in ("10.0.0.1", "10.0.0.2", "198.51.100.9", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2400::9")
)
PLACES = tuple(
    parse_prefix(each)
    for each in (
        "10.0.0.1/32",
        "10.0.0.2/32",
        "2001:db8::/56",
        "2001:db8::/64",
        "2001:db8:0:1::/64",
        "2001:db8::1/128",
    )
)
CLIENTS = tuple(parse_prefix(each) for each in ("10.0.0.0/24", "198.51.100.9/32", "2001:db8::/48"))
BLOCKS: tuple[Ports, ...] = (None, (0, 999), (1000, 1999), (1500, 2499), (2000, 2000))
EDGES = (0, 999, 1000, 1999, 2000, 2001, 2499, 2500)
SERVICES = ("udp/51820", "tcp/443", "esp", "udp")
EVERYTHING = parse_services(["tcp", "udp", "esp", "gre"])
WITH_PORTS = (6, 17)


def moments() -> SearchStrategy[float]:
    return st.integers(0, 4).map(float)


def some_of(values: tuple[Prefix, ...]) -> SearchStrategy[tuple[Prefix, ...]]:
    return st.sets(st.sampled_from(values), max_size=2).map(lambda some: tuple(sorted(some)))


def registrations() -> SearchStrategy[Registration]:
    """Most with a subscriber, some with clients, a few with neither."""
    return st.builds(
        Registration,
        id=st.sampled_from(IDS),
        category=st.just("freelancer"),
        status=st.sampled_from(("active", "active", "active", "suspended")),
        clients=st.just(()) | some_of(CLIENTS),
        subscriber=st.sampled_from((*SUBSCRIBERS, None)),
        peers=st.just(()) | some_of(CLIENTS),
        services=st.just(()) | st.lists(st.sampled_from(SERVICES), max_size=2).map(parse_services),
        valid_from_s=st.just(-inf) | moments(),
        valid_until_s=st.just(inf) | moments(),
    )


@st.composite
def bindings(draw: st.DrawFn) -> Binding:
    """IPv4 with and without a block; any subscriber, so that several have one address."""
    prefix = draw(st.sampled_from(PLACES[:2]) | st.sampled_from(PLACES))
    return Binding(
        subscriber=draw(st.sampled_from(SUBSCRIBERS)),
        prefix=prefix,
        ports=draw(st.sampled_from(BLOCKS)) if prefix.family == 4 else None,
        since_s=1.0,
        confirmed_s=draw(moments()),
        nas=draw(st.sampled_from(("bng-1", "bng-2"))),
        session="s1",
    )


@st.composite
def flows(draw: st.DrawFn) -> list[Flow]:
    """One service between all addresses of one family, since few are bound to somebody; over IPv4 also from each
    side of the ends of each block."""
    protocol = draw(st.sampled_from((17, 17, 6, 50, 47)))
    pairs = [(one, other) for one in ADDRESSES for other in ADDRESSES if len(one) == len(other)]
    if protocol not in WITH_PORTS:
        return [Flow(protocol, *ends) for ends in pairs]
    port = draw(st.sampled_from((443, 1500, 2000, 51820)))
    return [
        Flow(protocol, *ends, source_port, port)
        for ends in pairs
        for source_port in (EDGES if len(ends[0]) == 4 else EDGES[:1])
    ]


def scan_covers(prefix: Prefix, address: bytes) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network((prefix.packed, prefix.length))


def scan_admits(each: Registration, far: bytes, flow: Flow, now: float) -> bool:
    return (
        each.status == "active"
        and each.valid_from_s <= now < each.valid_until_s
        and (not each.peers or any(scan_covers(peer, far) for peer in each.peers))
        and (
            not each.services
            or any(
                service.protocol == flow.protocol and port in range(service.low, service.high + 1)
                for service in each.services
                for port in (flow.source_port, flow.destination_port)
            )
        )
    )


def scan_by_client(each: Registration, flow: Flow, now: float) -> bool:
    out = any(scan_covers(client, flow.source) for client in each.clients)
    back = any(scan_covers(client, flow.destination) for client in each.clients)
    return (out and scan_admits(each, flow.destination, flow, now)) or (
        back and scan_admits(each, flow.source, flow, now)
    )


def scan_has_share(binding: Binding, flow: Flow, address: bytes, port: int) -> bool:
    if not scan_covers(binding.prefix, address):
        return False
    if binding.ports is None:
        return True
    first, last = binding.ports
    return flow.protocol in WITH_PORTS and port in range(first, last + 1)


def scan_counting(each: Registration, bound: list[Binding], flow: Flow, now: float) -> list[Binding]:
    """The bindings through which it matches, whoever opened the flow."""
    return [
        binding
        for binding in bound
        if binding.subscriber == each.subscriber
        and (
            (
                scan_has_share(binding, flow, flow.source, flow.source_port)
                and scan_admits(each, flow.destination, flow, now)
            )
            or (
                scan_has_share(binding, flow, flow.destination, flow.destination_port)
                and scan_admits(each, flow.source, flow, now)
            )
        )
    ]


def scan(held: list[Registration], bound: list[Binding], flow: Flow, now: float) -> set[str]:
    return {each.id for each in held if scan_by_client(each, flow, now) or scan_counting(each, bound, flow, now)}


def ids_of(some: tuple[Registration, ...]) -> set[str]:
    ids = [each.id for each in some]
    assert len(ids) == len(set(ids)), "a registration is named twice"
    return set(ids)


def place_of(binding: Binding) -> Place:
    return binding.subscriber, binding.prefix, binding.ports


unique_registrations = st.lists(registrations(), max_size=4, unique_by=lambda each: each.id)
unique_bindings = st.lists(bindings(), max_size=6, unique_by=place_of)


def allowlist_of(held: list[Registration], bound: list[Binding]) -> Allowlist:
    allowlist = Allowlist()
    for each in held:
        allowlist.upsert(each)
    for binding in bound:
        allowlist.bind(binding)
    return allowlist


@unhurried
@given(unique_registrations, unique_bindings, flows(), moments())
def test_what_matches_is_what_a_loop_over_everything_finds(
    held: list[Registration], bound: list[Binding], some: list[Flow], now: float
) -> None:
    allowlist = allowlist_of(held, bound)
    for flow in some:
        expected = scan(held, bound, flow, now)
        assert ids_of(allowlist.matching(flow, now)) == expected
        assert ids_of(matching_registrations(allowlist, flow, now)) == expected
        assert {each.id for each in held if registered_by(flow, each, now, bound)} == expected
        # Whoever speaks first.
        back = Flow(flow.protocol, flow.destination, flow.source, flow.destination_port, flow.source_port)
        assert ids_of(allowlist.matching(back, now)) == expected


@unhurried
@given(st.data(), unique_registrations, unique_bindings, flows(), moments())
def test_the_decision_names_the_bindings_that_count_and_no_digest_and_no_order_changes_it(
    data: st.DataObject, held: list[Registration], bound: list[Binding], some: list[Flow], now: float
) -> None:
    allowlist = allowlist_of(held, bound)
    shuffled = allowlist_of(data.draw(st.permutations(held)), data.draw(st.permutations(bound)))
    for flow in some:
        decision = decide(allowlist, EVERYTHING, flow, now)
        expected = scan(held, bound, flow, now)
        assert ids_of(decision.registrations) == expected
        assert decision.word == ("registered" if expected else "unregistered")
        counting = [
            binding
            for each in held
            if not scan_by_client(each, flow, now)
            for binding in scan_counting(each, bound, flow, now)
        ]
        assert len(decision.bindings) == len(set(decision.bindings))
        assert set(decision.bindings) == set(counting)
        assert not any(digest.hex()[:8] in decision.reason for digest in SUBSCRIBERS)
        assert not any(repr(digest)[2:10] in decision.reason for digest in SUBSCRIBERS)
        assert decide(shuffled, EVERYTHING, flow, now) == decision


@unhurried
@given(unique_registrations, unique_bindings, flows(), moments())
def test_a_flow_that_is_not_registered_is_told_of_whoever_is_at_either_end(
    held: list[Registration], bound: list[Binding], some: list[Flow], now: float
) -> None:
    allowlist = allowlist_of(held, bound)
    named = {each.subscriber for each in held}
    prefixes = [client for each in held for client in each.clients]
    prefixes += [binding.prefix for binding in bound if binding.subscriber in named]
    for flow in some:
        decision = decide(allowlist, EVERYTHING, flow, now)
        if decision.word == "unregistered":
            known = any(scan_covers(prefix, end) for prefix in prefixes for end in (flow.source, flow.destination))
            assert (" covers the " in decision.reason or " is bound to the " in decision.reason) == known
            assert ("no registration covers" in decision.reason) == (not known)


class BoundMachine(RuleBasedStateMachine):
    """Registrations and bindings come and go in any order. The model: two dicts, and the grants as an owner keeps
    them that only does what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.allowlist = Allowlist()
        self.subscribers = self.allowlist.subscribers
        self.held: dict[str, Registration] = {}
        self.bound: dict[Place, Binding] = {}
        self.granted: set[BoundRegistration] = set()
        self.known: set[bytes] = set()

    def give(self, bound_registrations: tuple[BoundRegistration, ...]) -> None:
        assert len(set(bound_registrations)) == len(bound_registrations)
        assert self.granted.isdisjoint(bound_registrations)
        self.granted.update(bound_registrations)

    def revoke(self, bound_registrations: tuple[BoundRegistration, ...]) -> None:
        assert len(set(bound_registrations)) == len(bound_registrations)
        assert self.granted.issuperset(bound_registrations)
        self.granted.difference_update(bound_registrations)

    def replaced(self, old: Registration | None, new: Registration | None) -> None:
        changed = self.allowlist.subscribers_changed(old, new)
        assert len(set(changed)) == len(changed)
        self.known.symmetric_difference_update(changed)
        if old is not None:
            self.revoke(self.allowlist.bound_registrations_of(old))
        if new is not None:
            self.give(self.allowlist.bound_registrations_of(new))

    @rule(registration=registrations())
    def upsert(self, registration: Registration) -> None:
        old = self.allowlist.upsert(registration)
        assert old == self.held.get(registration.id)
        self.held[registration.id] = registration
        self.replaced(old, registration)

    @rule(registration_id=st.sampled_from(IDS))
    def withdraw(self, registration_id: str) -> None:
        old = self.allowlist.withdraw(registration_id)
        assert old == self.held.pop(registration_id, None)
        self.replaced(old, None)

    @rule(binding=bindings())
    def bind(self, binding: Binding) -> None:
        bound_registrations = self.allowlist.bind(binding)
        if place_of(binding) in self.bound:
            assert bound_registrations == ()
        self.bound[place_of(binding)] = binding
        self.give(bound_registrations)

    @rule(binding=bindings())
    def unbind_whatever(self, binding: Binding) -> None:
        self.unbind(place_of(binding))

    @rule(data=st.data())
    def unbind_what_is_bound(self, data: st.DataObject) -> None:
        if self.bound:
            self.unbind(data.draw(st.sampled_from(sorted(self.bound, key=repr))))

    def unbind(self, place: Place) -> None:
        bound_registrations = self.allowlist.unbind(*place)
        if self.bound.pop(place, None) is None:
            assert bound_registrations == ()
        self.revoke(bound_registrations)

    @rule(some=flows(), now=moments())
    def match(self, some: list[Flow], now: float) -> None:
        held, bound = list(self.held.values()), list(self.bound.values())
        for flow in some:
            assert ids_of(self.allowlist.matching(flow, now)) == scan(held, bound, flow, now)

    @rule(address=st.sampled_from(ADDRESSES))
    def look_up(self, address: bytes) -> None:
        found = self.allowlist.bindings_at(address)
        assert sorted(found, key=repr) == sorted(
            (each for each in self.bound.values() if scan_covers(each.prefix, address)), key=repr
        )
        lengths = [each.prefix.length for each in found]
        assert lengths == sorted(lengths, reverse=True)

    @invariant()
    def grants_are_each_registration_at_each_place_of_its_subscriber(self) -> None:
        expected = {
            BoundRegistration(each, prefix, ports)
            for each in self.held.values()
            for subscriber, prefix, ports in self.bound
            if subscriber == each.subscriber
        }
        assert self.granted == expected
        assert {
            bound for each in self.allowlist for bound in self.allowlist.bound_registrations_of(each)
        } == expected

    @invariant()
    def holds_what_was_bound(self) -> None:
        held = list(self.allowlist.bindings())
        assert self.allowlist.count_bindings() == len(held) == len(self.bound)
        assert {place_of(each): each for each in held} == self.bound
        for subscriber in SUBSCRIBERS:
            of = self.allowlist.bindings_of(subscriber)
            assert {place_of(each): each for each in of} == {
                place: each for place, each in self.bound.items() if place[0] == subscriber
            }

    @invariant()
    def knows_whom_registrations_name(self) -> None:
        named = {each.subscriber for each in self.held.values() if each.subscriber is not None}
        assert {each for each in SUBSCRIBERS if each in self.subscribers} == named
        assert self.known == named
        for subscriber in SUBSCRIBERS:
            of = self.allowlist.registrations_of(subscriber)
            assert ids_of(of) == {each.id for each in self.held.values() if each.subscriber == subscriber}


TestBoundMachine = BoundMachine.TestCase
TestBoundMachine.settings = settings(unhurried, max_examples=60, stateful_step_count=40)
