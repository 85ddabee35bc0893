"""A registry under guard, and registrations for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gatewayd.model import Registration, parse_prefix, parse_services
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.limits import GuardDecision
from gatewayd.settings import ProtectedCategory, RemovalLimit, ShrinkGuardSettings
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
