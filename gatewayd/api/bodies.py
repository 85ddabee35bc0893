"""What people tell of sessions, from octets to values; what is in an entry is for others to judge. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from gatewayd.api.parameters import read_parameters
from gatewayd.errors import SessionEntryInvalid

MOST_ENTRIES: Final = 1000
"""Sessions of one PUT; more come in several, or as the file `subscribers.sessions_file`."""

_END_FIELDS: Final = ("nas", "session", "at")
_LONGEST_TEXT: Final = 253
"""Octets of an attribute's value (RFC 2865 §5)."""


def read_entries(body: bytes) -> Sequence[object]:
    """One entry or a list of them. Raises SessionEntryInvalid (`not_json`, `too_many_entries`)."""
    found = _decode(body)
    if not isinstance(found, list):
        return (found,)
    if len(found) > MOST_ENTRIES:
        raise SessionEntryInvalid("", "too_many_entries", f"{len(found)} entries, at most {MOST_ENTRIES} are taken")
    return found


def read_end(body: bytes, pairs: Iterable[tuple[str, str]]) -> Mapping[str, object]:
    """`nas`, `session` and perhaps `at` of a session that is over: an object in the body, or else parameters.

    Raises ParameterRejected and SessionEntryInvalid (`not_json`, `not_an_object`, `unknown_field`).
    """
    if not body:
        return read_parameters(pairs, _END_FIELDS, _LONGEST_TEXT)
    read_parameters(pairs, ())
    end = _decode(body)
    if not isinstance(end, dict):
        raise SessionEntryInvalid("", "not_an_object", "not an object with named fields")
    if not end.keys() <= set(_END_FIELDS):
        raise SessionEntryInvalid("", "unknown_field", f"has an unknown field, expected {', '.join(_END_FIELDS)}")
    return end


def _decode(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SessionEntryInvalid("", "not_json", "the body is not JSON") from None
