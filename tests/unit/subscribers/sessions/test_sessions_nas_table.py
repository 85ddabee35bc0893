"""Which NAS a word is of."""

from __future__ import annotations

from gatewayd.model.accounting import PROXIES, NasIdentity
from gatewayd.subscribers.sessions.nas import (
    MAX_SAME_NAMES,
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
