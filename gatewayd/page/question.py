"""The one box: a text becomes a question. Pure.

An address or prefix, the digest of a number, a flow as `SRC DST SERVICE [SOURCE-PORT]`; else an id or part of one.
A mobile number is refused: the address of a page ends up in places that keep it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gatewayd.api.queries import ParameterRejected, read_flow
from gatewayd.errors import PrefixInvalid
from gatewayd.model import Flow, parse_prefix
from gatewayd.model.msisdn import looks_like_number, may_name_person, parse_digest

MAX_CHARACTERS: Final = 200
DIGEST: Final = "hmac-sha256:"
_ARROWS: Final = frozenset({"->", "→", "to", ">"})
_is_bare_digest = re.compile(r"[0-9a-fA-F]{64}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class FlowQuestion:
    flow: Flow


@dataclass(frozen=True, slots=True)
class AddressQuestion:
    """`text`: the prefix; a host's is its address."""

    text: str


@dataclass(frozen=True, slots=True)
class DigestQuestion:
    """`text` as the registry writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class IdQuestion:
    """An id, or a part of one."""

    text: str


@dataclass(frozen=True, slots=True)
class NoQuestion:
    """The text cannot be asked. `is_private`: it may be a person's, and nobody repeats it."""

    why: str
    is_private: bool = False


Question = FlowQuestion | AddressQuestion | DigestQuestion | IdQuestion | NoQuestion


def read_question(text: str) -> Question | None:
    """None: nothing is asked."""
    words = [word for word in text.replace(",", " ").split() if word not in _ARROWS]
    if not words:
        return None
    if len(text) > MAX_CHARACTERS:
        return NoQuestion(f"longer than {MAX_CHARACTERS} characters")
    if len(words) == 1:
        return _read_word(words[0])
    if _may_be_number(text, words):
        return PRIVATE
    if len(words) not in (3, 4):
        return NoQuestion("a flow is SRC DST SERVICE, for example 203.0.113.5 198.51.100.7 udp/51820")
    try:
        return FlowQuestion(read_flow(dict(zip(("src", "dst", "service", "sport"), words, strict=False))))
    except ParameterRejected as error:
        return NoQuestion(str(error))


PRIVATE: Final = NoQuestion("a mobile number or an identity number is never asked here; ask by its digest", True)


def _read_word(word: str) -> Question:
    try:
        prefix = parse_prefix(word)
        return AddressQuestion(str(prefix).removesuffix("/32" if len(prefix.packed) == 4 else "/128"))
    except PrefixInvalid as error:
        # An address that is one but for a slip is not looked for as an id.
        if "/" in word or (word.count(".") == 3 and word.replace(".", "").isdigit()):
            return NoQuestion(str(error))
    if _is_bare_digest(word):
        word = DIGEST + word.lower()
    if parse_digest(word) is not None:
        return DigestQuestion(word)
    if may_name_person(word):
        return PRIVATE
    if not word.isprintable():
        return NoQuestion("has characters that cannot be printed")
    return IdQuestion(word)


def _may_be_number(text: str, words: list[str]) -> bool:
    """A number that is written in groups: no word of it is an address."""
    return not any("." in word or ":" in word or "/" in word for word in words) and looks_like_number(text)
