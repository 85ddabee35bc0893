"""The watch of interfaces: what is said, counted and begun again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gatewayd.settings.model import InterfaceSettings
from gatewayd.watch.interfaces import InterfacesView, Matched, PatternView
from gatewayd.watch.links import LinkWatch
from tests.support.manual_clock import Time

SIDES = InterfaceSettings(inside=("ppp*",), outside=("eth0",))
REASON = (
    "no interface has a name of policy.interfaces.inside (ppp*): the rules judge no packet,"
    " in any mode, until one has"
)


class Rig:
    """`script`: what each thread does. The names are those that a look reads."""

    def __init__(self, time: Time, sides: InterfaceSettings = SIDES) -> None:
        self.sides = sides
        self.names: tuple[str, ...] = ("lo", "eth0")
        self.threads = 0
        self.failure: Exception | None = None
        self.changed = asyncio.Event()
        self.watch = LinkWatch(
            lambda: self.sides, monotonic=time.clock.monotonic, follow=self.follow, read=lambda: self.names
        )

    async def follow(self, look: Callable[[], Matched], take: Callable[[Matched], None]) -> None:
        self.threads += 1
        if self.failure is not None:
            raise self.failure
        while True:
            take(look())
            self.changed.clear()
            await self.changed.wait()

    async def change(self, *names: str) -> None:
        self.names = names
        self.changed.set()
        await asyncio.sleep(0.1)


def run(time: Time, scenario: Callable[[Rig], Awaitable[None]], sides: InterfaceSettings = SIDES) -> None:
    async def main() -> None:
        rig = Rig(time, sides)
        task = asyncio.ensure_future(rig.watch.run())
        try:
            await scenario(rig)
        finally:
            task.cancel()

    time.run(main())


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_first_and_the_last_interface_of_a_name_are_said(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(rig: Rig) -> None:
        assert rig.watch.view() == InterfacesView()
        assert (rig.watch.warnings(), rig.watch.unmatched()) == ((), ())
        await asyncio.sleep(0.1)
        assert rig.watch.view().reason == REASON
        assert rig.watch.warnings()[0] == REASON
        assert rig.watch.unmatched() == ("ppp*",)
        await rig.change("lo", "eth0", "ppp0")
        await rig.change("lo", "eth0", "ppp0", "ppp1")
        assert rig.watch.view() == InterfacesView(
            4, (PatternView("ppp*", 2, ("ppp0", "ppp1")),), (PatternView("eth0", 1, ("eth0",)),), looks=3
        )
        await rig.change("lo", "eth0")

    with Time() as time, caplog.at_level("INFO"):
        run(time, scenario)
    assert said(caplog) == ["interfaces.unmatched", "interfaces.matched", "interfaces.unmatched"]


def test_a_thread_that_ends_is_said_and_begun_again_and_what_was_known_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.failure = OSError(24, "Too many open files")
        await asyncio.sleep(10)
        assert rig.threads > 5
        assert rig.watch.view().failures == rig.threads
        rig.failure = None
        await asyncio.sleep(2)
        assert rig.watch.view().total == 2

    with Time() as time, caplog.at_level("INFO"):
        run(time, scenario)
    assert said(caplog).count("interfaces.watch_failed") == 1


def test_without_names_nothing_is_watched_and_a_reload_that_brings_some_begins_it() -> None:
    async def scenario(rig: Rig) -> None:
        await asyncio.sleep(10)
        assert rig.threads == 0
        assert rig.watch.view() == InterfacesView()
        rig.sides = SIDES
        await asyncio.sleep(2)
        assert rig.threads == 1
        assert rig.watch.unmatched() == ("ppp*",)
        rig.sides = InterfaceSettings(inside=("eth0",))  # the next look may be a minute away
        assert rig.watch.view().inside == (PatternView("eth0", 1, ("eth0",)),)
        assert rig.watch.view().reason is None
        rig.sides = InterfaceSettings()
        assert rig.watch.view().inside == ()

    with Time() as time:
        run(time, scenario, InterfaceSettings())
