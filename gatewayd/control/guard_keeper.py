"""The guard on disk, and in the log; and the last good of every source at a start."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable

from gatewayd.feed.canonical import Damaged
from gatewayd.log import get_logger
from gatewayd.registry.guard_record import GuardRecord, decode_record, encode_record
from gatewayd.registry.limits import GuardDecision
from gatewayd.registry.state import RegistryState
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood

log = get_logger(__name__)

LARGE_RECORD = 500
"""Registrations held; a larger record is encoded in a thread."""


class GuardKeeper:
    """`store` None: nothing is kept. Nothing is saved before the registry is loaded."""

    def __init__(self, registry: RegistryState, store: LastGood | None) -> None:
        self._registry = registry
        self._store = store
        self._saved: Hashable = None

    async def save(self) -> None:
        """The state of the guard, on disk. Nobody changes the registry meanwhile."""
        await self.write(await self.encode())

    async def encode(self) -> tuple[Hashable, bytes] | None:
        """The version and the bytes of the guard, if it is not on disk yet. Nobody changes the registry
        meanwhile."""
        version = self._registry.version()
        if self._store is None or not self._registry.is_loaded or version == self._saved:
            return None
        record = self._registry.record()
        if len(record.guard) < LARGE_RECORD:
            return version, encode_record(record)
        return version, await asyncio.to_thread(encode_record, record)

    async def write(self, encoded: tuple[Hashable, bytes] | None) -> bool:
        """Writes are made in the order of the calls; whether it is on disk."""
        if self._store is None or encoded is None:
            return True
        version, content = encoded
        if not await self._store.guard_file.save(content):
            return False
        self._saved = version
        return True


class HeldLog:
    """Says `guard.held` once for each change of it."""

    def __init__(self) -> None:
        self._said: Hashable = None

    def say(self, serial: int, removals: int, cause: str, decision: GuardDecision) -> None:
        if (serial, removals, cause) != self._said:
            self._said = serial, removals, cause
            log.warning("guard.held", cause=cause, serial=serial, removals=removals, reason=str(decision))


async def read_last_good(
    store: LastGood, sources: Iterable[str], *, tidies: bool = True
) -> tuple[GuardRecord, dict[str, Restored]]:
    """What the guard knew when the last run ended, and the last good of each source: those that are configured,
    and those that the guard names. A file that is damaged is said, and costs what it had."""
    try:
        record = decode_record(await store.guard_file.load())
    except Damaged as error:
        log.warning("guard.damaged", file=str(store.guard_file.path), error=str(error))
        record = decode_record(None)
    found = {name: await store.load(name, tidies=tidies) for name in sources}
    for name in record.sources or ():
        if name not in found:
            log.info("source.not_configured", source=name)
            found[name] = await store.load(name, tidies=tidies)
    return record, found
