from __future__ import annotations

import json
from math import inf
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.errors import RecordRejected
from gatewayd.feed import record
from gatewayd.feed.record import (
    REASONS,
    ReasonCode,
    RecordParser,
    id_of_line,
    identity_field_of,
    is_id,
    is_id_text,
    is_registrant,
    parse_record,
    registration_of,
)
from gatewayd.model import Prefix, Registration, Service, parse_prefix
from gatewayd.model.msisdn import looks_like_number

DIGEST = "ab" * 32

FULL: dict[str, Any] = {
    "id": "PK-2024-000123",
    "category": "bank",
    "status": "active",
    "clients": ["203.0.113.0/28", "2001:db8:12::/48"],
    "subscriber": None,
    "peers": ["198.51.100.7/32"],
    "services": ["ipsec", "udp/51820"],
    "valid_from": "2024-11-01T00:00:00Z",
    "valid_until": None,
}


def line_of(**changes: Any) -> bytes:
    return json.dumps(FULL | changes).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in FULL.items() if key != name}).encode()


def provider(**changes: Any) -> bytes:
    record = {"id": "VPN-7", "category": "provider", "status": "active", "services": ["wireguard"]}
    return json.dumps(record | {"endpoints": ["198.51.100.0/24"]} | changes).encode()


def test_a_full_record_becomes_a_registration() -> None:
    assert parse_record(line_of()) == Registration(
        id="PK-2024-000123",
        category="bank",
        status="active",
        clients=(parse_prefix("2001:db8:12::/48"), Prefix(bytes((203, 0, 113, 0)), 28)),
        subscriber=None,
        peers=(parse_prefix("198.51.100.7/32"),),
        services=(
            Service(17, 500, 500),
            Service(17, 4500, 4500),
            Service(17, 51820, 51820),
            Service(50),
            Service(51),
        ),
        valid_from_s=1730419200.0,
        valid_until_s=inf,
    )


def test_a_subscriber_without_clients_is_enough() -> None:
    line = b'{"id":"a","category":"freelancer","status":"suspended","subscriber":"hmac-sha256:%s"}'
    registration = parse_record(line % DIGEST.encode())
    assert registration.subscriber == bytes.fromhex(DIGEST)
    assert (registration.clients, registration.peers, registration.services) == ((), (), ())
    assert registration.valid_from_s == -inf


def test_plain_fields_and_a_line_give_the_same_registration() -> None:
    assert registration_of(dict(FULL)) == parse_record(line_of())


def test_the_explaining_way_accepts_what_the_typed_one_would() -> None:
    parser = RecordParser()
    assert parser.of_fields(FULL | {"clients": ("203.0.113.0/28", "2001:db8:12::/48")}) == parser.parse(line_of())


def test_duplicates_of_clients_peers_and_services_collapse_and_are_sorted() -> None:
    registration = parse_record(
        line_of(
            clients=["203.0.113.9", "203.0.113.8/32", "203.0.113.9/32"],
            peers=["198.51.100.7", "198.51.100.7/32"],
            services=["esp", "ipsec", "esp"],
        )
    )
    assert [str(prefix) for prefix in registration.clients] == ["203.0.113.8/32", "203.0.113.9/32"]
    assert len(registration.peers) == 1
    assert len(registration.services) == 4


def test_a_company_a_provisional_record_and_a_providers_endpoints() -> None:
    one = parse_record(line_of(registrant="co-17", provisional=True, valid_until="2030-01-01T00:00:00Z"))
    assert (one.registrant, one.is_provisional, one.endpoints) == ("co-17", True, ())
    two = parse_record(provider(endpoints=["2001:db8:7::/48", "198.51.100.0/24"], registrant="co-9"))
    assert [str(each) for each in two.endpoints] == ["2001:db8:7::/48", "198.51.100.0/24"]
    assert (two.clients, two.subscriber, two.registrant, two.is_provisional) == ((), None, "co-9", False)


@pytest.mark.parametrize("fields", [{"registrant": None}, {"provisional": False}, {"endpoints": []}])
def test_what_says_nothing_leaves_a_record_as_it_was(fields: dict[str, Any]) -> None:
    found = parse_record(line_of(**fields))
    assert found == parse_record(line_of())
    assert found.extension is None
    assert (found.registrant, found.is_provisional, found.endpoints) == (None, False, ())


@pytest.mark.parametrize("key", ["co-17", "PK.NTN:1234567-8", "7"])
def test_the_usual_keys_of_companies_are_taken(key: str) -> None:
    assert parse_record(line_of(registrant=key)).registrant == key
    assert is_registrant(key)


def test_a_source_that_may_not_bring_endpoints_brings_none() -> None:
    parser = RecordParser(allows_endpoints=False)
    assert parser.parse(line_of(registrant="co-17", endpoints=[])).registrant == "co-17"
    with pytest.raises(RecordRejected) as caught:
        parser.parse(provider())
    assert (caught.value.code, caught.value.field) == ("endpoints_not_allowed", "endpoints")


CASES: list[tuple[ReasonCode, str, bytes]] = [
    ("not_json", "", b"hello"),
    ("not_json", "", b'{"id":'),
    ("not_json", "", b'{"id":1e999}'),
    ("not_json", "", b'{"x":' + b"[" * 30_000),
    ("not_object", "", b'["a"]'),
    ("not_object", "", b"7"),
    ("not_utf8", "", b'{"id":"\xff"}'),
    ("nul_byte", "", b'{"id":"a"}\0\0'),
    ("line_too_long", "", b" " * 65_537),
    ("unknown_field", "colour", line_of(colour="red")),
    ("unknown_field", "Clients", line_of(Clients=[])),
    ("unknown_field", "(not a word)", line_of(**{"03001234567": 1})),
    ("identity_field", "name", line_of(name="x")),
    ("identity_field", "MSISDN", line_of(colour="red", MSISDN="923001234567")),
    ("missing_field", "id", without("id")),
    ("missing_field", "category", without("category")),
    ("missing_field", "status", line_of(status=None)),
    ("bad_type", "id", line_of(id=7)),
    ("bad_type", "clients", line_of(clients="203.0.113.0/28")),
    ("bad_type", "peers", line_of(peers=[7])),
    ("bad_type", "valid_from", line_of(valid_from=7)),
    ("bad_id", "id", line_of(id="")),
    ("bad_id", "id", line_of(id="a" * 65)),
    ("bad_id", "id", line_of(id="a b")),
    ("bad_id", "id", line_of(id="a\n")),
    ("bad_id", "id", line_of(id="a\0")),
    ("phone_number", "id", line_of(id="0300-7654321-17")),
    ("phone_number", "id", line_of(id="PK.00923007654321")),
    ("phone_number", "id", line_of(id="0300.765.43.21")),
    ("phone_number", "category", line_of(category="bank-0300-7654321")),
    ("bad_category", "category", line_of(category="Bank")),
    ("bad_category", "category", line_of(category="")),
    ("bad_status", "status", line_of(status="ACTIVE")),
    ("prefix_syntax", "clients", line_of(clients=["203.0.113.0/28", "bank"])),
    ("prefix_syntax", "clients", line_of(clients=["203.0.113.010/32"])),
    ("prefix_syntax", "clients", line_of(clients=["203.0.113.0/028"])),
    ("prefix_syntax", "clients", line_of(clients=["fe80::1%eth0/128"])),
    ("prefix_syntax", "peers", line_of(peers=["::ffff:198.51.100.7/128"])),
    ("prefix_host_bits", "clients", line_of(clients=["203.0.113.1/28"])),
    ("prefix_host_bits", "peers", line_of(peers=["2001:db8::1/64"])),
    ("prefix_too_short", "clients", line_of(clients=["8.0.0.0/7"])),
    ("prefix_too_short", "clients", line_of(clients=["2000::/15"])),
    ("prefix_not_unicast", "clients", line_of(clients=["224.0.0.1/32"])),
    ("prefix_not_unicast", "clients", line_of(clients=["0.0.0.0/8"])),
    ("prefix_not_unicast", "clients", line_of(clients=["127.0.0.1"])),
    ("prefix_not_unicast", "clients", line_of(clients=["169.254.7.0/24"])),
    ("prefix_not_unicast", "clients", line_of(clients=["255.255.255.255"])),
    ("prefix_not_unicast", "clients", line_of(clients=["::1"])),
    ("prefix_not_unicast", "clients", line_of(clients=["::/16"])),
    ("prefix_not_unicast", "clients", line_of(clients=["fe80::/64"])),
    ("prefix_not_unicast", "peers", line_of(peers=["ff02::1"])),
    ("no_client_or_subscriber", "", line_of(clients=[])),
    ("no_client_or_subscriber", "", without("clients")),
    ("bad_subscriber", "subscriber", line_of(subscriber="923001234567")),
    ("bad_subscriber", "subscriber", line_of(subscriber="hmac-sha256:" + "AB" * 32)),
    ("bad_subscriber", "subscriber", line_of(subscriber="")),
    ("bad_service", "services", line_of(services=["udp/0"])),
    ("bad_service", "services", line_of(services=["923001234567"])),
    ("bad_time", "valid_from", line_of(valid_from="2024-11-01")),
    ("bad_time", "valid_from", line_of(valid_from="2024-11-01T00:00:00")),
    ("bad_time", "valid_until", line_of(valid_until="2024-02-30T00:00:00Z")),
    ("bad_time", "valid_until", line_of(valid_until="2030-01-01 00:00:00Z")),
    ("bad_time", "valid_until", line_of(valid_until="")),
    ("window_empty", "valid_until", line_of(valid_until="2024-11-01T00:00:00Z")),
    ("window_empty", "valid_until", line_of(valid_until="2024-11-01T04:00:00+05:00")),
    ("too_many", "clients", line_of(clients=["203.0.113.1"] * 1025)),
    ("too_many", "peers", line_of(peers=["203.0.113.1"] * 257)),
    ("too_many", "services", line_of(services=["esp"] * 65)),
    ("bad_registrant", "registrant", line_of(registrant="")),
    ("bad_registrant", "registrant", line_of(registrant="Habib & Co")),
    ("bad_registrant", "registrant", line_of(registrant="a" * 65)),
    ("phone_number", "registrant", line_of(registrant="co-0300-7654321")),
    ("national_id", "registrant", line_of(registrant="35202-1234567-1")),
    ("national_id", "registrant", line_of(registrant="co.3520212345671")),
    ("bad_type", "registrant", line_of(registrant=7)),
    ("bad_type", "provisional", line_of(provisional="true")),
    ("provisional_open", "valid_until", line_of(provisional=True)),
    ("endpoint_too_short", "endpoints", provider(endpoints=["198.51.0.0/23"])),
    ("endpoint_too_short", "endpoints", provider(endpoints=["198.51.100.0/24", "2001:db8::/47"])),
    ("endpoint_with_client", "endpoints", provider(clients=["203.0.113.0/28"])),
    ("endpoint_with_client", "endpoints", provider(peers=["203.0.113.0/28"])),
    ("endpoint_with_client", "endpoints", provider(subscriber="hmac-sha256:" + DIGEST)),
    ("endpoint_without_service", "services", provider(services=[])),
    ("prefix_host_bits", "endpoints", provider(endpoints=["198.51.100.1/24"])),
    ("too_many", "endpoints", provider(endpoints=["198.51.100.1"] * 257)),
    ("bad_type", "endpoints", provider(endpoints="198.51.100.0/24")),
]


@pytest.mark.parametrize(("code", "field", "line"), CASES, ids=range(len(CASES)))
def test_a_wrong_record_is_rejected_with_its_code_and_field(code: str, field: str, line: bytes) -> None:
    with pytest.raises(RecordRejected) as caught:
        parse_record(line)
    assert (caught.value.code, caught.value.field) == (code, field)


@pytest.mark.parametrize("id", ["PK-2024-000123", "20240000123", "000000000123", "PK-2024-0000123", "7", "0"])
def test_the_usual_ids_are_no_phone_numbers(id: str) -> None:
    assert parse_record(line_of(id=id)).id == id
    assert is_id(id)


@given(st.text("0123456789.-aA:", min_size=1, max_size=24))
@example("0300-7654321")
@example("PK-2024-000123")
def test_the_quick_look_misses_no_number(text: str) -> None:
    if record._is_plain_id(text):
        assert is_id_text(text)
        assert not looks_like_number(text)


def test_an_id_that_looks_like_a_phone_number_is_never_shown() -> None:
    line = line_of(id="0300-7654321")
    with pytest.raises(RecordRejected) as caught:
        parse_record(line)
    assert "0300" not in str(caught.value)
    assert id_of_line(line) is None
    assert not is_id("0300-7654321")


def test_every_reason_has_a_sentence_and_a_case() -> None:
    of_readers = {"duplicate_id", "bad_columns", "endpoints_not_allowed"}
    assert set(REASONS) == set(get_args(ReasonCode))
    assert {code for code, _, _ in CASES} | of_readers == set(REASONS)
    assert all(sentence.endswith((".", "-", ":")) for sentence in REASONS.values())


@pytest.mark.parametrize(
    "line",
    [
        line_of(cnic="35202-1234567-1"),
        line_of(**{"35202-1234567-1": 1}),
        line_of(id="352021234567 1"),
        line_of(category="352021234567"),
        line_of(status="352021234567"),
        line_of(clients=["352021234567"]),
        line_of(services=["352021234567"]),
        line_of(services=["udp/352021234567"]),
        line_of(subscriber="352021234567"),
        line_of(valid_from="352021234567"),
        line_of(registrant="3520212345671"),
        line_of(registrant="co 352021234567"),
    ],
)
def test_a_rejection_never_repeats_what_may_be_a_number_of_a_person(line: bytes) -> None:
    with pytest.raises(RecordRejected) as caught:
        parse_record(line)
    assert "1234567" not in str(caught.value)


def test_a_rejection_shows_a_prefix_and_a_service_that_look_like_one() -> None:
    with pytest.raises(RecordRejected, match=r"203\.0\.113\.1/28: host bits .* 203\.0\.113\.0/28"):
        parse_record(line_of(clients=["203.0.113.1/28"]))
    with pytest.raises(RecordRejected, match="upd/51820"):
        parse_record(line_of(services=["upd/51820"]))


@pytest.mark.parametrize(
    "name",
    [
        "name", "cnic", "nic", "nicop", "passport", "msisdn", "phone", "mobile", "email", "address", "imsi",
        "imei", "owner", "contact", "father_name", "Father-Name", "ownerName", "contact_phone",
        "contactEmail", "PHONE", "Phone-Number",
    ],
)  # fmt: skip
def test_identity_fields_are_known_in_any_spelling(name: str) -> None:
    assert identity_field_of(["id", name]) == name


@pytest.mark.parametrize("name", [*record.FIELDS, "named", "comment", "nickel"])
def test_other_names_carry_no_identity(name: str) -> None:
    assert identity_field_of([name]) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01t05:00:00+05:00", 0.0),
        ("1970-01-01T00:00:01.5z", 1.5),
        ("1970-01-01T00:00:00.1234567890Z", 0.123456),
        ("1969-12-31T23:59:60Z", 0.0),
        ("1970-01-01T00:00:00-00:00", 0.0),
    ],
)
def test_times_are_rfc_3339(text: str, seconds: float) -> None:
    assert parse_record(line_of(valid_from=text)).valid_from_s == seconds


def test_equal_parts_of_one_source_are_one_object() -> None:
    parser = RecordParser()
    one, two = parser.parse(line_of(id="a")), parser.parse(line_of(id="b"))
    assert one.category is two.category
    assert one.peers is two.peers
    assert one.services is two.services
    a, b = parser.parse(line_of(id="a", registrant="c")), parser.parse(line_of(id="b", registrant="c"))
    assert a.extension is b.extension is not None


def test_what_is_shared_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_SHARED", 2)
    parser = RecordParser()
    lines = [line_of(peers=[f"198.51.100.{n}"], services=[]) for n in range(9)] + [line_of(peers=[])]
    assert [len(parser.parse(line).peers) for line in lines] == [1] * 9 + [0]
    assert len(parser._peers) <= 2


def test_the_id_of_a_rejected_line_is_found_where_it_can_be_shown() -> None:
    assert id_of_line(line_of(status="x")) == "PK-2024-000123"
    assert id_of_line(line_of(id="0300 1234567")) is None
    assert id_of_line(line_of(id=7)) is None
    assert id_of_line(b"[]") is None
    assert id_of_line(b"{") is None


@given(st.binary(max_size=200))
def test_any_bytes_give_a_registration_or_a_rejection(line: bytes) -> None:
    with pytest.raises(RecordRejected):
        parse_record(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(record.FIELDS), json_values, max_size=9))
def test_any_values_give_a_registration_or_a_declared_rejection(fields: dict[str, Any]) -> None:
    def parse() -> Registration:
        return parse_record(json.dumps(FULL | fields).encode())

    def convert() -> Registration:
        return registration_of(FULL | fields)

    for call in (parse, convert):
        code: str | None = None
        try:
            call()
        except RecordRejected as error:
            code = error.code
        assert code is None or code in REASONS
