"""Mobile numbers (MSISDN) and the keyed digest that stands for one.

A number is only ever passed through here: text in, E.164 digits out, digest of those. Nothing in this module
keeps a number, and no error repeats one. The registry (import) and the gateway (accounting) both come through
here, because a digest fits only when both sides wrote the number the same way before hashing it.

A text from outside that is kept or shown (a session id, the name of a NAS, an id, a category) may have a number
in it. It is asked here, by its digits alone: people and gear write dashes, blanks and suffixes as they like.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from itertools import pairwise
from typing import Final

from gatewayd.errors import MsisdnInvalid, PepperUnusable

MIN_DIGITS: Final = 7
"""Country code and subscriber number; the shortest in use (Niue, Saint Helena) have seven or eight."""
MAX_DIGITS: Final = 15
"""ITU-T E.164 §6.2."""
MIN_BARE_DIGITS: Final = 10
"""A number with neither + nor 0 before it must be at least this long for its country code to be believed."""

MIN_PEPPER_BYTES: Final = 16
MIN_PEPPER_SIGNS: Final = 8
"""Different bytes in a pepper; of 16 random bytes, in hexadecimal, fewer are found once in ten thousand."""

TELLING_DIGITS: Final = 9
"""So many last digits of a number, found in another text, are taken for that number: the country code and the trunk
zero, which differ from one spelling to another, come before them."""
MAX_TEXT_DIGITS: Final = 64
"""Of a text in which a number is looked for by its digest; one with more is taken to have it."""
SESSION_DIGEST_BYTES: Final = 16

_SEPARATORS: Final = dict.fromkeys(map(ord, " \t\u00a0\u2007\u2009\u202f.-\u2010\u2011\u2012\u2013\u2014()[]"))
"""Blanks, dots, dashes and brackets, as people and spreadsheets write them."""

_not_digits = re.compile(r"\D+")
_run_of_digits = re.compile(r"\+?\d[\d \t\u00a0.()\[\]/\u2010-\u2014-]*")
"""As _SEPARATORS, and the slash that some countries write."""
_token = re.compile(r"\d+")
_MIN_TOKEN_DIGITS: Final = 4
"""Of a token within a run that a number may begin with."""
_STEPS_OF_A_SEQUENCE: Final = 2
_digest_parts = re.compile(r"hmac-sha256:([0-9a-f]{64})", re.ASCII).fullmatch
_is_country_code = re.compile(r"[1-9][0-9]{0,2}", re.ASCII).fullmatch


def parse_digest(text: str) -> bytes | None:
    """The digest of `hmac-sha256:` and 64 lower-case hex digits; None: the text is something else."""
    match = _digest_parts(text)
    return None if match is None else bytes.fromhex(match[1])


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

    Raises PepperUnusable for fewer than MIN_PEPPER_BYTES, and for one that can be guessed: all numbers of a country
    can be tried in minutes, so the digests are as secret as the pepper and no more.
    """
    pepper = raw.rstrip(b" \t\r\n")
    remedy = "make one: head -c 32 /dev/urandom | base64 > PEPPER_FILE"
    if len(pepper) < MIN_PEPPER_BYTES:
        raise PepperUnusable(f"the pepper has fewer than {MIN_PEPPER_BYTES} bytes", remedy)
    if len(set(pepper)) < MIN_PEPPER_SIGNS:
        raise PepperUnusable(f"the pepper has fewer than {MIN_PEPPER_SIGNS} different bytes", remedy)
    if 2 * (pepper + pepper).index(pepper, 1) <= len(pepper):
        raise PepperUnusable("the pepper is one text repeated", remedy)
    if len({after - before for before, after in pairwise(pepper)}) <= _STEPS_OF_A_SEQUENCE:
        raise PepperUnusable("the pepper is a sequence of neighbours, such as 0123456789abcdef", remedy)
    return pepper


def digits_in(text: str) -> str:
    """All its digits, of any script, as ASCII: of `0300-7654321-17` they are `0300765432117`."""
    digits = _not_digits.sub("", text)
    return digits if digits.isascii() else "".join(str(int(sign)) for sign in digits)


def shows_number(text: str, number: str) -> bool:
    """Whether the last TELLING_DIGITS digits of `number` (all, if it has fewer) stand in `text` one after another,
    whatever stands between them. False for a number without digits."""
    tail = digits_in(number)[-TELLING_DIGITS:]
    return bool(tail) and tail in digits_in(text)


def shows_subscriber(text: str, subscriber: bytes, pepper: bytes, country_code: str | None = None) -> bool:
    """Whether the number that `subscriber` is the digest of stands in `text`, in national form or with its country
    code. A text with more than MAX_TEXT_DIGITS digits is taken to have it. A digest takes 1 µs, and a text of n
    digits up to 14 n of them.
    """
    digits = digits_in(text)
    if len(digits) > MAX_TEXT_DIGITS:
        return True
    for length in range(TELLING_DIGITS, min(MAX_DIGITS, len(digits)) + 1):
        for first in range(len(digits) - length + 1):
            number = digits[first : first + length]
            if subscriber_digest(number, pepper) == subscriber:
                return True
            if country_code is not None and subscriber_digest(country_code + number, pepper) == subscriber:
                return True
    return False


def looks_like_number(text: str, country_code: str | None = None) -> bool:
    """Whether a mobile number may stand in `text`, of which no number is known: digits, with the signs that people
    write between them, that begin with +, with 00 and a country code, with a trunk zero, or with `country_code`.

    An id such as `PK-2024-000123` is none; `PK-0300-7654321` and `0300 7654321/17` are.
    """
    for run in _run_of_digits.finditer(text):
        written = run[0]
        starts = [0, *(each.start() for each in _token.finditer(written) if len(each[0]) >= _MIN_TOKEN_DIGITS)]
        if any(_begins_as_number(written[start:], country_code) for start in starts):
            return True
    return False


_national_id = re.compile(r"(?<![0-9])[0-9]{5}-?[0-9]{7}-?[0-9](?![0-9])", re.ASCII).search


def looks_like_national_id(text: str) -> bool:
    """Whether a Pakistani CNIC may stand in `text`: 13 digits, with or without its dashes after 5 and 12."""
    return _national_id(text) is not None


_bare_number = re.compile(r"(?<![0-9A-Za-z._-])[0-9]{9,15}(?![0-9A-Za-z._-])", re.ASCII).search


def may_name_person(text: str, *, is_count: bool = False) -> bool:
    """Whether a text from outside may be a person's number or e-mail address: no answer and no log repeats it then.

    `is_count`: a number is expected there, so digits alone are none of a person. More is taken for a person's than
    is: it costs a message its detail, and nothing else.
    """
    if "@" in text or looks_like_number(text) or looks_like_national_id(text):
        return True
    return not is_count and _bare_number(text) is not None


def _begins_as_number(written: str, country_code: str | None) -> bool:
    digits = digits_in(written)
    if written.startswith("+"):
        return len(digits) >= MIN_DIGITS
    if digits.startswith("00"):
        return len(digits) >= 2 + MIN_BARE_DIGITS - 1 and digits[2:3] != "0"
    if digits.startswith("0"):
        return len(digits) >= MIN_BARE_DIGITS
    return country_code is not None and digits.startswith(country_code) and len(digits) >= MIN_BARE_DIGITS


def session_digest(session: str, pepper: bytes) -> str:
    """What stands for a session id that may have a number in it: the same for the same id, and of no other use."""
    return hmac.digest(pepper, b"session " + session.encode(), "sha256")[:SESSION_DIGEST_BYTES].hex()


def subscriber_digest(digits: str, pepper: bytes) -> bytes:
    """The 32 bytes that stand for a number: HMAC-SHA256(pepper, E.164 digits without +)."""
    return hmac.digest(pepper, digits.encode("ascii"), hashlib.sha256)
