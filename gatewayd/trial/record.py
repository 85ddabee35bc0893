"""The state of changes as bytes that survive a restart: a line with the sha256 of the rest, then JSON."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from gatewayd.model.decoding import UNDECODABLE, FormatNumber, why_undecodable
from gatewayd.trial.state import TrialState

VERSION: Final = 1
MAX_BYTES: Final = 65536
"""A longer file is not ours."""


class RecordUnusable(ValueError):
    """`is_newer`: a later version of gatewayd wrote it, and it is whole."""

    def __init__(self, why: str, *, is_newer: bool = False) -> None:
        self.is_newer = is_newer
        super().__init__(why)


class _Version(msgspec.Struct, frozen=True):
    version: FormatNumber


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: FormatNumber
    state: TrialState


def encode_state(state: TrialState) -> bytes:
    """For `decode_state`."""
    content = msgspec.json.encode(_Record(VERSION, state)) + b"\n"
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def decode_state(content: bytes) -> TrialState:
    """Raises RecordUnusable."""
    check, _, rest = content.partition(b"\n")
    if check != hashlib.sha256(rest).hexdigest().encode():
        raise RecordUnusable("its hash is wrong" if content else "it is empty")
    try:
        version = msgspec.json.decode(rest, type=_Version).version
        if version > VERSION:
            raise RecordUnusable(f"it is of version {version}, and this gatewayd knows {VERSION}", is_newer=True)
        return msgspec.json.decode(rest, type=_Record).state
    except UNDECODABLE as error:
        raise RecordUnusable(f"it is of another format: {why_undecodable(error)}") from None
