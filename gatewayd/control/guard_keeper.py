"""The shell around the guard: its state on disk and in the log, and the elements that it judges at a start."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from gatewayd.allowlist import Allowlist
from gatewayd.api.standing import HeldRegistrant
from gatewayd.control.companies import describe_registrants, held_registrants
from gatewayd.feed.canonical import Damaged, Newer
from gatewayd.log import get_logger
from gatewayd.model.registration import Registration
from gatewayd.reconcile import Reconciler
from gatewayd.registry.guard_record import GuardRecord, decode_record, encode_record
from gatewayd.registry.limits import GuardDecision, judge_remainder
from gatewayd.registry.state import ENDPOINTS, KERNEL, RegistryState
from gatewayd.settings import ShrinkGuardSettings, SourceSettings
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.runner import run_in_slices

log = get_logger(__name__)

LARGE_RECORD = 500
"""Registrations held; a larger record is encoded in a thread."""


class GuardKeeper:
    """`store` None: nothing is kept. Nothing is saved before the registry is loaded."""

    def __init__(self, registry: RegistryState, store: LastGood | None) -> None:
        self._registry = registry
        self._store = store
        self._saved: Hashable = None

    def warn_of_categories(self) -> None:
        """Name protected categories that the registry does not know."""
        for category in self._registry.unknown_protected():
            log.warning("guard.unknown_category", category=category)

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
        self.registrants: tuple[HeldRegistrant, ...] = ()
        """Whose removals are held."""
        self._seen: Hashable = None
        self._said: Hashable = None
        self._said_endpoints: Hashable = None

    async def look(self, registry: RegistryState, allowlist: Allowlist) -> None:
        """At removals and endpoints that wait. Nobody changes the registry meanwhile."""
        held = registry.held()
        seen = None if held is None else (held.serial, len(held.versions))
        if seen != self._seen:
            self.registrants = await held_registrants(allowlist, held)
        self._seen = seen
        if held is not None:
            self.say(held.serial, len(held.versions), ",".join(sorted(held.by_cause)), held.decision)
        endpoints = registry.endpoints.held()
        version = None if endpoints is None else (endpoints.serial, frozenset(endpoints.held))
        if endpoints is not None and version != self._said_endpoints:
            causes = ",".join(sorted({each.cause for each in endpoints.held.values()}))
            log.warning(
                "endpoints.held",
                cause=causes,
                serial=endpoints.serial,
                registrations=len(endpoints.held),
                reason=str(endpoints),
            )
        self._said_endpoints = version

    def say(self, serial: int, removals: int, cause: str, decision: GuardDecision) -> None:
        if (serial, removals, cause) != self._said:
            self._said = serial, removals, cause
            whose = describe_registrants(self.registrants) if cause != KERNEL else ""
            log.warning(
                "guard.held",
                cause=cause,
                serial=serial,
                removals=removals,
                reason=str(decision),
                registrants=whose,
            )


async def read_last_good(
    store: LastGood, sources: Iterable[SourceSettings], *, tidies: bool = True
) -> tuple[GuardRecord, dict[str, Restored]]:
    """What the guard knew when the last run ended, and the last good of each source: those that are configured,
    and those that the guard names; endpoints where they may be. A file that is damaged is said, and costs what it
    had."""
    try:
        record = decode_record(await store.guard_file.load())
    except Damaged as error:
        if isinstance(error, Newer):
            store.guard_file.leave(str(error))
        log.warning("guard.damaged", file=str(store.guard_file.path), error=str(error))
        record = decode_record(None)
    found: dict[str, Restored] = {}
    for source in sources:
        restored = await store.load(source.name, tidies=tidies)
        found[source.name] = restored if source.allow_endpoints else restored.without_endpoints()
    for name in record.sources or ():
        if name not in found:
            log.info("source.not_configured", source=name)
            found[name] = await store.load(name, tidies=tidies)
    return record, found


REMAINDER_EVERY_S = 10.0
"""How often at most what is held of the kernel is compared with a registry that changes."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Removals that wait for `accept`. `serial`: under which. `by_cause`: how many, by what brought them about;
    registrations, or elements of the kernel. `reason`: in words."""

    serial: int
    since_s: float
    by_cause: Mapping[str, int]
    reason: str

    @property
    def count(self) -> int:
        return sum(self.by_cause.values())

    @property
    def causes(self) -> tuple[str, ...]:
        return tuple(sorted(self.by_cause))


def holds_of(registry: RegistryState) -> list[Hold]:
    """Removals and endpoints of the registry that wait for a word."""
    found = []
    if (held := registry.held()) is not None:
        found.append(Hold(held.serial, held.since_s, held.by_cause, str(held.decision)))
    if (endpoints := registry.endpoints.held()) is not None:
        by_cause = {ENDPOINTS: len(endpoints.held)}
        found.append(Hold(endpoints.serial, endpoints.since_s, by_cause, str(endpoints)))
    return found


class Remainder:
    """Retains what the kernel is found with, from the start until `judge`. `held`: elements that wait for
    `accept`."""

    def __init__(self, reconciler: Reconciler) -> None:
        self.held: Hold | None = None
        self._reconciler = reconciler
        self._retains = True
        self._judged_at = -inf
        self._is_old = False
        reconciler.retain()

    def note_change(self) -> None:
        """The registry in force is another one."""
        self._is_old = True

    def is_due(self, now: float) -> bool:
        """Whether `judge` may find something to release that it did not find before."""
        return self._retains or (
            self.held is not None and self._is_old and now >= self._judged_at + REMAINDER_EVERY_S
        )

    async def judge(
        self,
        closed: Iterable[Registration],
        settings: ShrinkGuardSettings,
        now: float,
        *,
        lost_files: bool,
        taken: int | None,
    ) -> GuardDecision:
        """Release the elements that nobody registers, unless they are more than the guard lets go: then `held`.

        `closed`: registrations whose windows have closed, which explain theirs. `lost_files`: files that said whose
        elements are were lost. `taken`: a serial that removals are held under already.
        """
        self._retains = self._is_old = False
        self._judged_at = now
        left, found = await run_in_slices(self._reconciler.sort_retained_in_slices(closed))
        decision = judge_remainder(found, left, settings, lost_files=lost_files)
        await run_in_slices(self._reconciler.release_in_slices(left if decision.is_held else 0))
        before, self.held = self.held, None
        if decision.is_held:
            reason = f"the kernel has {left} elements that nobody registers, of {found} that it was found with"
            if decision.reason == "protected":
                reason = f"{reason}, and they may be of a protected category: files that said whose were lost"
            number = int(now) + (taken == int(now))
            serial, since_s = (number, now) if before is None else (before.serial, before.since_s)
            self.held = Hold(serial, since_s, {KERNEL: left}, f"{reason}; more than {decision.limit}")
        return decision

    async def accept(self, serial: int) -> int:
        """Release what is held under this serial, and how many elements that is."""
        if self.held is None or self.held.serial != serial:
            return 0
        count, self.held = self.held.count, None
        await run_in_slices(self._reconciler.release_in_slices())
        return count
