"""What the kernel says of a traced packet, and the chains that it met."""

from __future__ import annotations

from struct import pack

from gatewayd.kernel import attributes as nl
from gatewayd.kernel.tables_codec import SUBSYSTEM
from gatewayd.lab.packets import build_packet
from gatewayd.lab.traffic import flow_of
from gatewayd.passage.copying import BaseChain, Place
from gatewayd.passage.trace import PROBE_TABLE, Event, chains_met, read_events, translated

FLOW = flow_of("39.32.0.1", "198.51.100.7", "udp/51820", 40001)
BEHIND = flow_of("39.32.0.1", "10.0.0.5", "udp/51820", 40001)
PRE, FORWARD, LATE = Place(2, "nat", "pre"), Place(1, "fw", "f"), Place(1, "late", "f")
OWN = Place(1, "fw", "own")
BASES = {
    PRE: BaseChain(PRE, "prerouting", -100),
    FORWARD: BaseChain(FORWARD, "forward", 0),
    LATE: BaseChain(LATE, "forward", 10),
}


def encode(
    kind: int,
    place: Place,
    *,
    handle: int = 0,
    code: int | None = None,
    policy: int | None = None,
    number: int = 17,
) -> bytes:
    packet = build_packet(FLOW, b"token")
    attributes = [
        nl.text(1, place.table),
        nl.text(2, place.chain),
        nl.be64(3, handle),
        nl.be32(4, kind),
        nl.attribute(8, packet[:20]),
        nl.attribute(9, packet[20:]),
        nl.be32(13, 7),
    ]
    if code is not None:
        attributes.append(nl.nest(5, nl.attribute(1, pack(">i", code))))
    if policy is not None:
        attributes.append(nl.be32(16, policy))
    return nl.message(SUBSYSTEM | number, 0, 0, place.family, 0, *attributes)


def test_events_are_read_with_what_they_say() -> None:
    datagram = b"".join(
        [
            encode(3, FORWARD, handle=4, code=-3),
            encode(3, OWN, handle=9, code=1),
            encode(2, OWN, code=-5),
            encode(1, LATE, policy=0),
            encode(3, LATE, handle=2, code=3 | 5 << 16),
            encode(9, LATE),
            encode(3, LATE, number=16),
        ]
    )
    assert list(read_events(datagram)) == [
        Event("rule", FORWARD, 4, "jump", FLOW, 7),
        Event("rule", OWN, 9, "accept", FLOW, 7),
        Event("return", OWN, 0, "return", FLOW, 7),
        Event("policy", LATE, 0, "drop", FLOW, 7),
        Event("rule", LATE, 2, "queue", FLOW, 7),
    ]


def rule(place: Place, verdict: str, handle: int = 1) -> Event:
    return Event("rule", place, handle, verdict, FLOW, 0)


def policy(place: Place, verdict: str) -> Event:
    return Event("policy", place, 0, verdict, FLOW, 0)


def test_the_chains_come_in_the_order_of_the_way_each_with_its_last_word() -> None:
    events = [
        rule(OWN, "continue"),  # of a chain that is not known
        policy(PRE, "accept"),
        rule(FORWARD, "continue", 2),
        rule(FORWARD, "jump", 3),
        Event("return", OWN, 0, "return", FLOW, 0),
        rule(OWN, "accept", 9),
        rule(LATE, "drop", 5),
    ]
    found = chains_met(events, BASES)
    assert [(each.base.place, each.verdict, each.place, each.handle) for each in found] == [
        (PRE, "accept", PRE, None),
        (FORWARD, "accept", OWN, 9),
        (LATE, "drop", LATE, 5),
    ]
    assert [each.chains for each in found] == [(PRE,), (FORWARD, OWN), (LATE,)]
    assert found[0].flow == FLOW


def test_a_trace_that_ends_in_a_chain_says_no_verdict() -> None:
    (met,) = chains_met([rule(FORWARD, "jump")], BASES)
    assert (met.verdict, met.handle) == ("continue", None)


def test_a_translated_destination_is_seen_by_the_forward_hook() -> None:
    probe = Place(1, PROBE_TABLE, "forward")
    assert translated([rule(PRE, "accept")], FLOW) is None
    assert translated([Event("policy", probe, 0, "accept", FLOW, 0)], FLOW) is None
    assert translated([Event("policy", probe, 0, "accept", None, 0)], FLOW) is None
    assert translated([Event("policy", probe, 0, "accept", BEHIND, 0)], FLOW) == BEHIND
