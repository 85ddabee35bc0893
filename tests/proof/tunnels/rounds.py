"""`./run proof tunnels`: all kinds at once under every fault, then idle, moved and unregistered ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from gatewayd.lab.lab import Lab
from tests.proof.harness import RECORDS, Fault, Row, World, proof_lab, run_fault
from tests.proof.progress import Progress
from tests.proof.tunnels import idle, unregistered
from tests.proof.tunnels.fleet import SIDES, Fleet, TunnelTraffic
from tests.proof.tunnels.roaming import ROAMERS, Roaming, roam
from tests.proof.tunnels.table import Registered, TunnelRow, Unregistered
from tests.proof.tunnels.unregistered import strays
from tests.proof.tunnels.wire import Wire
from tests.soak.sight import Sight
from tests.support.lab_daemon import clean

_T = TypeVar("_T")


class Rounds:
    """`rows` and `faults` are what was measured."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.rows: list[TunnelRow] = []
        self.faults: list[Row] = []

    def run(self, faults: Sequence[Fault]) -> None:
        with proof_lab() as (lab, sight), tempfile.TemporaryDirectory(prefix="gatewayd-tunnels-") as directory:
            at = Path(directory)
            with Fleet(lab, at / "registered") as fleet:
                registered = self._through(lab, sight, fleet, faults)
                names = {each.name: (each.kind, each.plan.family) for each in fleet.tunnels}
            woken = self._try("idle", partial(self._woken, lab, sight, at / "idle")) or {}
            moved = self._try("roaming", partial(self._moved, lab, sight, at / "roaming")) or {}
            others = self._try("unregistered", partial(self._strays, lab, sight, at / "strays")) or {}
        for name, (kind, family) in names.items():
            self.rows.append(
                TunnelRow(kind, family, registered[name], woken.get(name), moved.get(name), others.get(name))
            )

    def wrong(self) -> list[tuple[str, str]]:
        """Rows that are not as they should be, and why."""
        found = [(row.name, note) for row in self.faults if not row.is_good for note in row.notes]
        return found + [(f"{row.kind}, IPv{row.family}", why) for row in self.rows for why in row.wrong()]

    def _try(self, what: str, work: Callable[[], _T]) -> _T | None:
        return next(self._progress.rows("tunnels", [(what, work)]), None)

    def _through(self, lab: Lab, sight: Sight, fleet: Fleet, faults: Sequence[Fault]) -> dict[str, Registered]:
        """All come up in `reject`, and stay for all faults."""
        with world_of(lab, sight, fleet):
            fleet.start()
        traffic, bounded = TunnelTraffic(fleet), TunnelTraffic(fleet)
        works = [
            (each.name, partial(row_under, sight, fleet, each, bounded if each.bounded else traffic))
            for each in faults
        ]
        for row in self._progress.rows("tunnels", works):
            self.faults.append(row)
            for note in row.notes:
                self._progress.note(f"{row.name}: {note}", is_wrong=not row.bounded)
        return {
            each.name: Registered(
                round(each.comes_up_s or 0.0, 2),
                traffic.sent[each.name] + bounded.sent[each.name],
                traffic.lost[each.name],
                bounded.lost[each.name],
                each.handshakes(),
            )
            for each in fleet.tunnels
        }

    @staticmethod
    def _woken(lab: Lab, sight: Sight, directory: Path) -> dict[str, tuple[int, int]]:
        with Fleet(lab, directory) as fleet, idle.short_memory(lab), world_of(lab, sight, fleet):
            fleet.start()
            return idle.woken(fleet)

    @staticmethod
    def _moved(lab: Lab, sight: Sight, directory: Path) -> dict[str, Roaming]:
        with (
            Fleet(lab, directory, ROAMERS) as fleet,
            world_of(lab, sight, fleet),
            Wire(lab, fleet.tunnels) as wire,
        ):
            fleet.start()
            return {each.name: roam(each, wire) for each in fleet.tunnels}

    @staticmethod
    def _strays(lab: Lab, sight: Sight, directory: Path) -> dict[str, Unregistered]:
        with world_of(lab, sight) as world:
            with strays(world, directory / "reject", "reject") as (fleet, wire):
                told = unregistered.refused(world, fleet, wire)
            with strays(world, directory / "observe", "observe") as (fleet, wire):
                up = unregistered.observed(world, fleet)
            most = f"{unregistered.LIMIT_BYTES_S}byte/s"
            with strays(world, directory / "limit", "limit", on_unregistered={"limit": most}) as (fleet, wire):
                rates = unregistered.limited(fleet, wire)
            with strays(world, directory / "mark", "mark", on_unregistered={"dscp": "cs1"}) as (fleet, wire):
                dscp = unregistered.marked(fleet, wire)
        return {
            name: Unregistered(told[name], round(up[name], 2), rates[name] / unregistered.LIMIT_BYTES_S, dscp[name])
            for name in told
        }


def row_under(sight: Sight, fleet: Fleet, fault: Fault, traffic: TunnelTraffic) -> Row:
    """Of one fault under tunnels that are up."""
    with tempfile.TemporaryDirectory(prefix="gatewayd-proof-") as directory:
        clean(fleet.lab)
        try:
            return run_fault(_world(fleet.lab, sight, fleet, Path(directory)), fault, traffic)
        finally:
            clean(fleet.lab)


@contextmanager
def world_of(lab: Lab, sight: Sight, fleet: Fleet | None = None) -> Iterator[World]:
    """A gateway in `reject` that has the registrations of the fleet, and a daemon until the end of `with`."""
    with tempfile.TemporaryDirectory(prefix="gatewayd-proof-") as directory:
        clean(lab)
        world = _world(lab, sight, fleet, Path(directory))
        try:
            world.begin()
            yield world
        finally:
            world.end()
            clean(lab)


def _world(lab: Lab, sight: Sight, fleet: Fleet | None, directory: Path) -> World:
    world = World(lab, directory, sight, (*RECORDS, *(fleet.registrations() if fleet else ())))
    world.policy = SIDES
    return world
