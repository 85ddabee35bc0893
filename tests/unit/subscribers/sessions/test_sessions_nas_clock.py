"""What a NAS's clock is by its words."""

from __future__ import annotations

import pytest

from gatewayd.model.accounting import AccountingEvent, AccountingKind
from gatewayd.subscribers.sessions.nas_clock import MAX_UNDECIDED, NasClock
from tests.support.accounting import event


def word(
    received: float, ahead: float = 0.0, delay: float = 0.0, kind: AccountingKind = "interim"
) -> AccountingEvent:
    return event(kind, at=received + ahead, received=received, delay_s=delay)


def times(clock: NasClock, *words: AccountingEvent) -> list[float]:
    """By our clock, each as it comes."""
    found = []
    for each in words:
        clock.observe(each)
        found.append(clock.time_of(each))
    return found


def test_a_right_clock_is_believed_to_the_second() -> None:
    assert times(NasClock(), word(1000), word(1003, -3), word(1010, -40), word(1011)) == [1000, 1000, 970, 1011]


@pytest.mark.parametrize("ahead", [1.5, 7.0, 299.0])
def test_one_that_is_ahead_keeps_the_order_of_its_words(ahead: float) -> None:
    clock = NasClock()
    assert times(clock, word(1000, ahead), word(1030, ahead - 20), word(1031, ahead)) == [1000, 1010, 1031]
    assert clock.ahead_s == ahead


def test_one_that_was_ahead_is_put_right_by_its_first_word() -> None:
    clock = NasClock()
    assert times(clock, word(1000, 200), word(1001), word(1002, -1)) == [1000, 1001, 1001]


def test_one_that_goes_further_ahead_is_followed_at_once() -> None:
    assert times(NasClock(), word(1000), word(1001, 3600), word(1002, 3600)) == [1000, 1001, 1002]


def test_one_that_is_set_back_is_seen_by_the_second_word_of_that_age() -> None:
    clock = NasClock()
    first, second = word(1001, -3600), word(1007, -3601)
    assert times(clock, word(1000), first) == [1000, -2599]
    assert clock.observe(second) == (first,)
    assert (clock.time_of(first), clock.time_of(second)) == (1001, 1006)
    assert times(clock, word(1008, -3600), word(1009)) == [1008, 1009], "and put right again"


def test_with_a_restart_among_them_a_second_is_enough() -> None:
    clock = NasClock()
    first = word(1001, -3600, kind="on")
    assert clock.observe(first) == ()
    assert clock.observe(word(1002, -3600, kind="start")) == (first,)


def test_a_short_set_back_takes_three_words_and_a_minute() -> None:
    clock = NasClock()
    words = [word(1001 + 20 * each, -30) for each in range(4)]
    assert [len(clock.observe(each)) for each in words] == [0, 0, 0, 3]


def test_a_queue_that_is_worked_off_is_no_clock() -> None:
    clock = NasClock()
    clock.observe(word(999))
    for each in range(50):
        assert clock.observe(word(1000 + each, -5000 + 60 * each)) == ()
    assert clock.ahead_s == 0


def test_nor_is_one_among_fresh_words() -> None:
    clock = NasClock()
    for each in range(10):
        assert clock.observe(word(1000 + 10 * each, -3600)) == ()
        assert clock.observe(word(1001 + 10 * each)) == ()
    assert clock.ahead_s == 0


def test_nor_one_that_says_for_how_long_it_waited() -> None:
    clock = NasClock()
    for each in range(10):
        assert clock.observe(word(1000 + 10 * each, -3600, delay=3600)) == ()
    assert clock.ahead_s == 0


def test_an_older_word_among_those_of_one_age_is_passed_over() -> None:
    clock = NasClock()
    first = word(1000, -3600)
    clock.observe(first)
    assert clock.observe(word(1003, -3650)) == ()
    assert clock.observe(word(1006, -3600)) == (first,)


def test_what_is_remembered_is_bounded() -> None:
    clock = NasClock()
    for each in range(2 * MAX_UNDECIDED):
        clock.observe(word(1000 + each / 1000, -3600))
    assert len(clock.observe(word(1006, -3600))) == MAX_UNDECIDED - 1


def test_a_restart_of_ours_knows_the_offset_in_whole_seconds() -> None:
    assert [NasClock(ahead_s).whole_s for ahead_s in (0.0, 12.4, -3599.6)] == [0, 12, -3600]
