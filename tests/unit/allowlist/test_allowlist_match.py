from __future__ import annotations

from math import inf

import msgspec
import pytest

from gatewayd.allowlist import Allowlist, decide, in_scope, matching_registrations, registered_by
from gatewayd.allowlist.endpoints import MAX_MATCHING
from gatewayd.allowlist.match import may_be_answer
from gatewayd.model import (
    Binding,
    Decision,
    Flow,
    Registration,
    Status,
    parse_address,
    parse_prefix,
    parse_service,
    parse_services,
)

NOV = 1730419200.0  # 2024-11-01T00:00:00Z
SCOPE = parse_services(["ipsec", "wireguard", "openvpn", "pptp"])


def registration(
    id: str = "PK-1",
    clients: str = "203.0.113.0/28",
    peers: str = "",
    services: str = "",
    status: Status = "active",
    opens: float = -inf,
    closes: float = inf,
) -> Registration:
    return Registration(
        id=id,
        category="bank",
        status=status,
        clients=tuple(sorted(map(parse_prefix, clients.split()))),
        peers=tuple(sorted(map(parse_prefix, peers.split()))),
        services=parse_services(services.split()),
        valid_from_s=opens,
        valid_until_s=closes,
    )


def flow(source: str, destination: str, service: str = "udp/4500") -> Flow:
    wanted = parse_service(service)[0]
    port = wanted.low if "/" in service else 0
    return Flow(wanted.protocol, parse_address(source), parse_address(destination), 0, port)


def decision_of(
    subject: Flow, *held: Registration, now: float = NOV, scope: tuple[str, ...] | None = None
) -> Decision:
    allowlist = Allowlist()
    for each in held:
        allowlist.upsert(each)
    decision = decide(allowlist, SCOPE if scope is None else parse_services(scope), subject, now)
    matching = allowlist.matching(subject, now)
    assert {each.id for each in matching} == {each.id for each in decision.registrations}
    assert matching == matching_registrations(allowlist, subject, now)
    assert all(registered_by(subject, each, now) == (each in matching) for each in held)
    return decision


OUT = flow("203.0.113.9", "198.51.100.7")
BACK = flow("198.51.100.7", "203.0.113.9")


@pytest.mark.parametrize(
    ("subject", "held", "reason"),
    [
        (OUT, registration(), "registered by PK-1 (bank): source in 203.0.113.0/28"),
        (BACK, registration(), "registered by PK-1 (bank): destination in 203.0.113.0/28"),
        (
            OUT,
            registration(services="ipsec"),
            "registered by PK-1 (bank): source in 203.0.113.0/28, service ipsec",
        ),
        (
            flow("203.0.113.9", "198.51.100.7", "esp"),
            registration(services="ipsec udp/51820"),
            "registered by PK-1 (bank): source in 203.0.113.0/28, service ipsec",
        ),
        (
            flow("203.0.113.9", "198.51.100.7", "udp/51820"),
            registration(services="ipsec wireguard"),
            "registered by PK-1 (bank): source in 203.0.113.0/28, service udp/51820",
        ),
        (
            OUT,
            registration(services="udp/4000-5000"),
            "registered by PK-1 (bank): source in 203.0.113.0/28, service udp/4000-5000",
        ),
        (
            OUT,
            registration(peers="198.51.100.0/24 198.51.100.7/32"),
            "registered by PK-1 (bank): source in 203.0.113.0/28, destination in peer 198.51.100.7/32",
        ),
        (
            BACK,
            registration(peers="198.51.100.7/32", services="udp/4500"),
            "registered by PK-1 (bank): destination in 203.0.113.0/28, source in peer 198.51.100.7/32,"
            " service udp/4500",
        ),
        (
            flow("2001:db8:12::1", "2400:cb00::9"),
            registration(clients="2001:db8::/32 2001:db8:12::/48 203.0.113.0/28"),
            "registered by PK-1 (bank): source in 2001:db8:12::/48",
        ),
    ],
)
def test_a_registered_flow_is_told_which_registration_and_by_what(
    subject: Flow, held: Registration, reason: str
) -> None:
    assert decision_of(subject, held) == Decision("registered", (held,), reason)


@pytest.mark.parametrize(
    ("subject", "held", "reason"),
    [
        (OUT, None, "no registration covers 203.0.113.9 or 198.51.100.7"),
        (
            OUT,
            registration(clients="192.0.2.0/24"),
            "no registration covers 203.0.113.9 or 198.51.100.7",
        ),
        (OUT, registration(status="suspended"), "PK-1 covers the source, but is suspended"),
        (BACK, registration(status="revoked"), "PK-1 covers the destination, but is revoked"),
        (
            OUT,
            registration(opens=NOV + 1),
            "PK-1 covers the source, but its window opens at 2024-11-01T00:00:01Z",
        ),
        (
            OUT,
            registration(closes=NOV),
            "PK-1 covers the source, but its window closed at 2024-11-01T00:00:00Z",
        ),
        (
            flow("203.0.113.9", "198.51.100.7", "udp/51820"),
            registration(services="ipsec"),
            "PK-1 covers the source, but its services are ipsec, not udp/51820",
        ),
        (
            flow("203.0.113.9", "198.51.100.7", "gre"),
            registration(services="ipsec tcp/443"),
            "PK-1 covers the source, but its services are ipsec, tcp/443, not gre",
        ),
        (
            flow("203.0.113.9", "198.51.100.9"),
            registration(peers="198.51.100.7/32"),
            "PK-1 covers the source, but its peers do not include 198.51.100.9",
        ),
        (
            flow("198.51.100.9", "203.0.113.9", "udp/51820"),
            registration(peers="198.51.100.7/32", services="ipsec", status="suspended", opens=inf),
            "PK-1 covers the destination, but is suspended and its peers do not include 198.51.100.9"
            " and its services are ipsec, not udp/51820",
        ),
    ],
)
def test_an_unregistered_flow_is_told_what_stood_in_the_way(
    subject: Flow, held: Registration | None, reason: str
) -> None:
    assert decision_of(subject, *([held] if held else [])) == Decision("unregistered", (), reason)


def test_a_window_holds_from_its_first_moment_until_before_its_last() -> None:
    held = registration(opens=10, closes=20)
    words = [decision_of(OUT, held, now=now).word for now in (9.9, 10, 19.9, 20)]
    assert words == ["unregistered", "registered", "registered", "unregistered"]


def test_the_nearest_failure_is_the_one_that_lacks_least() -> None:
    suspended = registration("PK-1", "203.0.113.8/29", peers="192.0.2.1/32", status="suspended")
    other_service = registration("PK-2", "203.0.113.0/24", services="openvpn")
    reason = decision_of(OUT, suspended, other_service).reason
    assert reason == "PK-2 covers the source, but its services are openvpn, not udp/4500"


def test_among_equals_the_source_then_the_longest_prefix_then_the_id_is_named() -> None:
    far = registration("PK-1", "198.51.100.7/32", status="suspended")
    wide = registration("PK-2", "203.0.113.0/24", status="suspended")
    late = registration("PK-4", "203.0.113.0/28", status="suspended")
    first = registration("PK-3", "203.0.113.0/28", status="suspended")
    assert decision_of(OUT, far).reason.startswith("PK-1 covers the destination")
    assert decision_of(OUT, far, wide).reason.startswith("PK-2 covers the source")
    assert decision_of(OUT, far, wide, late, first).reason.startswith("PK-3 ")


def test_further_registrations_are_named_and_many_are_counted() -> None:
    held = [registration(f"PK-{number}") for number in range(1, 6)]
    assert decision_of(OUT, *held[:2]).reason.endswith("203.0.113.0/28; also by PK-2")
    assert decision_of(OUT, *held).reason.endswith("; also by PK-2, PK-3, PK-4 and 1 more")


def test_a_registration_that_matches_in_several_ways_is_listed_once() -> None:
    held = registration(clients="203.0.113.0/24 203.0.113.0/28")
    inside = flow("203.0.113.9", "203.0.113.200")
    assert decision_of(inside, held).registrations == (held,)


def test_a_registrant_at_each_end_registers_the_flow_twice() -> None:
    near, far = registration("PK-1"), registration("PK-2", "198.51.100.7/32")
    assert decision_of(OUT, far, near).registrations == (near, far)


def test_the_service_is_the_port_of_either_end_since_the_far_end_may_speak_first() -> None:
    held = registration(services="udp/4500")
    client, far = parse_address("203.0.113.9"), parse_address("198.51.100.7")
    answer = decision_of(Flow(17, far, client, 4500, 40000), held)
    assert answer.word == "registered"
    assert answer.reason == (
        "registered by PK-1 (bank): destination in 203.0.113.0/28, service udp/4500, answered from the source port"
    )
    assert decision_of(Flow(17, far, client, 4501, 40000), held, scope=("udp",)).word == "unregistered"
    assert decision_of(Flow(17, far, client, 4501, 40000), held).word == "out_of_scope"


def test_a_flow_from_a_port_in_scope_is_registered_or_out_of_scope() -> None:
    client, far = parse_address("203.0.113.9"), parse_address("198.51.100.7")
    answer = Flow(17, far, client, 4500, 40000)
    assert decision_of(answer).word == "out_of_scope"
    assert decision_of(answer, registration(services="esp")).word == "out_of_scope"
    assert decision_of(answer, registration()).word == "registered"
    assert may_be_answer(SCOPE, answer)
    assert not may_be_answer(SCOPE, Flow(17, far, client, 40000, 4500))


def test_a_bundle_is_named_by_the_port_of_either_end() -> None:
    client, far = parse_address("203.0.113.9"), parse_address("198.51.100.7")
    assert (
        ", service ipsec, answered from"
        in decision_of(Flow(17, far, client, 500, 40000), registration(services="ipsec")).reason
    )


def test_a_peer_of_the_other_family_does_not_admit() -> None:
    assert decision_of(OUT, registration(peers="2001:db8::/32")).word == "unregistered"


def test_out_of_scope_traffic_is_told_the_scope_and_who_would_match() -> None:
    subject = flow("203.0.113.9", "198.51.100.7", "tcp/443")
    assert decision_of(subject, scope=("ipsec", "udp/51820")) == Decision(
        "out_of_scope", (), "tcp/443 is outside the scope (ipsec, udp/51820)"
    )
    held = registration()
    assert decision_of(subject, held, scope=()) == Decision(
        "out_of_scope",
        (held,),
        "tcp/443 is outside the scope (empty); in scope it would be registered by PK-1",
    )


def test_a_service_is_in_scope_by_protocol_and_destination_port() -> None:
    assert in_scope(SCOPE, flow("203.0.113.9", "198.51.100.7", "gre"))
    assert in_scope(SCOPE, OUT)
    assert not in_scope(SCOPE, flow("203.0.113.9", "198.51.100.7", "tcp/4500"))
    assert not in_scope((), OUT)


# Bindings

ALI, BANO = b"\xa1" * 32, b"\xb2" * 32


def mobile(
    id: str = "PK-1",
    subscriber: bytes = ALI,
    clients: str = "",
    peers: str = "",
    services: str = "",
    status: Status = "active",
    closes: float = inf,
) -> Registration:
    fixed = registration(id, clients, peers, services, status, closes=closes)
    return msgspec.structs.replace(fixed, category="freelancer", subscriber=subscriber)


def binding(
    prefix: str = "10.1.2.3/32",
    ports: tuple[int, int] | None = None,
    subscriber: bytes = ALI,
    confirmed: float = NOV,
    is_restored: bool = False,
) -> Binding:
    return Binding(
        subscriber=subscriber,
        prefix=parse_prefix(prefix),
        ports=ports,
        since_s=NOV + 0.25,
        confirmed_s=confirmed,
        nas="bng-1",
        session="s1",
        is_restored=is_restored,
    )


def bound_decision(
    subject: Flow,
    held: list[Registration],
    bindings: list[Binding],
    now: float = NOV,
    scope: tuple[str, ...] = ("esp", "tcp", "udp"),
) -> Decision:
    """The same whatever comes first; no digest in its words."""
    decisions = []
    for turn in (1, -1):
        allowlist = Allowlist()
        for each in bindings[::turn]:
            allowlist.bindings.put(each)
        for registered in held[::turn]:
            allowlist.upsert(registered)
        decisions.append(decide(allowlist, parse_services(scope), subject, now))
        matching = allowlist.matching(subject, now)
        assert {each.id for each in matching} == {each.id for each in decisions[-1].registrations}
        assert matching == matching_registrations(allowlist, subject, now)
        assert all(registered_by(subject, each, now, bindings) == (each in matching) for each in held)
    assert decisions[0] == decisions[1]
    for digest in (ALI, BANO):
        assert digest.hex()[:8] not in decisions[0].reason
        assert repr(digest)[2:10] not in decisions[0].reason
    return decisions[0]


UP = Flow(17, parse_address("10.1.2.3"), parse_address("198.51.100.7"), 5000, 51820)
DOWN = Flow(17, parse_address("198.51.100.7"), parse_address("10.1.2.3"), 5000, 51820)
UP_ESP = Flow(50, parse_address("10.1.2.3"), parse_address("198.51.100.7"))
SINCE = "bound to the registration's subscriber since 2024-11-01T00:00:00Z"


@pytest.mark.parametrize(
    ("subject", "held", "bound", "reason"),
    [
        (UP, mobile(), binding(), f"source in 10.1.2.3/32, {SINCE} (confirmed 0 s ago) by NAS bng-1"),
        (
            UP,
            mobile(services="wireguard"),
            binding(confirmed=NOV - 12, is_restored=True),
            f"source in 10.1.2.3/32, {SINCE} (confirmed 12 s ago, restored from the journal) by NAS bng-1,"
            " service udp/51820",
        ),
        (
            UP,
            mobile(services="ipsec udp/51820", peers="198.51.100.0/24"),
            binding("10.1.2.0/24", (4096, 5119), confirmed=NOV - 600),
            "source in 10.1.2.0/24, source port in 4096-5119,"
            f" {SINCE} (confirmed 10 min ago) by NAS bng-1, destination in peer 198.51.100.0/24, service udp/51820",
        ),
        (UP_ESP, mobile(), binding(), f"source in 10.1.2.3/32, {SINCE} (confirmed 0 s ago) by NAS bng-1"),
    ],
)
def test_a_flow_registered_through_a_binding_is_told_whose_word_it_is(
    subject: Flow, held: Registration, bound: Binding, reason: str
) -> None:
    assert bound_decision(subject, [held], [bound]) == Decision(
        "registered", (held,), f"registered by PK-1 (freelancer): {reason}", (bound,)
    )


@pytest.mark.parametrize(
    ("subject", "held", "bound", "reason"),
    [
        (UP, mobile(subscriber=BANO), binding(), "no registration covers 10.1.2.3 or 198.51.100.7"),
        (UP, mobile(status="suspended"), binding(), "PK-1 is bound to the source, but is suspended"),
        (
            UP,
            mobile(closes=NOV),
            binding(),
            "PK-1 is bound to the source, but its window closed at 2024-11-01T00:00:00Z",
        ),
        (
            UP,
            mobile(services="ipsec"),
            binding(),
            "PK-1 is bound to the source, but its services are ipsec, not udp/51820",
        ),
        (
            UP,
            mobile(peers="192.0.2.1/32"),
            binding(),
            "PK-1 is bound to the source, but its peers do not include 198.51.100.7",
        ),
        (
            UP,
            mobile(),
            binding(ports=(2000, 2999)),
            "PK-1 is bound to the source, but its binding has the ports 2000-2999 of the address, not 5000",
        ),
        (
            UP_ESP,
            mobile(),
            binding(ports=(0, 65535)),
            "PK-1 is bound to the source, but its binding has the ports 0-65535 of the address,"
            " and the flow has no source port",
        ),
        (
            flow("10.1.2.3", "198.51.100.7", "udp/51820"),
            mobile(services="ipsec"),
            binding(ports=(2000, 2999)),
            "PK-1 is bound to the source, but its services are ipsec, not udp/51820 and its binding has the ports"
            " 2000-2999 of the address, and the flow has no source port",
        ),
        (DOWN, mobile(status="suspended"), binding(), "PK-1 is bound to the destination, but is suspended"),
        (
            DOWN,
            mobile(status="revoked"),
            binding(ports=(2000, 2999)),
            "PK-1 is bound to the destination, but is revoked and its binding has the ports 2000-2999 of the"
            " address, not 51820",
        ),
    ],
)
def test_a_bound_flow_that_is_not_registered_is_told_what_stood_in_the_way(
    subject: Flow, held: Registration, bound: Binding, reason: str
) -> None:
    assert bound_decision(subject, [held], [bound]) == Decision("unregistered", (), reason)


def test_a_binding_counts_whoever_opens_the_flow_and_of_a_block_the_port_is_the_subscribers() -> None:
    opened_to = bound_decision(DOWN, [mobile()], [binding()])
    assert opened_to.word == "registered"
    assert "destination in 10.1.2.3/32" in opened_to.reason
    within = bound_decision(DOWN, [mobile()], [binding(ports=(51000, 51999))])
    assert "destination port in 51000-51999" in within.reason
    assert bound_decision(DOWN, [mobile()], [binding(ports=(5000, 5000))]).word == "unregistered"


@pytest.mark.parametrize(("port", "is_registered"), [(1023, False), (1024, True), (2047, True), (2048, False)])
@pytest.mark.parametrize("protocol", [6, 17])
def test_a_block_begins_and_ends_with_its_own_ports(protocol: int, port: int, is_registered: bool) -> None:
    subject = Flow(protocol, parse_address("10.1.2.3"), parse_address("198.51.100.7"), port, 443)
    decision = bound_decision(subject, [mobile()], [binding(ports=(1024, 2047))])
    assert (decision.word == "registered") == is_registered


def test_every_binding_that_covers_counts_not_only_the_longest() -> None:
    subject = flow("2001:db8::1", "2400:cb00::9", "udp/51820")
    near, far = mobile("PK-1", ALI, services="ipsec"), mobile("PK-2", BANO)
    host, site = binding("2001:db8::1/128"), binding("2001:db8::/56", subscriber=BANO)
    decision = bound_decision(subject, [near, far], [host, site])
    assert decision.registrations == (far,)
    assert decision.bindings == (site,)


def test_all_registrations_of_a_subscriber_and_all_its_bindings_are_named_once() -> None:
    one, two = mobile("PK-1"), mobile("PK-2")
    host, block, wide = binding(), binding(ports=(4096, 5119)), binding("10.0.0.0/8")
    decision = bound_decision(UP, [one, two], [wide, block, host])
    assert decision.registrations == (one, two)
    assert decision.bindings == (host, block, wide)
    assert decision.reason.endswith("by NAS bng-1; also by PK-2")


def test_a_client_prefix_tells_more_than_a_binding() -> None:
    both = mobile(clients="10.0.0.0/8")
    bound_only = mobile("PK-0", BANO)
    decision = bound_decision(UP, [both], [binding()])
    assert decision == Decision("registered", (both,), "registered by PK-1 (freelancer): source in 10.0.0.0/8")
    other = binding(subscriber=BANO)
    decision = bound_decision(UP, [both, bound_only], [binding(), other])
    assert decision.registrations == (both, bound_only)
    assert decision.bindings == (other,)


def test_what_overlaps_by_address_and_what_by_binding_are_both_named() -> None:
    pin = mobile("PIN", BANO, clients="10.1.2.0/24", services="esp")
    bound = mobile("PK-1", services="wireguard")
    covers = "PIN covers the source, but its services are esp, not udp"
    is_bound = "PK-1 is bound to the source, but its services are udp/51820, not"
    neither = flow("10.1.2.3", "198.51.100.7", "udp/1194")
    assert bound_decision(neither, [pin, bound], [binding()]).reason == f"{covers}/1194; {is_bound} udp/1194"
    assert bound_decision(UP, [pin, bound], [binding()]).reason.endswith(f"service udp/51820; {covers}/51820")
    assert bound_decision(UP_ESP, [pin, bound], [binding()]).reason.endswith(f"service esp; {is_bound} esp")
    # Who has other ports of a shared address has nothing to do with it; nor is anybody named twice.
    elsewhere = bound_decision(neither, [pin, bound], [binding(ports=(1024, 2047))])
    assert elsewhere.reason == f"{covers}/1194"
    assert bound_decision(neither, [pin], [binding(subscriber=BANO)]).reason == f"{covers}/1194"


def test_a_client_prefix_that_does_not_match_leaves_it_to_the_binding() -> None:
    inside = Flow(17, parse_address("10.1.2.3"), parse_address("10.9.9.9"), 5000, 51820)
    held = mobile(clients="10.9.0.0/16", peers="10.9.9.9/32")
    assert bound_decision(inside, [held], [binding()]).bindings == (binding(),)


def test_of_a_shared_address_the_owner_of_the_port_is_nearest_however_much_it_lacks() -> None:
    controller = mobile("PK-2", ALI, services="ipsec", status="suspended")
    neighbour = mobile("PK-1", BANO)
    blocks = [binding(ports=(4096, 5119)), binding(ports=(1024, 2047), subscriber=BANO)]
    assert bound_decision(UP, [controller, neighbour], blocks).reason == (
        "PK-2 is bound to the source, but is suspended and its services are ipsec, not udp/51820"
    )


def test_out_of_scope_names_who_would_match_through_a_binding() -> None:
    decision = bound_decision(UP, [mobile()], [binding()], scope=("tcp",))
    assert decision == Decision(
        "out_of_scope",
        (mobile(),),
        "udp/51820 is outside the scope (tcp); in scope it would be registered by PK-1",
        (binding(),),
    )


@pytest.mark.parametrize(
    ("age_s", "words"),
    [(-30, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 days")],
)
def test_the_age_of_a_word_is_told_in_a_unit_that_fits(age_s: float, words: str) -> None:
    reason = bound_decision(UP, [mobile()], [binding(confirmed=NOV - age_s)]).reason
    assert f"(confirmed {words} ago)" in reason


def test_of_thousands_that_match_a_flow_a_bounded_number_is_found() -> None:
    allowlist = Allowlist()
    for number in range(MAX_MATCHING + 10):
        allowlist.upsert(registration(f"PK-{number}", "203.0.113.0/28"))
    ends = parse_address("203.0.113.5"), parse_address("198.51.100.7")
    for subject in (Flow(50, *ends), Flow(50, ends[1], ends[0])):
        found = allowlist.matching(subject, NOV)
        assert len(found) == len({each.id for each in found}) == MAX_MATCHING
    assert len(decide(allowlist, SCOPE, Flow(50, *ends), NOV).registrations) == MAX_MATCHING + 10


def test_of_thousands_of_a_subscriber_too() -> None:
    allowlist = Allowlist()
    for number in range(MAX_MATCHING + 10):
        allowlist.upsert(msgspec.structs.replace(registration(f"PK-{number}", ""), subscriber=b"s" * 32))
    prefix = parse_prefix("203.0.113.5/32")
    allowlist.bindings.put(
        Binding(subscriber=b"s" * 32, prefix=prefix, ports=None, since_s=1.0, confirmed_s=1.0, nas="b", session="s")
    )
    ends = prefix.packed, parse_address("198.51.100.7")
    for subject in (Flow(50, *ends), Flow(50, ends[1], ends[0])):
        assert len(allowlist.matching(subject, NOV)) == MAX_MATCHING
