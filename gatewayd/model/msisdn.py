"""Mobile numbers (MSISDN) and the keyed digest that stands for one.

A number is only ever passed through here: text in, E.164 digits out, digest of those. Nothing in this module
keeps a number, and no error repeats one. The registry (import) and the gateway (accounting) both come through
here, because a digest fits only when both sides wrote the number the same way before hashing it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from gatewayd.errors import MsisdnInvalid, PepperUnusable

MIN_DIGITS: Final = 7
"""Country code and subscriber number; the shortest in use (Niue, Saint Helena) have seven or eight."""
MAX_DIGITS: Final = 15
"""ITU-T E.164 §6.2."""
MIN_BARE_DIGITS: Final = 10
"""A number with neither + nor 0 before it must be at least this long for its country code to be believed."""

MIN_PEPPER_BYTES: Final = 16

_SEPARATORS: Final = dict.fromkeys(map(ord, " \t\u00a0\u2007\u2009\u202f.-\u2010\u2011\u2012\u2013\u2014()[]"))
"""Blanks, dots, dashes and brackets, as people and spreadsheets write them."""

_is_country_code = re.compile(r"[1-9][0-9]{0,2}", re.ASCII).fullmatch


def normalise_msisdn(text: str, country_code: str | None = None) -> str:
    """The E.164 digits, without +, of a number in any usual spelling.

    `+92 300 1234567`, `0092-300-1234567` and `+92 (0)300 1234567` need nothing else. A national number
    (`0300.1234567`) and bare digits (`923001234567`) need `country_code`, the latter to begin with it: without,
    `3001234567` would be a number in Greece. Digits of any script count as digits.

    Raises MsisdnInvalid: `not_a_number`, `no_country_code`, `trunk_zero`, `too_short`, `too_long`.
    """
    compact = text.translate(_SEPARATORS)
    if compact.startswith(("+", "00")) and "(0)" in text:
        compact = text.replace("(0)", "", 1).translate(_SEPARATORS)
    body = compact.removeprefix("+")
    if not body.isdecimal():
        raise MsisdnInvalid("not_a_number", "not a mobile number")
    # Cut where it is longer than any number already; int() knows the digits of every script.
    digits = body[: 2 * MAX_DIGITS]
    if not digits.isascii():
        digits = "".join(str(int(sign)) for sign in digits)
    if body == compact:
        digits = digits[2:] if digits.startswith("00") else _with_country_code(digits, country_code)
    if digits.startswith("0"):
        raise MsisdnInvalid("not_a_number", "a country code never begins with 0")
    if country_code is not None and digits.startswith(f"{country_code}0"):
        raise MsisdnInvalid("trunk_zero", f"after the country code {country_code} there is no 0")
    if len(digits) < MIN_DIGITS:
        raise MsisdnInvalid("too_short", f"fewer than {MIN_DIGITS} digits")
    if len(digits) > MAX_DIGITS:
        raise MsisdnInvalid("too_long", f"more than {MAX_DIGITS} digits")
    return digits


def _with_country_code(digits: str, country_code: str | None) -> str:
    """A number written without + or 00."""
    if country_code is None:
        raise MsisdnInvalid("no_country_code", "has no + or 00 before it, and no country code is given")
    if digits.startswith("0"):
        return country_code + digits[1:]
    if not digits.startswith(country_code) or len(digits) < MIN_BARE_DIGITS:
        raise MsisdnInvalid("no_country_code", f"begins with none of +, 00, 0 and the country code {country_code}")
    return digits


def is_country_code(text: str) -> bool:
    """Whether `text` can be a country code: one to three digits, the first not 0 (E.164 §6.2.1)."""
    return _is_country_code(text) is not None


def pepper_of(raw: bytes) -> bytes:
    """The pepper that a pepper file holds: all of it but blanks and line ends at its end.

    Raises PepperUnusable for fewer than MIN_PEPPER_BYTES: all numbers of a country can be tried in minutes,
    so the digests are as secret as the pepper and no more.
    """
    pepper = raw.rstrip(b" \t\r\n")
    if len(pepper) < MIN_PEPPER_BYTES:
        raise PepperUnusable(
            f"the pepper has fewer than {MIN_PEPPER_BYTES} bytes",
            "make one: head -c 32 /dev/urandom | base64 > PEPPER_FILE",
        )
    return pepper


def subscriber_digest(digits: str, pepper: bytes) -> bytes:
    """The 32 bytes that stand for a number: HMAC-SHA256(pepper, E.164 digits without +)."""
    return hmac.digest(pepper, digits.encode("ascii"), hashlib.sha256)
