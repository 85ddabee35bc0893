from __future__ import annotations

import base64
import hashlib
import hmac
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import MsisdnInvalid, PepperUnusable
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model.msisdn import (
    MAX_TEXT_DIGITS,
    SESSION_DIGEST_BYTES,
    digits_in,
    is_country_code,
    looks_like_national_id,
    looks_like_number,
    may_name_person,
    normalise_msisdn,
    parse_digest,
    pepper_of,
    session_digest,
    shows_number,
    shows_subscriber,
    subscriber_digest,
)

DIGITS = "923001234567"


@pytest.mark.parametrize(
    "text",
    [
        "+923001234567",
        "+92 300 1234567",
        " +92-300-1234567 ",
        "(+92) 300 1234567",
        "+92 (0)300 1234567",
        "+92.300.123.4567",
        "00923001234567",
        "0092 300 123-4567",
        "0300 1234567",
        "0300-1234567",
        "(0300) 123 4567",
        "[0300].123.4567",
        "(0)300 1234567",
        "923001234567",
        "92 300 1234567",
        "+92\u00a0300\u20111234567",
        "۰۳۰۰ ۱۲۳۴۵۶۷",
    ],
)
def test_every_usual_spelling_is_the_same_number(text: str) -> None:
    assert normalise_msisdn(text, "92") == DIGITS


@pytest.mark.parametrize("text", ["+923001234567", "0092 300 1234567", "+92 (0)300 1234567", "0092 (0)300-1234567"])
def test_an_international_number_needs_no_country_code(text: str) -> None:
    assert normalise_msisdn(text) == DIGITS


@pytest.mark.parametrize(
    ("text", "country_code", "code"),
    [
        ("", "92", "not_a_number"),
        ("+", "92", "not_a_number"),
        ("not known", "92", "not_a_number"),
        ("++923001234567", "92", "not_a_number"),
        ("0300-1234567/8", "92", "not_a_number"),
        ("0300x1234567", "92", "not_a_number"),
        ("+²923001234567", "92", "not_a_number"),
        ("+0923001234567", "92", "not_a_number"),
        ("0000923001234567", "92", "not_a_number"),
        ("03001234567", None, "no_country_code"),
        ("923001234567", None, "no_country_code"),
        ("3001234567", "92", "no_country_code"),
        ("922123456", "92", "no_country_code"),
        ("+9203001234567", "92", "trunk_zero"),
        ("009203001234567", "92", "trunk_zero"),
        ("+92300", "92", "too_short"),
        ("0300", "92", "too_short"),
        ("+9230012345678901", "92", "too_long"),
        ("0" + "3" * 100_000, "92", "too_long"),
    ],
)
def test_what_is_no_number_is_refused_with_a_code_and_never_repeated(
    text: str, country_code: str | None, code: str
) -> None:
    with pytest.raises(MsisdnInvalid) as refusal:
        normalise_msisdn(text, country_code)
    assert refusal.value.code == code
    assert refusal.value.__cause__ is None
    if len(text) > 3:
        assert text not in str(refusal.value)


@given(st.text(max_size=40), st.sampled_from([None, "92", "1", "372"]))
def test_any_text_is_a_number_or_refused_and_a_number_is_stable(text: str, country_code: str | None) -> None:
    try:
        digits = normalise_msisdn(text, country_code)
    except MsisdnInvalid:
        return
    assert digits.isascii()
    assert digits.isdigit()
    assert normalise_msisdn(f"+{digits}", country_code) == digits


@pytest.mark.parametrize(
    ("text", "is_one"), [("92", True), ("1", True), ("971", True), ("092", False), ("+92", False), ("1234", False)]
)
def test_country_codes(text: str, is_one: bool) -> None:
    assert is_country_code(text) is is_one


def test_a_pepper_file_may_end_in_a_newline() -> None:
    assert pepper_of(b"a pepper of tests") == pepper_of(b"a pepper of tests\r\n") == b"a pepper of tests"


@pytest.mark.parametrize("raw", [b"", b"0123456789abcde\n"])
def test_a_short_pepper_is_refused_with_what_to_do(raw: bytes) -> None:
    with pytest.raises(PepperUnusable, match="fewer than 16 bytes; make one: head -c 32"):
        pepper_of(raw)


@pytest.mark.parametrize(
    ("pepper", "why"),
    [
        (b"x" * 32, "different bytes"),
        (b"passwordpassword", "different bytes"),
        (b"pepper1" * 4, "different bytes"),
        (b"changeme-12changeme-12", "one text repeated"),
        (b"0123456789abcdef", "sequence of neighbours"),
        (b"1234567890123456", "sequence of neighbours"),
        (b"zyxwvutsrqponmlkjih", "sequence of neighbours"),
        (bytes(range(32)), "sequence of neighbours"),
    ],
)
def test_a_pepper_that_can_be_guessed_is_refused(pepper: bytes, why: str) -> None:
    with pytest.raises(PepperUnusable, match=f"{why}.*make one: head -c 32"):
        pepper_of(pepper)


@pytest.mark.parametrize("seed", range(50))
def test_random_peppers_are_taken_as_hex_and_as_base64(seed: int) -> None:
    drawn = random.Random(seed).randbytes(32)
    for pepper in (drawn[:16].hex().encode(), base64.b64encode(drawn), b"!" + drawn + b"!"):
        assert pepper_of(pepper) == pepper


def test_the_digest_is_the_hmac_of_the_digits() -> None:
    assert subscriber_digest(DIGITS, b"p").hex() == hmac.new(b"p", b"923001234567", hashlib.sha256).hexdigest()
    digest = subscriber_digest(normalise_msisdn(mobile_number(7), "92"), DEMO_PEPPER)
    assert subscriber_of(7) == f"hmac-sha256:{digest.hex()}"


# A number in a text of somebody else


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("0300-7654321-17", "0300765432117"),
        ("", ""),
        ("bng", ""),
        ("٠٣٠٠ 7", "03007"),
        ("a1b2\n3", "123"),
    ],
)
def test_the_digits_of_a_text_are_those_of_any_script(text: str, digits: str) -> None:
    assert digits_in(text) == digits


SPELLINGS = ["923001234567", "+92 300 1234567", "0300-1234567", "0300.123.4567", "(0300) 1234 567", "٣٠٠١٢٣٤٥٦٧"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("around", ["{}", "{}-17", "bng1/{}", "17 {} 18", "a{}b"])
def test_a_number_is_seen_in_a_text_however_both_are_written(spelling: str, around: str) -> None:
    text = around.format(spelling)
    for number in SPELLINGS:
        assert shows_number(text, number)
    subscriber = subscriber_digest(DIGITS, b"p")
    assert shows_subscriber(text, subscriber, b"p", "92")
    assert not shows_subscriber(text, subscriber_digest("923001234568", b"p"), b"p", "92")


@pytest.mark.parametrize("text", ["", "bng-1", "8a0000c1", "923001234568", "1234567-0300", "30012345 67"[:9]])
def test_what_has_other_digits_is_no_number(text: str) -> None:
    assert not shows_number(text, DIGITS)
    assert not shows_subscriber(text, subscriber_digest(DIGITS, b"p"), b"p", "92")


def test_a_text_without_digits_is_no_number_to_be_found() -> None:
    assert not shows_number("anything", "")
    assert not shows_number("anything", "nemo")


def test_without_a_country_code_a_number_is_seen_by_all_its_digits() -> None:
    subscriber = subscriber_digest(DIGITS, b"p")
    assert shows_subscriber("x923001234567-17", subscriber, b"p")
    assert not shows_subscriber("0300-1234567", subscriber, b"p")


def test_a_text_of_too_many_digits_is_taken_to_have_the_number() -> None:
    assert not shows_subscriber("7" * MAX_TEXT_DIGITS, b"", b"p", "92")
    assert shows_subscriber("7" * (MAX_TEXT_DIGITS + 1), b"", b"p", "92")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0300-7654321-17", True),
        ("PK-0300-7654321", True),
        ("PK 0300 7654321/17", True),
        ("03007654321", True),
        ("+92 300 7654321", True),
        ("office+92(300)7654321", True),
        ("00923007654321", True),
        ("923007654321", True),
        ("2024-0300-7654321", True),
        ("PK-2024-000123", False),
        ("2024-11-01T03:00:00Z", False),
        ("0000123456", False),
        ("7654321", False),
        ("+123456", False),
        ("1730689200", False),
        ("203.0.113.0/28", False),
        ("bank", False),
        ("", False),
    ],
)
def test_what_looks_like_a_number(text: str, is_one: bool) -> None:
    assert looks_like_number(text, "92") is is_one


def test_only_the_own_country_code_makes_bare_digits_a_number() -> None:
    assert not looks_like_number("923007654321")
    assert not looks_like_number("923007654321", "1")


def test_a_session_id_that_is_hashed_is_the_same_for_the_same_id_alone() -> None:
    assert session_digest("0300-7654321-17", b"p") == session_digest("0300-7654321-17", b"p")
    assert len({session_digest(id, pepper) for id in ("a", "b") for pepper in (b"p", b"q")}) == 4
    assert len(session_digest("a", b"p")) == 2 * SESSION_DIGEST_BYTES


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("35202-1234567-1", True),
        ("co-3520212345671", True),
        ("35202123456712", False),
        ("1234567-8", False),
        ("PK-2024-000123", False),
    ],
)
def test_a_national_identity_number_is_known_by_its_digits(text: str, is_one: bool) -> None:
    assert looks_like_national_id(text) is is_one


def test_a_digest_is_read_from_its_text_and_from_nothing_else() -> None:
    assert parse_digest(f"hmac-sha256:{'0f' * 32}") == b"\x0f" * 32
    for text in (
        "",
        "0f" * 32,
        f"hmac-sha256:{'0F' * 32}",
        f"hmac-sha256:{'0f' * 31}",
        f"hmac-sha256:{'0f' * 32}\n",
    ):
        assert parse_digest(text) is None


@pytest.mark.parametrize(
    ("text", "is_count", "may"),
    [
        ("+92 345 9876541", True, True), ("03459876541", True, True), ("42201-7654321-9", True, True),
        ("zara@persons.example", True, True), ("3459876541", False, True), ("3459876541", True, False),
        ("923459876541", False, True), ("12345678", False, False), ("PK-2024000123", False, False),
        ("39.32.0.0/28", False, False), ("2001:db8::1", False, False), ("1-2024000123", False, False),
        ("two words 3459876541", False, True), ("", False, False),
    ],
)  # fmt: skip
def test_what_may_name_a_person_is_not_repeated(text: str, is_count: bool, may: bool) -> None:
    assert may_name_person(text, is_count=is_count) is may
