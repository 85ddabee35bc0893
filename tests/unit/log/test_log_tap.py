"""Followed events reach readers from every logger, at every level of the log, from any thread."""

from __future__ import annotations

import asyncio
import json
import logging
import threading

import pytest

from gatewayd.log import get_logger
from gatewayd.log.events import EVENTS, FOLLOWED
from gatewayd.log.ring import EventRing
from gatewayd.log.tap import TAP, EventTap, Wakeup

NEEDED = {
    "registry.applied", "guard.held", "policy.in_force", "reconcile.external_change", "late_admission",
    "reload.done", "reload.refused", "daemon.started",
}  # fmt: skip


@pytest.fixture
def tap() -> EventTap:
    return EventTap(EventRing(7), lambda: 1_730_689_200.0)


def names(tap: EventTap) -> list[str]:
    return [json.loads(each.body)["event"] for each in tap.after(None, 100).entries]


def test_the_events_that_a_person_follows_are_declared() -> None:
    assert FOLLOWED.keys() >= NEEDED
    assert set(FOLLOWED) == {event.name for event in EVENTS if event.followed}


def test_an_event_that_is_not_followed_stays_in_the_log(tap: EventTap) -> None:
    for event in ("reconcile.applied", "nobody.declared_it", "late_admission"):
        tap.take(event, {"id": "BANK-1", "at": {b"\x01"}})
    assert names(tap) == ["late_admission"]
    (entry,) = tap.after(None, 100).entries
    assert json.loads(entry.body)["fields"] == {"id": "BANK-1", "at": ["01"]}
    assert tap.dropped == 0


def test_a_logger_hands_them_on_whatever_its_level() -> None:
    logger = get_logger("gatewayd.somewhere")
    logging.getLogger("gatewayd.somewhere").setLevel(logging.CRITICAL)
    before = TAP.after(None, 10_000)
    place = before.entries[-1].position if before.entries else before.after
    logger.info("registry.applied", upserts=3, withdrawals=1)
    (entry,) = TAP.after(place, 10).entries
    assert json.loads(entry.body)["fields"] == {"upserts": 3, "withdrawals": 1}


async def test_a_reader_is_woken_from_another_thread(tap: EventTap) -> None:
    with tap.reading() as wakeup:
        thread = threading.Thread(target=tap.take, args=("daemon.ready", {"registrations": 1}))
        thread.start()
        await wakeup.wait(60)
        thread.join()
        assert names(tap) == ["daemon.ready"]
        await wakeup.wait(0)  # the event was taken: this one ends by time
    tap.take("daemon.ready", {"registrations": 1})


def test_a_reader_whose_loop_has_ended_does_no_harm(tap: EventTap) -> None:
    async def leave() -> Wakeup:
        return Wakeup()

    asyncio.run(leave()).ring()


def test_a_time_is_a_place(tap: EventTap) -> None:
    tap.take("daemon.ready", {"registrations": 1})
    assert tap.position_of(0.0)[1] == "restart"
