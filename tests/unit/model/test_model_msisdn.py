from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import MsisdnInvalid, PepperUnusable
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model.msisdn import is_country_code, normalise_msisdn, pepper_of, subscriber_digest

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
    assert pepper_of(b"0123456789abcdef") == pepper_of(b"0123456789abcdef\r\n") == b"0123456789abcdef"


@pytest.mark.parametrize("raw", [b"", b"0123456789abcde\n"])
def test_a_short_pepper_is_refused_with_what_to_do(raw: bytes) -> None:
    with pytest.raises(PepperUnusable, match="fewer than 16 bytes; make one: head -c 32"):
        pepper_of(raw)


def test_the_digest_is_the_hmac_of_the_digits() -> None:
    assert subscriber_digest(DIGITS, b"p").hex() == hmac.new(b"p", b"923001234567", hashlib.sha256).hexdigest()
    digest = subscriber_digest(normalise_msisdn(mobile_number(7), "92"), DEMO_PEPPER)
    assert subscriber_of(7) == f"hmac-sha256:{digest.hex()}"
