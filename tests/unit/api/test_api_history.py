from __future__ import annotations

import pytest

from gatewayd.api.history import History, HistoryView, Reading


def noted(*readings: tuple[int, Reading], most: int = 10) -> HistoryView:
    history = History(most)
    for at_s, reading in readings:
        history.note(at_s, reading)
    return history.view()


def same(number: int | None) -> Reading:
    return Reading(number, number, number, number, number)


def test_a_minute_has_what_was_counted_in_it() -> None:
    view = noted((0, Reading(100, 10, 0, 1, None)), (60, Reading(150, 10, 2, 1, None)))
    assert view == HistoryView(60, (60,), (50,), (0,), (2,), (0,), (None,))


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ((100, 7, 9), (7, 2)),  # the table was made anew: its counters began at 0
        (
            (None, 100, 110),
            (10,),
        ),  # what the kernel counted in an earlier run is not of this minute
        ((1, None, 5, 6), (None, 1)),
        ((None, None), ()),
    ],
)
def test_a_counter_may_begin_again_or_be_unknown(
    counts: tuple[int | None, ...], found: tuple[int | None, ...]
) -> None:
    view = noted(*((60 * number, same(each)) for number, each in enumerate(counts)))
    assert view.registered == view.accounting == found


def test_the_oldest_minutes_go() -> None:
    view = noted(*((60 * number, same(number)) for number in range(9)), most=3)
    assert (view.at, view.repairs) == ((360, 420, 480), (1, 1, 1))


def test_a_clock_that_was_set_back_forgets_what_lies_ahead() -> None:
    view = noted(*((at_s, same(number)) for number, at_s in enumerate((0, 60, 120, 180, 120, 240))))
    assert view.at == (60, 120, 240)


def test_a_second_reading_of_the_same_minute_takes_nothing_from_it() -> None:
    """A sleep until the end of a minute may end a millisecond before it, and is short the next time."""
    readings = ((0, 0), (60, 361), (60, 361), (120, 721), (120, 722), (180, 1081))
    view = noted(*((at_s, same(number)) for at_s, number in readings))
    assert view.unregistered == (361, 360, 360)
