"""A registry under guard, and registrations for it.

`Guarding` is the guard alone; `InForce` the whole state, of which the guard is a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gatewayd.model import Registration, parse_prefix, parse_services
from gatewayd.model.registration import Changes, Slices, run_slices
from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.guard_record import GuardRecord, decode_record, encode_record
from gatewayd.registry.limits import GuardDecision
from gatewayd.registry.state import RegistryState
from gatewayd.settings import (
    ProtectedCategory,
    RegistrySettings,
    RemovalLimit,
    ShrinkGuardSettings,
    SourceSettings,
)
from gatewayd.sources.last_good import Restored
from gatewayd.sources.override_file import OverrideFile, parse_overrides
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.changes import construct_changes

NOW = 1_700_000_000.0
BANKS_AT_ALL = ShrinkGuardSettings(
    max_removed=RemovalLimit(fraction=0.05),
    min_removed=2,
    protected=(ProtectedCategory("bank", RemovalLimit(count=0)),),
)


def registration(
    id: str = "a",
    category: str = "bpo",
    *clients: str,
    peers: tuple[str, ...] = (),
    services: tuple[str, ...] = (),
    **fields: Any,
) -> Registration:
    made = Registration(
        id,
        category,
        "active",
        tuple(sorted(parse_prefix(text) for text in clients or ("203.0.113.0/28",))),
        peers=tuple(sorted(parse_prefix(text) for text in peers)),
        services=parse_services(services),
    )
    return msgspec.structs.replace(made, **fields)


def registry(*all: Registration) -> dict[str, Registration]:
    return {each.id: each for each in all}


class Guarding:
    """A source under guard, and beside it what is in force when every change it gives is applied."""

    def __init__(self, settings: ShrinkGuardSettings = BANKS_AT_ALL) -> None:
        self.guard = RemovalGuard()
        self.settings = settings
        self.reading: dict[str, Registration] = {}
        self.in_force: dict[str, Registration] = {}
        self.serial = 0
        self.now = NOW

    def read(self, *all: Registration) -> Changes | None:
        return self.take(registry(*all))

    def judge(self, *all: Registration) -> GuardDecision:
        self.read(*all)
        return self.guard.decision

    def take(self, new: dict[str, Registration]) -> Changes | None:
        self.serial += 1
        changes = construct_changes(self.reading, new) or Changes((), ())
        result = run_slices(
            self.guard.take_in_slices(
                self.reading,
                changes,
                self.serial,
                cause="national",
                settings=self.settings,
                now=self.now,
            )
        )
        self.reading = new
        self.apply(result)
        return result

    def accept(self, serial: int) -> None:
        self.apply(run_slices(self.guard.accept_in_slices(serial, self.reading)))

    def apply(self, changes: Changes | None) -> None:
        if changes is not None:
            assert not {each.id for each in changes.upserts} & set(changes.withdrawals)
            self.in_force.update({each.id: each for each in changes.upserts})
            for id in changes.withdrawals:
                del self.in_force[id]
        assert self.in_force == {**self.reading, **self.guard.in_force(self.reading)}

    def versions(self) -> Mapping[str, tuple[Registration, ...]]:
        held = self.guard.held()
        return held.versions if held else {}


BANK = registration("b", "bank")
OTHERS = [registration(str(number)) for number in range(10)]


class InForce:
    """The state of a registry, and beside it what is in force when every change it gives is applied."""

    def __init__(self, *sources: str, settings: ShrinkGuardSettings = BANKS_AT_ALL) -> None:
        configured = tuple(SourceSettings(name, f"file:/{name}") for name in sources)
        self.state = RegistryState(RegistrySettings(configured, shrink_guard=settings))
        self.in_force: dict[str, Registration] = {}
        self.last_good: dict[str, Restored] = {}
        self.serial = 0
        self.now = NOW

    def take(self, slices: Slices[Changes | None]) -> Changes | None:
        """Raises KeyError for a withdrawal of what is not in force."""
        changes = run_slices(slices)
        if changes is not None:
            self.in_force.update({each.id: each for each in changes.upserts})
            for id in changes.withdrawals:
                del self.in_force[id]
        return changes

    def read(self, source: str, *some: Registration) -> Changes | None:
        """A source was read whole."""
        return self._update(source, registry(*some), None)

    def follow(self, source: str, *upserts: Registration, withdraw: Iterable[str] = ()) -> Changes | None:
        """A source sent a delta."""
        changes, before = Changes(upserts, tuple(withdraw)), self.last_good[source].registrations
        after = {id: each for id, each in before.items() if id not in changes.withdrawals}
        return self._update(source, {**after, **registry(*upserts)}, changes)

    def _update(self, source: str, after: dict[str, Registration], changes: Changes | None) -> Changes | None:
        self.serial += 1
        position = FeedPosition("session", self.serial, self.now)
        self.last_good[source] = Restored(after, position, self.now)
        update = SourceUpdate(source, self.now, registrations=after, changes=changes, position=position)
        return self.take(self.state.apply(update, self.now))

    def use_overrides(self, *files: OverrideFile) -> Changes | None:
        return self.take(self.state.use_overrides(files, self.now))

    def held(self) -> Mapping[str, int]:
        """How many ids each cause took away."""
        held = self.state.held()
        return held.by_cause if held else {}

    def restarted(self, *sources: str, files: tuple[OverrideFile, ...] = (), lost: Iterable[str] = ()) -> InForce:
        """Another run, from what this one left on disk; the files of `lost` sources cannot be read."""
        again = InForce(*sources, settings=self.state.settings.shrink_guard)
        again.now, again.serial = self.now, self.serial
        record: GuardRecord = decode_record(encode_record(self.state.record()))
        names = {*sources, *(record.sources or ())} - set(lost)
        again.last_good = {name: each for name, each in self.last_good.items() if name in names}
        found = again.last_good | {name: Restored({}) for name in lost}
        again.use_overrides(*files)
        again.take(again.state.restore(record, found, again.now))
        return again


def overrides(text: str) -> OverrideFile:
    return parse_overrides(text, "desk.yaml", "desk.yaml")
