from __future__ import annotations

import pytest
from hypothesis import given, settings

from gatewayd.errors import ServiceInvalid
from gatewayd.model import Service, parse_service, parse_services, service_words
from gatewayd.model.service import AH, BUNDLES, ESP, GRE, PROTOCOLS_WITH_PORTS, TCP, UDP
from tests.support.strategies import service_profiles

unhurried = settings(deadline=None)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("udp/51820", Service(UDP, 51820, 51820)),
        ("tcp/8000-8100", Service(TCP, 8000, 8100)),
        ("tcp/1-65535", Service(TCP, 1, 65535)),
        ("udp", Service(UDP)),
        ("esp", Service(ESP)),
        ("l2tpv3", Service(115)),
        ("sctp/1", Service(132, 1, 1)),
        ("udplite/7", Service(136, 7, 7)),
    ],
)
def test_a_word_is_one_service_and_the_service_prints_as_the_word(word: str, expected: Service) -> None:
    assert parse_service(word) == (expected,)
    assert str(expected) == word


def test_a_range_of_one_port_is_that_port() -> None:
    assert parse_service("udp/500-500") == parse_service("udp/500")


def test_a_protocol_without_a_name_prints_as_its_number() -> None:
    assert str(Service(89)) == "89"


@pytest.mark.parametrize(
    ("word", "members"),
    [
        ("ipsec", "udp/500 udp/4500 esp ah"),
        ("wireguard", "udp/51820"),
        ("openvpn", "udp/1194 tcp/1194"),
        ("pptp", "tcp/1723 gre"),
        ("l2tp", "udp/1701"),
    ],
)
def test_a_bundle_stands_for_its_services(word: str, members: str) -> None:
    assert parse_services([word]) == parse_services(members.split())


def test_bundles_have_whole_protocols_or_single_ports_and_share_nothing() -> None:
    """The rules for bundles (compile.ruleset) and the order of bundles (compile.masks) rest on this."""
    members = [service for bundle in BUNDLES.values() for service in bundle]
    assert len(members) == len(set(members))
    for service in members:
        one_port, whole = Service(service.protocol, service.low, service.low), Service(service.protocol)
        assert service in (one_port, whole)
        assert (service.low == service.high) == (service.protocol in PROTOCOLS_WITH_PORTS)


@pytest.mark.parametrize(
    "word",
    [
        "", "/", "udp/", "UDP/500", "icmp", "17", "ipsec/500", "esp/1", "gre/0", "udp/0", "udp/65536", "udp/x",
        "udp/-5", "udp/5-", "udp/500-499", "udp/1-2-3", "udp/1000000", "udp/٥", "udp/ 5", "udp/5,6",
    ],
)  # fmt: skip
def test_what_names_no_service_is_refused(word: str) -> None:
    with pytest.raises(ServiceInvalid) as caught:
        parse_service(word)
    assert caught.value.text == word


def test_a_refused_word_is_shown_no_longer_than_64_characters() -> None:
    with pytest.raises(ServiceInvalid) as caught:
        parse_services(["esp", "x" * 200])
    assert len(caught.value.text) == 64


def test_a_service_matches_its_protocol_and_its_ports_both_ends_of_the_range_included() -> None:
    service = Service(UDP, 500, 4500)
    assert [port for port in (0, 499, 500, 1000, 4500, 4501) if service.matches(UDP, port)] == [500, 1000, 4500]
    assert not service.matches(TCP, 500)
    assert Service(GRE).matches(GRE, 0)
    assert Service(UDP).matches(UDP, 0)
    assert Service(UDP).matches(UDP, 65535)
    assert not Service(AH).matches(ESP, 0)


def test_words_give_sorted_services_without_duplicates() -> None:
    services = parse_services(["udp/4500", "ipsec", "esp", "tcp/443"])
    assert list(services) == sorted(set(services))
    assert services == (
        Service(TCP, 443, 443), Service(UDP, 500, 500), Service(UDP, 4500, 4500), Service(ESP), Service(AH),
    )  # fmt: skip
    assert parse_services([]) == ()


def test_people_read_a_bundles_name_where_all_of_it_is_there() -> None:
    assert service_words(parse_services(["ipsec", "udp/51820"])) == ("ipsec", "udp/51820")
    assert service_words(parse_services(["udp/500", "esp"])) == ("udp/500", "esp")
    assert service_words(()) == ()


@unhurried
@given(service_profiles())
def test_words_for_people_stand_for_the_same_services(services: tuple[Service, ...]) -> None:
    assert parse_services(service_words(services)) == services
