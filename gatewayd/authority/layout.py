"""How the published directory is laid out, and which deltas a notification offers."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gatewayd.model.decoding import UNDECODABLE

NOTIFICATION: Final = "notification.jws"

SESSION_PATTERN: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
SERIAL_PATTERN: Final = r"[1-9][0-9]{0,15}"
FILE_PATTERN: Final = r"(?:snapshot|delta)\.ndjson\.gz"

is_data_path = re.compile(f"{SESSION_PATTERN}/{SERIAL_PATTERN}/{FILE_PATTERN}", re.ASCII).fullmatch
"""Whether a path below the directory is of a file that we write; nothing else there is ever touched."""


class _Url(msgspec.Struct, frozen=True):
    url: str


class Served(msgspec.Struct, frozen=True):
    """What a notification in our own directory announces."""

    session: str
    serial: int
    issued_at: Annotated[datetime, Meta(tz=True)]
    snapshot: _Url
    deltas: tuple[_Url, ...] = ()

    def paths(self) -> tuple[str, ...]:
        """The files it names, as paths below the directory."""
        return (self.snapshot.url, *(delta.url for delta in self.deltas))


def path_of(session: str, serial: int, kind: Literal["snapshot", "delta"]) -> str:
    """Below the directory, and relative to the notification's URL."""
    return f"{session}/{serial}/{kind}.ndjson.gz"


def read_served(raw: bytes) -> Served | None:
    """The payload of a notification of ours, signature unseen: it may be of a key that was replaced.

    None: it is no notification. It decides nothing but which serial is next and which files are spared.
    """
    try:
        segment = raw.split(b".")[1]
        return msgspec.json.decode(urlsafe_b64decode(segment + b"=" * (-len(segment) % 4)), type=Served)
    except (IndexError, ValueError, *UNDECODABLE):
        return None


def history_within(sizes: Sequence[int], limit_bytes: int, most: int) -> int:
    """How many deltas, given their sizes from the newest on, are together smaller than `limit_bytes`.

    RFC 8182 §3.3.2: a client is better off with the snapshot than with deltas that outweigh it.
    """
    total = kept = 0
    for size in sizes[:most]:
        total += size
        if total >= limit_bytes:
            break
        kept += 1
    return kept
