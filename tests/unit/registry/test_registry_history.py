"""The latest steps of the registry, within a bound."""

from __future__ import annotations

from gatewayd.model import Registration, parse_prefix
from gatewayd.model.registration import Changes
from gatewayd.registry.history import MAX_IDS_A_STEP, History, Step

CLIENTS = (parse_prefix("203.0.113.0/28"),)


def changes_of(upserts: list[str], withdrawals: list[str]) -> Changes:
    return Changes(tuple(Registration(id, "bank", "active", CLIENTS) for id in upserts), tuple(withdrawals))


def note(history: History, upserts: list[str], withdrawals: list[str], now: float, by: str = "") -> None:
    history.note(changes_of(upserts, withdrawals), lambda id: not id.startswith("new"), "national", 7, now, by)


def test_a_step_says_what_came_went_and_changed_by_which_cause() -> None:
    history = History()
    note(history, ["new", "old"], ["gone", "new-and-gone"], 1.0)
    note(history, [], ["released"], 2.0, "uid 0")
    assert history.since() == (
        Step(1.0, "national", 7, "", ("new",), ("gone",), ("old",)),
        Step(2.0, "national", 7, "uid 0", (), ("released",), ()),
    )
    assert history.since(1.5) == history.since()[1:]
    assert history.since(3.0) == ()


def test_what_the_guard_shows_beside_a_replacement_is_no_news() -> None:
    history = History()
    note(history, ["old#held"], ["gone#held"], 1.0)
    assert history.since() == ()
    note(history, ["old#held", "old"], [], 1.0)
    assert history.since()[0].changed == ("old",)


def test_a_step_lists_so_many_ids_and_counts_the_others() -> None:
    history = History()
    ids = [f"{number}" for number in range(MAX_IDS_A_STEP + 3)]
    note(history, ids, ids[:-1], 1.0)
    (step,) = history.since()
    assert (len(step.changed), len(step.went), step.omitted) == (MAX_IDS_A_STEP, MAX_IDS_A_STEP, 5)


def test_the_oldest_steps_are_dropped_beyond_the_bound_and_counted() -> None:
    history = History(max_ids=4)
    for second in range(6):
        note(history, [f"r{second}"], [], second)
    assert [step.at_s for step in history.since()] == [2.0, 3.0, 4.0, 5.0]
    assert history.dropped == 2
    note(history, ["a", "b", "c", "d", "e"], [], 9.0)
    assert [step.at_s for step in history.since()] == [9.0]
    assert history.dropped == 6


def test_steps_since_a_number_of_them_are_found() -> None:
    history = History(max_ids=3)
    assert (history.total, history.after(0)) == (0, ())
    for number in range(5):
        history.note(Changes((), (f"r{number}",)), lambda _: True, "national", number, float(number))
    assert (history.total, history.dropped) == (5, 2)
    assert [each.serial for each in history.after(0)] == [2, 3, 4]
    assert [each.serial for each in history.after(4)] == [4]
    assert history.after(5) == ()


def test_a_step_may_be_cut() -> None:
    step = Step(1.0, "national", 1, "", ("a", "b", "c"), ("d",), (), 4)
    assert step.cut(2) == Step(1.0, "national", 1, "", ("a", "b"), ("d",), (), 5)
    assert step.cut(3) == step
