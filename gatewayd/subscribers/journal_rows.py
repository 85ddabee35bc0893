"""The state of the sessions on disk, as rows, and their bytes; their time; the numbers of the journal. Pure.

Not a log of events but the present state, a row for each thing: a live session of a registered subscriber, the end
of one, the last record on an address that one of them let go, the last restart of a NAS and the offset of its
clock. Nothing else is ever in a row; of subscribers that no registration knows there is none, not even as the time
at which they took an address.

A row is a key and a value, or a key alone: what it said is no more. On disk the key is MessagePack, the value a
CRC-32 of key and value, then MessagePack. SQLite knows no checksum: a flipped bit in an address would bind it to
the wrong subscriber. A row that is not exactly as it was written is left out.

Times are Unix seconds by a clock that is never set, and that goes on over a restart. The wall clock is set by NTP,
by hand, by an empty battery; no session must end for it, and no old record seem new. So time is the wall's at the
very first start, and from then on what the monotonic clock counts. The journal has a moment of it by all clocks,
and the next run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Final, Literal
from zlib import crc32

import msgspec

from gatewayd.model.decoding import UNDECODABLE
from gatewayd.model.metric import counter, equals, gauge, summary
from gatewayd.model.prefix import Prefix, mask_address

VERSION: Final = 1
"""Of all that is described here. What was written by another is not read."""

Key = tuple[str, str, str]
"""Kind, then what it is of: (`session`, NAS, id), (`ended`, NAS, id), (`address`, packed prefix in hexadecimal,
length), (`nas`, NAS, ""). A NAS is its key in `nas`."""

Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Authenticator = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
PortNumber = Annotated[int, msgspec.Meta(ge=0, le=65535)]

MAX_AWAY_S: Final = 30 * 86400.0
"""A gateway that was off for longer is taken for one whose clock is wrong."""
_CRC_BYTES: Final = 4
_MAX_S: Final = 1e12


_DAMAGED: Final = counter(
    "journal_damaged", "Damage found at the start, and left out.", "`> 0`: look at the disk", label="kind"
)


@dataclass(slots=True)
class JournalStats:
    """The journal's state, and its work since the start. `suspended`: answers are not durable at present, for the
    reason in `suspended_for`.

    `lost_groups`, `lost_rows`: they were on disk, and were missing at the start. `lost_whole`: they were the whole
    file but for the rows `salvaged`; then `lost_rows` is the most that it can have been.
    """

    state: Annotated[Literal["ok", "suspended"], gauge("journal_suspended",
        "1 while answers are not durable because the disk does not take them.",
        "`== 1` for 1 min: a restart now costs bindings", read=equals("suspended"))] = "ok"  # fmt: skip
    suspended_for: str | None = None
    last_error: str | None = None
    waiting: Annotated[int, gauge("journal_waiting", "Answers that wait for the disk.",
        "does not come back to 0")] = 0  # fmt: skip
    waiting_rows: Annotated[int, gauge("journal_waiting_rows", "Rows that are not on disk yet.",
        "does not come back to 0")] = 0  # fmt: skip
    groups: int = 0
    """Put on disk, of `rows`."""
    rows: Annotated[int, counter("journal_rows", "Rows put on disk.")] = 0
    failures: Annotated[int, counter("journal_failures", "Groups of rows that the disk did not take.", "rises")] = 0
    refused: Annotated[int, counter("journal_refused", "Writes for which there was no room.", "rises")] = 0
    skipped: Annotated[int, _DAMAGED.of("row")] = 0
    set_aside: Annotated[int, _DAMAGED.of("file")] = 0
    lost_groups: Annotated[int, _DAMAGED.of("lost_group")] = 0
    lost_rows: int = 0
    lost_whole: bool = False
    salvaged: int = 0
    write_seconds: Annotated[float, summary("journal_write_seconds",
        "Time that a group of rows took to be on disk.", "the mean, `rate(…_sum) / rate(…_count)`, is over 0.1 s",
        times="groups")] = 0.0  # fmt: skip
    longest_write_seconds: float = 0.0


class HoldRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One address of a session. `named_s`: of the last record that named it. `since_s`: of the binding by it."""

    prefix: Prefix
    ports: tuple[PortNumber, PortNumber] | None
    named_s: float
    since_s: float


class SessionRow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="session"):
    """A live session, as in `session.Session`. `due_s`: when it runs out by our clock; None = never."""

    nas: str
    session: str
    subscriber: Digest
    since_s: float
    at_s: float
    due_s: float | None
    interim_s: int | None
    is_lingering: bool
    snapshot_s: float
    ipv4_s: float
    holds: tuple[HoldRow, ...]


class EndedRow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="ended"):
    """The Stop of a session, a `session.Tombstone`."""

    nas: str
    session: str
    subscriber: Digest
    at_s: float
    buried_s: float


class AddressRow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="address"):
    """The last record on an address that is let go, a `session.Tombstone`. `others_s`: of another registered
    subscriber."""

    prefix: Prefix
    subscriber: Digest
    at_s: float
    buried_s: float
    others_s: float


class NasRow(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="nas"):
    """`restarted_s`: event time of the last Accounting-On or -Off; -inf = none. `ahead_s`: of its clock, as in
    `NasClock.whole_s`. `restarts`: as in `Nas`. Rows of before have no more than the first."""

    nas: str
    restarted_s: float
    ahead_s: int = 0
    restarts: tuple[tuple[Authenticator, float], ...] = ()


Value = SessionRow | EndedRow | AddressRow | NasRow


class Row(msgspec.Struct, frozen=True, gc=False):
    """`value` None: there is no such row any more."""

    key: Key
    value: Value | None


class ClockMark(msgspec.Struct, frozen=True, array_like=True):
    """One moment by the timeline, the wall clock and the monotonic clock, which counts within one boot alone."""

    time_s: float
    wall_s: float
    monotonic_s: float
    boot: str


class Timeline:
    """`clock`: the wall's; `boot`: differs from boot to boot; empty if it is not known."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float], boot: str = "") -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._boot = boot
        self._began_at_s = clock() - monotonic()

    def time_s(self) -> float:
        return self._began_at_s + self._monotonic()

    def wall_is_ahead_s(self) -> float:
        """Of the timeline: the wall clock was set since, or was wrong at the start."""
        return self._clock() - self.time_s()

    def moment(self) -> ClockMark:
        """Now."""
        return ClockMark(self.time_s(), self._clock(), self._monotonic(), self._boot)

    def go_on_from(self, moment: ClockMark) -> None:
        """Of an earlier run. Within one boot the monotonic clock says how long ago it was. Else the wall clock does
        as far as it can be believed: neither less than nothing nor more than MAX_AWAY_S."""
        away_s = self._monotonic() - moment.monotonic_s
        if not self._boot or self._boot != moment.boot or away_s < 0:
            away_s = self._clock() - moment.wall_s
            away_s = away_s if 0 <= away_s <= MAX_AWAY_S else 0.0
        self._began_at_s = moment.time_s + away_s - self._monotonic()


def session_key(nas: str, session: str) -> Key:
    return "session", nas, session


def ended_key(nas: str, session: str) -> Key:
    return "ended", nas, session


def address_key(prefix: Prefix) -> Key:
    return "address", prefix.packed.hex(), str(prefix.length)


def prefix_of(key: Key) -> Prefix:
    """Of a address_key."""
    return Prefix(bytes.fromhex(key[1]), int(key[2]))


def nas_key(nas: str) -> Key:
    return "nas", nas, ""


def key_of(value: Value) -> Key:
    match value:
        case SessionRow():
            return session_key(value.nas, value.session)
        case EndedRow():
            return ended_key(value.nas, value.session)
        case AddressRow():
            return address_key(value.prefix)
        case _:
            return nas_key(value.nas)


def encode_key(key: Key) -> bytes:
    return _ENCODER.encode(key)


def encode_value(key: bytes, value: Value) -> bytes:
    """`key`: as encoded."""
    raw = _ENCODER.encode(value)
    return crc32(raw, crc32(key)).to_bytes(_CRC_BYTES, "big") + raw


def decode_row(key: bytes, value: bytes) -> Row | None:
    """What encode_key and encode_value made; None for anything else."""
    raw = value[_CRC_BYTES:]
    if crc32(raw, crc32(key)).to_bytes(_CRC_BYTES, "big") != value[:_CRC_BYTES]:
        return None
    try:
        found = _DECODER.decode(raw)
    except UNDECODABLE:
        return None
    row = Row(key_of(found), found)
    return row if encode_key(row.key) == key and _is_sound(found) else None


def _is_sound(value: Value) -> bool:
    """What the types leave open: times are numbers, prefixes canonical, ports in order."""
    match value:
        case SessionRow():
            return (
                _are_times(value.since_s, value.at_s, value.due_s or 0.0)
                and _are_times(value.snapshot_s, value.ipv4_s, least=-inf)
                and all(map(_is_sound_hold, value.holds))
            )
        case EndedRow():
            return _are_times(value.at_s, value.buried_s)
        case AddressRow():
            return (
                _is_prefix(value.prefix)
                and _are_times(value.at_s, value.buried_s)
                and _are_times(value.others_s, least=-inf)
            )
        case _:
            return _are_times(value.restarted_s, least=-inf) and _are_times(
                value.ahead_s, *(at_s for _, at_s in value.restarts)
            )


def _is_sound_hold(hold: HoldRow) -> bool:
    return (
        _is_prefix(hold.prefix)
        and _are_times(hold.named_s, hold.since_s)
        and (hold.ports is None or hold.ports[0] <= hold.ports[1])
    )


def _is_prefix(prefix: Prefix) -> bool:
    packed, length = prefix.packed, prefix.length
    return len(packed) in (4, 16) and 0 <= length <= 8 * len(packed) and mask_address(packed, length) == packed


def _are_times(*times: float, least: float = -_MAX_S) -> bool:
    """NaN is no time, and nor is what no clock will say."""
    return all(least <= time <= _MAX_S for time in times)


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Value)
