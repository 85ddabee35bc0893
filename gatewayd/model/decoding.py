"""What msgspec raises for bytes that are no value of a type, and the words for it.

Every decoder of ours catches UNDECODABLE, and nothing less; a test of the house holds that.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""For bytes that are no text, and for a nest too deep for the interpreter, it is no error of msgspec's own."""
FormatNumber = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
"""The version that a text states of itself. JSON has numbers of any length, and messages say this one."""
MAX_SHOWN: Final = 200
"""Characters of a text from outside in a message."""

_value = re.compile(r"'([^']*)'|`([^`$][^`]*)`")
_is_name = re.compile(r"[A-Za-z_][A-Za-z_-]{0,31}", re.ASCII).fullmatch


def printable(text: str, most: int = MAX_SHOWN) -> str:
    """A text that another wrote, fit for a log or a terminal: cut, and without signs that cannot be printed."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in cut)


def why_undecodable(error: Exception) -> str:
    """One of UNDECODABLE in words. Of what was decoded it has names alone: a value may be anything."""
    if isinstance(error, msgspec.MsgspecError):
        return printable(_value.sub(_shown, str(error)))
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "nested too deeply"


def _shown(match: re.Match[str]) -> str:
    return match[0] if _is_name(match[1] or match[2] or "") else "…"
