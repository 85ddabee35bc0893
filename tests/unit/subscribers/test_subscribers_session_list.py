"""Entries of live sessions as an AAA system or an operator tells them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import SessionEntryInvalid
from gatewayd.model import parse_prefix
from gatewayd.model.accounting import AccountingEvent, NasProfile
from gatewayd.model.msisdn import session_digest, subscriber_digest
from gatewayd.subscribers.session_list import MAX_FAULTS_KEPT, SessionList, end_events, entry_event, read_sessions
from tests.support.accounting import Table

NOW = 1_730_689_200.0  # 2024-11-04T03:00:00Z
PEPPER = b"0123456789abcdef"
DIGITS = "923001234567"
DIGEST = subscriber_digest(DIGITS, PEPPER)
TELLING = "001234567"


def entry(**fields: Any) -> dict[str, object]:
    """A whole one, with fields in place of its own; `...` takes one away."""
    whole: dict[str, object] = {
        "nas": "bng-1", "session": "8a01", "number": "+92 300 1234567", "addresses": ["10.1.2.3"],
    }  # fmt: skip
    return {name: value for name, value in (whole | fields).items() if value is not ...}


def read(fields: object, profile: NasProfile | None = None, **options: Any) -> AccountingEvent:
    used = profile or NasProfile(country_code="92")
    return entry_event(fields, pepper=PEPPER, profile_of=lambda _: used, now_s=NOW, **options)


def refused(fields: object, profile: NasProfile | None = None) -> SessionEntryInvalid:
    with pytest.raises(SessionEntryInvalid) as caught:
        read(fields, profile)
    assert TELLING not in str(caught.value)
    return caught.value


def listed(text: str | bytes, profile: NasProfile | None = None) -> SessionList:
    raw = text.encode() if isinstance(text, str) else text
    used = profile or NasProfile(country_code="92")
    return read_sessions(raw, pepper=PEPPER, profile_of=lambda _: used, now_s=NOW)


# -- an entry --------------------------------------------------------------------------------------------------


def test_an_entry_is_an_interim_that_names_everything() -> None:
    assert read(entry()) == AccountingEvent(
        kind="interim",
        nas="bng-1",
        session="8a01",
        at_s=NOW,
        received_at_s=NOW,
        is_by_our_clock=True,
        subscriber=DIGEST,
        addresses=(parse_prefix("10.1.2.3/32"),),
        is_snapshot=True,
    )
    assert read(entry(), kind="start").kind == "start"


@pytest.mark.parametrize(
    "number",
    [
        "+923001234567", "+92 300 1234567", "00923001234567", "0092-300-1234567", "+92 (0)300 1234567",
        "03001234567", "0300.123.4567", "923001234567", "(0300) 1234567", "٠٣٠٠١٢٣٤٥٦٧",
    ],
)  # fmt: skip
def test_one_number_in_ten_spellings_is_one_digest(number: str) -> None:
    assert read(entry(number=number)).subscriber == DIGEST


def test_a_digest_is_taken_as_it_is() -> None:
    event = read(entry(number=..., subscriber=f"hmac-sha256:{DIGEST.hex()}"))
    assert event.subscriber == DIGEST


def test_the_country_code_is_of_the_profile_of_the_nas() -> None:
    asked = []

    def profile_of(nas: str) -> NasProfile:
        asked.append(nas)
        return NasProfile(country_code="44")

    event = entry_event(entry(number="07700 900123"), pepper=PEPPER, profile_of=profile_of, now_s=NOW)
    assert event.subscriber == subscriber_digest("447700900123", PEPPER)
    assert asked == ["bng-1"]
    assert refused(entry(number="03001234567"), NasProfile()).code == "number_no_country_code"


def test_session_ids_are_hashed_where_the_profile_says_so() -> None:
    hashed = read(entry(session=f"id-{DIGITS}"), NasProfile(country_code="92", session_ids="digest"))
    assert hashed.session == session_digest(f"id-{DIGITS}", PEPPER)


@pytest.mark.parametrize("field", ["nas", "session"])
@pytest.mark.parametrize("text", [f"x{DIGITS}", "0300-1234567-17", "300 123.4567"])
@pytest.mark.parametrize("who", [{}, {"number": ..., "subscriber": f"hmac-sha256:{DIGEST.hex()}"}])
def test_a_number_in_what_is_kept_and_shown_is_refused(field: str, text: str, who: dict[str, object]) -> None:
    invalid = refused(entry(**{field: text}, **who))
    assert (invalid.field, invalid.code) == (field, "number_in_clear")


def test_the_digits_of_another_number_are_no_reason() -> None:
    assert read(entry(session="0300-7654321-17")).session == "0300-7654321-17"


def test_addresses_of_both_families_stand_once_each() -> None:
    event = read(entry(addresses=["10.1.2.3", "2001:db8:1::/64", "10.1.2.3/32", "10.9.0.0/24"]))
    assert event.addresses == tuple(map(parse_prefix, ("10.1.2.3/32", "2001:db8:1::/64", "10.9.0.0/24")))


@pytest.mark.parametrize("ports", ["1024-2047", [1024, 2047]])
def test_ports_are_of_the_one_ipv4_address(ports: object) -> None:
    event = read(entry(addresses=["192.0.2.7", "2001:db8::/64"], ports=ports))
    assert event.ports == (1024, 2047)


@pytest.mark.parametrize(
    ("at", "at_s"),
    [
        (None, NOW), (NOW - 60, NOW - 60), (int(NOW), NOW), (NOW + 300, NOW + 300), ("1730689000.5", 1730689000.5),
        ("2024-11-04T03:00:00Z", NOW), ("2024-11-04 08:00:00.25+05:00", NOW + 0.25),
        ("2024-11-04t02:59:00z", NOW - 60),
    ],
)  # fmt: skip
def test_when_it_was_so(at: object, at_s: float) -> None:
    assert read(entry(at=at)).at_s == at_s


@pytest.mark.parametrize(("interim", "interim_s"), [(None, None), (300, 300), ("300", 300)])
def test_how_often_it_will_be_said_again(interim: object, interim_s: int | None) -> None:
    assert read(entry(interim=interim)).interim_s == interim_s


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ([], "", "not_an_object"),
        ("bng-1", "", "not_an_object"),
        (None, "", "not_an_object"),
        (entry(msisdn="1"), "msisdn", "unknown_field"),
        (entry(**{DIGITS: "1"}), "?", "unknown_field"),
        (entry(**{"\x1b[2J": "1"}), "?", "unknown_field"),
        (entry(nas=...), "nas", "missing"),
        (entry(nas=""), "nas", "empty"),
        (entry(nas=7), "nas", "bad_type"),
        (entry(nas="b" * 254), "nas", "too_long"),
        (entry(nas="b\0"), "nas", "not_printable"),
        (entry(session=...), "session", "missing"),
        (entry(session="é" * 127), "session", "too_long"),
        (entry(session="a\nb"), "session", "not_printable"),
        (entry(session="\ud800"), "session", "not_printable"),
        (entry(subscriber=f"hmac-sha256:{'0' * 64}"), "subscriber", "both"),
        (entry(number=...), "subscriber", "missing"),
        (entry(number=..., subscriber="0" * 64), "subscriber", "bad_subscriber"),
        (entry(number=..., subscriber=f"hmac-sha256:{'F' * 64}"), "subscriber", "bad_subscriber"),
        (entry(number=..., subscriber=5), "subscriber", "bad_subscriber"),
        (entry(number=923001234567), "number", "bad_type"),
        (entry(number="0" * 65), "number", "too_long"),
        (entry(number=f"{DIGITS}x"), "number", "number_not_a_number"),
        (entry(number=f"{DIGITS}\0"), "number", "number_not_a_number"),
        (entry(number="0011.2233.4455"), "number", "number_hardware_address"),
        (entry(number="00-11-22-33-44-55"), "number", "number_hardware_address"),
        (entry(number=""), "number", "number_not_a_number"),
        (entry(addresses=...), "addresses", "missing"),
        (entry(addresses=[]), "addresses", "empty"),
        (entry(addresses="10.1.2.3"), "addresses", "bad_type"),
        (entry(addresses=[167838211]), "addresses", "bad_type"),
        (entry(addresses=[f"10.0.0.{n}" for n in range(65)]), "addresses", "too_many_addresses"),
        (entry(addresses=[DIGITS]), "addresses", "prefix_syntax"),
        (entry(addresses=["10.1.2.3\0"]), "addresses", "prefix_syntax"),
        (entry(addresses=["fe80::1%eth0"]), "addresses", "prefix_syntax"),
        (entry(addresses=["0.0.0.0"]), "addresses", "address_unspecified"),
        (entry(addresses=["::"]), "addresses", "address_unspecified"),
        (entry(addresses=["255.255.255.254"]), "addresses", "address_hint"),
        (entry(addresses=["127.0.0.1"]), "addresses", "address_loopback"),
        (entry(addresses=["169.254.1.1"]), "addresses", "address_link_local"),
        (entry(addresses=["fe80::/64"]), "addresses", "address_link_local"),
        (entry(addresses=["224.0.0.5"]), "addresses", "address_multicast"),
        (entry(addresses=["ff02::1"]), "addresses", "address_multicast"),
        (entry(addresses=["240.0.0.1"]), "addresses", "address_reserved"),
        (entry(addresses=["::ffff:10.1.2.3"]), "addresses", "address_reserved"),
        (entry(addresses=["10.1.2.3", "10.0.0.0/23"]), "addresses", "prefix_too_short"),
        (entry(addresses=["10.0.0.0/7"]), "addresses", "prefix_too_short"),
        (entry(addresses=["2001:db8::/39"]), "addresses", "prefix_too_short"),
        (entry(addresses=["10.1.2.3/24"]), "addresses", "prefix_host_bits"),
        (entry(ports="2047-1024"), "ports", "bad_ports"),
        (entry(ports=[0, 10]), "ports", "bad_ports"),
        (entry(ports=[1, 65536]), "ports", "bad_ports"),
        (entry(ports=[True, 10]), "ports", "bad_ports"),
        (entry(ports=[1024]), "ports", "bad_ports"),
        (entry(ports="1024"), "ports", "bad_ports"),
        (entry(ports=1024), "ports", "bad_ports"),
        (entry(ports="1-2", addresses=["2001:db8::/64"]), "ports", "bad_ports"),
        (entry(ports="1-2", addresses=["10.1.2.3", "10.1.2.4"]), "ports", "bad_ports"),
        (entry(ports="1-2", addresses=["10.1.2.0/24"]), "ports", "bad_ports"),
        (entry(at=NOW + 300.5), "at", "at_in_future"),
        (entry(at="2024-11-05T03:00:00Z"), "at", "at_in_future"),
        (entry(at=-1), "at", "bad_time"),
        (entry(at=float("nan")), "at", "bad_time"),
        (entry(at=10**400), "at", "bad_time"),
        (entry(at=True), "at", "bad_time"),
        (entry(at=[]), "at", "bad_time"),
        (entry(at="yesterday"), "at", "bad_time"),
        (entry(at="2024-11-04T03:00:00"), "at", "bad_time"),
        (entry(at="2024-13-04T03:00:00Z"), "at", "bad_time"),
        (entry(interim=0), "interim", "bad_interim"),
        (entry(interim=7 * 86400 + 1), "interim", "bad_interim"),
        (entry(interim=300.0), "interim", "bad_interim"),
        (entry(interim=True), "interim", "bad_interim"),
        (entry(interim="5m"), "interim", "bad_interim"),
    ],
)
def test_a_bad_entry_is_refused_with_its_field_and_reason(fields: object, field: str, code: str) -> None:
    invalid = refused(fields)
    assert (invalid.field, invalid.code) == (field, code)
    assert str(invalid) == (f"{field}: {invalid.why}" if field else invalid.why)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted({*entry(), "at", "ports", "interim", "subscriber"})), _JSON))
def test_whatever_an_entry_holds_it_is_an_event_or_refused(fields: dict[str, object]) -> None:
    for each in (fields, entry() | fields):
        try:
            event = read(each)
        except SessionEntryInvalid:
            continue
        assert event.subscriber is not None
        assert event.addresses


# -- an end ----------------------------------------------------------------------------------------------------


def ends(
    nas: object, session: object, at: object = None, profile: NasProfile | None = None
) -> list[AccountingEvent]:
    return end_events(nas, session, pepper=PEPPER, profile_of=lambda _: profile or NasProfile(), now_s=NOW, at=at)


def test_an_end_is_a_final_stop() -> None:
    stop = AccountingEvent(
        kind="stop",
        nas="bng-1",
        session="8a01",
        at_s=NOW,
        received_at_s=NOW,
        is_by_our_clock=True,
        is_final_stop=True,
    )
    assert ends("bng-1", "8a01") == [stop]
    assert [each.at_s for each in ends("bng-1", "8a01", "2024-11-04T02:59:00Z")] == [NOW - 60]


def test_an_end_where_session_ids_are_hashed_may_be_of_either_id() -> None:
    plain, hashed = ends("bng-1", "8a01", profile=NasProfile(session_ids="digest"))
    assert (plain.session, hashed.session) == ("8a01", session_digest("8a01", PEPPER))
    assert msgspec.structs.replace(hashed, session="8a01") == plain


@pytest.mark.parametrize(
    ("nas", "session", "at", "field", "code"),
    [
        (None, "s", None, "nas", "missing"),
        ("n", "", None, "session", "empty"),
        ("n", 5, None, "session", "bad_type"),
        ("n\0", "s", None, "nas", "not_printable"),
        ("n", "s", NOW + 301, "at", "at_in_future"),
        ("n", "s", {}, "at", "bad_time"),
    ],
)
def test_an_end_of_nothing_is_refused(nas: object, session: object, at: object, field: str, code: str) -> None:
    with pytest.raises(SessionEntryInvalid) as caught:
        ends(nas, session, at)
    assert (caught.value.field, caught.value.code) == (field, code)


# -- a file ----------------------------------------------------------------------------------------------------


def test_ndjson_is_read_line_by_line_and_sorted_by_time() -> None:
    lines = [
        json.dumps(entry(session="b", at=NOW - 10)), "", "{nonsense", json.dumps(entry(session="c", at=NOW - 20)),
        "[1]", json.dumps(entry(session="d", nas="")), f'{{"nas": "{"x" * 10}\\u0000"}}', "[" * 100_000,
        json.dumps(entry(session="a", at=NOW - 30)) + "\r",
    ]  # fmt: skip
    found = listed("\ufeff\n" + "\n".join(lines))
    assert [event.session for event in found.events] == ["a", "c", "b"]
    assert [(fault.line, fault.field, fault.code) for fault in found.faults] == [
        (4, "", "not_json"), (6, "", "not_an_object"), (7, "nas", "empty"), (8, "nas", "not_printable"),
        (9, "", "not_json"),
    ]  # fmt: skip
    assert found.faulty == 5
    assert str(found.faults[2]) == "7: nas: empty: empty"


def test_csv_is_read_by_its_head() -> None:
    found = listed(
        "session,nas,number,subscriber,addresses,ports,at,interim\n"
        f"s1,bng-1,0300 1234567,,10.1.2.3 2001:db8:1::/64,,{NOW - 5},300\n"
        f'"s,2",bng-1,,hmac-sha256:{DIGEST.hex()}, 192.0.2.7 ,1024-2047,2024-11-04T02:00:00Z,\n'
    )
    assert (found.faults, found.faulty) == ([], 0)
    second, first = found.events
    assert (first.session, first.interim_s, first.ports, first.at_s) == ("s1", 300, None, NOW - 5)
    assert first.addresses == (parse_prefix("10.1.2.3/32"), parse_prefix("2001:db8:1::/64"))
    assert (second.session, second.ports, second.at_s) == ("s,2", (1024, 2047), NOW - 3600)
    assert first.subscriber == second.subscriber == DIGEST


def test_a_bad_line_of_csv_costs_itself_alone() -> None:
    found = listed(
        b"nas,session,number,addresses\n"
        b"bng-1,s1,03001234567,10.1.2.3\n"
        b"bng-1,s2,03001234567\n"
        b"bng-1,s3,0300\xff,10.1.2.3\n"
        b'bng-1,"s4,03001234567,10.1.2.3\n'
        b"bng-1,,03001234567,10.1.2.3\n"
        b"bng-1,s6,03001234567,0.0.0.0\n"
        b"bng-1,s7,03001234567,10.1.2.4\n"
    )
    assert [event.session for event in found.events] == ["s1", "s7"]
    assert [(fault.line, fault.code) for fault in found.faults] == [
        (3, "bad_columns"), (4, "not_utf8"), (5, "bad_columns"), (6, "missing"), (7, "address_unspecified"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "field", "code"),
    [
        ("nas,session,msisdn,addresses", "msisdn", "unknown_field"),
        ("bng-1,8a01,+923001234567,10.1.2.3", "?", "unknown_field"),
        ("nas,session,session,number", "", "bad_columns"),
        ('nas,"session', "", "bad_columns"),
        (b"\xff\xfe", "", "not_utf8"),
    ],
)
def test_without_a_head_that_is_understood_nothing_is_read(head: str | bytes, field: str, code: str) -> None:
    raw = head.encode() if isinstance(head, str) else head
    found = listed(raw + b"\nbng-1,s1,03001234567,10.1.2.3\n")
    assert found.events == []
    assert [(fault.line, fault.field, fault.code) for fault in found.faults] == [(1, field, code)]


def test_columns_that_are_left_out_are_missing_in_every_line() -> None:
    found = listed("nas,session,number\nbng-1,s1,03001234567\n")
    assert [(fault.line, fault.field, fault.code) for fault in found.faults] == [(2, "addresses", "missing")]


@pytest.mark.parametrize("raw", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"nas,session,number,addresses\n"])
def test_an_empty_list_has_nobody(raw: bytes) -> None:
    assert listed(raw) == ([], [], 0)


def test_faults_are_kept_up_to_a_bound_and_counted_beyond() -> None:
    found = listed("{}\n" * (MAX_FAULTS_KEPT + 7))
    assert (len(found.faults), found.faulty) == (MAX_FAULTS_KEPT, MAX_FAULTS_KEPT + 7)


@given(st.binary(max_size=400) | st.text(alphabet='{}[]",:\n\0 nassession10.', max_size=200).map(str.encode))
def test_whatever_a_file_holds_it_is_read(raw: bytes) -> None:
    found = listed(raw)
    assert found.faulty >= len(found.faults)


def test_no_number_is_in_a_fault() -> None:
    number = "+92 300 1234567"
    lines = [
        {"nas": number, "session": "s"}, entry(session=DIGITS), entry(number=f"{number}x"),
        entry(addresses=[number]),
        entry(ports=number), entry(at=number), entry(interim=number), {number: 1}, number,
        entry(subscriber=number, number=...), entry(number="+92 0300 1234567"), entry(number=number * 2),
    ]  # fmt: skip
    found = listed("{}\n" + "\n".join(json.dumps(line) for line in lines))
    assert found.faulty == len(lines) + 1
    said = " ".join(map(str, found.faults))
    assert "1234567" not in said
    assert DIGEST.hex() not in said


def test_a_time_is_that_of_the_zone() -> None:
    at_s = datetime(2024, 11, 4, 2, 30, tzinfo=UTC).timestamp()
    assert listed(json.dumps(entry(at="2024-11-04T07:30:00+05:00"))).events[0].at_s == at_s


def test_an_entry_is_as_old_as_it_says_and_its_nas_has_no_slow_clock_for_that() -> None:
    """All of a list may be old."""
    lines = [
        json.dumps(entry(session=f"s{age_s}", addresses=[f"10.0.0.{number}"], at=NOW - age_s))
        for number, age_s in enumerate((25 * 3600, 14 * 3600, 10), 1)
    ]
    table = Table()
    for each in listed("\n".join(lines)).events:
        table.take(each)
    assert set(table.bound()) == {"10.0.0.2/32", "10.0.0.3/32"}
    assert table.sessions.counts.stale == 1
    table.wait_until(NOW + 11 * 3600)
    assert set(table.bound()) == {"10.0.0.3/32"}, "a day of silence is over for who was last heard 14 hours ago"
