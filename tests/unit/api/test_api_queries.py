from __future__ import annotations

import json
from contextlib import suppress
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.api.plan import PlanRequest
from gatewayd.api.queries import (
    MAX_ENTRIES,
    Page,
    ParameterRejected,
    read_end,
    read_entries,
    read_flag,
    read_flow,
    read_host,
    read_impact_question,
    read_page,
    read_parameters,
    read_plan,
    read_prefix,
    read_since,
    read_status,
    read_until,
)
from gatewayd.errors import SessionEntryInvalid
from gatewayd.model import Flow, parse_address, parse_prefix

GOOD = {"src": "203.0.113.5", "dst": "198.51.100.7", "service": "udp/51820"}
SOURCE, DESTINATION = parse_address(GOOD["src"]), parse_address(GOOD["dst"])


@pytest.mark.parametrize(
    ("changed", "flow"),
    [
        ({}, Flow(17, SOURCE, DESTINATION, 0, 51820)),
        ({"sport": "40000"}, Flow(17, SOURCE, DESTINATION, 40000, 51820)),
        ({"source_port": "40000"}, Flow(17, SOURCE, DESTINATION, 40000, 51820)),
        ({"service": "esp"}, Flow(50, SOURCE, DESTINATION)),
        ({"service": "wireguard"}, Flow(17, SOURCE, DESTINATION, 0, 51820)),
        (
            {"src": "2001:db8::1", "dst": "2001:db8::2", "service": "tcp/443"},
            Flow(6, parse_address("2001:db8::1"), parse_address("2001:db8::2"), 0, 443),
        ),
    ],
)
def test_a_flow_is_read_from_words(changed: dict[str, str], flow: Flow) -> None:
    assert read_flow(GOOD | changed) == flow


@pytest.mark.parametrize(
    ("changed", "parameter", "why"),
    [
        ({"src": None}, "src", "missing, expected for example src=203.0.113.5"),
        ({"service": None}, "service", "missing, expected for example service=udp/51820"),
        ({"src": "203.0.113.0/28"}, "src", "'203.0.113.0/28': not an IPv4 or IPv6 address"),
        ({"dst": "bank.example"}, "dst", "'bank.example': not an IPv4 or IPv6 address"),
        ({"dst": "2001:db8::1"}, "dst", "src and dst must both be IPv4 or both be IPv6"),
        (
            {"service": "ipsec"},
            "service",
            "'ipsec' is a bundle, ask for one of its services: udp/500, udp/4500, esp, ah",
        ),
        ({"service": "udp"}, "service", "'udp' is more than one port, expected udp/PORT"),
        ({"service": "tcp/1-2"}, "service", "'tcp/1-2' is more than one port, expected tcp/PORT"),
        ({"service": "udp/0"}, "service", "'udp/0': a port is a number from 1 to 65535"),
        ({"service": "esp", "sport": "1"}, "sport", "esp has no ports"),
        ({"service": "esp", "source_port": "1"}, "source_port", "esp has no ports"),
        ({"sport": "1", "source_port": "1"}, "source_port", "sport is given too, and is the same"),
        ({"source_port": "0"}, "source_port", "0 is not from 1 to 65535"),
        ({"sport": "0"}, "sport", "0 is not from 1 to 65535"),
        ({"sport": "-1"}, "sport", "'-1' is not a number from 1 to 65535"),
        ({"sport": "²"}, "sport", "'²' is not a number from 1 to 65535"),
        ({"sport": "1" * 13}, "sport", f"'{'1' * 13}' is not a number from 1 to 65535"),
    ],
)
def test_a_bad_flow_names_the_parameter(changed: dict[str, str | None], parameter: str, why: str) -> None:
    words = {name: text for name, text in (GOOD | changed).items() if text is not None}
    with pytest.raises(ParameterRejected) as caught:
        read_flow(words)
    assert (caught.value.parameter, caught.value.why) == (parameter, why)


def test_an_empty_parameter_is_as_good_as_none() -> None:
    assert read_parameters([("q", ""), ("category", "bank")], ("q", "category")) == {"category": "bank"}


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([("qq", "a")], "qq: unknown, expected q, pretty"),
        ([("q", "a"), ("q", "b")], "q: given twice"),
        ([("q", "a" * 201)], "q: longer than 200 characters"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused(pairs: list[tuple[str, str]], why: str) -> None:
    with pytest.raises(ParameterRejected) as caught:
        read_parameters(pairs, ("q",))
    assert str(caught.value) == why


def test_a_moment_has_its_offset_and_is_open_by_default() -> None:
    assert read_since({}) == -inf
    assert read_since({"since": "1970-01-01T00:15:00Z"}) == 900.0
    with pytest.raises(ParameterRejected) as caught:
        read_since({"since": "yesterday"})
    assert (caught.value.parameter, "'yesterday' is no time" in str(caught.value)) == ("since", True)


def test_an_end_in_time_is_a_moment_too_and_there_is_none_by_default() -> None:
    assert read_until({}) is None
    assert read_until({"since": "1970-01-01T00:15:00Z", "until": "1970-01-01T05:15:00+05:00"}) == 900.0
    for text in ("tomorrow", "900", "2026-02-30T00:00:00Z"):
        with pytest.raises(ParameterRejected, match=f"until: '{text}' is no time") as caught:
            read_until({"until": text})
        assert caught.value.parameter == "until"


@pytest.mark.parametrize(
    ("header", "name"),
    [("gw-1:9480", "gw-1"), ("gw-1.example.", "gw-1.example"), ("[2001:db8::1]:9480", "2001:db8::1"), ("", "")],
)
def test_the_host_of_a_request_is_a_name_or_an_address(header: str, name: str) -> None:
    assert read_host(header) == name


def test_a_page_has_defaults_and_bounds() -> None:
    assert read_page({}) == Page(0, 100)
    assert read_page({"offset": "7", "limit": "1000"}) == Page(7, 1000)
    for words in ({"limit": "0"}, {"limit": "1001"}, {"offset": "x"}):
        with pytest.raises(ParameterRejected):
            read_page(words)


def test_a_status_is_one_of_three() -> None:
    assert read_status({}) is None
    assert read_status({"status": "revoked"}) == "revoked"
    with pytest.raises(ParameterRejected, match="'gone' is none of active, suspended, revoked"):
        read_status({"status": "gone"})


@pytest.mark.parametrize(
    ("text", "prefix"), [(None, None), ("10.1.2.3", "10.1.2.3/32"), ("2001:db8::/64", "2001:db8::/64")]
)
def test_a_prefix_may_be_an_address(text: str | None, prefix: str | None) -> None:
    parameters = {} if text is None else {"address": text}
    assert read_prefix(parameters, "address") == (None if prefix is None else parse_prefix(prefix))


@pytest.mark.parametrize("text", ["10.1.2", "10.1.2.3/24", "x\0", "0.0.0.0/0"])
def test_what_is_no_prefix_names_the_parameter(text: str) -> None:
    with pytest.raises(ParameterRejected) as caught:
        read_prefix({"address": text}, "address")
    assert caught.value.parameter == "address"


def test_a_parameter_may_be_as_long_as_its_reader_allows() -> None:
    assert read_parameters([("nas", "a" * 253)], ("nas",), 253) == {"nas": "a" * 253}
    with pytest.raises(ParameterRejected, match="longer than 253 characters"):
        read_parameters([("nas", "a" * 254)], ("nas",), 253)


# -- bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "entries"),
    [(b"{}", [{}]), (b"[]", []), (b'[{"nas":"a"},7]', [{"nas": "a"}, 7]), (b"null", [None]), (b" 7 ", [7])],
)
def test_one_entry_or_a_list_is_read(body: bytes, entries: list[object]) -> None:
    assert list(read_entries(body)) == entries


def test_a_list_has_a_bound() -> None:
    assert len(read_entries(json.dumps([{}] * MAX_ENTRIES).encode())) == MAX_ENTRIES
    with pytest.raises(SessionEntryInvalid) as caught:
        read_entries(json.dumps([{}] * (MAX_ENTRIES + 1)).encode())
    assert (caught.value.code, str(caught.value)) == ("too_many_entries", "1001 entries, at most 1000 are taken")


@pytest.mark.parametrize("body", [b"", b"{", b"\0", b"\xff", b"[" * 100_000, b'{"a":1}{"a":1}', b"'a'"])
def test_what_is_no_json_is_said_so_and_not_repeated(body: bytes) -> None:
    for read in (read_entries, lambda raw: read_end(raw or b"{", ())):
        with pytest.raises(SessionEntryInvalid) as caught:
            read(body)
        assert (caught.value.code, str(caught.value)) == ("not_json", "the body is not JSON")


def test_an_end_is_in_the_body_or_in_the_query() -> None:
    pairs = [("nas", "a"), ("session", "b"), ("at", "5"), ("pretty", "")]
    assert read_end(b"", pairs) == {"nas": "a", "session": "b", "at": "5"}
    assert read_end(b'{"nas":"a","session":"b"}', [("pretty", "")]) == {"nas": "a", "session": "b"}
    with pytest.raises(ParameterRejected):
        read_end(b'{"nas":"a","session":"b"}', pairs)


@pytest.mark.parametrize(
    ("body", "code"), [(b"[]", "not_an_object"), (b"null", "not_an_object"), (b'{"number":"1"}', "unknown_field")]
)
def test_an_end_of_another_form_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(SessionEntryInvalid) as caught:
        read_end(body, ())
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    for read in (read_entries, lambda raw: read_end(raw, ())):
        with suppress(SessionEntryInvalid):
            read(body)


def test_a_flag_is_a_digit() -> None:
    assert [read_flag(words, "force") for words in ({}, {"force": "0"}, {"force": "1"})] == [False, False, True]
    with pytest.raises(ParameterRejected, match="force: 'yes' is neither 0 nor 1"):
        read_flag({"force": "yes"}, "force")


def test_a_plan_is_asked_for_with_a_body_or_without() -> None:
    assert read_plan(b"") == PlanRequest()
    assert read_plan(b'{"config": "a: 1", "mode": "reject", "canary": 5}') == PlanRequest("a: 1", "", "reject", 5)
    for body, why in (
        (b"{", "body: "),
        (b"\xff", "body: "),
        (b'{"mode": "refuse"}', "Invalid enum value 'refuse'"),
        (b'{"moed": "reject"}', "unknown field `moed`"),
        (b'{"canary": 0}', "canary: 0 is not from 1 to 100"),
    ):
        with pytest.raises(ParameterRejected, match=why):
            read_plan(body)


@pytest.mark.parametrize(
    ("parameters", "question"),
    [
        ({}, (None, 100, 10)),
        ({"since": "1970-01-01T01:00:00Z", "top": "5", "canary": "0"}, (3600.0, 5, 0)),
    ],
)
def test_a_question_of_impact(parameters: dict[str, str], question: tuple[float | None, int, int]) -> None:
    assert read_impact_question(parameters) == question


@pytest.mark.parametrize("parameters", [{"since": "soon"}, {"top": "1001"}, {"canary": "101"}, {"canary": "-1"}])
def test_a_question_of_impact_that_is_none_names_its_parameter(parameters: dict[str, str]) -> None:
    with pytest.raises(ParameterRejected) as caught:
        read_impact_question(parameters)
    assert caught.value.parameter in parameters
