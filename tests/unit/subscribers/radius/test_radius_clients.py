"""Whose a datagram is, and how a NAS is to be understood."""

from __future__ import annotations

import ipaddress
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model.accounting import NasProfile
from gatewayd.model.prefix import Prefix, mask_address, parse_address, parse_prefix
from gatewayd.settings.subscribers import NasSettings, ProfileSettings, RadiusClient, SubscriberSettings
from gatewayd.subscribers.radius.accounting import ANYTHING, Permission
from gatewayd.subscribers.radius.clients import (
    Client,
    ClientTable,
    Profiles,
    client_of,
    plain_source,
    profiles_of,
    terms_of_profile,
)
from gatewayd.subscribers.sessions.session import Terms


def client(prefix: str, profile: ProfileSettings | None = None) -> Client:
    return Client(parse_prefix(prefix), (b"testing123",), profile=profile)


# -- clients -----------------------------------------------------------------------------------------------------

CLIENTS = [
    client(text)
    for text in (
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.7",
        "192.0.2.0/24",
        "2001:db8::/32",
        "2001:db8:1::/48",
        "::/16",
    )
]
TABLE = ClientTable(CLIENTS)


@pytest.mark.parametrize(
    ("source", "prefix"),
    [
        ("10.0.0.7", "10.0.0.7/32"),
        ("10.0.0.8", "10.0.0.0/24"),
        ("10.9.9.9", "10.0.0.0/8"),
        ("192.0.2.255", "192.0.2.0/24"),
        ("192.0.3.0", None),
        ("2001:db8:1::9", "2001:db8:1::/48"),
        ("2001:db8:2::9", "2001:db8::/32"),
        ("2001:db9::", None),
        ("::ffff:10.0.0.7", "10.0.0.7/32"),
        ("::ffff:192.0.3.0", None),
        ("::fffe:10.0.0.7", "::/16"),
    ],
)
def test_the_longest_prefix_wins_and_ipv4_by_an_ipv6_socket_is_ipv4(source: str, prefix: str | None) -> None:
    found = TABLE.find(parse_address(source))
    assert (None if found is None else str(found.prefix)) == prefix


def test_nobody_is_a_client_of_an_empty_table() -> None:
    assert ClientTable(()).find(parse_address("10.0.0.1")) is None


PREFIXES = st.builds(
    lambda packed, length: Prefix(mask_address(packed, min(length, len(packed) * 8)), min(length, len(packed) * 8)),
    st.binary(min_size=1, max_size=1).map(lambda end: bytes([10, 0, 0]) + end)
    | st.binary(min_size=1, max_size=1).map(lambda end: bytes([0x20]) + bytes(14) + end),
    st.integers(20, 128),
)


@given(st.lists(PREFIXES, unique=True), PREFIXES)
def test_the_table_finds_what_a_scan_of_all_clients_finds(prefixes: list[Prefix], source: Prefix) -> None:
    address = ipaddress.ip_address(source.packed)
    covering = [each for each in prefixes if address in ipaddress.ip_network(str(each))]
    longest = max(covering, key=lambda each: each.length, default=None)
    found = ClientTable(Client(each, (b"x",)) for each in prefixes).find(source.packed)
    assert (None if found is None else found.prefix) == longest


def test_a_plain_source_keeps_what_only_looks_like_ipv4() -> None:
    for text in ("10.0.0.1", "::10.0.0.1", "2001:db8::1", "::ffff:0:10.0.0.1"):
        assert plain_source(parse_address(text)) == parse_address(text)
    assert plain_source(parse_address("::ffff:10.0.0.1")) == parse_address("10.0.0.1")


def test_a_client_shows_no_secret() -> None:
    assert "testing123" not in repr(CLIENTS)


def test_a_client_is_as_configured() -> None:
    profile = ProfileSettings(interim="snapshot")
    settings = RadiusClient(
        parse_prefix("10.0.0.0/24"),
        "/secret",
        require_message_authenticator=True,
        response_message_authenticator=True,
        profile=profile,
    )
    secrets = (b"new", b"old")
    assert client_of(settings, secrets) == Client(settings.address, secrets, True, True, profile=profile)
    plain = RadiusClient(settings.address, "/secret")
    assert client_of(plain, secrets) == Client(settings.address, secrets)


# -- profiles ----------------------------------------------------------------------------------------------------

NOKIA = ProfileSettings(interim="snapshot", session_timeout_s=inf)
HUAWEI = ProfileSettings(nat_side="outside", missed_interims=5)
MOBILE = ProfileSettings(identity="3gpp-imsi", min_session_timeout_s=60.0)

PLAIN_CLIENT = client("10.0.0.1")
MOBILE_CLIENT = client("10.0.0.2", MOBILE)
HUAWEI_CLIENT = client("10.0.0.3", HUAWEI)


def test_the_usual_terms_are_those_of_the_table_of_sessions() -> None:
    assert terms_of_profile(ProfileSettings()) == Terms()


def test_terms_are_as_configured() -> None:
    profile = ProfileSettings(
        interim_interval_s=600.0,
        missed_interims=5,
        min_session_timeout_s=120.0,
        session_timeout_s=inf,
        restart_grace_s=0.0,
    )
    terms = terms_of_profile(profile)
    assert terms == Terms(
        interim_s=600, missed_interims=5.0, min_session_timeout_s=120.0, session_timeout_s=inf, restart_grace_s=0.0
    )
    assert terms.lifetime_s(None) == 3000.0


def heard(profiles: Profiles, client: Client, nas: str) -> NasProfile:
    profiles.remember(client, nas)
    return profiles.profile_of(client, nas)


def test_a_profile_that_is_asked_for_is_not_remembered() -> None:
    profiles = Profiles(NOKIA, {})
    assert profiles.profile_of(MOBILE_CLIENT, "ggsn") == MOBILE.nas_profile
    assert profiles.terms_of("ggsn") == terms_of_profile(NOKIA)


def test_a_client_may_report_what_its_settings_allow() -> None:
    settings = RadiusClient(
        parse_prefix("10.0.0.0/24"),
        "/secret",
        nas=("bng-1", "10.0.0.1"),
        addresses=(parse_prefix("100.64.0.0/10"),),
        require_event_timestamp=True,
    )
    permission = client_of(settings, (b"s",)).permission
    assert permission == Permission(frozenset({"bng-1", "10.0.0.1"}), (parse_prefix("100.64.0.0/10"),), True)
    assert client_of(RadiusClient(settings.address, "/secret"), ()).permission == ANYTHING


def test_a_nas_that_is_named_has_its_own_profile_whoever_it_comes_by() -> None:
    profiles = Profiles(ProfileSettings(), {"bng-1": NOKIA})
    for each in (PLAIN_CLIENT, MOBILE_CLIENT):
        assert profiles.profile_of(each, "bng-1") == NasProfile(interim="snapshot")
        assert profiles.terms_of("bng-1") == terms_of_profile(NOKIA)
    assert profiles.profile_of(PLAIN_CLIENT, "BNG-1") == NasProfile()


def test_another_has_the_profile_of_the_client_through_which_it_was_last_heard() -> None:
    profiles = Profiles(NOKIA, {})
    assert profiles.terms_of("ggsn") == terms_of_profile(NOKIA)
    assert heard(profiles, MOBILE_CLIENT, "ggsn") == MOBILE.nas_profile
    assert profiles.terms_of("ggsn") == terms_of_profile(MOBILE)
    assert heard(profiles, HUAWEI_CLIENT, "ggsn") == HUAWEI.nas_profile
    assert profiles.terms_of("ggsn") == terms_of_profile(HUAWEI)
    assert heard(profiles, PLAIN_CLIENT, "ggsn") == NOKIA.nas_profile
    assert profiles.terms_of("ggsn") == terms_of_profile(NOKIA)


def test_of_too_many_nas_the_one_heard_longest_ago_is_forgotten_and_counted() -> None:
    profiles = Profiles(ProfileSettings(), max_nas=3)
    for name in ("a", "b", "c", "a", "d"):
        profiles.remember(MOBILE_CLIENT, name)
    assert profiles.terms_of("b") == Terms()
    assert {profiles.terms_of(name) for name in "acd"} == {terms_of_profile(MOBILE)}


def test_nas_with_the_usual_profile_or_their_own_take_no_room() -> None:
    profiles = Profiles(ProfileSettings(), {"bng-1": NOKIA}, max_nas=1)
    profiles.remember(MOBILE_CLIENT, "a")
    profiles.remember(MOBILE_CLIENT, "bng-1")
    profiles.remember(PLAIN_CLIENT, "b")
    assert profiles.terms_of("a") == terms_of_profile(MOBILE)


def test_profiles_are_as_configured() -> None:
    profiles = profiles_of(SubscriberSettings("/pepper", profile=HUAWEI, nas=(NasSettings("bng-1", NOKIA),)))
    assert profiles.profile_of(PLAIN_CLIENT, "bng-1") == NOKIA.nas_profile
    assert profiles.profile_of(PLAIN_CLIENT, "bng-2") == HUAWEI.nas_profile
    assert profiles.terms_of("bng-3") == terms_of_profile(HUAWEI)


def test_a_nas_that_another_reports_has_its_own_profile_or_the_usual_one() -> None:
    profiles = Profiles(HUAWEI, {"bng-1": NOKIA})
    profiles.remember(MOBILE_CLIENT, "ggsn")
    assert profiles.profile_by_name("bng-1") == NOKIA.nas_profile
    assert profiles.profile_by_name("ggsn") == profiles.profile_by_name("bng-2") == HUAWEI.nas_profile
