"""What a record that names addresses does to them: of its own session, and of those of others."""

from __future__ import annotations

from collections.abc import Container

import pytest

from gatewayd.allowlist import BindingTable
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.model.registration import Ports
from gatewayd.subscribers.journal_rows import HoldRow
from gatewayd.subscribers.sessions.changes import PendingChanges
from gatewayd.subscribers.sessions.naming import (
    MAX_ADDRESSES,
    MAX_ADDRESSES_OF_SUBSCRIBER,
    Naming,
    are_two,
    is_of,
    ports_of,
    shares,
)
from gatewayd.subscribers.sessions.nas import Nas
from gatewayd.subscribers.sessions.session import Session, SessionCounts
from gatewayd.subscribers.sessions.tombstones import Tombstones
from tests.support.accounting import ALI, BANO, CHAND, event

NOW = 1000.0
BLOCK, NEXT_BLOCK = (1024, 2047), (2048, 3071)
ONE, TWO = parse_prefix("10.0.0.1"), parse_prefix("10.0.0.2")


def record(
    *addresses: str, at: float = 10.0, subscriber: bytes | None = ALI, snapshot: bool = False, ports: Ports = None
) -> AccountingEvent:
    return event("interim", "s", subscriber, *addresses, at=at, is_snapshot=snapshot, ports=ports)


class Names:
    """Sessions of one NAS, and their addresses. ALI and BANO are registered."""

    def __init__(self, *, max_addresses: int = 1000, max_tombstones: int = 100) -> None:
        registered: Container[bytes] = {ALI, BANO}
        self.nas = Nas("bng1")
        self.counts = SessionCounts()
        self.last_named: Tombstones[Prefix] = Tombstones(keep_s=900, most=max_tombstones)
        self.changes = PendingChanges(registered, BindingTable(), {"bng1": self.nas}, keep_s=900, most=100)
        self.naming = Naming(self.changes, self.counts, self.last_named, registered, max_addresses)

    def session(self, subscriber: bytes | None = ALI, *addresses: str, at: float = 10.0) -> Session:
        session = Session(f"s{len(self.nas.sessions)}", self.nas, subscriber, at, at)
        self.nas.sessions[session.id] = session
        self.name(session, *addresses, at=at)
        return session

    def name(
        self,
        session: Session,
        *addresses: str,
        at: float,
        snapshot: bool = False,
        ports: Ports = None,
        takes_ties: bool = False,
    ) -> None:
        event = record(*addresses, at=at, subscriber=session.subscriber, snapshot=snapshot, ports=ports)
        self.naming.name(session, event, at, NOW, takes_ties)


def held(session: Session) -> list[str]:
    return sorted(str(hold.prefix) + (f":{hold.ports[0]}" if hold.ports else "") for hold in session.holds)


# -- its own addresses ---------------------------------------------------------------------------------------


def test_a_record_without_addresses_says_nothing_of_them() -> None:
    net = Names()
    session = net.session(ALI, "10.0.0.1")
    net.name(session, at=20, snapshot=True)
    assert held(session) == ["10.0.0.1/32"]


def test_a_later_whole_ipv4_address_replaces_the_former_and_prefixes_and_blocks_are_added() -> None:
    """RFC 2865 §5.44 allows one Framed-IP-Address, RFC 3162 §2.3 any number of prefixes."""
    net = Names()
    session = net.session(ALI, "10.0.0.1", "2001:db8::/64")
    net.name(session, "10.0.0.2", "2001:db8:1::/64", at=20)
    assert held(session) == ["10.0.0.2/32", "2001:db8:1::/64", "2001:db8::/64"]
    for ports in (BLOCK, NEXT_BLOCK):
        net.name(session, "10.0.0.9", at=30, ports=ports)
    assert held(session)[1:3] == ["10.0.0.9/32:1024", "10.0.0.9/32:2048"]
    assert "10.0.0.2/32" in held(session)


def test_records_of_one_second_are_united() -> None:
    net = Names()
    session = net.session(ALI, "10.0.0.1")
    net.name(session, "10.0.0.2", at=10)
    assert held(session) == ["10.0.0.1/32", "10.0.0.2/32"]


def test_a_snapshot_takes_away_all_that_it_does_not_name() -> None:
    net = Names()
    session = net.session(ALI, "10.0.0.1", "2001:db8::/64")
    net.name(session, "2001:db8:1::/64", at=20, snapshot=True)
    assert held(session) == ["2001:db8:1::/64"]


def test_an_older_record_than_the_snapshot_names_nothing_that_the_session_has() -> None:
    net = Names()
    session = net.session(ALI)
    net.name(session, "2001:db8::/64", at=20, snapshot=True)
    net.name(session, "10.0.0.1", "2001:db8:1::/64", at=15)
    assert held(session) == ["2001:db8::/64"]


def test_an_older_ipv4_address_does_not_come_back_and_an_older_prefix_is_added() -> None:
    net = Names()
    session = net.session(ALI, "10.0.0.2", at=20)
    net.name(session, "10.0.0.1", "2001:db8::/64", at=15)
    assert held(session) == ["10.0.0.2/32", "2001:db8::/64"]


def test_an_address_that_is_named_again_is_confirmed_by_the_later_record() -> None:
    net = Names()
    session = net.session(ALI, "2001:db8::/64", at=20)
    for at, named_s in ((15, 20.0), (25, 25.0)):
        net.name(session, "2001:db8::/64", at=at)
        assert [hold.named_s for hold in session.holds] == [named_s]


# -- addresses of others -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "takes_ties", "owner", "evictions"),
    [(11, False, BANO, 1), (10, True, BANO, 1), (10, False, ALI, 0), (9, True, ALI, 0)],
)
def test_an_address_is_the_subscribers_of_the_latest_record(
    at: float, takes_ties: bool, owner: bytes, evictions: int
) -> None:
    net = Names()
    ali = net.session(ALI, "10.0.0.1", at=10)
    bano = net.session(BANO)
    net.name(bano, "10.0.0.1", at=at, takes_ties=takes_ties)
    assert (held(ali), held(bano)) == ((["10.0.0.1/32"], []) if owner == ALI else ([], ["10.0.0.1/32"]))
    assert (net.counts.evictions, net.counts.superseded) == (evictions, 1 - evictions)
    assert net.counts.missed_stops == evictions, "the session lost its last address"


def test_sessions_of_one_subscriber_share_an_address_and_an_unknown_one_is_another() -> None:
    net = Names()
    first, second = net.session(ALI, "10.0.0.1"), net.session(ALI, "10.0.0.1", at=20)
    assert held(first) == held(second) == ["10.0.0.1/32"]
    unknown = net.session(None, "10.0.0.1", at=30)
    assert (held(first), held(second), held(unknown)) == ([], [], ["10.0.0.1/32"])
    net.session(None, "10.0.0.1", at=40)
    assert held(unknown) == [], "two of whom nothing is known are two"


def test_blocks_of_one_address_are_of_several_and_the_whole_of_it_is_of_one() -> None:
    net = Names()
    ali, bano = net.session(ALI), net.session(BANO)
    net.name(ali, "10.0.0.1", at=10, ports=BLOCK)
    net.name(bano, "10.0.0.1", at=11, ports=NEXT_BLOCK)
    assert (held(ali), held(bano)) == (["10.0.0.1/32:1024"], ["10.0.0.1/32:2048"])
    net.name(bano, "10.0.0.1", at=12, ports=(2000, 2100))
    assert held(ali) == []
    chand = net.session(CHAND, "10.0.0.1", at=20)
    assert (held(bano), held(chand)) == ([], ["10.0.0.1/32"])


def test_what_was_let_go_is_not_had_through_an_older_record_of_another() -> None:
    net = Names()
    ali, bano = net.session(ALI, "10.0.0.1", at=20), net.session(BANO)
    net.naming.release(ali.holds[0], NOW)
    net.name(bano, "10.0.0.1", at=15)
    assert (held(bano), net.counts.superseded) == ([], 1)
    again = net.session(ALI, "10.0.0.1", at=16)
    assert held(again) == ["10.0.0.1/32"], "it was its own"
    net.naming.release(again.holds[0], NOW)
    net.name(bano, "10.0.0.1", at=20)
    assert held(bano) == ["10.0.0.1/32"]


def test_a_block_that_was_let_go_is_given_out_at_once() -> None:
    net = Names()
    ali, bano = net.session(ALI), net.session(BANO)
    net.name(ali, "10.0.0.1", at=20, ports=BLOCK)
    net.naming.release(ali.holds[0], NOW)
    net.name(bano, "10.0.0.1", at=15, ports=BLOCK)
    assert held(bano) == ["10.0.0.1/32:1024"]
    assert len(net.last_named) == 0


def test_what_a_session_named_and_does_not_hold_was_no_other_sessions_then() -> None:
    net = Names()
    ali, bano = net.session(ALI, "10.0.0.1", "2001:db8::/64", at=10), net.session(BANO)
    addresses = (ONE, parse_prefix("2001:db8::/64"))
    net.naming.evict(bano, addresses, None, 20, NOW)
    assert (held(ali), held(bano)) == ([], [])
    net.name(ali, "10.0.0.1", at=15)
    assert held(ali) == []
    assert net.counts.superseded == 1


def test_the_last_record_of_a_registered_subscriber_is_known_beyond_the_bound_of_all() -> None:
    net = Names(max_tombstones=1)
    assert net.naming.last_named(ONE) is None
    ali = net.session(ALI, "10.0.0.1", at=20)
    net.naming.release(ali.holds[0], NOW)
    net.naming.evict(net.session(CHAND), (TWO,), None, 20, NOW)
    assert net.last_named.lost == 1
    net.naming.evict(net.session(CHAND), (parse_prefix("10.0.0.3"),), None, 20, NOW)
    found = net.naming.last_named(ONE)
    assert found is not None
    assert (found.at_s, found.subscriber) == (20, ALI)
    assert net.naming.last_named(TWO) is None


# -- bounds --------------------------------------------------------------------------------------------------


def test_a_session_has_no_more_addresses_than_it_may_and_loses_the_one_unconfirmed_for_longest() -> None:
    net = Names()
    session = net.session(ALI)
    for number in range(MAX_ADDRESSES + 1):
        net.name(session, f"2001:db8:{number:x}::/64", at=10 + number)
    assert len(session.holds) == MAX_ADDRESSES
    assert "2001:db8::/64" not in held(session)
    assert net.counts.over_limit == 1


def test_so_has_a_subscriber_in_all_its_sessions() -> None:
    net = Names()
    sessions = [net.session(ALI) for _ in range(MAX_ADDRESSES_OF_SUBSCRIBER // MAX_ADDRESSES + 1)]
    for at, session in enumerate(sessions):
        net.name(session, *(f"2001:db8:{at:x}:{n:x}::/64" for n in range(MAX_ADDRESSES - 1)), at=10 + at)
    excess = len(sessions) * (MAX_ADDRESSES - 1) - MAX_ADDRESSES_OF_SUBSCRIBER
    net.naming.keep_bound(sessions, NOW)
    assert [len(each.holds) for each in sessions[:2]] == [MAX_ADDRESSES - 1 - excess, MAX_ADDRESSES - 1]
    assert net.counts.over_limit == excess
    net.naming.keep_bound(sessions, NOW)
    assert net.counts.over_limit == excess


def test_beyond_the_bound_of_all_the_registered_alone_get_addresses() -> None:
    net = Names(max_addresses=1)
    for subscriber in (CHAND, ALI, None):
        net.session(subscriber, "10.0.0.1", at=10)
    assert net.counts.addresses_refused == 0, "the address was taken from one after the other"
    refused = [net.session(subscriber, "10.0.0.2", at=10) for subscriber in (CHAND, None)]
    assert [held(each) for each in refused] == [[], []]
    assert net.counts.addresses_refused == 2
    assert held(net.session(BANO, "10.0.0.3")) == ["10.0.0.3/32"]
    late = net.session(BANO)
    net.name(late, "10.0.0.2", at=9)
    assert held(late) == [], "what is refused is remembered"


def test_with_one_session_of_a_subscriber_the_latest_keeps_its_addresses_of_each_family() -> None:
    net = Names()
    old = net.session(ALI, "10.0.0.1", "2001:db8::/64", at=10)
    new = net.session(ALI, "10.0.0.2", at=20)
    net.naming.keep_latest((old, new), NOW)
    assert (held(old), held(new)) == (["2001:db8::/64"], ["10.0.0.2/32"])
    net.naming.keep_latest((), NOW)


# -- a session that is identified, restored, covered ---------------------------------------------------------


def test_a_session_that_is_identified_has_its_addresses_bound() -> None:
    net = Names()
    session = net.session(None, "10.0.0.1")
    assert net.changes.take().bindings == []
    net.naming.identify(session, ALI)
    (change,) = net.changes.take().bindings
    assert (change.kind, change.binding.subscriber, change.binding.prefix) == ("added", ALI, ONE)


def test_of_two_rows_with_one_address_the_later_has_it() -> None:
    net = Names()
    ali, bano = net.session(ALI), net.session(BANO)
    net.naming.restore(ali, ALI, HoldRow(ONE, None, 5.0, 1.0), NOW)
    net.naming.restore(bano, BANO, HoldRow(ONE, None, 9.0, 2.0), NOW)
    assert (held(ali), held(bano)) == ([], ["10.0.0.1/32"])
    (change,) = net.changes.take().bindings
    assert (change.binding.subscriber, change.binding.since_s) == (BANO, 2.0)


def test_a_session_is_covered_where_others_that_live_on_have_all_its_addresses() -> None:
    net = Names()
    session = net.session(ALI, "10.0.0.1", "2001:db8::/64")
    assert net.naming.is_covered(net.session(ALI))
    session.is_lingering = True
    assert not net.naming.is_covered(session), "not by itself"
    net.session(ALI, "10.0.0.1")
    assert not net.naming.is_covered(session)
    other = net.session(ALI, "2001:db8::/64")
    assert net.naming.is_covered(session)
    other.is_lingering = True
    assert not net.naming.is_covered(session)


# -- records and sessions of one id --------------------------------------------------------------------------


def test_ports_are_of_ipv4_alone() -> None:
    of_a_block = record("10.0.0.1", "2001:db8::/64", ports=BLOCK)
    assert [ports_of(of_a_block, prefix) for prefix in of_a_block.addresses] == [BLOCK, None]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(ALI, BANO, True), (ALI, ALI, False), (ALI, None, False), (None, ALI, False), (None, None, False)],
)
def test_two_subscribers_are_two_where_both_are_known(
    one: bytes | None, other: bytes | None, expected: bool
) -> None:
    assert are_two(one, other) is expected


@pytest.mark.parametrize(
    ("whose", "event", "expected"),
    [
        (ALI, record("10.0.0.1"), True),
        (ALI, record("10.0.0.1", subscriber=None), True),
        (None, record("10.0.0.1"), True),
        (ALI, record(), True),
        (ALI, record("2001:db8::/64"), True),
        (ALI, record("10.0.0.9", ports=BLOCK), True),
        (ALI, record("10.0.0.1", subscriber=BANO), False),
        (ALI, record("10.0.0.9"), False),
        (ALI, record(subscriber=None), False),
        (None, record("10.0.0.9"), False),
        (ALI, record("10.0.0.1", subscriber=None, ports=BLOCK), False),
    ],
)
def test_a_record_is_of_the_session_that_has_its_subscriber_or_address(
    whose: bytes | None, event: AccountingEvent, expected: bool
) -> None:
    assert is_of(Names().session(whose, "10.0.0.1"), event) is expected


def test_a_session_shares_a_place_with_its_ports() -> None:
    net = Names()
    session = net.session(ALI)
    net.name(session, "10.0.0.1", at=10, ports=BLOCK)
    assert shares(session, {(TWO, None), (ONE, BLOCK)})
    assert not shares(session, {(ONE, None), (ONE, NEXT_BLOCK)})
    assert not shares(session, set())
