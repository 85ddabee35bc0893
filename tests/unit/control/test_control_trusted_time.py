"""What time is believed: a test for every row of the tables of `trusted_time`, and what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewayd.control.trusted_time import (
    ALONE,
    PATIENCE_S,
    PLAUSIBLE_S,
    REBOOT_MARGIN_S,
    ROUGHLY,
    TIGHT_S,
    TOLERANCE_S,
    WELL,
    Judgement,
    KeptTime,
    Reading,
    TrustedTime,
)
from gatewayd.model.moment import Moment

NOW = 1_800_000_000.0
HOUR_S = 3600.0
DAY_S = 86400.0
YEAR_S = 365 * DAY_S
EXPIRE_S = 7 * DAY_S


class Host:
    """A host whose true time is NOW at the start; its clock is set wrong by `off_s`, and both its clocks are
    `late_s` behind by running slow."""

    def __init__(self, off_s: float = 0.0, *, has_signed: bool = False, is_synced: bool = False) -> None:
        self.trusted = TrustedTime(has_signed=has_signed)
        self.off_s = off_s
        self.is_synced = is_synced
        self.elapsed_s = 1000.0
        self.late_s = 0.0

    @property
    def true_s(self) -> float:
        return NOW + self.elapsed_s + self.late_s - 1000.0

    def reading(self) -> Reading:
        return Reading(self.true_s - self.late_s + self.off_s, self.elapsed_s, self.is_synced)

    def judge(self) -> Judgement:
        return self.trusted.take(self.reading())

    def wait(self, seconds: float) -> Judgement:
        self.elapsed_s += seconds
        return self.judge()

    def step(self, seconds: float, *, is_synced: bool = False) -> Judgement:
        """The clock is set."""
        self.off_s += seconds
        self.is_synced = is_synced
        return self.judge()

    def know(self, ago_s: float) -> None:
        """A last good that was signed then."""
        self.trusted.note_last_good(self.true_s - ago_s, None, self.elapsed_s)

    def hear(self, ago_s: float = 0.0, since_s: float | None = None) -> Judgement:
        """A notification, issued so long ago; `since_s`: it was not there so long ago."""
        self.trusted.witness(self.reading(), self.true_s - ago_s, EXPIRE_S, since_s)
        return self.judge()

    def times(self) -> tuple[float, float, str | None]:
        """Earliest and latest against the true time, and the doubt."""
        judged = self.judge()
        doubt = None if judged.doubt is None else judged.doubt.word
        return judged.earliest_s - self.true_s, judged.latest_s - self.true_s, doubt


# -- the rules, row by row -------------------------------------------------------------------------------------


def test_1_what_the_kernel_calls_synced_is_the_time() -> None:
    host = Host(has_signed=True, is_synced=True)
    assert host.times() == (0.0, 0.0, None)
    assert host.judge().is_confirmed
    host.know(10 * DAY_S)
    assert host.times() == (0.0, 0.0, None)


def test_1_the_kernels_word_is_not_enough_against_signed_times() -> None:
    """A time server with an old GPS receiver: off by 1024 weeks, and sure of it."""
    host = Host(-1024 * 7 * DAY_S, is_synced=True)
    host.know(DAY_S)
    assert host.times() == (-DAY_S, inf, "behind")
    ahead = Host(is_synced=True, has_signed=True)
    ahead.hear()
    ahead.step(2 * YEAR_S, is_synced=True)
    assert ahead.times() == (0.0, 0.0, "ahead")


def test_1_a_registry_that_is_minutes_ahead_is_wrong_where_the_kernel_is_synced() -> None:
    host = Host(is_synced=True, has_signed=True)
    host.hear(ago_s=-TOLERANCE_S)
    host.trusted.note_issued(host.true_s + 3 * HOUR_S, host.elapsed_s)
    assert host.times() == (0.0, 0.0, None)
    assert host.judge().latest_issue_s == host.true_s


def test_2_below_the_floor_it_is_at_least_the_floor_and_nobody_knows_how_much_more() -> None:
    host = Host(-6 * YEAR_S)
    host.know(2 * DAY_S)
    assert host.times() == (-2 * DAY_S, inf, "behind")
    host.wait(HOUR_S)
    assert host.times() == (-2 * DAY_S, inf, "behind")
    host.hear(HOUR_S)
    assert host.times() == (-HOUR_S, EXPIRE_S - HOUR_S, "behind")


def test_2_with_an_anchor_the_time_goes_on() -> None:
    host = Host()
    host.know(2 * DAY_S)
    host.trusted.recall(KeptTime("boot", 900.0, host.true_s - 100.0, ROUGHLY), "boot", host.elapsed_s)
    host.step(-6 * YEAR_S)
    host.wait(HOUR_S)
    assert host.times() == (0.0, 0.0, "behind")
    judged = host.judge()
    assert judged.doubt is not None
    assert judged.doubt.offset_s == -6 * YEAR_S
    assert judged.likely() == host.true_s


@pytest.mark.parametrize("seconds", [0.4, -0.4, 3.0, -3.0, 37.0, -299.0])
def test_3_seconds_raise_no_alarm_and_take_nothing(seconds: float) -> None:
    host = Host()
    host.judge()
    host.step(seconds)
    earliest, latest, doubt = host.times()
    assert doubt is None
    if abs(seconds) > 0.5:
        assert (earliest, latest) == (min(0.0, seconds), max(0.0, seconds))
    else:
        assert earliest == latest == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S, 5 * HOUR_S, -5 * HOUR_S, YEAR_S, -6 * YEAR_S])
@pytest.mark.parametrize("strength", [ROUGHLY, WELL])
def test_4_a_step_is_not_believed_against_a_confirmed_time(seconds: float, strength: int) -> None:
    host = Host()
    host.trusted.recall(KeptTime("boot", 900.0, host.true_s - 100.0, strength), "boot", host.elapsed_s)
    assert host.times() == (0.0, 0.0, None)
    host.step(seconds)
    assert host.times() == (0.0, 0.0, "ahead" if seconds > 0 else "behind")
    host.wait(3 * DAY_S)
    assert host.times() == (0.0, 0.0, "ahead" if seconds > 0 else "behind")
    host.step(-seconds)
    assert host.times() == (0.0, 0.0, None)


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S, DAY_S])
def test_5_and_6_without_any_witness_both_times_count_for_an_hour(seconds: float) -> None:
    host = Host()
    host.judge()
    host.step(seconds)
    both = (min(0.0, seconds), max(0.0, seconds), "ahead" if seconds > 0 else "behind")
    assert host.times() == both
    host.wait(PATIENCE_S - 1)
    assert host.times() == both
    host.wait(2)
    assert host.times() == (seconds, seconds, None)


def test_5_not_while_it_is_set_again_and_again_and_not_by_weeks() -> None:
    host = Host()
    host.judge()
    for _ in range(20):
        host.step(HOUR_S)
        host.wait(PATIENCE_S / 2)
        assert host.times()[0] == 0.0
    far = Host()
    far.judge()
    far.step(PLAUSIBLE_S + 1)
    far.wait(30 * DAY_S)
    assert far.times() == (0.0, PLAUSIBLE_S + 1, "ahead")


def test_7_a_first_start_without_any_witness_believes_the_clock() -> None:
    assert Host(YEAR_S).times() == (YEAR_S, YEAR_S, None)


@pytest.mark.parametrize("off_s", [0.0, 5 * HOUR_S])
def test_8_and_9_after_a_reboot_closings_wait_for_an_hour(off_s: float) -> None:
    """The RTC in local time: hours ahead until NTP puts it right."""
    host = Host(off_s)
    host.trusted.recall(KeptTime("before", 5.0, host.true_s - 120.0, ALONE), "boot", host.elapsed_s)
    assert host.times() == (-120.0, off_s, None)
    host.wait(PATIENCE_S - 1)
    assert host.times() == (-120.0, off_s, None)
    host.wait(2)
    assert host.times() == (off_s, off_s, None)


def test_8_where_a_signed_source_is_to_be_asked_its_word_is_waited_for() -> None:
    host = Host(has_signed=True)
    host.know(DAY_S)
    host.judge()
    host.wait(10 * HOUR_S)
    assert host.times() == (-DAY_S, 0.0, None)
    host.hear(HOUR_S)
    assert host.times() == (-HOUR_S, 0.0, None)
    host.wait(HOUR_S)
    assert host.times() == (0.0, 0.0, None)
    assert host.judge().is_confirmed


def test_9_with_nothing_known_and_a_signed_source_to_ask_nothing_closes() -> None:
    host = Host(3 * YEAR_S, has_signed=True)
    assert host.times() == (-inf, 3 * YEAR_S, None)
    assert host.judge().likely() == host.true_s + 3 * YEAR_S
    host.hear(HOUR_S)
    assert host.times() == (-HOUR_S, 3 * YEAR_S, "ahead")


@pytest.mark.parametrize("knows", ["signed", "saved"])
def test_10_years_ahead_closes_nothing_until_somebody_confirms_it(knows: str) -> None:
    host = Host(5 * YEAR_S)
    if knows == "signed":
        host.know(HOUR_S)
    else:
        host.trusted.note_last_good(None, host.true_s - HOUR_S, host.elapsed_s)
    assert host.times() == (-HOUR_S, 5 * YEAR_S, "ahead")
    host.wait(30 * DAY_S)
    assert host.times() == (-HOUR_S, 5 * YEAR_S, "ahead")
    host.step(-5 * YEAR_S, is_synced=True)
    assert host.times() == (0.0, 0.0, None)


def test_11_below_when_we_last_ran_both_times_count() -> None:
    host = Host(-6 * YEAR_S)
    host.trusted.note_last_good(None, host.true_s - HOUR_S, host.elapsed_s)
    assert host.times() == (-6 * YEAR_S, -HOUR_S, "behind")
    host.wait(30 * DAY_S)
    assert host.times() == (-6 * YEAR_S, -HOUR_S, "behind")
    host.step(6 * YEAR_S, is_synced=True)
    assert host.times() == (0.0, 0.0, None)


# -- the witness, row by row -----------------------------------------------------------------------------------


def anchored(off_s: float, strength: int) -> Host:
    """Its clock and its anchor are off by the same."""
    host = Host(off_s, has_signed=True)
    kept = KeptTime("boot", 900.0, host.true_s + off_s - 100.0, strength)
    host.trusted.recall(kept, "boot", host.elapsed_s)
    return host


def test_the_anchor_alone_lies_where_the_notification_says() -> None:
    for since_s, strength in ((60.0, WELL), (None, ROUGHLY)):
        host = anchored(0.0, ALONE)
        host.step(2 * YEAR_S)
        assert host.times() == (0.0, 2 * YEAR_S, "ahead")
        host.hear(30.0, since_s)
        assert host.times() == (0.0, 0.0, "ahead")
        kept = host.trusted.keep(host.reading(), "boot")
        assert kept is not None
        assert kept.strength == strength


def test_both_lie_there_and_the_notification_came_out_just_now() -> None:
    host = anchored(0.0, ROUGHLY)
    host.step(200.0)
    assert host.times() == (0.0, 200.0, None)
    host.hear(30.0, since_s=60.0)
    assert host.times() == (200.0, 200.0, None)


def test_both_lie_there_roughly_and_are_hours_apart() -> None:
    host = anchored(0.0, ALONE)
    host.step(5 * HOUR_S)
    host.hear(DAY_S)
    assert host.times() == (0.0, 5 * HOUR_S, "ahead")


def test_both_lie_there_roughly_and_are_near() -> None:
    host = anchored(0.0, ALONE)
    host.step(100.0)
    host.hear(DAY_S)
    assert host.judge().is_confirmed
    assert host.times() == (0.0, 100.0, None)


def test_the_clock_alone_lies_there() -> None:
    """A step that puts a wrong time right is taken at once when the registry confirms it."""
    host = anchored(-3 * DAY_S, ROUGHLY)
    host.step(3 * DAY_S)
    assert host.times() == (-3 * DAY_S, -3 * DAY_S, "ahead")
    host.hear(30.0, since_s=60.0)
    assert host.times() == (0.0, 0.0, None)
    rough = anchored(-3 * DAY_S, ROUGHLY)
    rough.step(3 * DAY_S)
    rough.hear(30.0)
    assert rough.times() == (-30.0, 0.0, None)


def test_neither_lies_there() -> None:
    host = anchored(-3 * DAY_S, ROUGHLY)
    host.hear(30.0, since_s=60.0)
    assert host.times() == (-30.0, -30.0, "behind")
    rough = anchored(-3 * DAY_S, ROUGHLY)
    rough.hear(30.0)
    assert rough.times() == (-30.0, EXPIRE_S - 30.0, "behind")


def test_a_clock_that_drifts_is_led_along_by_what_is_issued() -> None:
    host = anchored(0.0, WELL)
    for _ in range(100):
        host.wait(DAY_S)
        host.elapsed_s -= 5.0
        host.late_s += 5.0
        host.hear(20.0, since_s=60.0)
        earliest, latest, _ = host.times()
        assert -TOLERANCE_S - 25.0 <= earliest <= latest <= 0.0
    assert host.times()[2] == "behind"


def test_a_notification_that_took_long_to_come_out_says_little() -> None:
    host = Host(5 * HOUR_S, has_signed=True)
    host.hear(30.0, since_s=TIGHT_S + 1)
    assert host.times() == (-30.0, 5 * HOUR_S, None)


def test_a_cache_that_gives_it_out_late_proves_nothing_against_a_good_clock() -> None:
    host = anchored(0.0, ROUGHLY)
    host.hear(ago_s=30 * 60.0, since_s=60.0)
    assert host.times() == (0.0, 0.0, None)
    ahead = anchored(5 * HOUR_S, ROUGHLY)
    ahead.hear(ago_s=30.0, since_s=60.0)
    assert ahead.times() == (-30.0, -30.0, "ahead")


def test_a_notification_that_holds_shortly_and_took_long_to_read_takes_no_anchor_away() -> None:
    host = anchored(0.0, WELL)
    host.trusted.witness(host.reading(), host.true_s - 200.0, 60.0, None)
    assert host.times() == (0.0, 0.0, None)
    assert host.judge().is_confirmed


# -- what is believed of a notification ------------------------------------------------------------------------


def test_an_issue_ahead_of_us_is_evidence_until_we_know_better() -> None:
    assert Host(-6 * YEAR_S, has_signed=True).judge().latest_issue_s == inf
    synced = Host(is_synced=True, has_signed=True)
    assert synced.judge().latest_issue_s == synced.true_s
    heard = Host(has_signed=True)
    heard.hear(DAY_S)
    assert heard.judge().latest_issue_s == heard.true_s - DAY_S + EXPIRE_S
    known = anchored(0.0, WELL)
    known.hear(DAY_S)
    assert known.judge().latest_issue_s == known.true_s
    # Paused for a month, and put right by hand: the registry and the clock agree against us.
    heard.wait(HOUR_S)
    heard.step(30 * DAY_S)
    assert heard.judge().latest_issue_s == heard.true_s + 30 * DAY_S


def test_a_feed_is_asked_about_both_ends() -> None:
    host = Host(5 * YEAR_S, has_signed=True)
    host.know(HOUR_S)
    moment = host.judge().feed_moment()
    assert isinstance(moment, Moment)
    assert (float(moment), moment.latest) == (host.true_s - HOUR_S, inf)


# -- over restarts and reboots ---------------------------------------------------------------------------------


def test_a_restart_within_the_boot_goes_on_where_it_was() -> None:
    first = Host(is_synced=True)
    kept = first.trusted.keep(first.reading(), "boot")
    assert kept is not None
    again = Host(-6 * YEAR_S)
    again.elapsed_s += 500.0
    again.trusted.recall(kept, "boot", again.elapsed_s)
    assert again.times() == (0.0, 0.0, "behind")


def test_after_a_reboot_a_well_confirmed_time_is_a_floor() -> None:
    first = Host(is_synced=True)
    kept = first.trusted.keep(first.reading(), "boot")
    assert kept is not None
    again = Host(-6 * YEAR_S)
    again.trusted.recall(kept, "another", again.elapsed_s)
    assert again.times() == (-REBOOT_MARGIN_S, inf, "behind")


def test_nothing_is_kept_of_a_time_that_is_not_believed() -> None:
    host = Host(has_signed=True)
    assert host.trusted.keep(host.reading(), "boot") is None


@pytest.mark.parametrize("boot", ["boot", "another"])
def test_when_we_last_ran_is_kept_over_runs_that_believed_nothing(boot: str) -> None:
    first = Host(-6 * YEAR_S)
    first.trusted.note_last_good(None, first.true_s - HOUR_S, first.elapsed_s)
    first.wait(60.0)
    kept = first.trusted.keep(first.reading(), "boot")
    assert kept is not None
    again = Host(-6 * YEAR_S)
    again.elapsed_s = first.elapsed_s
    again.trusted.recall(kept, boot, again.elapsed_s)
    assert again.times() == (-6 * YEAR_S, -HOUR_S, "behind")


@pytest.mark.parametrize("at_s", [inf, -inf, float("nan")])
def test_what_is_no_time_is_not_recalled(at_s: float) -> None:
    host = Host()
    host.trusted.recall(KeptTime("boot", 900.0, at_s, WELL), "boot", host.elapsed_s)
    host.trusted.recall(KeptTime("", 900.0, 5.0, WELL, at_s), "", host.elapsed_s)
    assert host.times() == (0.0, 0.0, None) or host.times()[0] <= 0.0


# -- whatever happens ------------------------------------------------------------------------------------------

STEPS = st.sampled_from(
    [0.0, 20.0, -20.0, HOUR_S, -HOUR_S, 5 * HOUR_S, -5 * HOUR_S, 40 * DAY_S, YEAR_S, -6 * YEAR_S]
)
EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.floats(1.0, 1800.0)),
    st.tuples(st.just("set"), STEPS),
    st.tuples(st.just("ntp"), st.just(0.0)),
    st.tuples(st.just("poll"), st.just(0.0)),
    st.tuples(st.just("issue"), st.just(0.0)),
    st.tuples(st.just("restart"), st.just(0.0)),
    st.tuples(st.just("reboot"), STEPS),
)


def in_short_waits(events: list[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """A registry that is asked every half hour is asked in the middle of a long wait too."""
    for word, value in events:
        pieces = ceil(value / 90.0) if word == "wait" else 1
        yield from [(word, value / pieces)] * pieces


@settings(max_examples=400, deadline=None)
@example(-HOUR_S, [("poll", 0.0), ("wait", 1071.0), ("issue", 0.0), ("wait", 1798.0), ("wait", 531.0)])
@example(5 * HOUR_S, [("wait", 721.0), ("wait", 1602.0), ("poll", 0.0), ("wait", 1357.0)])
@example(0.0, [("set", 5 * HOUR_S), ("wait", 100.0), ("wait", 1800.0), ("wait", 1699.0)])
@given(STEPS, st.lists(EVENTS, max_size=40))
def test_with_a_right_registry_nothing_closes_early_and_nothing_opens_late(
    off_s: float, events: list[tuple[str, float]]
) -> None:
    """The registry issues within the half hour and is asked as often; the clock does what it likes. What is closed
    by then has ended, but for the minutes that two clocks may be apart, and what is not open has not begun."""
    host = Host(off_s, has_signed=True)
    issued_s = asked_s = polled_of = host.true_s
    last_poll_s: float | None = None
    host.know(0.0)
    for word, value in [*in_short_waits(events), ("wait", 1.0)]:
        if word == "wait":
            host.wait(value)
        elif word == "set":
            host.step(value)
        elif word == "ntp":
            host.off_s, host.is_synced = 0.0, True
        elif word == "issue":
            issued_s = host.true_s
        elif word in ("restart", "reboot"):
            kept = host.trusted.keep(host.reading(), "boot")
            host.trusted, last_poll_s = TrustedTime(has_signed=True), None
            if word == "reboot":
                host.off_s, host.is_synced = value, False
            if kept is not None:
                host.trusted.recall(kept, "boot" if word == "restart" else "another", host.elapsed_s)
            host.trusted.note_last_good(polled_of, asked_s, host.elapsed_s)
        if word == "poll" or host.true_s - asked_s > 1700.0:
            if host.true_s - issued_s > 1700.0:
                issued_s = host.true_s
            judged = host.judge()
            assert judged.feed_moment() <= issued_s + EXPIRE_S or judged.earliest_s <= issued_s + EXPIRE_S
            assert issued_s <= judged.latest_issue_s + TOLERANCE_S, "a right notification is refused"
            is_new = issued_s > polled_of and last_poll_s is not None
            since_s = host.true_s - last_poll_s if is_new and last_poll_s is not None else None
            host.trusted.witness(host.reading(), issued_s, EXPIRE_S, since_s)
            polled_of, asked_s, last_poll_s = issued_s, host.true_s, host.true_s
        judged = host.judge()
        slack_s = 3600.0 + 2 * TOLERANCE_S
        assert judged.earliest_s <= host.true_s + slack_s
        assert judged.latest_s >= host.true_s - slack_s
        assert judged.earliest_s <= judged.latest_s


def test_what_was_signed_is_known_over_a_reboot() -> None:
    host = Host(-2 * DAY_S)
    host.trusted.recall(KeptTime("before", 900.0, 5.0, ALONE, host.true_s - HOUR_S), "boot", host.elapsed_s)
    assert host.times() == (-HOUR_S, inf, "behind")


def test_of_two_moments_the_later_one_is_known() -> None:
    host = Host()
    host.trusted.note_issued(host.true_s - 10.0, host.elapsed_s)
    host.trusted.note_issued(host.true_s - 5000.0, host.elapsed_s)
    host.trusted.note_last_good(None, host.true_s - 20.0, host.elapsed_s)
    host.trusted.note_last_good(None, host.true_s - 6000.0, host.elapsed_s)
    kept = host.trusted.keep(host.reading(), "boot")
    assert kept is not None
    assert kept.floor_s == host.true_s - 10.0


def test_a_right_clock_is_exact_from_the_first_synced_moment_on() -> None:
    host = Host(has_signed=True, is_synced=True)
    for _ in range(1000):
        judged = host.wait(7.0)
        assert judged.moment() == host.true_s
        assert not isinstance(judged.moment(), Moment)
        assert judged.doubt is None
