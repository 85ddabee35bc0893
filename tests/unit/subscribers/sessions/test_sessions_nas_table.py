"""Which NAS a word is of."""

from __future__ import annotations

from math import inf

from gatewayd.model.accounting import PROXIES, NasIdentity
from gatewayd.subscribers.journal_rows import NasRow
from gatewayd.subscribers.sessions.nas import (
    LAG_WINDOW_S,
    MAX_NAMES,
    MAX_RESTARTS,
    MAX_SAME_NAMES,
    RESTART_KEPT_S,
    USUAL_LAG_S,
    Nas,
    NasTable,
    SameName,
    identity_of_key,
    key_of_identity,
    name_of_key,
)
from gatewayd.subscribers.sessions.session import Session


def said(identifier: str | None = None, *addresses: str, source: str | None = "192.0.2.1") -> NasIdentity:
    name = identifier or (addresses[0] if addresses else source)
    assert name is not None
    return NasIdentity(name, identifier, addresses, source)


def hear(table: NasTable, identity: NasIdentity) -> Nas:
    nas = table.find(identity)
    if nas is None:
        nas, _ = table.add(key_of_identity(identity), identity)
    assert nas is not None
    return nas


def live(nas: Nas) -> None:
    nas.sessions["s"] = Session("s", nas, None, 0.0, 0.0)


def test_a_name_from_two_places_is_of_two() -> None:
    table = NasTable(9)
    one, other = (hear(table, said("ros", source=f"192.0.2.{host}")) for host in (1, 2))
    assert one is not other
    assert hear(table, said("ros")) is one
    assert (one.label, other.label) == ("ros from 192.0.2.1", "ros from 192.0.2.2")
    assert table.namesakes(one) == [other]


def test_names_that_are_seen_together_lead_to_one() -> None:
    table = NasTable(9)
    nas = hear(table, said(None, "10.0.0.1"))
    assert table.namesakes(nas) == []
    assert hear(table, said("ros", "10.0.0.1")) is nas
    assert (nas.name, nas.label) == ("ros", "ros")
    assert hear(table, said("ros")) is nas
    assert hear(table, said("ros", "10.0.0.1", "2001:db8::1")) is nas
    assert hear(table, said(None, "2001:db8::1")) is nas
    assert [each.key for each in table] == ["10.0.0.1\x1f192.0.2.1\x1f10.0.0.1"]


def test_the_place_is_a_name_of_who_gives_no_address() -> None:
    table = NasTable(9)
    nas = hear(table, said("ros"))
    assert hear(table, said()) is nas
    assert hear(table, said(None, "192.0.2.1")) is nas


def test_behind_one_proxy_identifiers_and_addresses_tell_them_apart() -> None:
    table = NasTable(99)
    words = [said("a", "10.0.0.1"), said("a", "10.0.0.2"), said("b", "10.0.0.1"), said(None, "10.0.0.3")]
    found = [hear(table, each) for each in words]
    assert len({id(each) for each in found}) == len(words)
    assert [hear(table, each) for each in words] == found
    for vague in (said("a"), said(None, "10.0.0.1")):
        nas = hear(table, vague)
        assert nas not in found, "it may be of two"
        assert hear(table, vague) is nas
    assert [hear(table, each) for each in words] == found


def test_all_proxies_are_one_place() -> None:
    table = NasTable(9)
    nas = hear(table, said("a", "10.0.0.1", source=PROXIES))
    assert hear(table, said("a", "10.0.0.1", source=PROXIES)) is nas
    assert hear(table, said("b", source=PROXIES)) is not nas
    assert hear(table, said("a", "10.0.0.1")) is not nas
    assert {each.label for each in table} == {"a from 10.0.0.1", "a from 192.0.2.1 (10.0.0.1)", "b"}


def test_what_a_list_names_is_the_one_of_the_name_or_one_of_no_place() -> None:
    table = NasTable(9)
    listed = said("bng", source=None)
    one = hear(table, said("bng"))
    assert hear(table, listed) is one
    other = hear(table, said("bng", source="192.0.2.2"))
    placeless = hear(table, listed)
    assert placeless not in (one, other)
    assert placeless.key == placeless.label == "bng"
    assert hear(table, listed) is placeless
    assert table.namesakes(one) == [other, placeless]
    by_address = hear(table, said(None, "10.0.0.7"))
    assert hear(table, said("x", "10.0.0.7")) is by_address


def test_a_key_says_all_that_a_restart_needs() -> None:
    for each in (said("ros", "10.0.0.1"), said("ros"), said(None, "10.0.0.1"), said(), said("ros", source=None)):
        key = key_of_identity(each)
        assert name_of_key(key) == each.name
        known = NasTable(9)
        restored, _ = known.add(key, identity_of_key(key))
        assert known.find(each) is restored
    assert identity_of_key("ros").source is None


def test_those_without_sessions_make_room() -> None:
    table = NasTable(2)
    one, other = (hear(table, said(name)) for name in ("a", "b"))
    live(one)
    nas, gone = table.add("c", said("c"))
    assert (nas is not None, gone) == (True, [other])
    assert table.find(said("b")) is None
    assert nas is not None
    live(nas)
    assert table.add("d", said("d")) == (None, [])


def test_identities_are_remembered_within_bounds() -> None:
    table = NasTable(1)
    nas = hear(table, said("a"))
    for number in range(20):
        assert hear(table, said("a", "192.0.2.1", f"10.0.0.{number}")) is nas
    assert len(table._resolved) <= 4


def test_those_of_one_name_are_named_while_they_have_sessions() -> None:
    table = NasTable(1000)
    one, other = (hear(table, said("ros", source=f"192.0.2.{host}")) for host in (1, 2))
    table.note_same_name(one)
    assert table.same_names() == ()
    live(one)
    live(other)
    assert table.same_names() == (SameName("ros", ("192.0.2.1", "192.0.2.2")),)
    assert table.of_name("ros") == [one, other]
    assert table.of_name("ros from 192.0.2.2") == [other]
    for number in range(MAX_SAME_NAMES):
        table.note_same_name(hear(table, said(f"n{number}")))
    assert table.same_names() == ()


def test_a_nas_has_no_more_names_than_it_may() -> None:
    table = NasTable(9)
    nas = hear(table, said("ros", "10.0.0.1"))
    for number in range(2 * MAX_NAMES):
        assert hear(table, said("ros", "10.0.0.1", f"10.1.0.{number}")) is nas
    assert len(nas.names) <= MAX_NAMES + 1
    assert len(nas.addresses) <= MAX_NAMES + 1
    assert hear(table, said("ros", "10.0.0.1")) is nas


def test_of_those_that_are_fit_the_one_with_the_fewest_sessions_is_the_smallest() -> None:
    table = NasTable(9)
    one, two, three = (hear(table, said(name)) for name in ("one", "two", "three"))
    for number in range(2):
        two.sessions[str(number)] = one.sessions[str(number)] = Session(str(number), two, None, 0.0, 0.0)
    live(three)
    assert table.smallest(lambda each: True) is three
    assert table.smallest(lambda each: each.name in ("one", "two")) is one
    assert table.smallest(lambda each: False) is None


# A NAS


def test_a_restart_is_news_once_a_day() -> None:
    nas = Nas("ros")
    assert not nas.has_restarted
    assert [nas.admit_restart(bytes(16), at_s) for at_s in (10.0, 20.0)] == [True, False]
    assert nas.admit_restart(b"\1" * 16, 30.0)
    assert [nas.admit_restart(b"", at_s) for at_s in (10.0, 20.0)] == [True, True]
    assert nas.restarts == ((b"\1" * 16, 30.0), (bytes(16), 10.0))
    assert nas.admit_restart(bytes(16), 10.0 + RESTART_KEPT_S)
    assert nas.restarts[0] == (bytes(16), 10.0 + RESTART_KEPT_S)


def test_the_latest_restarts_are_remembered() -> None:
    nas = Nas("ros")
    for number in range(MAX_RESTARTS + 5):
        nas.admit_restart(bytes([number]) * 16, float(number))
    assert len(nas.restarts) == MAX_RESTARTS
    assert not nas.admit_restart(bytes([5]) * 16, 100.0)
    assert nas.admit_restart(bytes([4]) * 16, 100.0)


def test_after_a_restart_of_ours_a_nas_is_what_it_was() -> None:
    nas = Nas("ros")
    nas.resume(NasRow("ros", 10.0, -7, ((bytes(16), 10.0),)), 100.0)
    assert (nas.has_restarted, nas.restarted_s, nas.clock.ahead_s) == (True, 10.0, -7)
    assert not nas.admit_restart(bytes(16), 100.0)


def test_what_every_event_is_late_by_is_a_clock_that_is_behind_and_no_age() -> None:
    nas = Nas("ros")
    assert nas.age_s(10.0, 10.0 + USUAL_LAG_S) == USUAL_LAG_S, "queues and repeats do that"
    behind_s = 3600.0
    later_s = 10.0 + 3 * LAG_WINDOW_S
    assert nas.age_s(later_s - behind_s, later_s) == 0.0
    assert nas.age_s(later_s - behind_s - 5, later_s) == 5.0
    assert nas.age_s(later_s, later_s + 1) == 1.0, "one that is not late shows that the clock is right"
    assert nas.age_s(later_s - behind_s, later_s + 1) == behind_s + 1
    assert nas.age_s(later_s + LAG_WINDOW_S, later_s + LAG_WINDOW_S) == 0.0, (
        "the next window remembers the one before"
    )
    assert nas.age_s(later_s - behind_s, later_s + LAG_WINDOW_S) == behind_s + LAG_WINDOW_S


def test_sessions_of_a_nas_share_the_interval() -> None:
    nas = Nas("ros")
    assert [nas.same_interim_s(each) for each in (300, 300, 600, None)] == [300, 300, 600, None]


def test_the_place_of_a_nas_is_its_own_address_behind_a_proxy_and_both_where_both_are_known() -> None:
    behind, alone, unknown = Nas("a", None, PROXIES), Nas("b", None, "192.0.2.1"), Nas("c")
    behind.addresses.add("10.0.0.1")
    alone.addresses.update(("10.0.0.2", "192.0.2.1"))
    assert [each.place for each in (behind, alone, unknown)] == ["10.0.0.1", "192.0.2.1 (10.0.0.2)", ""]
    assert behind.restarted_s == -inf


def test_what_lists_know_by_any_of_its_names_is_a_namesake() -> None:
    table = NasTable(9)
    nas = hear(table, said("ros", "10.0.0.1"))
    listed, _ = table.add("10.0.0.1", NasIdentity("10.0.0.1"))
    assert table.namesakes(nas) == [listed]
    hear(table, said("other", "10.0.0.1", source="192.0.2.9"))
    assert table.namesakes(nas) == [listed], "another NAS at the same address has another name"
