"""Secrets that are planted, and a search for them in what a program puts out, in any form that they may have there.

A form is what a text becomes when it is written elsewhere: in hexadecimal or base64, as UTF-16, as the digits of a
SIM (reversed BCD), as an integer of a file or of Python, or as a digest that anyone can make.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CORE_DIGITS = 9
"""Of the end of a number: no spelling differs there."""
MIN_DIGEST_BYTES = 8
"""Of a digest that is cut short."""
_DIGESTS = ("md5", "sha1", "sha256", "sha512", "blake2b", "blake2s")
_between_digits = re.compile(rb"(?<=[0-9])(?:[ \t.()/\[\]-]|\xc2\xa0|\xe2\x80[\x80-\x95])+(?=[0-9(\[])")
_PYTHON_DIGIT_BITS = 30


@dataclass(frozen=True)
class Planted:
    """`forms`: what it may look like, and its bytes then. `digits`: found also with signs between them."""

    name: str
    forms: tuple[tuple[str, bytes], ...]
    digits: bytes = b""


def planted_number(international: str, name: str = "number") -> Planted:
    """`international`: country code and number, such as 923459876541."""
    core = international[-CORE_DIGITS:]
    number = int(international)
    size_bytes = (number.bit_length() + 7) // 8
    forms = [*_written("digits", core.encode()), *_packed(international)]
    forms += [
        ("integer, big-endian", number.to_bytes(size_bytes, "big")),
        ("integer, little-endian", number.to_bytes(size_bytes, "little")),
        ("integer of Python", _python_integer(number)),
    ]
    for spelling in spellings(international):
        forms += _digests(spelling.encode())
    return Planted(name, _unique(forms), core.encode())


def planted_text(name: str, text: str) -> Planted:
    """As it stands, and in one case of letters."""
    forms = []
    for each in {text, text.lower(), text.upper()}:
        forms += [*_written("text", each.encode()), *_digests(each.encode())]
    return Planted(name, _unique(forms))


def planted_secret(name: str, secret: bytes, *, has_digests: bool = True) -> Planted:
    """Found also where a part of it is repeated. `has_digests`: False where a digest of it tells nothing."""
    middle = len(secret) // 2
    part = secret if len(secret) <= 16 else secret[middle - 8 : middle + 8]
    return Planted(name, _unique([*_written("part", part), *(_digests(secret) if has_digests else ())]))


def spellings(international: str, country: int = 2) -> tuple[str, ...]:
    """Of a number with a country code of so many digits."""
    code, national = international[:country], international[country:]
    return (
        f"+{international}",
        international,
        f"00{international}",
        f"0{national}",
        national,
        f"+{code} {national[:3]} {national[3:]}",
        f"0{national[:3]}-{national[3:]}",
        f"0{national[:3]} {national[3:]}",
        f"00{code}-{national[:3]}-{national[3:]}",
    )


def find(planted: Iterable[Planted], content: bytes) -> list[str]:
    """`name as form` of each that is there."""
    closed = _between_digits.sub(b"", content)
    found = []
    for each in planted:
        found += [f"{each.name} as {form}" for form, raw in each.forms if raw in content]
        if each.digits and each.digits not in content and each.digits in closed:
            found.append(f"{each.name} as digits with signs between them")
    return found


def places(planted: Planted, content: bytes, *, forms: frozenset[str] | None = None) -> dict[str, int]:
    """How often each form is there."""
    wanted = [(form, raw) for form, raw in planted.forms if forms is None or form in forms]
    return {form: count for form, raw in wanted if (count := content.count(raw))}


# -- forms -------------------------------------------------------------------------------------------------------


def _written(kind: str, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes, and the ways to write bytes."""
    yield kind, raw
    yield f"{kind}, hexadecimal", raw.hex().encode()
    yield f"{kind}, hexadecimal capitals", raw.hex().upper().encode()
    yield f"{kind}, hexadecimal with colons", raw.hex(":").encode()
    yield f"{kind}, escaped", b"".join(b"\\x%02x" % byte for byte in raw)
    yield f"{kind}, percent", b"".join(b"%%%02X" % byte for byte in raw)
    for ahead in range(3):
        for alphabet, encode in (("", base64.b64encode), (" of URLs", base64.urlsafe_b64encode)):
            whole = encode(bytes(ahead) + raw).rstrip(b"=")
            # The first signs depend on what stands before it, the last on what comes after.
            first = (0, 2, 3)[ahead]
            last = len(whole) - (1 if (ahead + len(raw)) % 3 else 0)
            yield f"{kind}, base64{alphabet} at {ahead}", whole[first:last]
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return
    yield f"{kind}, UTF-16", text.encode("utf-16-le")
    yield f"{kind}, UTF-16 big-endian", text.encode("utf-16-be")
    yield f"{kind}, UTF-32", text.encode("utf-32-le")
    yield f"{kind}, backwards", raw[::-1]


def _packed(international: str) -> Iterator[tuple[str, bytes]]:
    """BCD as written, and reversed as 3GPP TS 24.008 §10.5.4.7 has it; either half of a byte may come first."""
    for first in (2, 1):
        digits = international[first : first + 10]
        pairs = [digits[at : at + 2] for at in range(0, 10, 2)]
        straight, turned = bytes.fromhex("".join(pairs)), bytes.fromhex("".join(pair[::-1] for pair in pairs))
        yield f"BCD at {first}", straight
        yield f"reversed BCD at {first}", turned
        yield f"reversed BCD at {first}, hexadecimal", turned.hex().encode()


def _python_integer(number: int) -> bytes:
    """The value of an int object (Include/cpython/longintrepr.h: 30 bits in each uint32_t)."""
    mask = (1 << _PYTHON_DIGIT_BITS) - 1
    return b"".join((number >> shift & mask).to_bytes(4, "little") for shift in (0, _PYTHON_DIGIT_BITS))


def _digests(raw: bytes) -> Iterator[tuple[str, bytes]]:
    for name in _DIGESTS:
        digest = hashlib.new(name, raw).digest()
        text = raw.decode(errors="replace")
        yield f"{name} of {text!r}", digest[:MIN_DIGEST_BYTES]
        yield f"{name} of {text!r}, hexadecimal", digest[:MIN_DIGEST_BYTES].hex().encode()
        yield f"{name} of {text!r}, hexadecimal capitals", digest[:MIN_DIGEST_BYTES].hex().upper().encode()
        yield f"{name} of {text!r}, base64", base64.b64encode(digest)[:12]


def _unique(forms: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, bytes], ...]:
    seen: dict[bytes, str] = {}
    for form, raw in forms:
        seen.setdefault(raw, form)
    return tuple((form, raw) for raw, form in seen.items())
