"""An allowlist with changes over it answers as one in which they were made."""

from __future__ import annotations

from gatewayd.allowlist import Allowlist
from gatewayd.allowlist.match import matching_registrations
from gatewayd.assertions import overlay
from gatewayd.assertions.overlay import Ends, Overlaid, failing_of, overlay_in_slices
from gatewayd.model import Binding, Extension, Registration, parse_address, parse_prefix, parse_services
from gatewayd.model.registration import Changes, run_slices
from tests.support.asserting import assertion
from tests.support.owning import flow, registration
from tests.support.reconciling import policy

NOW = 1_000.0
FREELANCER = bytes(32)


def allowlist(*registrations: Registration) -> Allowlist:
    found = Allowlist()
    for each in registrations:
        found.upsert(each)
    return found


def ids(found: object) -> set[str]:
    assert isinstance(found, list)
    return {each.id for each in found}


def laid(base: Allowlist, *changes: Changes, ends: Ends | None = None) -> Overlaid:
    return run_slices(overlay_in_slices(base, changes, ends))


def test_endpoints_come_and_go_as_clients_do() -> None:
    def provider(id: str, endpoint: str) -> Registration:
        extension = Extension(endpoints=(parse_prefix(endpoint),))
        return Registration(id, "provider", "active", (), services=parse_services(["ipsec"]), extension=extension)

    base = allowlist(provider("STAYS", "198.51.100.0/24"), provider("GOES", "198.51.100.7/32"))
    near, far = provider("COMES", "198.51.100.0/25"), provider("FAR", "192.0.2.0/24")
    subject = flow("39.32.0.1", "udp/500")
    found = laid(base, Changes((near, far), ("GOES",)))
    assert ids(found.endpoints_at(subject.destination)) == {"STAYS", "COMES"}
    assert {each.id for each in matching_registrations(found, subject, NOW)} == {"STAYS", "COMES"}
    ends = Ends(base, [assertion("x", "39.32.0.1", "198.51.100.7")])
    assert (ends.meet(near), ends.meet(far)) == (True, False)


def test_what_came_is_there_and_what_went_or_was_replaced_is_not() -> None:
    base = allowlist(
        registration("STAYS", "203.0.113.0/28"),
        registration("GOES", "203.0.113.0/24"),
        registration("MOVES", "203.0.113.5/32"),
    )
    found = laid(
        base,
        Changes((registration("MOVES", "203.0.114.0/24"), registration("BRIEF", "203.0.113.0/24")), ("GOES",)),
        Changes((registration("NEW", "203.0.113.4/30"),), ("BRIEF",)),
    )
    address, far = parse_address("203.0.113.5"), parse_address("198.51.100.7")
    assert ids(found.covering(address)) == ids(found.facing(address, far)) == {"STAYS", "NEW"}
    assert ids(found.covering(parse_address("203.0.114.1"))) == {"MOVES"}
    matching = matching_registrations(found, flow("203.0.113.5"), NOW)
    assert {each.id for each in matching} == {"STAYS", "NEW"}
    assert len(base) == 3


def test_bindings_stay_and_their_registrations_change() -> None:
    base = allowlist(registration("OLD", subscriber=FREELANCER))
    prefix = parse_prefix("203.0.113.5/32")
    binding = Binding(subscriber=FREELANCER, prefix=prefix, since_s=0, confirmed_s=0, nas="bng", session="1")
    base.bindings.put(binding)
    new = registration("NEW", subscriber=FREELANCER)
    ends = Ends(base, [assertion()])
    found = laid(base, Changes((new,), ("OLD",)), ends=ends)
    assert ids(found.registrations_of(FREELANCER)) == {"NEW"}
    assert list(found.bindings_at(prefix.packed)) == [binding]
    assert list(found.bindings_facing(prefix.packed, 1)) == [binding]


def test_with_ends_only_what_can_be_about_them_is_kept() -> None:
    ends = Ends(allowlist(), [assertion(), assertion("six", "2001:db8::5", "2001:db8:1::7")])
    assert ends.meet(registration("A", "10.0.0.0/8", "203.0.113.0/24"))
    assert ends.meet(registration("B", "198.51.100.7/32"))
    assert ends.meet(registration("C", "2001:db8::/48"))
    assert not ends.meet(registration("D", "203.0.114.0/24", "2001:db8:2::/48", subscriber=FREELANCER))
    near, far = registration("A", "203.0.113.0/24"), registration("A", "203.0.114.0/24")
    address = parse_address("203.0.113.5")
    assert ids(laid(allowlist(), Changes((near,), ()), ends=ends).covering(address)) == {"A"}
    changes = Changes((near,), ()), Changes((far,), ())
    assert ids(laid(allowlist(near), *changes, ends=ends).covering(address)) == set()


def test_it_is_made_in_slices() -> None:
    upserts = tuple(registration(f"R-{number}", "203.0.113.0/24") for number in range(overlay.SLICE))
    withdrawals = tuple(f"W-{number}" for number in range(overlay.SLICE))
    assert len(list(overlay_in_slices(allowlist(), [Changes(upserts, withdrawals)]))) == 3


def test_what_fails_by_a_registry_alone() -> None:
    bank, fraud = assertion(), assertion("fraud", kind="must_not_pass")
    registered = [registration("BANK", "203.0.113.0/24"), registration("FAR", "10.0.0.0/8")]
    (found,) = failing_of(registered, (bank, fraud), policy(), NOW)
    assert (found.assertion, found.reason.startswith("udp/51820: registered by BANK")) == (fraud, True)
    assert [each.assertion for each in failing_of([], (bank, fraud), policy(), NOW)] == [bank]
    assert failing_of(iter(registered), (), policy(), NOW) == ()
