"""The watch of interfaces that come and go (`ppp*`, VLANs, VRFs), against the names of `policy.interfaces`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from gatewayd.compile.interfaces import Sides
from gatewayd.errors import EventMalformed
from gatewayd.kernel.links import follow_links, read_interfaces
from gatewayd.log import RateLimited, get_logger
from gatewayd.watch.interfaces import InterfacesView, Matched, match_interfaces, patterns_of, turns_of

log = get_logger(__name__)

SETTINGS_EVERY_S: Final = 1.0
"""A reload may name interfaces for the first time."""
RESTART_AFTER_S: Final = 1.0
Follow = Callable[[Callable[[], Matched], Callable[[Matched], None]], Awaitable[None]]
"""kernel.links.follow_links."""


class LinkWatch:
    """`sides`: of the settings in force; read in another thread too. Without names nothing is watched."""

    def __init__(
        self,
        sides: Callable[[], Sides],
        *,
        monotonic: Callable[[], float],
        follow: Follow = follow_links,
        read: Callable[[], tuple[str, ...]] = read_interfaces,
    ) -> None:
        self._sides = sides
        self._follow = follow
        self._read = read
        self._said = RateLimited(log, 600.0, monotonic)
        self._found: Matched | None = None
        self._counts = InterfacesView()

    async def run(self) -> None:
        """Until cancelled. A thread that ends is said, and begun again."""
        while True:
            if not any(patterns_of(self._sides())):
                self._found = None
                await asyncio.sleep(SETTINGS_EVERY_S)
                continue
            try:
                await self._follow(self._look, self._take)
            except (OSError, EventMalformed) as error:
                self._count(failures=self._counts.failures + 1)
                self._said.warning("interfaces.watch_failed", error=str(error))
            await asyncio.sleep(RESTART_AFTER_S)

    def _look(self) -> Matched:
        return match_interfaces(self._sides(), self._read())

    def _take(self, found: Matched) -> None:
        self._count(looks=self._counts.looks + 1)
        self._note(found)

    def _count(self, **counts: int) -> None:
        self._counts = msgspec.structs.replace(self._counts, **counts)

    def _note(self, found: Matched) -> None:
        before, self._found = self._found, found
        for side, pattern, count in turns_of(before, found):
            if count:
                log.info("interfaces.matched", side=side, pattern=pattern, interfaces=count)
            else:
                log.warning("interfaces.unmatched", side=side, pattern=pattern)

    def _current(self) -> Matched | None:
        """By the settings in force, which may be newer than the latest look."""
        sides = self._sides()
        if not any(patterns_of(sides)):
            return None
        if self._found is not None and self._found.patterns != patterns_of(sides):
            self._note(match_interfaces(sides, self._found.names))
        return self._found

    def unmatched(self) -> tuple[str, ...]:
        """Names of `policy.interfaces` that no interface has; none before the first look."""
        found = self._current()
        return () if found is None else found.unmatched

    def warnings(self) -> tuple[str, ...]:
        """Sentences about them, the worst first."""
        found = self._current()
        return () if found is None else found.warnings

    def view(self) -> InterfacesView:
        found = self._current()
        if found is None:
            return self._counts
        return msgspec.structs.replace(
            self._counts,
            total=len(found.names),
            inside=found.inside,
            outside=found.outside,
            reason=found.reason,
        )
