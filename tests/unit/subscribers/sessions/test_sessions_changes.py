"""From what was touched to bindings for the kernel and rows for the journal, with nothing of the unregistered."""

from __future__ import annotations

from math import inf

import pytest

from gatewayd.allowlist import BindingTable
from gatewayd.model.prefix import parse_prefix
from gatewayd.model.registration import Binding, Ports
from gatewayd.subscribers.journal_rows import AddressRow, EndedRow, HoldRow, NasRow, SessionRow, ended_key
from gatewayd.subscribers.sessions.changes import PendingChanges, Update
from gatewayd.subscribers.sessions.nas import Nas
from gatewayd.subscribers.sessions.session import Bucket, Hold, Session
from gatewayd.subscribers.sessions.tombstones import Tombstone
from tests.support.accounting import ALI, BANO, CHAND

IPV4 = parse_prefix("10.0.0.1")


class Net:
    """Live sessions of one NAS, and what is pending of them; ALI and BANO are registered. Each method changes a
    thing and touches it, as the table of sessions does."""

    def __init__(self, *registered: bytes, most: int = 100) -> None:
        self.registered = set(registered or (ALI, BANO))
        self.bindings = BindingTable()
        self.nas = Nas("bng1")
        self.by_key = {"bng1": self.nas}
        self.changes = PendingChanges(self.registered, self.bindings, self.by_key, keep_s=900, most=most)

    def open(self, id: str, subscriber: bytes | None, *addresses: str, at: float = 10.0) -> Session:
        session = self.nas.sessions[id] = Session(id, self.nas, subscriber, at, at)
        self.changes.touch(session)
        for address in addresses:
            self.hold(session, address, at)
        return session

    def hold(self, session: Session, address: str, at: float = 10.0, ports: Ports = None) -> Hold:
        hold = Hold(parse_prefix(address), ports, session, at)
        self.changes.ownership.add(hold)
        self.changes.touch_hold(hold)
        return hold

    def release(self, hold: Hold) -> None:
        self.changes.ownership.remove(hold)
        self.changes.touch_hold(hold)

    def close(self, session: Session) -> None:
        self.changes.touch(session)
        for hold in session.holds:
            self.release(hold)
        del self.nas.sessions[session.id]

    def take(self) -> tuple[list[str], list[str]]:
        """Bindings and rows, as text."""
        update = self.changes.take()
        keys = [row.key for row in update.rows]
        assert len(set(keys)) == len(keys)
        assert [each.kind for each in update.bindings] == sorted(each.kind for each in update.bindings)
        bindings = [("+" if each.kind == "added" else "-") + str(each.binding.prefix) for each in update.bindings]
        rows = [("-" if row.value is None else "") + " ".join(filter(None, row.key)) for row in update.rows]
        return bindings, sorted(rows)


# -- bindings ------------------------------------------------------------------------------------------------


def test_a_hold_of_a_registered_subscriber_is_a_binding_once() -> None:
    net = Net()
    session = net.open("s1", ALI, "10.0.0.1", at=10)
    hold = net.hold(session, "10.0.0.2", at=20, ports=(1024, 2047))
    assert net.take() == (["+10.0.0.1/32", "+10.0.0.2/32"], ["session bng1 s1"])
    assert net.changes.take() == Update([], [])
    first, second = net.bindings
    assert first == Binding(
        subscriber=ALI, prefix=IPV4, ports=None, since_s=10.0, confirmed_s=10.0, nas="bng1", session="s1"
    )
    assert (second.ports, second.since_s) == ((1024, 2047), 20.0)
    hold.named_s = 30.0
    net.changes.touch_hold(hold)
    assert net.take() == ([], ["session bng1 s1"])
    confirmed = net.changes.confirmed(second)
    assert confirmed is not None
    assert (confirmed.since_s, confirmed.confirmed_s) == (20.0, 30.0)


def test_what_was_added_comes_before_what_was_removed() -> None:
    net = Net()
    session = net.open("s1", ALI, "10.0.0.1")
    net.take()
    (former,) = session.holds
    net.release(former)
    net.hold(session, "10.0.0.2")
    assert net.take()[0] == ["+10.0.0.2/32", "-10.0.0.1/32"]


def test_what_went_and_came_back_in_between_is_no_change() -> None:
    net = Net()
    session = net.open("s1", ALI, "10.0.0.1")
    net.take()
    net.close(session)
    net.open("s2", ALI, "10.0.0.1", at=20)
    assert net.take() == ([], ["-session bng1 s1", "session bng1 s2"])
    (binding,) = net.bindings
    assert binding.session == "s1", "as it was made"
    confirmed = net.changes.confirmed(binding)
    assert confirmed is not None
    assert (confirmed.session, confirmed.since_s, confirmed.confirmed_s) == ("s2", 10.0, 20.0)


def test_a_binding_that_no_session_holds_is_confirmed_by_none() -> None:
    net = Net()
    session = net.open("s1", ALI, "10.0.0.1")
    net.take()
    (binding,) = net.bindings
    net.close(session)
    assert net.changes.confirmed(binding) is None, "its removal is not taken yet"
    net.take()
    net.open("s2", ALI, "10.0.0.1")
    assert net.changes.confirmed(binding) is None, "its addition is not taken yet"


# -- who is registered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subscriber", [CHAND, None])
def test_of_an_unregistered_subscriber_nothing_is_pending(subscriber: bytes | None) -> None:
    net = Net()
    session = net.open("s1", subscriber, "10.0.0.1")
    net.changes.bury_address(IPV4, 10, 10, subscriber)
    net.changes.bury_session("bng1", "s1", 10, 10, subscriber, None)
    net.close(session)
    assert net.changes.take() == Update([], [])
    assert (len(net.bindings), net.changes.next_due()) == (0, None)


def test_a_registration_that_comes_finds_the_sessions_there_are_and_one_that_goes_takes_all() -> None:
    net = Net(BANO)
    session = net.open("s1", ALI, "10.0.0.1")
    net.registered.add(ALI)
    net.changes.touch_subscriber(ALI, [session])
    assert net.take() == (["+10.0.0.1/32"], ["session bng1 s1"])
    net.changes.bury_address(parse_prefix("10.0.0.9"), 5, 10, ALI)
    net.changes.bury_session("bng1", "s0", 5, 10, None, ALI)
    assert net.take()[1] == ["address 0a000009 32", "ended bng1 s0"]
    net.registered.remove(ALI)
    net.changes.touch_subscriber(ALI, [session])
    rows = ["-address 0a000009 32", "-ended bng1 s0", "-session bng1 s1"]
    assert net.take() == (["-10.0.0.1/32"], rows)
    assert net.changes.stone(ended_key("bng1", "s0")) is None
    net.close(session)
    assert net.changes.take() == Update([], []), "nothing of it is known"


def test_a_binding_goes_with_its_registration_though_its_session_is_over() -> None:
    net = Net()
    session = net.open("s1", ALI, "10.0.0.1")
    net.take()
    net.close(session)
    net.registered.remove(ALI)
    net.changes.touch_subscriber(ALI, ())
    assert net.take() == (["-10.0.0.1/32"], ["-session bng1 s1"])


def test_the_row_of_an_id_follows_its_subscriber() -> None:
    net = Net()
    net.close(net.open("s1", ALI))
    net.open("s1", ALI)
    assert net.take()[1] == ["session bng1 s1"]
    net.close(net.nas.sessions["s1"])
    net.open("s1", BANO)
    assert net.take()[1] == ["session bng1 s1"]
    net.registered.remove(ALI)
    net.changes.touch_subscriber(ALI, ())
    assert net.take() == ([], []), "it is another's row now"
    net.close(net.nas.sessions["s1"])
    net.open("s1", CHAND)
    assert net.take()[1] == ["-session bng1 s1"]


# -- rows ----------------------------------------------------------------------------------------------------


def test_a_row_has_all_that_a_restart_needs_of_a_session() -> None:
    net = Net()
    session = net.open("s1", ALI, "10.0.0.1", at=10)
    session.at_s, session.interim_s, session.bucket, session.is_lingering = 20.0, 300, Bucket(93), True
    session.snapshot_s, session.ipv4_s = 15.0, 16.0
    (row,) = net.changes.take().rows
    hold = HoldRow(IPV4, None, 10.0, 10.0)
    assert row.value == SessionRow("bng1", "s1", ALI, 10.0, 20.0, 930.0, 300, True, 15.0, 16.0, (hold,))
    session.holds[0].named_s, session.bucket = 25.0, None
    net.changes.touch(session)
    (row,) = net.changes.take().rows
    assert isinstance(row.value, SessionRow)
    assert row.value.holds == (HoldRow(IPV4, None, 25.0, 10.0),), "bound since then"
    assert row.value.due_s is None, "it never runs out"


def test_a_nas_is_a_row_while_something_is_known_of_it() -> None:
    net = Net()
    net.changes.touch_nas("bng1")
    assert net.take() == ([], [])
    net.nas.admit_restart(bytes(16), 21.0)
    net.nas.restarted_s = 20.0
    net.changes.touch_nas("bng1")
    (row,) = net.changes.take().rows
    assert row.value == NasRow("bng1", 20.0, 0, ((bytes(16), 21.0),))
    del net.by_key["bng1"]
    net.changes.touch_nas("bng1")
    assert net.take() == ([], ["-nas bng1"])


def test_a_session_of_a_nas_that_is_known_no_more_has_no_row() -> None:
    net = Net()
    session = net.open("s1", ALI)
    net.take()
    net.changes.touch(session)
    del net.by_key["bng1"]
    assert net.take() == ([], ["-session bng1 s1"])


def test_ends_and_last_records_are_rows_for_a_while() -> None:
    net = Net()
    net.changes.bury_session("bng1", "s1", 10, 20, ALI, None)
    net.changes.bury_address(IPV4, 10, 20, BANO)
    net.changes.bury_address(IPV4, 15, 30, ALI)
    values = {row.key[0]: row.value for row in net.changes.take().rows}
    assert values == {"ended": EndedRow("bng1", "s1", ALI, 10, 20), "address": AddressRow(IPV4, ALI, 15, 30, 10)}
    assert net.changes.next_due() == 920
    net.changes.prune(920, 10)
    assert net.take()[1] == ["-ended bng1 s1"]
    net.changes.prune(930, 10)
    assert net.take()[1] == ["-address 0a000001 32"]
    assert net.changes.next_due() is None


def test_beyond_the_bound_the_oldest_end_loses_its_row() -> None:
    net = Net(most=2)
    for number in range(3):
        net.changes.bury_session("bng1", f"s{number}", 10, 20 + number, ALI)
    assert net.take()[1] == ["ended bng1 s1", "ended bng1 s2"], "that of s0 was never given"
    net.changes.bury_session("bng1", "s3", 10, 30, ALI)
    assert net.take()[1] == ["-ended bng1 s1", "ended bng1 s3"]


def test_all_rows_can_be_given_again() -> None:
    net = Net()
    net.open("s1", ALI, "10.0.0.1")
    net.open("s2", CHAND, "10.0.0.2")
    net.take()
    net.changes.touch_all()
    assert net.take() == ([], ["session bng1 s1"])


# -- after a restart -----------------------------------------------------------------------------------------


def restored(net: Net, subscriber: bytes = ALI) -> Session:
    """A session of before, bound since 5."""
    session = net.nas.sessions["s1"] = Session("s1", net.nas, subscriber, 1.0, 9.0)
    row = SessionRow("bng1", "s1", subscriber, 1.0, 9.0, None, None, False, -inf, -inf, ())
    net.changes.restore(row)
    hold = Hold(IPV4, None, session, 9.0)
    net.changes.ownership.add(hold)
    net.changes.restore_hold(hold, subscriber, 5.0)
    net.changes.restored.add(session)
    return session


def test_what_is_restored_is_bound_since_it_was_and_is_on_disk_already() -> None:
    net = Net()
    session = restored(net)
    assert net.take() == (["+10.0.0.1/32"], [])
    (binding,) = net.bindings
    assert (binding.since_s, binding.confirmed_s, binding.is_restored) == (5.0, 9.0, True)
    net.changes.restored.discard(session)
    confirmed = net.changes.confirmed(binding)
    assert confirmed is not None
    assert (confirmed.since_s, confirmed.is_restored) == (5.0, False)
    net.close(session)
    assert net.take() == (["-10.0.0.1/32"], ["-session bng1 s1"])


def test_what_is_restored_waits_for_the_registration_until_the_registry_is_whole() -> None:
    net = Net(BANO)
    session = restored(net)
    assert net.take() == ([], [])
    net.registered.add(ALI)
    net.changes.touch_subscriber(ALI, [session])
    assert net.take() == (["+10.0.0.1/32"], ["session bng1 s1"])
    (binding,) = net.bindings
    assert binding.since_s == 5.0

    late = Net(BANO)
    session = restored(late)
    late.nas.restarted_s = 3.0
    late.changes.restore(NasRow("bng1", 3.0))
    late.changes.forget_unregistered()
    assert late.take() == ([], ["-session bng1 s1"])
    late.registered.add(ALI)
    late.changes.touch_subscriber(ALI, [session])
    late.take()
    (binding,) = late.bindings
    assert binding.since_s == 9.0, "the address may have been another's meanwhile"


def test_ends_of_before_a_restart_are_remembered_with_their_rows() -> None:
    net = Net()
    ended = EndedRow("bng1", "s0", ALI, 10.0, 20.0)
    net.changes.restore(ended, Tombstone(10.0, 20.0, ALI))
    assert net.changes.stone(ended_key("bng1", "s0")) == Tombstone(10.0, 20.0, ALI)
    assert net.changes.take() == Update([], [])
    net.changes.prune(920, 10)
    assert net.take() == ([], ["-ended bng1 s0"])
