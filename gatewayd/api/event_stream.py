"""Server-sent events (WHATWG HTML §9.2): what a reader asks for, events → bytes, and bytes → messages for the CLI.

An event of the log has no `event:` line, so that a page takes each of them with `onmessage`; its name is in the
JSON. A message `gap` says that events are missing before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from gatewayd.api.queries import ParameterRejected
from gatewayd.errors import InputRejected
from gatewayd.log.ring import Batch, Entry, Loss, Position, parse_position
from gatewayd.model.moment import parse_time

GAP: Final = "gap"
RETRY_MS: Final = 2000
"""How long a reader waits before it connects again."""
COMMENT: Final = b":\n\n"
"""Says that the stream is alive."""
UNKNOWN: Final = Position(0, 0)
"""The place of a reader that had an id which is none of ours."""
_MAX_LINE_BYTES: Final = 64 << 10


class GapView(msgspec.Struct, frozen=True):
    """`missed`: how many events; None where that is not known. `reason`: `restart`: the daemon's former run had
    them, if there were any; `overrun`: the daemon forgot them for newer ones."""

    reason: Loss
    missed: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader begins: `position`, or with the first event since `at_s`; both None: with all that there is.
    `follows`: it stays for what comes."""

    position: Position | None = None
    at_s: float | None = None
    follows: bool = True


def read_start(parameters: Mapping[str, str], last_event_id: str | None) -> Start:
    """`since`: an id or a time; `follow`: `no` ends the stream after what there is. The header of a reader that
    comes back goes before `since`. Raises ParameterRejected."""
    follow = parameters.get("follow", "yes")
    if follow not in ("yes", "no"):
        raise ParameterRejected("follow", f"{follow!r} is neither yes nor no")
    follows = follow == "yes"
    if last_event_id:
        return Start(parse_position(last_event_id) or UNKNOWN, follows=follows)
    text = parameters.get("since")
    if text is None:
        return Start(follows=follows)
    position = parse_position(text)
    if position is not None:
        return Start(position, follows=follows)
    try:
        return Start(at_s=parse_time(text), follows=follows)
    except ValueError:
        raise ParameterRejected(
            "since", f"{text!r} is neither an id nor a time, expected such as 2026-01-31T00:00:00Z"
        ) from None


def encode_opening() -> bytes:
    return f"retry: {RETRY_MS}\n\n".encode()


def encode_gap(after: Position, loss: Loss, missed: int | None) -> bytes:
    """Its id is that of the last event that is missing, so that a reader that comes back is not told twice."""
    body = msgspec.json.encode(GapView(loss, missed))
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (str(after).encode(), GAP.encode(), body)


def encode_entries(entries: tuple[Entry, ...]) -> bytes:
    """JSON has no newline, so the data of each is one line."""
    return b"".join(b"id: %s\ndata: %s\n\n" % (str(each.position).encode(), each.body) for each in entries)


def encode_batch(batch: Batch) -> bytes:
    gap = b"" if batch.loss is None else encode_gap(batch.after, batch.loss, batch.missed)
    return gap + encode_entries(batch.entries)


class Message(NamedTuple):
    """`id`: of the last event so far, "" before the first."""

    event: str
    data: str
    id: str


class NotAStream(InputRejected):
    """The answer has a line that no stream of ours has."""

    def __init__(self) -> None:
        super().__init__("the answer is no stream of events", "no stream")


class StreamReader:
    """Bytes in, messages out (WHATWG HTML §9.2.6); lines end with LF, CR LF or CR."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._event = self._id = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Raises NotAStream at a line without an end."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        text = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = text.split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            raise NotAStream
        for line in lines:
            message = self._take(line.decode("utf-8", "replace"))
            if message is not None:
                yield message

    def _take(self, line: str) -> Message | None:
        if not line:
            data, self._data = self._data, []
            event, self._event = self._event or "message", ""
            return Message(event, "\n".join(data), self._id) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
