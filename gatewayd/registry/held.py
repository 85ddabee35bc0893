"""What the guard holds, as bytes: NDJSON that survives a restart.

The first line says what was decided and what was let through lately, and each of the others is one
registration kept in force, as the registry wrote it, the versions of one id from the oldest on.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatewayd.errors import RecordRejected
from gatewayd.model import Registration
from gatewayd.registry.guard import GuardDecision, HeldRemovals, RemovalGuard
from gatewayd.registry.kept import LineWriter
from gatewayd.registry.record import RecordParser

_NOTHING: Final = GuardDecision(False, "", 0, 0)


class _Head(msgspec.Struct, frozen=True):
    serial: int
    since_s: float
    decision: GuardDecision
    recent: dict[int, dict[str, int]]


_decode_head = msgspec.json.Decoder(_Head).decode


def encode_guard(guard: RemovalGuard) -> bytes | None:
    """What `decode_guard` needs; None if there is nothing that a new guard would not know."""
    held, recent = guard.held(), {hour: dict(counts) for hour, counts in guard.recent().items()}
    if held is None and not recent:
        return None
    if held is None:
        held = HeldRemovals(0, 0.0, _NOTHING, {})
    writer = LineWriter()
    lines = [msgspec.json.encode(_Head(held.serial, held.since_s, held.decision, recent)).decode()]
    for versions in held.versions.values():
        lines += writer.lines(versions)
    return "\n".join(lines).encode() + b"\n"


def decode_guard(content: bytes | None) -> RemovalGuard:
    """The guard that was encoded; a new one for None.

    A registration that a later version of gatewayd takes for none is left out, as in a reading. Anything else
    that does not parse is a bug, for the store checks the hash: ValueError.
    """
    if content is None:
        return RemovalGuard()
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
    held = HeldRemovals(head.serial, head.since_s, head.decision, versions)
    return RemovalGuard(held, head.recent)
