"""How the state of changes is shown, and its words."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.api.metrics import render_metrics
from gatewayd.model.policy import Stage
from gatewayd.trial.state import Instant, Notice, NoticeKind, Order, Trial, TrialState, Trip
from gatewayd.trial.views import (
    ArmingView,
    arming_view,
    describe_for_systemd,
    describe_notice,
    describe_order,
    describe_trial,
    headlines,
    span,
)

FILE = Stage("observe")
REJECT = Stage("reject", 10)
NOW = Instant(1_800_000_048.0, 48.0, "boot")
TRIAL = Trial(
    "t1", "confirm", FILE, REJECT, 1_800_000_000.0, 1_800_000_600.0, "boot", 0.0, 600.0, "uid 0", "", True
)
TRIP = Trip("late_admissions", 1_800_000_010.0, 75, 60, ("PK-1",))


def view(state: TrialState, **more: object) -> ArmingView:
    return arming_view(state, FILE, NOW, **more)  # type: ignore[arg-type]


def notice(kind: NoticeKind, comment: str = "") -> Notice:
    return Notice(kind, "t1", 1_800_000_010.0, REJECT, FILE, "uid 0", comment)


def test_nothing_is_nothing() -> None:
    shown = view(TrialState())
    assert list(headlines(shown)) == []
    assert describe_order(shown) == ""
    assert b"gatewayd_trial_deadline_timestamp_seconds" not in render_metrics(shown)


def test_a_pending_trial_is_a_field_a_metric_and_a_headline() -> None:
    shown = view(TrialState(TRIAL))
    assert msgspec.to_builtins(shown)["pending"] == {
        "id": "t1",
        "kind": "confirm",
        "from": {"mode": "observe", "canary_percent": 100},
        "to": {"mode": "reject", "canary_percent": 10},
        "began": "2027-01-15T08:00:00Z",
        "deadline": "2027-01-15T08:10:00Z",
        "left_s": 552,
        "by": "uid 0",
        "comment": "",
        "is_applied": True,
    }
    assert b"gatewayd_trial_deadline_timestamp_seconds 1.8000006e+09" in render_metrics(shown)
    assert list(headlines(shown)) == [
        "TRIAL of reject, canary 10%: reverts to observe in 9m 12s, unless gatewayd confirm"
    ]


def test_a_trial_says_what_becomes_of_it() -> None:
    for trial, words in (
        (msgspec.structs.replace, "of reject, canary 10%: being applied"),
        (None, "of reject, canary 10%: ends in 9m 12s, then observe"),
    ):
        pending = view(TrialState(TRIAL)).pending
        assert pending is not None
        changed = {"is_applied": False} if trial else {"kind": "timed"}
        assert describe_trial(msgspec.structs.replace(pending, **changed)) == words


def test_the_trip_comes_first_and_a_planned_end_is_no_alarm() -> None:
    shown = view(TrialState(notices=(notice("reverted"),), trip=TRIP), reverting=FILE, not_saved="disk full")
    assert list(headlines(shown)) == [
        "TRIPPED: observe since 2027-01-15T08:00:10Z, 75 late admissions within a minute, more than 60: PK-1; "
        "gatewayd rearm",
        "REVERTING to observe: the kernel does not have it yet",
        "REVERTED: gatewayd trial",
    ]
    assert list(headlines(view(TrialState(notices=(notice("ended"),))))) == []
    page = render_metrics(shown)
    for line in (b"gatewayd_tripped 1.0", b"gatewayd_trial_reverting 1.0", b"gatewayd_trial_record_not_saved 1.0",
                 b"gatewayd_trial_reverts_unacknowledged 1.0"):  # fmt: skip
        assert line in page


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("reverted", "was not confirmed in time"),
        ("ended", "has ended as planned"),
        ("rebooted", "did not survive the reboot"),
        ("cut_short", "was not in the kernel when the daemon started"),
    ],
)
def test_a_notice_says_what_came_back_and_why(kind: NoticeKind, words: str) -> None:
    (shown,) = view(TrialState(notices=(notice(kind, "order 17"),))).notices
    assert describe_notice(shown) == (
        f"the trial of reject, canary 10% by uid 0 (order 17) {words}: observe since 2027-01-15T08:00:10Z; "
        "gatewayd trial --ack"
    )
    assert "()" not in describe_notice(msgspec.structs.replace(shown, comment=""))


def test_an_order_says_what_a_restart_makes_of_it() -> None:
    shown = view(TrialState(order=Order(REJECT, FILE, NOW.wall_s, "uid 0")))
    assert describe_order(shown) == (
        "reject, canary 10% by uid 0 since 2027-01-15T08:00:48Z, the file says observe; "
        "a restart makes it observe; gatewayd mode --write"
    )
    off = arming_view(TrialState(order=Order(FILE, REJECT, NOW.wall_s, "uid 0")), REJECT, NOW)
    assert "; stays after a restart; " in describe_order(off)
    # A file that was read again may say the same by now.
    same = arming_view(TrialState(order=Order(REJECT, FILE, NOW.wall_s, "uid 0")), REJECT, NOW)
    assert (same.differs, describe_order(same)) == (False, "")


def test_systemd_has_a_text_that_changes_with_the_state_alone() -> None:
    pending = view(TrialState(TRIAL)).pending
    assert pending is not None
    timed = msgspec.structs.replace(pending, kind="timed")
    for shown, text in (
        (view(TrialState()), ""),
        (view(TrialState(TRIAL)), "TRIAL of reject, canary 10% reverts at 2027-01-15T08:10:00Z"),
        (ArmingView(pending=timed), "TRIAL of reject, canary 10% ends at 2027-01-15T08:10:00Z"),
        (view(TrialState(TRIAL), reverting=FILE), "REVERTING to observe"),
        (view(TrialState(trip=TRIP)), "TRIPPED by late admissions"),
        (view(TrialState(notices=(notice("reverted"),))), "REVERTED, see gatewayd trial"),
        (view(TrialState(notices=(notice("ended"),))), ""),
    ):
        assert describe_for_systemd(shown) == text


def test_a_span_has_two_units() -> None:
    assert [span(seconds) for seconds in (0, 59, 60, 552, 7500)] == ["0s", "59s", "1m 0s", "9m 12s", "2h 5m"]
