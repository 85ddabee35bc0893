"""What the guard knows, as bytes: NDJSON that survives a restart.

The first line is the sha256 of all that follows. The second says what was decided, what happened in the last day,
and of what the registry in force was made: names of sources and local files. So a restart compares what it finds
with what was in force, whatever its sources are called by then. Each of the other lines is one registration that is
held, as the registry wrote it, the versions of one id from the oldest on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gatewayd.errors import RecordRejected
from gatewayd.feed.canonical import Damaged, LineWriter, Newer
from gatewayd.feed.record import RecordParser
from gatewayd.model import Registration
from gatewayd.model.decoding import UNDECODABLE, FormatNumber, why_undecodable
from gatewayd.registry.endpoint_guard import EndpointGuard, HeldBack
from gatewayd.registry.guard import HeldRemovals, RemovalGuard, Taken
from gatewayd.registry.limits import NOTHING_REMOVED, DayMemory, GuardDecision
from gatewayd.sources.override_file import OverrideFile

_FORMAT: Final = 1


class _Endpoints(msgspec.Struct, frozen=True):
    """As of EndpointGuard. `pending`: by id, what is in force instead (a record, or None), cause and time."""

    serial: int
    since_s: float
    recent: dict[int, int]
    pending: dict[str, tuple[str | None, str, float]]


class _Head(msgspec.Struct, frozen=True):
    """`recent`: removals let through. `taken`: ids by what took them away. `overrides`: msgpack of the local files.
    `lost_files`: as in GuardRecord. `format`: of all that is in the record."""

    serial: int
    since_s: float
    decision: GuardDecision
    recent: dict[int, dict[str, int]]
    fewest: dict[int, dict[str, int]] = {}
    taken: list[tuple[Taken, list[str]]] = []
    sources: tuple[str, ...] | None = None
    overrides: bytes = b""
    lost_files: bool = False
    endpoints: _Endpoints | None = None
    format: FormatNumber = _FORMAT


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_files = msgspec.msgpack.Decoder(tuple[OverrideFile, ...]).decode


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """`sources`, in order, and `overrides` are what the registry in force was made of; None: not known.

    `lost_files`: some of what an earlier run knew was lost, and the kernel may still have elements of it.
    """

    guard: RemovalGuard
    sources: tuple[str, ...] | None = None
    overrides: tuple[OverrideFile, ...] = ()
    lost_files: bool = False
    endpoints: EndpointGuard = field(default_factory=EndpointGuard)


def encode_record(record: GuardRecord) -> bytes:
    """What `decode_record` needs."""
    guard = record.guard
    held = guard.held() or HeldRemovals(0, 0.0, NOTHING_REMOVED, {})
    taken: dict[Taken, list[str]] = {}
    for id, each in held.taken.items():
        taken.setdefault(each, []).append(id)
    head = _Head(
        held.serial,
        held.since_s,
        held.decision,
        {hour: dict(counts) for hour, counts in guard.memory.removed.items()},
        guard.memory.fewest,
        list(taken.items()),
        record.sources,
        msgspec.msgpack.encode(record.overrides) if record.overrides else b"",
        record.lost_files,
        _encode_endpoints(record.endpoints),
    )
    writer = LineWriter()
    lines = [msgspec.json.encode(head).decode()]
    for versions in held.versions.values():
        lines += writer.lines(versions)
    content = "\n".join(lines).encode() + b"\n"
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def decode_record(content: bytes | None) -> GuardRecord:
    """What was encoded; a new guard for None. Raises Damaged, Newer."""
    if content is None:
        return GuardRecord(RemovalGuard())
    check, _, rest = content.partition(b"\n")
    if check != hashlib.sha256(rest).hexdigest().encode():
        raise Damaged("its hash is wrong" if content else "is empty")
    try:
        head, versions = _decode(rest)
        files = _decode_files(head.overrides) if head.overrides else ()
    except UNDECODABLE as error:  # whole, and of another version of gatewayd
        raise Newer(f"is of another format: {why_undecodable(error)}") from None
    if head.format > _FORMAT:
        raise Newer(f"a newer gatewayd wrote it (format {head.format}, and {_FORMAT} is read)")
    taken = {id: each for each, ids in head.taken for id in ids if id in versions}
    held = HeldRemovals(head.serial, head.since_s, head.decision, versions, taken)
    return GuardRecord(
        RemovalGuard(held, DayMemory(head.recent, head.fewest)),
        head.sources,
        files,
        head.lost_files,
        _decode_endpoints(head.endpoints),
    )


def _encode_endpoints(guard: EndpointGuard) -> _Endpoints | None:
    """None: nothing to know."""
    if not guard.pending and not guard.recent:
        return None
    writer = LineWriter()
    pending = {
        id: (next(iter(writer.lines([] if each.before is None else [each.before])), None), each.cause, each.since_s)
        for id, each in guard.pending.items()
    }
    return _Endpoints(guard.serial, guard.since_s, guard.recent, pending)


def _decode_endpoints(found: _Endpoints | None) -> EndpointGuard:
    """Which registrations are wanted is known once the registry is loaded."""
    if found is None:
        return EndpointGuard()
    guard, parser = EndpointGuard(found.serial, found.since_s, found.recent), RecordParser()
    for id, (line, cause, since_s) in found.pending.items():
        try:
            before = None if line is None else parser.parse(line.encode())
        except RecordRejected:  # as in `_decode`
            continue
        guard.pending[id] = HeldBack(None, before, cause, since_s)
    return guard


def _decode(content: bytes) -> tuple[_Head, dict[str, tuple[Registration, ...]]]:
    """A registration that a later version of gatewayd takes for none is left out, as in a reading."""
    first, *lines = content.split(b"\n")
    head = _decode_head(first)
    parser = RecordParser()
    versions: dict[str, tuple[Registration, ...]] = {}
    for line in filter(None, lines):
        try:
            registration = parser.parse(line)
        except RecordRejected:
            continue
        versions[registration.id] = (*versions.get(registration.id, ()), registration)
    return head, versions
