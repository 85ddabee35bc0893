"""The state machine of confirmed changes, case by case (RFC 6241 §8.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gatewayd.model.policy import Stage
from gatewayd.trial.state import (
    MAX_NOTICES,
    ChangeRefused,
    Instant,
    Kind,
    Order,
    Request,
    Trial,
    TrialState,
    Trip,
    abandon,
    acknowledge,
    apply,
    begin,
    confirm,
    describe_trip,
    expire,
    rearm,
    restore,
    revert,
    stand_down,
    trip,
    use_file,
)

OBSERVE, LIMIT, REJECT = Stage("observe"), Stage("limit", 10), Stage("reject", 10)
NOW = Instant(1_800_000_000.0, 5000.0, "boot-1")
TRIP = Trip("late_admissions", NOW.wall_s, 75, 60, ("PK-1", "PK-2"))
BY = "uid 0"


def after(seconds: float, *, boot_id: str = "boot-1", clock_set_by_s: float = 0.0) -> Instant:
    return Instant(NOW.wall_s + seconds + clock_set_by_s, NOW.elapsed_s + seconds, boot_id)


def request(stage: Stage = REJECT, kind: Kind = "confirm", seconds: float = 600.0, comment: str = "") -> Request:
    return Request(stage, kind, seconds, BY, comment)


EMPTY, CONFIRM = TrialState(), request()


def begun(state: TrialState = EMPTY, wanted: Request = CONFIRM) -> TrialState:
    return begin(state, OBSERVE, wanted, NOW, "t1")


def pending(state: TrialState = EMPTY, wanted: Request = CONFIRM) -> TrialState:
    return apply(begun(state, wanted), OBSERVE, "t1", NOW)


def trial_of(state: TrialState) -> Trial:
    assert state.trial is not None
    return state.trial


# -- a trial ---------------------------------------------------------------------------------------------------


def test_a_trial_has_its_way_back_both_deadlines_and_its_boot_before_it_is_applied() -> None:
    assert begun(wanted=request(comment="order 17")) == TrialState(
        Trial(
            "t1", "confirm", OBSERVE, REJECT, NOW.wall_s, NOW.wall_s + 600, "boot-1", 5000.0, 5600.0, BY, "order 17"
        )
    )
    assert trial_of(pending()).is_applied


def test_confirmed_in_time_the_stage_stays_and_differs_from_the_file() -> None:
    confirmed = confirm(pending(wanted=request(comment="order 17")), OBSERVE, "uid 7", after(60))
    assert confirmed == TrialState(order=Order(REJECT, OBSERVE, NOW.wall_s + 60, "uid 7", "order 17"))
    assert expire(confirmed, OBSERVE, after(601)) == confirmed


def test_confirmed_as_the_file_has_it_there_is_no_order() -> None:
    from_observe = TrialState(order=Order(OBSERVE, REJECT, NOW.wall_s, BY))
    state = apply(begin(from_observe, REJECT, request(), NOW, "t1"), REJECT, "t1", NOW)
    assert trial_of(state).way_back == OBSERVE
    assert confirm(state, REJECT, BY, after(1)) == TrialState()


def test_not_confirmed_in_time_it_reverts_and_a_notice_stays() -> None:
    state = pending()
    assert expire(state, OBSERVE, after(599.9)) == state
    expired = expire(state, OBSERVE, after(600))
    assert (expired.trial, expired.order) == (None, None)
    (notice,) = expired.notices
    assert (notice.kind, notice.tried, notice.back, notice.by) == ("reverted", REJECT, OBSERVE, BY)
    assert acknowledge(expired) == TrialState()


def test_reverted_by_an_operator_there_is_no_notice() -> None:
    assert revert(pending(), OBSERVE, BY, after(5)) == TrialState()


def test_a_second_confirm_moves_the_deadline_and_the_way_back_stays_what_it_was() -> None:
    moved = begin(pending(), OBSERVE, request(seconds=1200), after(300), "t2")
    assert (trial_of(moved).way_back, trial_of(moved).deadline_elapsed_s) == (OBSERVE, 6500.0)
    assert (trial_of(moved).id, trial_of(moved).began_s, trial_of(moved).is_applied) == ("t1", NOW.wall_s, True)
    wider = begin(moved, OBSERVE, request(Stage("reject", 50)), after(400), "t3")
    assert not trial_of(wider).is_applied
    applied = apply(wider, OBSERVE, "t1", after(401))
    assert expire(applied, OBSERVE, after(1000)).notices[0].back == OBSERVE
    assert abandon(wider, OBSERVE, "t1", after(401)) == TrialState()


def test_the_way_back_is_the_order_that_was_in_force() -> None:
    order = Order(LIMIT, OBSERVE, NOW.wall_s - 3600, "uid 7", "order 16")
    state = pending(TrialState(order=order))
    assert trial_of(state).way_back == LIMIT
    assert revert(state, OBSERVE, BY, after(5)) == TrialState(order=order)


def test_an_apply_that_fails_leaves_no_timer() -> None:
    assert abandon(begun(), OBSERVE, "t1", after(30)) == TrialState()
    order = Order(LIMIT, OBSERVE, NOW.wall_s - 3600, "uid 7")
    assert abandon(begun(TrialState(order=order)), OBSERVE, "t1", after(30)) == TrialState(order=order)


@pytest.mark.parametrize("end", [apply, abandon])
def test_the_end_of_an_apply_that_another_command_overtook_changes_nothing(
    end: Callable[[TrialState, Stage, str, Instant], TrialState],
) -> None:
    for state in (TrialState(), pending()):
        assert end(state, OBSERVE, "t9", NOW) == state


def test_a_plain_change_is_the_order_once_it_is_applied() -> None:
    state = begun(wanted=request(kind="plain", seconds=30))
    assert apply(state, OBSERVE, "t1", after(1)).order == Order(REJECT, OBSERVE, NOW.wall_s + 1, BY)
    assert expire(state, OBSERVE, after(30)).notices[0].kind == "cut_short"


def test_a_timed_trial_ends_by_itself_and_needs_no_word() -> None:
    state = pending(wanted=request(kind="timed", seconds=7200))
    with pytest.raises(ChangeRefused, match=r"ends by itself at 2027-01-15T10:00:00Z and needs no word"):
        confirm(state, OBSERVE, BY, after(10))
    ended = expire(state, OBSERVE, after(7200))
    assert (ended.trial, ended.order, ended.notices[0].kind) == (None, None, "ended")
    assert revert(state, OBSERVE, BY, after(10)) == TrialState()


# -- refusals, each one sentence ---------------------------------------------------------------------------------


def test_confirm_and_revert_with_nothing_pending_are_refused() -> None:
    for state in (TrialState(), begun(wanted=request(kind="plain"))):
        with pytest.raises(ChangeRefused, match=r"^no trial is pending$"):
            confirm(state, OBSERVE, BY, NOW)
        with pytest.raises(ChangeRefused, match=r"^no trial is pending$"):
            revert(state, OBSERVE, BY, NOW)


def test_what_is_still_being_applied_cannot_be_confirmed_nor_replaced() -> None:
    with pytest.raises(ChangeRefused, match="still being applied: gatewayd mode observe ends it"):
        confirm(begun(), OBSERVE, BY, NOW)
    with pytest.raises(ChangeRefused, match="a change to reject, canary 10% of uid 0 is being applied"):
        begin(begun(), OBSERVE, request(), NOW, "t2")


def test_observe_has_no_timer_for_its_end_would_arm() -> None:
    for kind in ("confirm", "timed"):
        with pytest.raises(ChangeRefused, match="observe needs no timer"):
            begin(TrialState(), REJECT, request(OBSERVE, kind), NOW, "t1")


def test_a_plain_change_while_a_trial_is_pending_is_refused() -> None:
    with pytest.raises(ChangeRefused) as refused:
        begin(pending(), OBSERVE, request(LIMIT, "plain"), after(60), "t2")
    assert str(refused.value) == (
        "a trial of reject, canary 10% is pending and reverts unless it is confirmed at 2027-01-15T08:10:00Z: "
        "gatewayd confirm, gatewayd revert, or --confirm again"
    )
    timed = pending(wanted=request(kind="timed"))
    with pytest.raises(ChangeRefused, match="is pending and ends at 2027-01-15T08:10:00Z"):
        begin(timed, OBSERVE, request(LIMIT, "plain"), after(60), "t2")


def test_acknowledge_and_rearm_with_nothing_there_are_refused() -> None:
    with pytest.raises(ChangeRefused, match="no revert to acknowledge"):
        acknowledge(TrialState())
    with pytest.raises(ChangeRefused, match="has not tripped"):
        rearm(TrialState())


# -- observe, the trip, the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [TrialState(), begun(), pending(), TrialState(trip=TRIP)])
def test_mode_observe_is_always_allowed_and_ends_the_trial(state: TrialState) -> None:
    assert stand_down(state, OBSERVE, BY, "", after(9)) == replace(state, trial=None)
    assert stand_down(state, REJECT, BY, "a bank calls", after(9)) == replace(
        state, trial=None, order=Order(Stage("observe", 10), REJECT, NOW.wall_s + 9, BY, "a bank calls")
    )


def test_a_trip_ends_the_trial_and_stays_until_it_is_rearmed() -> None:
    tripped = trip(pending(), OBSERVE, TRIP, after(60))
    assert tripped == TrialState(trip=TRIP)
    assert trip(tripped, OBSERVE, replace(TRIP, cause="near_misses"), after(70)) == tripped
    with pytest.raises(
        ChangeRefused, match=r"has tripped \(75 late admissions within a minute, more than 60: PK-1"
    ):
        begin(tripped, OBSERVE, request(), after(80), "t2")
    assert restore(tripped, OBSERVE, after(90, boot_id="boot-2")) == tripped
    assert rearm(tripped) == TrialState()
    assert trip(TrialState(), OBSERVE, TRIP, NOW) == TrialState(trip=TRIP)
    assert describe_trip(replace(TRIP, names=())) == "75 late admissions within a minute, more than 60"


def test_a_file_of_another_stage_ends_an_order_and_the_same_file_does_not() -> None:
    state = TrialState(order=Order(REJECT, OBSERVE, NOW.wall_s, BY))
    assert use_file(state, OBSERVE) == state
    assert use_file(state, LIMIT) == TrialState()
    assert use_file(TrialState(), LIMIT) == TrialState()


# -- a start -----------------------------------------------------------------------------------------------------


def test_restarted_within_the_window_the_trial_goes_on() -> None:
    assert restore(pending(), OBSERVE, after(599)) == pending()


def test_rebooted_within_the_window_it_is_reverted_and_never_armed() -> None:
    for boot_id in ("boot-2", ""):
        state = restore(pending(), OBSERVE, after(60, boot_id=boot_id))
        assert (state.trial, state.order, state.notices[0].kind) == (None, None, "rebooted")
    unknown = replace(pending(), trial=replace(trial_of(pending()), boot_id=""))
    assert restore(unknown, OBSERVE, after(60, boot_id="")).notices[0].kind == "rebooted"


def test_rebooted_an_order_that_arms_is_not_the_way_back() -> None:
    state = pending(TrialState(order=Order(LIMIT, OBSERVE, NOW.wall_s - 3600, BY)))
    rebooted = restore(state, OBSERVE, after(60, boot_id="boot-2"))
    assert (rebooted.order, rebooted.notices[0].back) == (None, OBSERVE)


def test_restarted_after_the_window_it_is_reverted() -> None:
    assert restore(pending(), OBSERVE, after(600)).notices[0].kind == "reverted"
    timed = pending(wanted=request(kind="timed"))
    assert restore(timed, OBSERVE, after(600)).notices[0].kind == "ended"


def test_killed_between_the_way_back_and_the_disk_it_is_not_armed_again() -> None:
    assert restore(pending(), OBSERVE, after(60), "reject") == pending()
    assert restore(pending(), OBSERVE, after(60), None) == pending()  # flushed by another program: put back
    assert restore(pending(), OBSERVE, after(60), "observe").notices[0].kind == "cut_short"


def test_killed_before_it_was_applied_it_is_reverted() -> None:
    assert restore(begun(), OBSERVE, after(1)).notices[0].kind == "cut_short"


@pytest.mark.parametrize("clock_set_by_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_by_an_hour_changes_nothing_within_a_boot(clock_set_by_s: float) -> None:
    state = pending()
    assert restore(state, OBSERVE, after(599, clock_set_by_s=clock_set_by_s)) == state
    assert expire(state, OBSERVE, after(599, clock_set_by_s=clock_set_by_s)) == state
    assert expire(state, OBSERVE, after(600, clock_set_by_s=clock_set_by_s)).trial is None
    shown = trial_of(state).deadline_at(after(300, clock_set_by_s=clock_set_by_s))
    assert shown == NOW.wall_s + 600 + clock_set_by_s
    assert trial_of(state).deadline_at(after(300, clock_set_by_s=0.5)) == NOW.wall_s + 600


@pytest.mark.parametrize(
    ("ordered", "over", "file", "is_kept"),
    [
        (OBSERVE, REJECT, REJECT, True),
        (LIMIT, REJECT, REJECT, True),
        (OBSERVE, REJECT, LIMIT, False),
        (REJECT, OBSERVE, OBSERVE, False),
        (Stage("limit", 50), REJECT, REJECT, False),
    ],
)
def test_a_restart_arms_no_order_and_keeps_one_that_disarms_while_the_file_is_the_same(
    ordered: Stage, over: Stage, file: Stage, is_kept: bool
) -> None:
    state = TrialState(order=Order(ordered, over, NOW.wall_s, BY))
    assert restore(state, file, after(60)) == (state if is_kept else TrialState())


def test_an_edited_file_neither_confirms_a_trial_nor_moves_its_way_back() -> None:
    state = restore(pending(), REJECT, after(60))
    assert state == pending()
    back = expire(state, REJECT, after(600))
    assert back.order == Order(OBSERVE, REJECT, NOW.wall_s + 600, BY)
    assert back.notices[0].back == OBSERVE


# -- bounds and reminders ----------------------------------------------------------------------------------------


def test_the_latest_notices_stay() -> None:
    state = TrialState()
    for number in range(MAX_NOTICES + 2):
        again = begin(state, OBSERVE, request(), NOW, f"t{number}")
        state = expire(apply(again, OBSERVE, f"t{number}", NOW), OBSERVE, after(600))
    assert [each.id for each in state.notices] == [f"t{number}" for number in range(2, MAX_NOTICES + 2)]


def test_it_is_reminded_of_at_a_half_a_fifth_and_a_tenth_of_the_time() -> None:
    trial = trial_of(pending())
    assert [trial.reminders_due(after(s).elapsed_s) for s in (0, 299, 300, 479, 480, 540, 600)] == [
        0, 0, 1, 1, 2, 3, 3,
    ]  # fmt: skip
