"""What leaves force and is asked for first, whatever brought it about: the guard of the whole registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.control.guard_keeper import GuardKeeper
from gatewayd.errors import SerialNotHeld
from gatewayd.kernel.fake import FakeTables
from gatewayd.model import Registration
from gatewayd.settings.model import Settings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.override_file import parse_overrides
from tests.support.manual_clock import Time, until
from tests.support.owning import Owning, owning, registration, settings_of
from tests.support.owning import guarded as with_guard

BANK = registration("BANK", "39.32.0.0/28", category="bank")
NEW = registration("NEW", "39.60.0.0/28")


NETWORKS = {"bpo": 10, "junk": 11, "more": 12, "ngo": 13, "university": 14}


def houses(count: int, category: str = "bpo") -> list[Registration]:
    return [
        registration(f"{category}-{n}", f"{NETWORKS[category]}.{n >> 8}.{n & 255}.1", category=category)
        for n in range(count)
    ]


def guarded(*sources: str) -> Settings:
    """The limits of the default configuration."""
    return with_guard(settings_of(*sources))


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


class Places:
    """What outlives a daemon: the directory, the kernel."""

    def __init__(self, directory: Path, time: Time) -> None:
        self.directory = directory
        self.tables = FakeTables()
        self.time = time

    @asynccontextmanager
    async def start(self, *sources: str, files: bool = True, **limits: Any) -> AsyncIterator[Owning]:
        clock = self.time.clock
        settings = with_guard(settings_of(*sources), **limits)
        store = LastGood(self.directory, clock=clock, monotonic=clock.monotonic) if files else None
        async with owning(clock, settings, tables=self.tables, store=store) as it:
            await it.controller.restore()
            yield it


@pytest.fixture
def places(tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A thread takes time that does not pass here: calls to the disk are made at once."""

    async def call_at_once(call: Callable[..., object], *arguments: object) -> object:
        return call(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", call_at_once)
    return Places(tmp_path, time)


def urls(*names: str) -> Mapping[str, str]:
    return {name: f"file:/nowhere/{name}" for name in names}


def all_pass(it: Owning, wanted: Iterable[Registration]) -> bool:
    return all(it.passes(each) for each in wanted)


def overrides(text: str) -> OverridesReading:
    return OverridesReading((parse_overrides(text, "desk.yaml", "desk.yaml"),))


# -- names, orders, directories ----------------------------------------------------------------------------


def test_a_source_that_a_reload_has_renamed_takes_nothing_away(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            there = [BANK, *houses(300)]
            await it.read("national", *there)
            await it.in_sync()
            await it.controller.use_sources(urls("registry"))
            await it.read("registry", NEW)
            await it.in_sync()
            assert all_pass(it, [*there, NEW])
            (held,) = it.controller.holds()
            assert (held.count, held.causes) == (301, ("registry",))
            assert await it.controller.accept(held.serial) == {"serial": held.serial, "released": {"registry": 301}}
            await it.in_sync()
            assert [it.passes(each) for each in (*there[:2], NEW)] == [False, False, True]

    time.run(scenario())


def test_a_source_that_a_reload_takes_out_is_asked_for(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national", "desk")) as it:
            there = houses(300)
            await it.read("national", NEW)
            await it.read("desk", BANK, *there)
            await it.in_sync()
            await it.controller.use_sources(urls("national"))
            await it.in_sync()
            assert all_pass(it, [BANK, *there, NEW])
            (held,) = it.controller.holds()
            assert (held.count, held.causes) == (301, ("config/sources",))
            await it.controller.accept(held.serial)
            await it.in_sync()
            assert not it.passes(BANK)

    time.run(scenario())


def test_a_source_that_was_renamed_before_a_restart_takes_nothing_away(time: Time, places: Places) -> None:
    async def scenario() -> None:
        there = [BANK, *houses(300)]
        async with places.start("national") as it:
            await it.read("national", *there)
            await it.in_sync()
        async with places.start("registry") as again:
            await again.read("registry", NEW)
            await again.in_sync()
            assert all_pass(again, [*there, NEW])
            (held,) = again.controller.holds()
            assert held.count == 301
        async with places.start("registry") as third:
            await third.in_sync()
            assert all_pass(third, [*there, NEW])
            (held,) = third.controller.holds()
            await third.controller.accept(held.serial)
            await third.in_sync()
            assert not third.passes(BANK)
        async with places.start("registry") as last:
            await last.in_sync()
            assert not last.passes(BANK)
            assert last.controller.holds() == ()

    time.run(scenario())


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_a_state_directory_that_was_lost_takes_nothing_away(time: Time, places: Places, loss: str) -> None:
    async def scenario() -> None:
        there = [BANK, *houses(300)]
        async with places.start("national") as it:
            await it.read("national", *there)
            await it.in_sync()
        for path in [each for each in places.directory.rglob("*") if each.is_file()]:
            path.unlink() if loss == "gone" else path.write_bytes(b"\0" * 9)
        async with places.start("national") as again:
            await again.read("national", NEW)
            await again.in_sync()
            await asyncio.sleep(5)
            await again.in_sync()
            assert all_pass(again, [*there, NEW])
            (held,) = again.controller.holds()
            assert (held.count, held.causes) == (301, ("kernel/elements",))
            assert await again.controller.accept(held.serial) == {
                "serial": held.serial,
                "released": {"kernel/elements": 301},
            }
            await again.in_sync()
            assert not any(again.passes(each) for each in there)
            assert again.passes(NEW)
            assert again.controller.holds() == ()

    time.run(scenario())


@pytest.mark.parametrize("lost", ["*", "guard", "*.sqlite3"])
def test_a_bank_among_what_a_lost_file_leaves_in_the_kernel_is_held_through_a_restart(
    time: Time, places: Places, lost: str
) -> None:
    async def scenario() -> None:
        there = [*houses(300), BANK]
        async with places.start("national") as it:
            await it.read("national", *there)
            await it.in_sync()
        files = [each for each in places.directory.rglob(lost) if each.is_file()]
        assert files
        for path in files:
            path.unlink()
        for _ in range(2):
            async with places.start("national") as again:
                await again.read("national", *there[:300])
                await until(lambda: again.controller.holds() != ())
                await again.in_sync()
                assert again.passes(BANK)
                (held,) = again.controller.holds()
                assert held.count == 1
        async with places.start("national") as last:
            await last.read("national", *there[:300])
            await until(lambda: last.controller.holds() != ())
            (held,) = last.controller.holds()
            await last.controller.accept(held.serial)
            await last.in_sync()
            assert not last.passes(BANK)

    time.run(scenario())


def test_after_an_operators_word_a_lost_file_is_lost_no_more(time: Time, places: Places) -> None:
    async def scenario() -> None:
        there = [*houses(300), BANK]
        async with places.start("national", files=False) as it:
            await it.read("national", *there)
            await it.in_sync()
        async with places.start("national") as again:
            await again.read("national", *there[:300])
            await until(lambda: again.controller.holds() != ())
            (held,) = again.controller.holds()
            assert "of a protected category" in held.reason
            await again.controller.accept(held.serial)
            await again.in_sync()
            later = registration("LATER", "39.61.0.1")
            await again.read("national", *there[:300], later)
            await again.in_sync()
        async with places.start("national", files=False) as unsaved:
            await unsaved.read("national", *there[:300], later, NEW)
            await until(lambda: unsaved.passes(NEW))
        async with places.start("national") as last:
            await last.read("national", *there[:300], later)
            await until(lambda: not last.passes(NEW))
            assert last.controller.holds() == ()

    time.run(scenario())


def test_what_a_lost_directory_leaves_in_the_kernel_goes_where_it_is_little_and_nobody_is_protected(
    time: Time, places: Places
) -> None:
    async def scenario() -> None:
        there = houses(300)
        async with places.start("national", files=False) as it:
            await it.read("national", *there)
            await it.in_sync()
        async with places.start("national", files=False, protected=()) as again:
            await again.read("national", *there[:290])
            await until(lambda: not again.passes(there[299]))
            assert all_pass(again, there[:290])
            assert again.controller.holds() == ()

    time.run(scenario())


def test_what_is_held_of_the_kernel_is_held_after_each_restart_until_it_is_registered(
    time: Time, places: Places
) -> None:
    async def scenario() -> None:
        there = houses(300)
        async with places.start("national", files=False) as it:
            await it.read("national", *there)
            await it.in_sync()
        for _ in range(2):
            async with places.start("national", files=False) as again:
                await again.read("national", NEW)
                await again.in_sync()
                await until(lambda: again.controller.holds() != ())
                assert all_pass(again, there)
        async with places.start("national", files=False) as last:
            await last.read("national", NEW)
            await until(lambda: last.controller.holds() != ())
            await last.read("national", NEW, *there)
            await last.in_sync()
            await until(lambda: last.controller.holds() == (), 30)
            assert all_pass(last, there)
            assert last.removed_keys() == []

    time.run(scenario())


def test_suspending_everybody_with_a_lost_directory_takes_nothing_away(time: Time, places: Places) -> None:
    async def scenario() -> None:
        there = houses(300)
        async with places.start("national", files=False) as it:
            await it.read("national", *there)
            await it.in_sync()
        async with places.start("national", files=False) as again:
            await again.read("national", *(_suspended(each) for each in there))
            await until(lambda: again.controller.holds() != ())
            await again.in_sync()
            assert all_pass(again, there)

    time.run(scenario())


def test_windows_that_closed_meanwhile_need_no_word(time: Time, places: Places) -> None:
    async def scenario() -> None:
        ends_s = time.clock() + 100
        timed = [registration(f"T-{n}", f"10.9.{n}.1", valid_until_s=ends_s) for n in range(200)]
        async with places.start("national", files=False) as it:
            await it.read("national", *timed)
            await it.in_sync()
        await asyncio.sleep(200)
        async with places.start("national", files=False) as again:
            await again.read("national", NEW, *timed)
            await until(lambda: not again.passes(timed[0]))
            assert again.controller.holds() == ()

    time.run(scenario())


def _suspended(each: Registration) -> Registration:
    return registration(each.id, *map(str, each.clients), category=each.category, status="suspended")


def test_an_earlier_source_that_takes_over_an_id_with_less_does_not_cut_it(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("first", "national")) as it:
            await it.read("first", NEW)
            await it.read("national", BANK, *houses(300))
            await it.in_sync()
            elsewhere = registration("BANK", "192.0.2.0/28", category="bank")
            await it.read("first", NEW, elsewhere)
            await it.in_sync()
            assert it.passes(BANK)
            assert it.passes(elsewhere)
            (held,) = it.controller.holds()
            assert (held.count, held.causes) == (1, ("first",))
            await it.read("first", NEW)
            await it.in_sync()
            assert it.passes(BANK)
            assert it.controller.allowlist.get("BANK") == BANK

    time.run(scenario())


@pytest.mark.parametrize(
    "fields",
    [
        {"peers": ("198.51.100.9",)},
        {"services": ("esp",)},
        {"status": "suspended"},
        {"status": "revoked"},
        {"valid_until_s": 1.0},
        {"category": "bpo"},
    ],
)
def test_access_that_an_earlier_source_takes_is_a_removal(time: Time, fields: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("first", "national")) as it:
            await it.read("first", NEW)
            await it.read("national", BANK, *houses(300))
            await it.in_sync()
            await it.read("first", NEW, registration("BANK", "39.32.0.0/28", **{"category": "bank"} | fields))
            await it.in_sync()
            assert it.passes(BANK)
            assert [each.count for each in it.controller.holds()] == [1]

    time.run(scenario())


# -- how much is much --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "is_held"), [(1, 0, True), (2, 1, False), (3, 1, True), (80, 39, True)]
)
def test_never_more_than_half_goes_unasked_however_few_there_are(
    time: Time, before: int, after: int, is_held: bool
) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            there = houses(before)
            await it.read("national", *there)
            await it.in_sync()
            await it.read("national", *there[:after])
            await it.in_sync()
            assert it.passes(there[-1]) == is_held
            assert bool(it.controller.holds()) == is_held

    time.run(scenario())


def test_half_and_half_again_is_more_than_half_a_day(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            there = houses(80)
            await it.read("national", *there)
            await it.read("national", *there[:40])
            assert it.controller.holds() == ()
            await it.read("national", *there[:30])
            assert len(it.controller.holds()) == 1

    time.run(scenario())


def test_junk_that_came_first_does_not_make_a_removal_small(time: Time, places: Places) -> None:
    async def scenario() -> None:
        there, junk = houses(400), houses(9000, "junk")
        async with places.start("national") as it:
            await it.read("national", *there)
            await it.in_sync()
            await it.read("national", *there, *junk)
            await it.in_sync()
        async with places.start("national") as again:
            await again.read("national", *junk)
            await again.in_sync()
            assert all_pass(again, there)
            assert [each.count for each in again.controller.holds()] == [400]

    time.run(scenario())


def test_a_larger_source_that_came_today_counts_once_an_operator_has_looked(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("lab")) as it:
            await it.read("lab", NEW)
            await it.controller.use_sources(urls("lab", "national"))
            there = houses(400)
            await it.read("national", *there)
            await it.read("national", *there[:399])
            (held,) = it.controller.holds()
            assert held.reason == "1 registration removed at once, more than 0 of 1"
            await it.controller.accept(held.serial)
            await it.read("national", *there[:330])
            assert it.controller.holds() == ()

    time.run(scenario())


def test_a_category_has_a_share_of_its_own(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            ngos, others = houses(30, "ngo"), houses(5000)
            await it.read("national", *ngos, *others)
            await it.read("national", *ngos[:14], *others)
            await it.in_sync()
            assert all_pass(it, ngos)
            (held,) = it.controller.holds()
            assert held.reason == "16 registrations of category ngo removed at once, more than 15 of 30"
            await it.read("national", *ngos[:29], *others)
            assert it.controller.holds() == ()

    time.run(scenario())


def test_the_only_one_of_a_category_may_go(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            await it.read("national", *houses(1, "university"), *houses(500))
            await it.read("national", *houses(500))
            assert it.controller.holds() == ()

    time.run(scenario())


# -- the operator's own hand -------------------------------------------------------------------------------


def test_a_filter_by_id_is_the_operators_word_and_one_by_prefix_is_asked_for(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            there = houses(300)
            await it.read("national", BANK, *there)
            await it.in_sync()
            await it.controller.use_overrides(overrides('filters:\n  - {id: BANK, comment: "compromised"}\n'))
            await it.in_sync()
            assert not it.passes(BANK)
            assert it.controller.holds() == ()
            await it.controller.use_overrides(
                overrides(
                    'filters:\n  - {id: BANK, comment: "compromised"}\n  - {prefix: 10.0.0.0/8, comment: "slip"}\n'
                )
            )
            await it.in_sync()
            assert all_pass(it, there)
            (held,) = it.controller.holds()
            assert (held.count, held.causes) == (300, ("config/local",))
            await it.controller.use_overrides(overrides('filters:\n  - {id: BANK, comment: "compromised"}\n'))
            await it.in_sync()
            assert it.controller.holds() == ()
            assert all_pass(it, there)

    time.run(scenario())


def test_a_filter_by_id_drops_what_is_held_too(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            await it.read("national", BANK, *houses(300))
            await it.read("national", *houses(300))
            await it.in_sync()
            assert it.passes(BANK)
            await it.controller.use_overrides(overrides('filters:\n  - {id: BANK, comment: "compromised"}\n'))
            await it.in_sync()
            assert not it.passes(BANK)
            assert it.controller.holds() == ()

    time.run(scenario())


def test_a_pin_that_vanishes_is_asked_for_and_one_that_ends_is_not(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            pin = registration("PIN", "39.61.0.0/28", category="bank")
            text = "pins:\n  - {id: PIN, category: bank, clients: [39.61.0.0/28], services: [wireguard], comment: x"
            await it.read("national", *houses(300))
            await it.controller.use_overrides(overrides(text + "}\n"))
            await it.in_sync()
            await it.controller.use_overrides(OverridesReading(()))
            await it.in_sync()
            assert it.passes(pin)
            assert [each.causes for each in it.controller.holds()] == [("config/local",)]
            ends = "2023-11-14T22:13:50Z"
            await it.controller.use_overrides(overrides(f"{text}, until: {ends}}}\n"))
            assert it.controller.holds() == ()
            await until(lambda: not it.passes(pin), 600)
            assert it.controller.holds() == ()

    time.run(scenario())


def test_a_filter_that_came_while_the_daemon_was_down_is_judged_too(time: Time, places: Places) -> None:
    async def scenario() -> None:
        there = houses(300)
        async with places.start("national") as it:
            await it.read("national", *there)
            await it.in_sync()
        slip = overrides('filters:\n  - {prefix: 10.0.0.0/8, comment: "slip"}\n')
        for _ in range(2):
            store = LastGood(places.directory, clock=time.clock, monotonic=time.clock.monotonic)
            async with owning(time.clock, guarded("national"), tables=places.tables, store=store) as again:
                await again.controller.use_overrides(slip)
                await again.controller.restore()
                await again.in_sync()
                assert all_pass(again, there)
                (held,) = again.controller.holds()
                assert (held.count, held.causes) == (300, ("config/local",))
                number = held.serial
        store = LastGood(places.directory, clock=time.clock, monotonic=time.clock.monotonic)
        async with owning(time.clock, guarded("national"), tables=places.tables, store=store) as last:
            await last.controller.use_overrides(slip)
            await last.controller.restore()
            await last.in_sync()
            await last.controller.accept(number)
            await last.in_sync()
            assert not last.passes(there[0])

    time.run(scenario())


# -- what is held ------------------------------------------------------------------------------------------


def test_what_is_held_ends_with_its_window(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national")) as it:
            ends = registration("ENDS", "39.32.1.0/28", category="bank", valid_until_s=time.clock() + 100)
            await it.read("national", BANK, ends, *houses(300))
            await it.read("national", *houses(300))
            await it.in_sync()
            assert [each.count for each in it.controller.holds()] == [2]
            await asyncio.sleep(99)
            assert it.passes(ends)
            await until(lambda: not it.passes(ends))
            await until(lambda: [each.count for each in it.controller.holds()] == [1])
            assert it.controller.allowlist.get("ENDS") is None
            assert it.passes(BANK)

    time.run(scenario())


def test_an_addition_does_not_change_the_number_that_an_operator_was_shown(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded("national", "desk")) as it:
            await it.read("desk", NEW)
            await it.read("national", BANK, *houses(300))
            await it.read("national", *houses(300))
            (held,) = it.controller.holds()
            await asyncio.sleep(60)
            await it.read("desk", NEW, registration("OTHER", "39.62.0.0/28"))
            assert it.controller.holds() == (held,)
            with pytest.raises(SerialNotHeld):
                await it.controller.accept(held.serial + 1)
            await it.controller.accept(held.serial)
            assert it.controller.holds() == ()

    time.run(scenario())


def test_a_crash_between_the_reading_and_what_is_held_of_it_loses_nothing(
    time: Time, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes the one and not the other, in either order."""

    async def scenario() -> None:
        there = [BANK, *houses(300)]
        async with places.start("national") as it:
            await it.read("national", *there)
            await it.in_sync()
            with monkeypatch.context() as patch:
                patch.setattr(GuardKeeper, "write", _fails)
                await it.read("national", NEW)
        async with places.start("national") as again:
            await again.in_sync()
            assert all_pass(again, there)
            with monkeypatch.context() as patch:
                patch.setattr(LastGood, "save", _fails)
                await again.read("national", NEW)
            await again.in_sync()
        async with places.start("national") as last:
            await last.in_sync()
            assert all_pass(last, there)
            assert last.controller.holds() == ()

    time.run(scenario())


async def _fails(*_: object, **__: Any) -> bool:
    return False


# -- a reload while the last good is loaded ----------------------------------------------------------------


@pytest.mark.parametrize("sources", [("registry",), ("desk", "registry"), ("desk", "national"), ("national",), ()])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
def test_a_reload_at_any_moment_of_the_start_ends_nothing_and_loses_nothing(
    time: Time, places: Places, sources: tuple[()] | tuple[str, str] | tuple[str], turns: int
) -> None:
    async def scenario() -> None:
        there, other_bank = [BANK, *houses(300)], registration("OTHER-BANK", "39.33.0.0/28", category="bank")
        async with places.start("national", "desk") as it:
            await it.read("national", *there)
            await it.read("desk", other_bank)
            await it.in_sync()
        store = LastGood(places.directory, clock=time.clock, monotonic=time.clock.monotonic)
        settings = guarded("national", "desk")
        async with owning(time.clock, settings, tables=places.tables, store=store) as again:
            restoring = asyncio.ensure_future(again.controller.restore())
            reloading = None
            for turn in range(200):
                if turn == turns:
                    reloading = asyncio.ensure_future(again.controller.use_sources(urls(*sources)))
                await asyncio.sleep(0)
            assert reloading is not None
            await asyncio.gather(restoring, reloading)
            for name in again.controller.unread_sources():
                await again.read(name, registration("OTHER", "39.63.0.0/28"))
            await again.in_sync()
            assert tuple(again.controller.sources) == sources
            assert all_pass(again, [*there, other_bank])
            assert again.controller.unread_sources() == ()

    time.run(scenario())


def test_a_reading_that_comes_while_the_last_good_is_loaded_is_not_overwritten_by_it(
    time: Time, places: Places
) -> None:
    async def scenario() -> None:
        there = houses(300)
        async with places.start("national") as it:
            await it.read("national", *there)
        store = LastGood(places.directory, clock=time.clock, monotonic=time.clock.monotonic)
        async with owning(time.clock, guarded("national"), tables=places.tables, store=store) as again:
            restoring = asyncio.ensure_future(again.controller.restore())
            await asyncio.sleep(0)
            await again.read("national", NEW, *there)
            await restoring
            await again.in_sync()
            assert all_pass(again, [NEW, *there])

    time.run(scenario())
