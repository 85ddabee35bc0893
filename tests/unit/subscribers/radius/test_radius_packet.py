from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import InputRejected, RadiusRejected
from gatewayd.subscribers.radius import packet
from gatewayd.subscribers.radius.packet import (
    MAX_ATTRIBUTES,
    MAX_BYTES,
    STATUS_SERVER,
    AccountingRequest,
    StatusServer,
    encode_response,
    open_request,
    split_attributes,
)
from tests.support.radius import (
    SECRET,
    VECTORS,
    Vector,
    accounting_request,
    attribute,
    extended,
    integer,
    is_message_authentic,
    is_response,
    status_server,
    text,
    vendor,
)

NUMBER = "923001234567"
START = (integer(40, 1), text(44, "S1"), text(31, NUMBER))
WITH_SECRET = [vector for vector in VECTORS if vector.secret]


def opened(*attributes: bytes, is_signed: bool = False) -> AccountingRequest:
    request = open_request(accounting_request(*attributes, is_signed=is_signed), [SECRET])
    assert isinstance(request, AccountingRequest)
    return request


def reason(raw: bytes, *secrets: bytes) -> str:
    with pytest.raises(RadiusRejected) as caught:
        open_request(raw, secrets or [SECRET])
    assert isinstance(caught.value, InputRejected)
    assert str(caught.value) == f"{caught.value.code}: {caught.value.detail}"
    return caught.value.code


@pytest.mark.parametrize("vector", WITH_SECRET, ids=lambda vector: vector.id)
def test_requests_of_other_implementations_are_opened_and_answered_to_the_byte(vector: Vector) -> None:
    assert vector.secret
    request = open_request(vector.request, [vector.secret])
    assert isinstance(request, AccountingRequest)
    assert encode_response(request) == vector.response


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_a_wrong_secret_opens_nothing(vector: Vector) -> None:
    assert reason(vector.request, b"another") == "bad_authenticator"


def test_there_are_eight_vectors_and_seven_secrets() -> None:
    assert len(VECTORS) == 8
    assert len(WITH_SECRET) == 7
    assert all(vector.origin for vector in VECTORS)


def test_unknown_attributes_and_vendors_are_no_obstacle() -> None:
    (vector,) = [vector for vector in VECTORS if vector.id == "pyrad-realistic-interim"]
    request = opened(vector.request[20:])
    assert request.values(224) == [bytes.fromhex("32345010002296c9")]
    assert request.vendor_values(594, 1) == [b"UNKNOWN_PRODUCT"]


def test_values_are_bytes_in_the_order_of_the_packet() -> None:
    request = opened(attribute(25, b"b"), text(44, "S1"), attribute(25, b"a"), attribute(25, b""))
    assert request.values(25) == [b"b", b"a", b""]
    assert request.values(1) == []


def test_vendors_attributes_are_found_by_vendor_and_type() -> None:
    request = opened(
        vendor(10415, text(1, "imsi"), attribute(11, b"\xff")),
        vendor(6527, text(1, "other")),
        vendor(10415, text(1, "more")),
    )
    assert request.vendor_values(10415, 1) == [b"imsi", b"more"]
    assert request.vendor_values(10415, 11) == [b"\xff"]
    assert request.vendor_values(9, 1) == []


@pytest.mark.parametrize(
    "specific",
    [b"", b"\0\0", b"\0\0\x28\xaf", b"\0\0\x28\xaf\x01", b"\0\0\x28\xaf\x01\0", b"\0\0\x28\xaf\x01\x09ab"],
    ids=["empty", "half a vendor", "vendor alone", "no length", "length 0", "too long"],
)
def test_a_vendor_with_a_layout_of_its_own_costs_its_attribute_alone(specific: bytes) -> None:
    request = opened(attribute(26, specific), text(44, "S1"))
    assert request.vendor_values(10415, 1) == []
    assert request.values(44) == [b"S1"]


def test_extended_attributes_are_found_by_their_extended_type() -> None:
    request = opened(extended(6, b"ports"), extended(26, b"vendor"), attribute(241, b""), extended(6, b""))
    assert request.extended_values(6) == [b"ports", b""]


def test_either_secret_of_a_rotation_opens_and_answers() -> None:
    raw = accounting_request(*START, secret=b"new")
    for secrets in ([b"old", b"new"], [b"new", b"old"]):
        assert is_response(encode_response(open_request(raw, secrets)), raw, b"new")


def test_without_secrets_nothing_is_opened() -> None:
    with pytest.raises(RadiusRejected, match="bad_authenticator"):
        open_request(accounting_request(*START), [])


def test_bytes_behind_the_stated_length_are_padding() -> None:
    raw = accounting_request(*START)
    assert is_response(encode_response(open_request(raw + b"\0padding", [SECRET])), raw)


def test_identifier_and_authenticator_tell_a_repeat_from_a_new_request() -> None:
    raw = accounting_request(*START, identifier=200)
    request = open_request(raw, [SECRET])
    assert request.identifier == 200


@pytest.mark.parametrize("size", [0, 1, 19])
def test_a_datagram_shorter_than_a_header_is_too_short(size: int) -> None:
    assert reason(bytes(size)) == "too_short"


@pytest.mark.parametrize("stated", [0, 19, 21, MAX_BYTES + 1, 65535])
def test_a_length_below_the_header_or_past_the_datagram_is_bad(stated: int) -> None:
    assert reason(b"\x04\x01" + stated.to_bytes(2, "big") + bytes(16)) == "bad_length"


def test_a_packet_may_have_4096_bytes_and_no_more() -> None:
    filler = [attribute(25, bytes(252))] * 16
    longest = accounting_request(*filler, attribute(25, bytes(10)))
    assert len(longest) == MAX_BYTES
    assert open_request(longest, [SECRET])
    assert reason(accounting_request(*filler, attribute(25, bytes(11)))) == "bad_length"


@pytest.mark.parametrize("code", [0, 1, 2, 5, 11, 13, 40, 43, 255])
def test_other_codes_are_bad(code: int) -> None:
    assert reason(bytes([code]) + accounting_request(*START)[1:]) == "bad_code"


@pytest.mark.parametrize(
    "attributes",
    [b"\x2c", b"\x2c\x00", b"\x2c\x01", b"\x2c\x04S", text(44, "S1") + b"\x2c\xffS"],
    ids=["type alone", "length 0", "length 1", "one short", "far past the end"],
)
def test_attributes_that_do_not_fill_the_packet_are_bad_under_any_authenticator(attributes: bytes) -> None:
    assert reason(accounting_request(attributes)) == "bad_attribute"


FLOOD = b"\x04\x07\x10\x00" + bytes(16) + b"\x08\x02" * 2038
"""The costliest that there is: as long as can be, of attributes that are as short as can be."""


def test_nothing_is_parsed_before_the_sender_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(raw: bytes, most: int) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(packet, "split_attributes", parse)
    assert reason(FLOOD) == "bad_authenticator"
    with pytest.raises(AssertionError, match="parsed"):
        open_request(accounting_request(*START), [SECRET])


def test_of_a_status_server_few_attributes_are_parsed_before_its_sender_is_known() -> None:
    assert reason(bytes([STATUS_SERVER]) + FLOOD[1:]) == "bad_attribute"
    assert len(split_attributes(b"\x08\x02" * 16, 16) or ()) == 16
    assert split_attributes(b"\x08\x02" * 17, 16) is None


@pytest.mark.parametrize(("count", "is_opened"), [(MAX_ATTRIBUTES, True), (MAX_ATTRIBUTES + 1, False)])
def test_a_request_has_so_many_attributes_and_no_more(count: int, is_opened: bool) -> None:
    request = accounting_request(b"\x08\x02" * count)
    if is_opened:
        assert len(opened(*[b"\x08\x02"] * count).values(8)) == count
    else:
        assert reason(request) == "bad_attribute"


def test_vendors_attributes_count_too() -> None:
    block = vendor(10415, b"\x01\x02" * 120)
    request = opened(*START, *[block] * 10)
    assert len(request.vendor_values(10415, 1)) == 480, "of four blocks; the fifth has no room any more"


def test_a_signed_request_is_opened() -> None:
    assert opened(*START, is_signed=True).values(44) == [b"S1"]


def test_a_message_authenticator_of_another_secret_is_bad() -> None:
    forged = accounting_request(*START, attribute(80, bytes(16)))
    assert reason(forged) == "bad_message_authenticator"


@pytest.mark.parametrize("values", [[b""], [bytes(15)], [bytes(17)], [bytes(16), bytes(16)]])
def test_a_message_authenticator_of_another_size_or_twice_is_bad(values: list[bytes]) -> None:
    attributes = [attribute(80, value) for value in values]
    assert reason(accounting_request(*attributes)) == "bad_message_authenticator"
    assert reason(status_server(*attributes, is_signed=False)) == "bad_message_authenticator"


def test_status_server_is_opened_with_any_secret_of_a_rotation() -> None:
    request = open_request(status_server(), [b"old", SECRET])
    assert isinstance(request, StatusServer)
    assert request.identifier == 9


def test_status_server_without_a_message_authenticator_is_refused() -> None:
    assert reason(status_server(is_signed=False)) == "missing_message_authenticator"


def test_status_server_of_another_secret_is_refused() -> None:
    assert reason(status_server(secret=b"another")) == "bad_message_authenticator"


def test_status_server_is_answered_with_a_signed_accounting_response() -> None:
    raw = status_server(attribute(33, b"proxy"))
    response = encode_response(open_request(raw, [SECRET]))
    assert is_response(response, raw)
    assert is_message_authentic(response, raw[4:20])
    assert response.endswith(attribute(33, b"proxy"))


def test_proxy_state_goes_back_as_it_came_and_in_order() -> None:
    states = [attribute(33, value) for value in (b"\0\1", b"", bytes(253), b"\0\1")]
    raw = accounting_request(states[0], *START, *states[1:])
    response = encode_response(open_request(raw, [SECRET]))
    assert response[20:] == b"".join(states)
    assert is_response(response, raw)


@pytest.mark.parametrize("is_signed", [False, True])
def test_an_answer_is_signed_on_demand_alone(is_signed: bool) -> None:
    raw = accounting_request(*START, is_signed=is_signed)
    request = open_request(raw, [SECRET])
    assert len(encode_response(request)) == 20
    response = encode_response(request, is_signed=True)
    assert is_response(response, raw)
    assert is_message_authentic(response, bytes(16))


def test_no_value_and_no_secret_shows_in_a_request() -> None:
    for request in (opened(*START), open_request(status_server(*START), [SECRET])):
        shown = repr(request) + str(request) + f"{request}"
        assert NUMBER not in shown
        assert SECRET.decode() not in shown
        assert f"{type(request).__name__}(identifier={request.identifier})" == repr(request)


@given(st.binary(max_size=80))
def test_random_bytes_are_rejected_or_nothing_worse(raw: bytes) -> None:
    with pytest.raises(RadiusRejected):
        open_request(raw, [SECRET])


@given(st.binary(max_size=300), st.sampled_from([4, 12]))
def test_random_attributes_under_a_whole_header_are_rejected_or_nothing_worse(body: bytes, code: int) -> None:
    head = bytes([code, 1]) + (20 + len(body)).to_bytes(2, "big") + bytes(16)
    with pytest.raises(RadiusRejected):
        open_request(head + body, [SECRET])


@given(st.binary(max_size=300))
def test_random_attributes_of_somebody_with_the_secret_are_opened_or_rejected(body: bytes) -> None:
    raw = accounting_request(body)
    try:
        request = open_request(raw, [SECRET])
    except RadiusRejected:
        return
    assert is_response(encode_response(request), raw)


@given(
    st.lists(st.tuples(st.integers(1, 255).filter(lambda each: each != 80), st.binary(max_size=40)), max_size=20),
    st.booleans(),
)
def test_what_was_put_into_a_request_comes_out(pairs: list[tuple[int, bytes]], is_signed: bool) -> None:
    request = opened(*(attribute(*pair) for pair in pairs), is_signed=is_signed)
    for type_ in {type_ for type_, _ in pairs}:
        assert request.values(type_) == [value for each, value in pairs if each == type_]


@pytest.mark.parametrize("vector", WITH_SECRET, ids=lambda vector: vector.id)
def test_a_request_that_is_cut_anywhere_is_rejected(vector: Vector) -> None:
    assert vector.secret
    for size in range(len(vector.request)):
        assert reason(vector.request[:size], vector.secret) in ("too_short", "bad_length")
        if size >= 20:
            restated = vector.request[:2] + size.to_bytes(2, "big") + vector.request[4:size]
            assert reason(restated, vector.secret) in (
                "bad_attribute",
                "bad_authenticator",
                "bad_message_authenticator",
            )


@pytest.mark.parametrize("vector", WITH_SECRET, ids=lambda vector: vector.id)
def test_a_request_with_any_byte_changed_is_rejected(vector: Vector) -> None:
    assert vector.secret
    for at in range(len(vector.request)):
        changed = bytearray(vector.request)
        changed[at] ^= 1
        reason(bytes(changed), vector.secret)


@given(st.binary(max_size=60))
def test_split_attributes_have_the_bytes_they_were_split_from(raw: bytes) -> None:
    attributes = split_attributes(raw)
    if attributes is not None:
        assert b"".join(attribute(*each) for each in attributes) == raw
