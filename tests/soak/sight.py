"""What is in the kernel of the lab's gateway, and whether it is what a registry wants."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.errors import DumpInterrupted, OperationRefused
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab
from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.model.transaction import TableReading
from tests.support.lab_daemon import TABLE

STAGES = (
    "no table",
    "table without rules",
    "observe, unfinished",
    "armed, unfinished",
    "observe, complete",
    "armed, complete",
)
"""What was there when a daemon died. Unfinished: rules over sets that are not yet, or no longer, all as desired."""
_PAUSE_S = 0.002


class Sight:
    """Looks by netlink, from inside the gateway."""

    def __init__(self, tables: KernelTables, runner: asyncio.Runner) -> None:
        self._tables, self._runner = tables, runner

    def generation(self) -> int:
        return self._runner.run(self._tables.read_generation())

    def wait_commit(self, since: int, deadline_s: float) -> None:
        """Until somebody has written to the kernel; at most `deadline_s`."""
        deadline = time.monotonic() + deadline_s
        while self.generation() == since and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)

    def contents(self) -> dict[str, frozenset[bytes]]:
        """Keys of every set that may make a flow registered."""
        return self._runner.run(self._contents())

    async def _contents(self) -> dict[str, frozenset[bytes]]:
        found = {}
        for each in (await self._read_table()).sets:
            parsed = parse_set_name(each.name)
            if each.name not in RULE_SETS and (parsed is None or not parsed[0].is_near):
                keys: set[bytes] = set()
                try:
                    async for piece in self._tables.read_elements(each.name):
                        keys.update(piece)
                except OperationRefused as error:
                    if error.errno != errno.ENOENT:
                        raise
                    continue  # deleted since the sets were listed: it is not there
                found[each.name] = frozenset(keys)
        return found

    async def _read_table(self) -> TableReading:
        """Between two commits of the daemon, of which there are many."""
        while True:
            try:
                return await self._tables.read_table()
            except DumpInterrupted:
                await asyncio.sleep(_PAUSE_S)

    def stage(self, wanted: dict[Mask, frozenset[bytes]]) -> str:
        """One of STAGES."""
        reading = self._runner.run(self._read_table())
        if not reading.present:
            return "no table"
        if reading.tag is None:
            return "table without rules"
        mode = "observe" if reading.tag.mode == "observe" else "armed"
        return f"{mode}, {'complete' if is_as_wanted(self.contents(), wanted) else 'unfinished'}"


def is_as_wanted(contents: dict[str, frozenset[bytes]], wanted: dict[Mask, frozenset[bytes]]) -> bool:
    """One set for each mask with the keys that it shall have; masks out of use may have an empty one."""
    parsed = [(parse_set_name(name), keys) for name, keys in contents.items()]
    if any(name is None for name, _ in parsed):
        return False
    found = [(name[0], keys) for name, keys in parsed if name is not None and (keys or name[0] in wanted)]
    return len(found) == len(wanted) and dict(found) == wanted


@contextmanager
def sight_of(lab: Lab) -> Iterator[Sight]:
    with lab.gateway.entered():
        tables = KernelTables.open(TABLE)
    with asyncio.Runner() as runner:
        try:
            yield Sight(tables, runner)
        finally:
            tables.close()
