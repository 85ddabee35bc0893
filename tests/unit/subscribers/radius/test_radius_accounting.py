from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import AccountingRejected, GatewaydError, InputRejected
from gatewayd.model import parse_address, parse_prefix
from gatewayd.model.accounting import AccountingEvent, Identity, NasProfile
from gatewayd.model.msisdn import subscriber_digest
from gatewayd.subscribers.radius.accounting import FUTURE_SKEW_S, OLDEST_S, Permission, read_event
from gatewayd.subscribers.radius.attributes import MAX_ADDRESSES
from gatewayd.subscribers.radius.packet import AccountingRequest, open_request
from tests.support.radius import (
    NOKIA_INTERIM,
    SECRET,
    VECTORS,
    accounting_request,
    attribute,
    framed_ipv4,
    huawei_block,
    integer,
    ipv6_prefix,
    nokia_block,
    port,
    text,
    tlvs,
    vendor,
)

NUMBER = "923001234567"
TELLING = "001234567"
PEPPER = b"sixteen bytes or more"
SUBSCRIBER = subscriber_digest(NUMBER, PEPPER)
SOURCE = parse_address("192.0.2.1")
NOW_S = 1_764_894_140.0
PAKISTAN = NasProfile(country_code="92")
SHARED = parse_address("198.51.100.7")
SESSION = text(44, "S1")
START, STOP, INTERIM, ON, OFF = (integer(40, number) for number in (1, 2, 3, 7, 8))


def request_of(*attributes: bytes) -> AccountingRequest:
    request = open_request(accounting_request(*attributes), [SECRET])
    assert isinstance(request, AccountingRequest)
    return request


def event_of(*attributes: bytes, profile: NasProfile = PAKISTAN) -> AccountingEvent:
    return read_event(request_of(*attributes), SOURCE, profile, PEPPER, NOW_S)


def started(*attributes: bytes, profile: NasProfile = PAKISTAN) -> AccountingEvent:
    return event_of(START, SESSION, *attributes, profile=profile)


def reason(*attributes: bytes, profile: NasProfile = PAKISTAN) -> str:
    with pytest.raises(AccountingRejected) as caught:
        event_of(*attributes, profile=profile)
    assert isinstance(caught.value, InputRejected)
    return caught.value.code


def bound(event: AccountingEvent) -> list[str]:
    return [str(prefix) for prefix in event.addresses]


# What the vectors say


def event_of_vector(id: str, profile: NasProfile = PAKISTAN) -> AccountingEvent:
    (vector,) = [vector for vector in VECTORS if vector.id == id]
    return event_of(vector.request[20:][: -18 if id.startswith("dapphp") else None], profile=profile)


@pytest.mark.parametrize(
    ("id", "kind", "nas", "session", "addresses"),
    [
        ("dapphp-start", "start", "10.50.1.25", "SESSION_ID", []),
        ("dapphp-interim", "interim", "10.50.1.25", "SESSION_ID", []),
        ("dapphp-stop", "stop", "10.50.1.25", "SESSION_ID", []),
        ("pyrad-realistic-interim", "interim", "1.2.3.4", "90dbd65a18b0a6c", ["1.2.3.4/32"]),
        ("mikrotik-radsec-start", "start", "Main Router", "84000058", []),
        ("nokia-mag-fwa-start", "start", "MAG2", "ABDE1B0000001B67FBC0E1", ["180.0.0.1/32"]),
        ("h3c-start", "start", "192.168.0.16", "000000032011-01-03:02:33:18-0000000101", ["192.168.0.17/32"]),
    ],
)
def test_events_of_other_implementations(id: str, kind: str, nas: str, session: str, addresses: list[str]) -> None:
    event = event_of_vector(id)
    assert (event.kind, event.nas, event.session) == (kind, nas, session)
    assert bound(event) == addresses
    assert event.subscriber is None


def test_an_interim_update_of_a_real_bng_has_all_addresses_of_the_session() -> None:
    request = open_request(NOKIA_INTERIM, [SECRET])
    assert isinstance(request, AccountingRequest)
    event = read_event(request, SOURCE, NasProfile("snapshot", "user-name"), PEPPER, 1_744_556_670.0)
    assert bound(event) == ["180.0.0.2/32", "2005:2005:2005:52::/64", "2002:2002:2002:5100::/56"]
    assert (event.kind, event.nas, event.session) == ("interim", "MAG1", "181007000001C267FBD27E")
    assert (event.at_s, event.is_snapshot) == (1_744_556_670.0, True)
    assert event.ignored == ("identity_hardware_address",)


def test_the_request_without_attributes_changes_nothing() -> None:
    assert reason() == "bad_status_type"


def test_a_real_imsi_becomes_a_digest() -> None:
    event = event_of_vector("nokia-mag-fwa-start", NasProfile(identity="3gpp-imsi"))
    assert event.subscriber == subscriber_digest("206010000000001", PEPPER)


def test_an_ip_address_in_calling_station_id_is_no_number() -> None:
    # With country code 1 the digits of 192.100.200.208 would do for one.
    event = event_of_vector("mikrotik-radsec-start", NasProfile(country_code="1"))
    assert event.subscriber is None
    assert event.ignored == ("identity_hardware_address",)


# Kind, NAS and session


@pytest.mark.parametrize("kind", [START, STOP, INTERIM, ON, OFF])
def test_each_status_type_is_a_kind(kind: bytes) -> None:
    assert event_of(kind, SESSION).kind == {1: "start", 2: "stop", 3: "interim", 7: "on", 8: "off"}[kind[-1]]


@pytest.mark.parametrize("number", [0, 4, 9, 15, 1 << 24])
def test_status_types_of_something_else_change_nothing(number: int) -> None:
    assert reason(integer(40, number), SESSION) == "unused_status_type"


@pytest.mark.parametrize("attributes", [b"", attribute(40, b"\1"), START + STOP, attribute(40, bytes(5))])
def test_there_is_exactly_one_status_type(attributes: bytes) -> None:
    assert reason(attributes, SESSION) == "bad_status_type"


@pytest.mark.parametrize("session", [b"", text(44, ""), attribute(44, b"\0")])
def test_without_a_session_id_there_is_no_session(session: bytes) -> None:
    assert reason(START, session) == "no_session"


@pytest.mark.parametrize("kind", [ON, OFF])
def test_on_and_off_speak_of_the_nas_alone(kind: bytes) -> None:
    event = event_of(kind, SESSION, text(31, NUMBER), framed_ipv4("203.0.113.9"), text(32, "BNG 1"))
    assert (event.nas, event.session, event.subscriber, event.addresses) == ("BNG 1", "", None, ())


@pytest.mark.parametrize(
    ("attributes", "nas"),
    [
        (b"", "192.0.2.1"),
        (attribute(4, bytes([10, 0, 0, 1])), "10.0.0.1"),
        (attribute(4, bytes(4)), "192.0.2.1"),
        (attribute(4, bytes(3)), "192.0.2.1"),
        (attribute(4, bytes([10, 0, 0, 1])) + attribute(95, parse_address("2001:db8::1")), "2001:db8::1"),
        (attribute(4, bytes([10, 0, 0, 1])) + text(32, "BNG 1"), "BNG 1"),
        (attribute(4, bytes([10, 0, 0, 1])) + text(32, ""), "10.0.0.1"),
        (attribute(32, b"BNG\0\0"), "BNG"),
        (attribute(32, b"B\xffG"), "B\\xffG"),
        (attribute(32, b"a\nb\x1b"), "a\\nb\\x1b"),
    ],
)
def test_a_nas_is_what_it_calls_itself_in_printable_text(attributes: bytes, nas: str) -> None:
    assert started(attributes).nas == nas


def test_session_ids_can_be_digests_that_are_the_same_for_the_same_id() -> None:
    profile = replace(PAKISTAN, session_ids="digest")
    attributes = (text(44, f"{NUMBER}/1"), text(31, NUMBER))
    start, stop = (event_of(kind, *attributes, profile=profile) for kind in (START, STOP))
    assert start.session == stop.session != event_of(START, SESSION, profile=profile).session
    assert len(start.session) == 32
    assert TELLING not in repr(start)


# Time


def test_an_event_is_as_old_as_the_nas_says() -> None:
    event = started(integer(55, int(NOW_S) - 3600), integer(41, 5))
    assert (event.at_s, event.received_at_s) == (NOW_S - 3600, NOW_S)


def test_without_a_timestamp_the_delay_counts() -> None:
    assert started(integer(41, 30)).at_s == NOW_S - 30
    assert started().at_s == NOW_S


@pytest.mark.parametrize(
    ("stamp_s", "ignored"),
    [
        (NOW_S + FUTURE_SKEW_S, ()),
        (NOW_S + FUTURE_SKEW_S + 1, ("event_timestamp_in_future",)),
        (NOW_S + 5 * 3600, ("event_timestamp_in_future",)),
        (NOW_S - OLDEST_S, ()),
        (NOW_S - OLDEST_S - 1, ("event_timestamp_implausible",)),
        (0, ("event_timestamp_implausible",)),
    ],
)
def test_a_clock_that_is_wrong_is_not_believed_and_the_delay_is(stamp_s: float, ignored: tuple[str, ...]) -> None:
    event = started(integer(55, int(stamp_s)), integer(41, 7))
    assert event.at_s == (NOW_S - 7 if ignored else stamp_s)
    assert event.ignored == ignored


def test_numbers_that_are_not_of_four_bytes_are_left_out() -> None:
    event = event_of(STOP, SESSION, *(attribute(type_, b"\0\1") for type_ in (41, 55, 85)))
    assert event.ignored == ("integer_malformed",) * 3
    assert (event.at_s, event.interim_s) == (NOW_S, None)


def test_intervals() -> None:
    assert started(integer(85, 600)).interim_s == 600
    assert started(integer(85, 0)).interim_s is None
    implausible = started(integer(85, 8 * 86400))
    assert (implausible.interim_s, implausible.ignored) == (None, ("interim_interval_implausible",))


# Addresses


def test_an_address_that_binds_no_subscriber_is_named_and_the_rest_stands() -> None:
    event = started(framed_ipv4("127.0.0.1"), text(31, NUMBER), ipv6_prefix(97, 64, "2001:db8:1::"))
    assert (bound(event), event.ignored) == (["2001:db8:1::/64"], ("address_loopback",))
    assert (event.subscriber, event.ports) == (SUBSCRIBER, None)


def test_a_snapshot_is_one_only_where_everything_in_it_was_understood() -> None:
    profile = replace(PAKISTAN, interim="snapshot")
    attributes = (INTERIM, SESSION, framed_ipv4("203.0.113.9"))
    assert event_of(*attributes, profile=profile).is_snapshot
    assert event_of(*attributes, framed_ipv4("0.0.0.0"), profile=profile).is_snapshot
    assert not event_of(*attributes, attribute(168, b""), profile=profile).is_snapshot
    assert not event_of(*attributes).is_snapshot


# Ports

BLOCKS = [
    tlvs((3, SHARED), (9, port(2048)), (10, port(4095))),
    nokia_block("198.51.100.7 2048-4095 router base"),
    huawei_block(SHARED, port(2048), port(4095)),
]


@pytest.mark.parametrize("block", BLOCKS)
def test_outside_a_nat_the_binding_is_the_shared_address_and_its_ports(block: bytes) -> None:
    profile = replace(PAKISTAN, nat_side="outside")
    event = started(framed_ipv4("100.64.0.1"), ipv6_prefix(97, 64, "2001:db8::"), block, profile=profile)
    assert (bound(event), event.ports) == (["198.51.100.7/32", "2001:db8::/64"], (2048, 4095))
    assert event.ignored == ()


@pytest.mark.parametrize("block", BLOCKS)
def test_inside_a_nat_the_binding_is_the_address_behind_it(block: bytes) -> None:
    event = started(framed_ipv4("100.64.0.1"), block)
    assert (bound(event), event.ports) == (["100.64.0.1/32"], None)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_address_that_is_framed_and_shared_is_bound_with_its_ports_on_either_side(block: bytes) -> None:
    event = started(framed_ipv4("198.51.100.7"), block)
    assert (bound(event), event.ports) == (["198.51.100.7/32"], (2048, 4095))


@pytest.mark.parametrize("block", [tlvs((9, port(1)), (10, port(65535))), huawei_block(b"", b"1", b"65535")])
def test_ports_without_an_address_are_of_the_framed_one(block: bytes) -> None:
    event = started(framed_ipv4("198.51.100.7"), block)
    assert (bound(event), event.ports) == (["198.51.100.7/32"], (1, 65535))
    assert started(block).ports is None


@pytest.mark.parametrize(
    "block",
    [
        tlvs((3, SHARED), (8, port(2)), (9, port(2048)), (10, port(4095))),
        nokia_block("198.51.100.7 4095-2048 router base"),
        huawei_block(b"198.51.100.7", b"2048", b""),
    ],
)
@pytest.mark.parametrize("side", ["inside", "outside"])
def test_nobody_is_bound_to_the_whole_of_an_address_that_is_shared(
    block: bytes, side: Literal["inside", "outside"]
) -> None:
    profile = replace(PAKISTAN, nat_side=side)
    event = started(framed_ipv4("198.51.100.7"), ipv6_prefix(97, 64, "2001:db8::"), block, profile=profile)
    assert (bound(event), event.ports) == (["2001:db8::/64"], None)
    assert event.ignored == ("port_block_unusable",)


def test_several_blocks_are_more_than_an_event_holds() -> None:
    several = nokia_block("198.51.100.7 2048-4095,8192-9215 router base")
    event = started(framed_ipv4("198.51.100.7"), several)
    assert (bound(event), event.ports, event.ignored) == ([], None, ("port_blocks_several",))
    assert bound(started(framed_ipv4("100.64.0.1"), several)) == ["100.64.0.1/32"]


def test_a_block_that_was_taken_back_leaves_the_other() -> None:
    taken_back = tlvs((3, SHARED), (8, port(2)), (9, port(2048)), (10, port(4095)))
    event = started(framed_ipv4("198.51.100.7"), taken_back, nokia_block("198.51.100.7 8192-9215 router base"))
    assert (bound(event), event.ports) == (["198.51.100.7/32"], (8192, 9215))


def test_a_shared_address_that_is_none_is_left_out() -> None:
    event = started(nokia_block("127.0.0.1 2048-4095 router base"), profile=replace(PAKISTAN, nat_side="outside"))
    assert (bound(event), event.ports, event.ignored) == ([], None, ("address_loopback",))


# Who

SPELLINGS = [
    "923001234567",
    "92.300.123.4567",
    "+92 300 1234567",
    "0092-300-1234567",
    "03001234567",
    "+92(0)3001234567",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("identity", "attribute_of"),
    [
        ("calling-station-id", lambda value: text(31, value)),
        ("user-name", lambda value: text(1, value)),
        ("user-name", lambda value: text(1, f"{value}@internet.example")),
        ("chargeable-user-identity", lambda value: attribute(89, value.encode() + b"\0")),
        ("alc-msisdn", lambda value: vendor(6527, text(147, value))),
    ],
)
def test_a_number_in_any_spelling_and_attribute_is_one_digest(
    spelling: str, identity: Identity, attribute_of: Callable[[str], bytes]
) -> None:
    event = started(attribute_of(spelling), profile=replace(PAKISTAN, identity=identity))
    assert (event.subscriber, event.ignored) == (SUBSCRIBER, ())


def test_without_the_attribute_the_request_names_nobody() -> None:
    for attributes in (b"", text(31, ""), attribute(31, b"\0"), text(1, NUMBER)):
        event = started(attributes, framed_ipv4("203.0.113.9"))
        assert (event.subscriber, event.ignored) == (None, ())
        assert event.addresses


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("nemo", "identity_not_a_number"),
        ("3001234567", "identity_no_country_code"),
        ("+9203001234567", "identity_trunk_zero"),
        ("+92300", "identity_too_short"),
        ("+9230012345678901", "identity_too_long"),
        ("00-11-22-33-44-55", "identity_hardware_address"),
        ("00:11:22:33:44:55", "identity_hardware_address"),
        ("00-11-22-33-44-55:cafe", "identity_hardware_address"),
        ("0011.2233.4455", "identity_hardware_address"),
        ("001122-334455", "identity_hardware_address"),
        ("10.0.0.1", "identity_hardware_address"),
    ],
)
def test_what_is_no_number_names_nobody_and_the_address_is_still_told(value: str, code: str) -> None:
    event = started(text(31, value), framed_ipv4("203.0.113.9"))
    assert (event.subscriber, event.ignored, bound(event)) == (None, (code,), ["203.0.113.9/32"])


def test_two_different_numbers_are_a_guess_that_nobody_makes() -> None:
    event = started(text(31, NUMBER), text(31, "923007654321"))
    assert (event.subscriber, event.ignored) == (None, ("identity_ambiguous",))
    assert started(text(31, NUMBER), text(31, NUMBER)).subscriber == SUBSCRIBER


@pytest.mark.parametrize("imsi", ["41001123456789", "410011234567890"])
def test_an_imsi_is_hashed_as_it_is(imsi: str) -> None:
    profile = NasProfile(identity="3gpp-imsi", country_code="92")
    event = started(vendor(10415, text(1, imsi)), profile=profile)
    assert event.subscriber == subscriber_digest(imsi, PEPPER)


@pytest.mark.parametrize("imsi", ["4100112345678", "4100112345678901", "41001123456789x"])
def test_an_imsi_has_14_or_15_digits(imsi: str) -> None:
    event = started(vendor(10415, text(1, imsi)), profile=NasProfile(identity="3gpp-imsi"))
    assert (event.subscriber, event.ignored) == (None, ("identity_not_an_imsi",))


# Bearers


def test_a_stop_ends_the_session_unless_it_is_of_one_bearer_among_several() -> None:
    nsapi, last = attribute(10, b"5"), attribute(11, b"\xff")
    assert event_of(STOP, SESSION).is_final_stop
    assert event_of(STOP, SESSION, vendor(10415, nsapi, last)).is_final_stop
    assert not event_of(STOP, SESSION, vendor(10415, nsapi)).is_final_stop
    assert not event_of(STOP, SESSION, vendor(10415, nsapi, attribute(11, b"\0"))).is_final_stop
    assert not started().is_final_stop


# No number, anywhere


def shown(*attributes: bytes, profile: NasProfile) -> str:
    """All that is said of a request, whatever becomes of it."""
    request = request_of(*attributes)
    try:
        event = read_event(request, SOURCE, profile, PEPPER, NOW_S)
    except GatewaydError as error:
        return repr(request) + repr(error) + str(error) + repr(vars(error))
    return repr(request) + repr(event) + str(event)


@pytest.mark.parametrize("spelling", [*SPELLINGS, "3001234567", "tel:923001234567", "923001234567x"])
@pytest.mark.parametrize("identity", ["calling-station-id", "user-name", "3gpp-imsi"])
def test_no_number_is_in_an_event_or_an_error(spelling: str, identity: Identity) -> None:
    profile = replace(PAKISTAN, identity=identity)
    carriers = (text(31, spelling), text(1, spelling), text(89, spelling), vendor(10415, text(1, spelling)))
    for kind in (START, STOP, ON):
        assert TELLING not in shown(kind, SESSION, attribute(25, spelling.encode()), *carriers, profile=profile)


@pytest.mark.parametrize(
    "attributes",
    [
        text(44, f"S-{NUMBER}-1"),
        text(44, "3001234567"),
        text(44, "0300-1234567-17"),
        text(44, "sess 300.123.4567/8"),
        SESSION + text(32, "bng (0300) 123 4567"),
        SESSION + text(32, NUMBER),
    ],
)
@pytest.mark.parametrize("carrier", [text(31, NUMBER), text(1, "+92 300 1234567@realm")])
def test_a_number_in_a_text_that_is_kept_refuses_the_request(attributes: bytes, carrier: bytes) -> None:
    assert reason(START, attributes, carrier) == "number_in_clear"
    assert TELLING not in shown(START, attributes, carrier, profile=PAKISTAN)


def test_the_name_of_a_nas_is_not_kept_with_a_number_in_it_either() -> None:
    assert reason(ON, text(32, NUMBER), text(31, NUMBER)) == "number_in_clear"


@pytest.mark.parametrize(
    "carrier", [text(31, "30012"), text(1, "ali"), text(31, "7" * 18), text(31, "10.20.30.40")]
)
def test_an_identity_that_is_no_number_refuses_no_session_id(carrier: bytes) -> None:
    value = carrier[2:].decode()
    assert event_of(START, text(44, f"{value}-1"), carrier).session == f"{value}-1"


def test_a_session_id_that_is_hashed_may_have_the_number() -> None:
    hashed = event_of(
        START, text(44, f"S-{NUMBER}-1"), text(31, NUMBER), profile=replace(PAKISTAN, session_ids="digest")
    )
    assert TELLING not in hashed.session


def test_a_delay_of_weeks_is_of_a_sender_with_a_wrong_clock() -> None:
    event = event_of(START, SESSION, integer(41, 30 * 86400))
    assert (event.delay_s, event.at_s, event.ignored) == (0, NOW_S, ("delay_implausible",))


def test_a_delay_without_a_timestamp_says_when_it_happened() -> None:
    event = event_of(START, SESSION, integer(41, 20))
    assert (event.delay_s, event.at_s, event.is_by_our_clock) == (20, NOW_S - 20, True)


def test_a_hardware_address_in_a_session_id_is_no_number() -> None:
    assert event_of(START, text(44, "1-001122334455"), text(31, "00-11-22-33-44-55")).session == "1-001122334455"


KNOWN_TYPES = st.sampled_from([1, 4, 8, 25, 26, 31, 32, 40, 41, 44, 46, 49, 50, 55, 85, 89, 95, 97, 123, 168, 241])
VENDORS = st.sampled_from([10415, 6527, 2011])
VENDOR_TYPES = st.sampled_from([1, 10, 11, 99, 121, 147, 161, 162, 163])
VALUES = st.binary(max_size=20) | st.sampled_from(
    [NUMBER.encode(), b"\0\0\0\1", b"+92 300 1234567", b"03001234567"]
)
ATTRIBUTES = st.builds(attribute, KNOWN_TYPES, VALUES) | st.builds(
    lambda number, type_, value: vendor(number, attribute(type_, value)), VENDORS, VENDOR_TYPES, VALUES
)


@given(
    st.lists(ATTRIBUTES, max_size=12),
    st.sampled_from(["calling-station-id", "user-name", "chargeable-user-identity", "3gpp-imsi", "alc-msisdn"]),
    st.sampled_from(["plain", "digest"]),
    st.sampled_from(["inside", "outside"]),
)
def test_any_attributes_are_an_event_or_a_typed_rejection(
    attributes: list[bytes],
    identity: Identity,
    session_ids: Literal["plain", "digest"],
    side: Literal["inside", "outside"],
) -> None:
    profile = NasProfile("snapshot", identity, "92", side, session_ids)
    request = request_of(*attributes)
    try:
        event = read_event(request, SOURCE, profile, PEPPER, NOW_S)
    except AccountingRejected:
        return
    assert event.kind in ("on", "off") or event.session
    assert len(set(event.addresses)) == len(event.addresses) <= MAX_ADDRESSES
    assert event.subscriber is None or len(event.subscriber) == 32
    assert event.ports is None or event.ports[0] <= event.ports[1]
    if any(NUMBER.encode() in value for type_ in (1, 31, 89) for value in request.values(type_)):
        assert TELLING not in repr(event)


@pytest.mark.parametrize(("stamp_s", "at_s"), [(NOW_S + 3600 - 10, NOW_S - 10), (NOW_S - 10, NOW_S - 10)])
def test_a_nas_has_the_time_that_the_wall_has_or_had(stamp_s: float, at_s: float) -> None:
    request = request_of(START, SESSION, integer(55, int(stamp_s)))
    event = read_event(request, SOURCE, PAKISTAN, PEPPER, NOW_S, wall_s=NOW_S + 3600)
    assert (event.at_s, event.is_by_our_clock) == (at_s, False)


# What a client may report


CONFINED = Permission(
    frozenset({"bng-1", "10.0.0.1"}), (parse_prefix("100.64.0.0/10"),), require_event_timestamp=True
)


def confined(*attributes: bytes) -> AccountingEvent:
    return read_event(request_of(START, SESSION, *attributes), SOURCE, PAKISTAN, PEPPER, NOW_S, permission=CONFINED)


def test_a_client_that_is_confined_reports_what_it_may() -> None:
    addresses = [attribute(8, parse_address(each)) for each in ("100.64.0.1", "100.128.0.1", "10.0.0.1")]
    event = confined(text(32, "bng-1"), integer(55, int(NOW_S)), *addresses)
    assert [str(each) for each in event.addresses] == ["100.64.0.1/32"]
    assert event.ignored == ("address_not_allowed", "address_not_allowed")


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([text(32, "bng-2"), integer(55, int(NOW_S))], "nas_not_allowed"),
        ([integer(55, int(NOW_S))], "nas_not_allowed"),
        ([text(32, "bng-1")], "no_event_timestamp"),
        ([text(32, "bng-1"), integer(55, 1)], "no_event_timestamp"),
    ],
)
def test_what_a_client_may_not_report_is_refused(attributes: list[bytes], code: str) -> None:
    with pytest.raises(AccountingRejected) as caught:
        confined(*attributes)
    assert caught.value.code == code


def test_of_the_addresses_of_a_nas_those_are_names_that_its_client_may_use() -> None:
    for address, names in (("10.0.0.1", ("10.0.0.1",)), ("10.0.0.2", ())):
        event = confined(text(32, "bng-1"), integer(55, int(NOW_S)), attribute(4, parse_address(address)))
        assert event.identity is not None
        assert event.identity.addresses == names


def test_a_restart_shows_the_authenticator_by_which_it_is_known_again() -> None:
    request = request_of(ON)
    assert read_event(request, SOURCE, PAKISTAN, PEPPER, NOW_S).authenticator == request.authenticator
