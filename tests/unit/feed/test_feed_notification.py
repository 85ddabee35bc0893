from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey

from gatewayd.errors import BadSignature, KeyInvalid, NotificationMalformed, UnknownKey
from gatewayd.feed.notification import (
    MAX_BYTES,
    MAX_DELTAS,
    DeltaRef,
    Notification,
    SigningKey,
    SnapshotRef,
    generate_key,
    load_signing_key,
    load_verifying_keys,
    open_notification,
    sign_notification,
)
from tests.support.feeds import KEY, KEYS, SESSIONS

NOTIFICATION = Notification(
    session=SESSIONS[0],
    serial=7,
    issued_at=1_750_000_000.25,
    refresh=60,
    retry=10,
    expire=604800,
    snapshot=SnapshotRef("snapshot.gz", "a" * 64, 1000, 10),
    deltas=(DeltaRef(6, "/feed/6.gz", "b" * 64, 40), DeltaRef(7, "https://r.example/7.gz?x=1", "c" * 64, 50)),
)
SIGNED = sign_notification(NOTIFICATION, KEY)


def encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def parts(raw: bytes) -> list[bytes]:
    return raw.split(b".")


def payload(**changes: Any) -> dict[str, Any]:
    fields = json.loads(base64.urlsafe_b64decode(parts(SIGNED)[1] + b"=="))
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def signed(fields: object, key: SigningKey = KEY) -> bytes:
    return key.sign(json.dumps(fields).encode())


def with_header(header: object) -> bytes:
    return b".".join([encode(json.dumps(header).encode()), *parts(SIGNED)[1:]])


def test_what_is_signed_is_opened_again() -> None:
    assert open_notification(SIGNED, KEYS) == NOTIFICATION
    assert open_notification(b"\r\n" + SIGNED + b"\n", KEYS) == NOTIFICATION


def test_it_is_on_the_wire_as_the_design_says() -> None:
    assert json.loads(base64.urlsafe_b64decode(parts(SIGNED)[0] + b"==")) == {
        "alg": "EdDSA",
        "kid": "national-1",
    }
    assert payload() == {
        "version": 1,
        "session": SESSIONS[0],
        "serial": 7,
        "issued_at": "2025-06-15T15:06:40.250000Z",
        "refresh": 60,
        "retry": 10,
        "expire": 604800,
        "snapshot": {"url": "snapshot.gz", "sha256": "a" * 64, "size": 1000, "count": 10},
        "deltas": [
            {"serial": 6, "url": "/feed/6.gz", "sha256": "b" * 64, "size": 40},
            {"serial": 7, "url": "https://r.example/7.gz?x=1", "sha256": "c" * 64, "size": 50},
        ],
    }


def test_intervals_may_be_left_out_fields_added_and_the_time_be_of_any_zone() -> None:
    fields = payload(refresh=..., retry=..., expire=..., deltas=..., note="x")
    fields["issued_at"] = "2025-06-15T20:06:40.25+05:00"
    opened = open_notification(signed(fields), KEYS)
    assert (opened.refresh, opened.retry, opened.expire, opened.deltas) == (0, 0, 0, ())
    assert opened.issued_at == NOTIFICATION.issued_at


def test_the_algorithm_may_have_its_new_name() -> None:
    key = OKPKey.import_key(json.loads(KEY.private_text()))
    raw = jws.serialize_compact(
        {"alg": "Ed25519", "kid": KEY.kid}, json.dumps(payload()), key, algorithms=["Ed25519"]
    )
    assert open_notification(raw.encode(), KEYS) == NOTIFICATION


def test_wrong_key() -> None:
    with pytest.raises(BadSignature) as caught:
        open_notification(sign_notification(NOTIFICATION, generate_key("national-1")), KEYS)
    assert caught.value.kid == "national-1"


def test_unknown_kid() -> None:
    with pytest.raises(UnknownKey) as caught:
        open_notification(sign_notification(NOTIFICATION, generate_key("other")), KEYS)
    assert (caught.value.kid, caught.value.known) == ("other", ("national-1",))
    with pytest.raises(UnknownKey, match="configured: none"):
        open_notification(SIGNED, {})


def test_rotated_key() -> None:
    new = generate_key("national-2")
    both = load_verifying_keys([KEY.public_text(), new.public_text()])
    assert open_notification(SIGNED, both) == NOTIFICATION
    assert open_notification(sign_notification(NOTIFICATION, new), both) == NOTIFICATION


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "ES256", "Ed448", "eddsa", ""])
def test_alg_none_and_others(alg: str) -> None:
    header, body, _ = parts(with_header({"alg": alg, "kid": KEY.kid}))
    for raw in (b".".join([header, body, b""]), b".".join([header, body, b"AAAA"])):
        with pytest.raises(NotificationMalformed):
            open_notification(raw, KEYS)


def test_the_public_key_is_no_shared_secret() -> None:
    secret = OctKey.import_key(KEY.public_text())
    raw = jws.serialize_compact({"alg": "HS256", "kid": KEY.kid}, json.dumps(payload()), secret)
    with pytest.raises(NotificationMalformed, match="EdDSA"):
        open_notification(raw.encode(), KEYS)


@pytest.mark.parametrize(
    "more",
    [
        {"jwk": json.loads(KEY.public_text())},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"kid": ["national-1"]},
        {"kid": "a b"},
        {"kid": "national-1\n"},
        {"typ": 1},
    ],
)
def test_nothing_of_the_header_but_alg_kid_and_typ_is_taken(more: dict[str, object]) -> None:
    with pytest.raises(NotificationMalformed, match="header"):
        open_notification(with_header({"alg": "EdDSA", "kid": KEY.kid} | more), KEYS)


def test_typ_is_taken() -> None:
    key = OKPKey.import_key(json.loads(KEY.private_text()))
    header = {"alg": "Ed25519", "kid": KEY.kid, "typ": "JOSE"}
    raw = jws.serialize_compact(header, json.dumps(payload()), key, algorithms=["Ed25519"])
    assert open_notification(raw.encode(), KEYS) == NOTIFICATION


def test_tampered_payload() -> None:
    header, _, signature = parts(SIGNED)
    raw = b".".join([header, encode(json.dumps(payload(serial=8)).encode()), signature])
    with pytest.raises(BadSignature):
        open_notification(raw, KEYS)


def test_tampered_header_and_signature() -> None:
    with pytest.raises(BadSignature):
        open_notification(with_header({"kid": KEY.kid, "alg": "EdDSA"}), KEYS)
    header, body, signature = parts(SIGNED)
    for wrong in (signature[:-4], encode(bytes(64)), encode(b"x"), signature[:-1]):
        with pytest.raises((BadSignature, NotificationMalformed)):
            open_notification(b".".join([header, body, wrong]), KEYS)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not a compact JWS"),
        (b"a.b", "not a compact JWS"),
        (b"a.b.c.d", "not a compact JWS"),
        (b"..", "not a compact JWS"),
        (SIGNED.replace(b".", b".+", 1), "not a compact JWS"),
        (SIGNED[:-3] + b"\x00\x00\x00", "not a compact JWS"),
        (json.dumps({"payload": "x", "signatures": []}).encode(), "not a compact JWS"),
        (b"<!DOCTYPE html><p>log in", "login page"),
        (b"\n\xef\xbb\xbf<html>", "login page"),
        (b"A" * (MAX_BYTES + 1), "longer than"),
        (b"A" * 600 + b".A.A", "header is longer"),
        (b"A.A.A", "header is not"),
        (encode(b"[1]") + b".A.A", "header is not"),
        (encode(b'"alg"') + b".A.A", "header is not"),
        (encode(b"\xff") + b".A.A", "header is not"),
        (parts(SIGNED)[0] + b".A." + parts(SIGNED)[2], "not a compact JWS"),
    ],
)
def test_what_is_no_jws(raw: bytes, why: str) -> None:
    with pytest.raises(NotificationMalformed, match=why):
        open_notification(raw, KEYS)


SNAPSHOT = {"url": "s.gz", "sha256": "a" * 64, "size": 1, "count": 1}
DELTA = {"serial": 7, "url": "7.gz", "sha256": "b" * 64, "size": 1}


@pytest.mark.parametrize(
    "fields",
    [
        [],
        payload(version=...),
        payload(session=...),
        payload(session="not-a-uuid"),
        payload(session=SESSIONS[0].upper() + "A"),
        payload(session=SESSIONS[0] + "\n"),
        payload(serial=0),
        payload(serial=-1),
        payload(serial=1 << 53),
        payload(serial=1.5),
        payload(serial="7"),
        payload(serial=True),
        payload(issued_at=1_750_000_000),
        payload(issued_at="2025-06-15T15:06:40"),
        payload(issued_at="yesterday"),
        payload(refresh=-1),
        payload(expire=10**9),
        payload(snapshot=...),
        payload(snapshot=None),
        payload(snapshot=SNAPSHOT | {"url": ""}),
        payload(snapshot=SNAPSHOT | {"url": "a b"}),
        payload(snapshot=SNAPSHOT | {"url": "a\\b"}),
        payload(snapshot=SNAPSHOT | {"url": "a\n"}),
        payload(snapshot=SNAPSHOT | {"url": "a\0"}),
        payload(snapshot=SNAPSHOT | {"url": "é"}),
        payload(snapshot=SNAPSHOT | {"url": "a" * 2049}),
        payload(snapshot=SNAPSHOT | {"sha256": "A" * 64}),
        payload(snapshot=SNAPSHOT | {"sha256": "a" * 63}),
        payload(snapshot=SNAPSHOT | {"size": 0}),
        payload(snapshot=SNAPSHOT | {"size": 1 << 41}),
        payload(snapshot=SNAPSHOT | {"count": -1}),
        payload(deltas={}),
        payload(deltas=[DELTA, DELTA]),
        payload(deltas=[DELTA | {"serial": 8}]),
        payload(deltas=[DELTA | {"serial": 0}]),
        payload(deltas=[DELTA | {"size": -1}]),
        payload(deltas=[DELTA | {"sha256": "b"}]),
        payload(serial=10**6, deltas=[DELTA | {"serial": number} for number in range(1, MAX_DELTAS + 2)]),
    ],
)
def test_what_is_signed_and_no_notification(fields: object) -> None:
    with pytest.raises(NotificationMalformed):
        open_notification(signed(fields), KEYS)


def test_another_version_is_named() -> None:
    with pytest.raises(NotificationMalformed, match="version 2; this gatewayd knows version 1"):
        open_notification(signed({"version": 2, "anything": "else"}), KEYS)


@pytest.mark.parametrize("raw", [b"\xff", b"{", b"[" * 5000])
def test_a_payload_that_is_no_json(raw: bytes) -> None:
    with pytest.raises(NotificationMalformed):
        open_notification(KEY.sign(raw), KEYS)


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": 0},
        {"issued_at": float("inf")},
        {"issued_at": float("nan")},
        {"session": "x"},
        {"version": 2},
        {
            "serial": 10**6,
            "deltas": tuple(DeltaRef(each, "u" * 900, "b" * 64, 1) for each in range(1, MAX_DELTAS + 1)),
        },
    ],
)
def test_what_would_be_refused_is_not_signed(changes: dict[str, object]) -> None:
    with pytest.raises(NotificationMalformed):
        sign_notification(msgspec.structs.replace(NOTIFICATION, **changes), KEY)


# -- keys ----------------------------------------------------------------------------------------------------


def test_keys_are_written_and_read_again() -> None:
    again = load_signing_key(KEY.private_text())
    assert sign_notification(NOTIFICATION, again) == SIGNED
    assert again.public_text() == KEY.public_text()
    assert json.loads(KEY.public_text()).keys() == {"kty", "crv", "kid", "use", "x"}
    assert json.loads(KEY.private_text()).keys() == {"kty", "crv", "kid", "use", "x", "d"}


def test_a_key_does_not_show_itself() -> None:
    secret = json.loads(KEY.private_text())["d"]
    assert repr(KEY) == "SigningKey('national-1')"
    assert repr(KEYS) == "{'national-1': VerifyingKey('national-1')}"
    with pytest.raises(KeyInvalid) as caught:
        load_verifying_keys([KEY.private_text()])
    assert "national-1 is a private key" in str(caught.value)
    assert secret not in str(caught.value)


def test_public_keys_compare_by_name_and_key() -> None:
    (again,) = load_verifying_keys([KEY.public_text()]).values()
    (other,) = load_verifying_keys([generate_key("national-1").public_text()]).values()
    assert again == KEYS["national-1"]
    assert hash(again) == hash(KEYS["national-1"])
    assert again != other
    assert again != "national-1"


def test_a_set_of_keys_and_several_texts() -> None:
    other = generate_key("b@example/2")
    members = [json.loads(KEY.public_text()), json.loads(other.public_text()) | {"alg": "EdDSA", "x5t": "?"}]
    assert list(load_verifying_keys([json.dumps({"keys": members})])) == ["national-1", "b@example/2"]
    assert list(load_verifying_keys([KEY.public_text(), other.public_text(), KEY.public_text()])) == [
        "national-1",
        "b@example/2",
    ]
    assert load_verifying_keys([]) == {}


PUBLIC = json.loads(KEY.public_text())
PRIVATE = json.loads(KEY.private_text())
OTHER = json.loads(generate_key("national-1").private_text())


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "expected an Ed25519 JWK"),
        ({}, "expected an Ed25519 JWK"),
        ({"keys": []}, "at least one key"),
        ({"keys": {}}, "at least one key"),
        ({"keys": [1]}, "expected an Ed25519 JWK"),
        ({"keys": [PUBLIC, PRIVATE]}, "is a private key"),
        ({"keys": [PUBLIC, {**OTHER, "d": None}]}, "two different keys"),
        (PUBLIC | {"kid": ""}, "expected"),
        (PUBLIC | {"kid": "a b"}, "expected"),
        (PUBLIC | {"kid": None}, "expected"),
        (PUBLIC | {"use": "enc"}, "expected"),
        (PUBLIC | {"alg": "RS256"}, "expected"),
        (PUBLIC | {"crv": "Ed448"}, "expected"),
        (PUBLIC | {"crv": "X25519"}, "expected"),
        (PUBLIC | {"x": ""}, "does not hold"),
        (PUBLIC | {"x": "AAAA"}, "does not hold"),
        (PUBLIC | {"x": "!"}, "does not hold"),
        (PUBLIC | {"x": "é"}, "does not hold"),
        (ECKey.generate_key("P-256", parameters={"kid": "k"}).as_dict(private=False), "expected"),
        (OctKey.generate_key(256, parameters={"kid": "k"}).as_dict(private=True), "expected"),
    ],
)
def test_what_is_no_public_key(value: object, why: str) -> None:
    with pytest.raises(KeyInvalid, match=why):
        load_verifying_keys([json.dumps(value)])


@pytest.mark.parametrize("text", ["", "-----BEGIN PUBLIC KEY-----", "{", "[" * 5000, '{"x": "\ud800"}'])
def test_a_key_that_is_no_json(text: str) -> None:
    with pytest.raises(KeyInvalid):
        load_verifying_keys([text])
    with pytest.raises(KeyInvalid):
        load_signing_key(text)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (PUBLIC, "is a public key"),
        (PRIVATE | {"d": "AAAA"}, "does not hold"),
        (PRIVATE | {"d": OTHER["d"]}, "do not belong together"),
    ],
)
def test_what_is_no_private_key(value: object, why: str) -> None:
    with pytest.raises(KeyInvalid, match=why):
        load_signing_key(json.dumps(value))


@pytest.mark.parametrize("kid", ["", "a b", "x" * 129, "é", "a\n"])
def test_a_key_needs_a_name_that_can_be_written(kid: str) -> None:
    with pytest.raises(KeyInvalid, match="kid"):
        generate_key(kid)


# -- anything ------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_declared_errors(raw: bytes) -> None:
    for candidate in (raw, KEY.sign(raw), encode(raw) + b"." + encode(raw) + b".AAAA"):
        with pytest.raises((NotificationMalformed, BadSignature, UnknownKey)):
            open_notification(candidate, KEYS)


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 255))
def test_a_changed_byte_is_noticed(place: int, byte: int) -> None:
    mutated = SIGNED[:place] + bytes([byte]) + SIGNED[place + 1 :]
    try:
        assert open_notification(mutated, KEYS) == NOTIFICATION
    except (NotificationMalformed, BadSignature, UnknownKey):
        assert mutated != SIGNED
    else:
        assert mutated == SIGNED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*payload(), "new"]), json_values)
def test_any_value_in_any_field_is_a_notification_or_a_declared_error(name: str, value: object) -> None:
    try:
        opened = open_notification(signed(payload(**{name: value})), KEYS)
    except NotificationMalformed:
        return
    assert open_notification(sign_notification(opened, KEY), KEYS) == opened


@given(
    st.text(max_size=60)
    | st.builds(
        lambda name, value: json.dumps(PUBLIC | {name: value}),
        st.sampled_from(["kty", "crv", "x", "kid", "d", "keys"]),
        json_values,
    )
)
def test_any_text_is_a_key_or_a_declared_error(text: str) -> None:
    for load in (load_signing_key, lambda text: load_verifying_keys([text])):
        with suppress(KeyInvalid):
            load(text)
