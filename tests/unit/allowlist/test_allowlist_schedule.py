from __future__ import annotations

from math import inf

from gatewayd.allowlist import Schedule
from gatewayd.model import Registration, Status, parse_prefix
from gatewayd.model.moment import Moment


def registration(
    id: str = "PK-1", opens: float = -inf, closes: float = inf, status: Status = "active"
) -> Registration:
    return Registration(
        id, "bank", status, (parse_prefix("10.0.0.0/24"),), valid_from_s=opens, valid_until_s=closes
    )


def test_nothing_is_due_when_nothing_is_watched() -> None:
    schedule = Schedule()
    assert schedule.next_change() is None
    assert schedule.due(1e12) == []


def test_a_registration_without_a_window_or_not_active_is_not_watched() -> None:
    schedule = Schedule()
    schedule.watch(registration("open"), 0)
    schedule.watch(registration("suspended", 10, 20, "suspended"), 0)
    assert len(schedule) == 0
    assert schedule.next_change() is None


def test_a_window_is_due_when_it_opens_and_again_when_it_closes() -> None:
    schedule = Schedule()
    window = registration(opens=10, closes=20)
    schedule.watch(window, 0)
    assert schedule.next_change() == 10
    assert schedule.due(9.9) == []
    assert schedule.due(10) == ["PK-1"]
    assert schedule.due(10) == []
    schedule.watch(window, 10)
    assert schedule.next_change() == 20
    assert schedule.due(25) == ["PK-1"]
    schedule.watch(window, 25)
    assert len(schedule) == 0


def test_ids_are_due_in_order_of_time() -> None:
    schedule = Schedule()
    for id, closes in (("c", 30), ("a", 10), ("later", 99), ("b", 20)):
        schedule.watch(registration(id, closes=closes), 0)
    assert schedule.due(50) == ["a", "b", "c"]
    assert schedule.next_change() == 99


def test_an_upsert_replaces_what_was_watched() -> None:
    schedule = Schedule()
    schedule.watch(registration(closes=10), 0)
    schedule.watch(registration(closes=30), 0)
    assert schedule.next_change() == 30
    assert schedule.due(20) == []
    schedule.watch(registration(), 20)
    assert schedule.next_change() is None


def test_a_stale_boundary_under_a_live_one_is_not_due() -> None:
    schedule = Schedule()
    schedule.watch(registration("a", closes=10), 0)
    schedule.watch(registration("b", closes=20), 0)
    schedule.watch(registration("b", closes=99), 0)
    assert schedule.due(50) == ["a"]


def test_watching_the_same_window_twice_makes_it_due_once() -> None:
    schedule = Schedule()
    schedule.watch(registration(closes=10), 0)
    schedule.watch(registration(closes=10), 0)
    assert schedule.due(10) == ["PK-1"]


def test_a_window_that_moves_away_and_back_is_due_once() -> None:
    schedule = Schedule()
    for closes in (10, 20, 10):
        schedule.watch(registration(closes=closes), 0)
    assert schedule.due(30) == ["PK-1"]
    assert schedule.next_change() is None


def test_what_is_forgotten_is_not_due() -> None:
    schedule = Schedule()
    schedule.watch(registration(closes=10), 0)
    schedule.forget("PK-1")
    schedule.forget("never seen")
    assert schedule.due(99) == []


def test_after_the_clock_was_set_back_all_boundaries_lie_ahead_again() -> None:
    schedule = Schedule()
    window = registration(opens=10, closes=20)
    schedule.watch(window, 0)
    schedule.watch(registration("gone", closes=15), 0)
    assert schedule.due(12) == ["PK-1"]
    schedule.watch_all([window, registration("open")], 5)
    assert len(schedule) == 1
    assert schedule.next_change() == 10


def test_many_upserts_of_one_id_keep_one_boundary_and_a_bounded_heap() -> None:
    schedule = Schedule()
    for moment in range(10_000):
        schedule.watch(registration(closes=1e6 - moment), 0)
        assert len(schedule._closings._heap) <= 2 * len(schedule) + 1024
    assert schedule.due(1e9) == ["PK-1"]


def test_forgetting_compacts_too() -> None:
    schedule = Schedule()
    for number in range(5000):
        schedule.watch(registration(f"PK-{number}", closes=1e6), 0)
    for number in range(5000):
        schedule.forget(f"PK-{number}")
    assert len(schedule._closings._heap) <= 1024
    assert schedule.next_change() is None


def test_where_the_time_is_not_known_openings_go_by_the_latest_and_closings_by_the_earliest() -> None:
    schedule = Schedule()
    schedule.watch(registration("opens", opens=50), Moment(0, 20))
    schedule.watch(registration("closes", closes=50), Moment(0, 20))
    assert schedule.due_in_s(Moment(0, 20)) == 30
    assert schedule.due(Moment(10, 50)) == ["opens"]
    schedule.watch(registration("opens", opens=50), Moment(10, 50))
    assert schedule.due(Moment(20, 1e9)) == []
    assert schedule.due_in_s(Moment(20, 1e9)) == 30
    assert schedule.due(Moment(50, 1e9)) == ["closes"]


def test_a_time_that_is_not_known_at_all_keeps_nothing_spinning() -> None:
    unknown = Moment(-inf, inf)
    schedule = Schedule()
    assert schedule.due_in_s(unknown) == inf
    schedule.watch(registration("both", opens=10, closes=20), unknown)
    assert schedule.due(unknown) == []
    assert schedule.due_in_s(unknown) == inf
    assert schedule.next_change() == 20
    assert schedule.due_in_s(25.0) == 0
    assert schedule.due(25.0) == ["both"]


def test_when_the_time_went_back_every_boundary_is_looked_for_anew() -> None:
    registrations = [
        registration("opens", opens=10, closes=20),
        registration("closes", closes=20),
        registration("always"),
    ]
    schedule = Schedule()
    schedule.watch(registration("gone", opens=5), 0)
    schedule.watch_all(registrations, 30)
    assert len(schedule) == 0
    schedule.watch_all(registrations, 0)
    assert len(schedule) == 2
    assert schedule.due(15) == ["opens"]
    assert schedule.due(25) == ["closes"]
