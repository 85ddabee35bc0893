"""Registrations by company: whose are held, which company goes whole, the lists by company."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gatewayd.api.standing import HeldRegistrant
from gatewayd.control.companies import describe_registrants
from gatewayd.model import Extension, Registration
from tests.support.manual_clock import Time
from tests.support.owning import guarded, owning, registration, settings_of


def of(company: str | None, count: int, start: int = 0) -> list[Registration]:
    extension = None if company is None else Extension(company)
    return [registration(f"{company}-{n}", f"39.32.{start + n}.0/28", extension=extension) for n in range(count)]


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


def test_what_is_held_names_the_companies_and_those_that_would_go_whole_first(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded(settings_of("national"))) as it:
            one, two, rest = of("co-1", 8), of("co-2", 8, 20), of(None, 3, 40)
            await it.read("national", *one, *two, *rest)
            await it.read("national", *two[3:], rest[0])
            held = it.controller.held_log.registrants
            assert held == (HeldRegistrant("co-1", 8, 8), HeldRegistrant("co-2", 3, 8))
            (line,) = [each for each in caplog.records if each.message == "guard.held"]
            assert line.fields["registrants"] == "co-1 (all 8), co-2 (3 of 8)"  # type: ignore[attr-defined]
            (hold,) = it.controller.holds()
            await it.controller.accept(hold.serial)
            (gone,) = [each for each in caplog.records if each.message == "registrant.vanished"]
            assert gone.fields["registrant"] == "co-1"  # type: ignore[attr-defined]
            assert it.controller.held_log.registrants == held, "until something is looked at again"
            await it.read("national", *two[3:], rest[0], *of("co-3", 1, 60))
            assert it.controller.held_log.registrants == ()

    with caplog.at_level(logging.WARNING):
        time.run(scenario())


def test_many_companies_are_counted() -> None:
    found = tuple(HeldRegistrant(f"co-{number}", 1, 2) for number in range(23))
    assert describe_registrants(found).endswith("co-19 (1 of 2) and 3 more")
    assert describe_registrants(()) == ""
