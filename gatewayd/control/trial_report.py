"""The report of a trial: what it was, what was refused in it, and who was affected; kept until the next.

state_dir/trial-ID.html    of the latest trial that ended without being confirmed
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from gatewayd.api.html import Facts, Part, Text, render_page
from gatewayd.api.impact_page import parts_of
from gatewayd.errors import GatewaydError
from gatewayd.filesystem import read_ours
from gatewayd.impact.report import ImpactReport
from gatewayd.log import get_logger
from gatewayd.model.moment import format_time
from gatewayd.model.transaction import CounterReading
from gatewayd.sources.files import in_thread, remove, replace_file
from gatewayd.trial.state import Trial

log = get_logger(__name__)

TOP: Final = 1000
"""Prefixes of a report at most."""
Counters = Mapping[str, CounterReading]


class TrialReports:
    """`of`: the id of the trial that a report is kept of; "" = none. `ask`: the impact since a time, with so many
    prefixes and for so many percent of the clients. Nothing waits for a report, and what fails is logged."""

    def __init__(
        self,
        directory: Path,
        read_counters: Callable[[], Awaitable[Counters]],
        ask: Callable[[float | None, int, int], Awaitable[ImpactReport]],
    ) -> None:
        self._directory = directory
        self._read_counters = read_counters
        self._ask = ask
        self._before: dict[str, Counters] = {}
        """Counters of the kernel when a trial began in this run."""
        found = sorted(directory.glob("trial-*.html")) if directory.is_dir() else []
        self.of = found[-1].stem.removeprefix("trial-") if found else ""

    async def begin(self, trial: Trial) -> None:
        """It is in the kernel."""
        try:
            self._before = {trial.id: await self._read_counters()}
        except GatewaydError as error:
            log.warning("trial.report_failed", id=trial.id, error=str(error))

    async def end(self, trial: Trial, ended_s: float, why: str) -> None:
        """Make and keep its report, in place of the one before."""
        try:
            parts = [part async for part in self._parts(trial, ended_s, why)]
            page = render_page(f"Trial of {trial.to}", trial.comment or trial.id, parts, _say_time)
            await in_thread(replace_file, self._path(trial.id), page.encode())
        except (GatewaydError, OSError) as error:
            log.warning("trial.report_failed", id=trial.id, error=str(error))
            return
        before, self.of = self.of, trial.id
        if before not in ("", trial.id):
            await in_thread(remove, self._path(before))
        log.info("trial.reported", id=trial.id)

    async def read(self) -> bytes | None:
        """The page; None where there is none."""
        try:
            return await in_thread(read_ours, self._path(self.of)) if self.of else None
        except OSError:
            return None

    async def _parts(self, trial: Trial, ended_s: float, why: str) -> AsyncIterator[Part]:
        yield Facts(tuple(facts_of(trial, ended_s, why)), "The trial")
        before = self._before.pop(trial.id, None)
        if before is None:
            yield Text("The daemon was restarted in the trial: packets are not counted for it alone.", warning=True)
        else:
            yield Facts(tuple(differences(before, await self._read_counters())), "Counted in the trial")
        yield Text("What follows is of the whole hours in which the trial was.")
        for part in parts_of(await self._ask(trial.began_s, TOP, trial.to.canary_percent)):
            yield part

    def _path(self, id: str) -> Path:
        return self._directory / f"trial-{id}.html"


def facts_of(trial: Trial, ended_s: float, why: str) -> Iterator[tuple[str, str]]:
    """Of the trial itself."""
    yield "mode", str(trial.to)
    yield "before and after", str(trial.way_back)
    yield "began", str(format_time(round(trial.began_s)))
    yield "ended", str(format_time(round(ended_s)))
    yield "how it ended", why
    yield "by", trial.by
    if trial.comment:
        yield "comment", trial.comment


def differences(before: Counters, after: Counters) -> Iterator[tuple[str, int]]:
    """Packets by the kernel's counters, those that moved."""
    for name, each in sorted(after.items()):
        count = each.packets - (before[name].packets if name in before else 0)
        if count > 0:
            yield name.replace("_", " "), count


def _say_time(at_s: float) -> str:
    return str(format_time(at_s))[:16].replace("T", " ")
