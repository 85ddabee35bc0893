"""The state of changes as `/v1/trial`, `/v1/status`, `/metrics` and the commands show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from gatewayd.model.flow import Mode
from gatewayd.model.metric import counter, gauge, is_there
from gatewayd.model.moment import format_time
from gatewayd.model.policy import Stage
from gatewayd.trial.stages import stage_of
from gatewayd.trial.state import Instant, Kind, NoticeKind, Trial, TrialState, Trip, describe_trip


class TrialView(msgspec.Struct, frozen=True, rename={"way_back": "from"}):
    """A change under way. `is_applied`: the kernel was read back with it. `left_s`: until `deadline`."""

    id: str
    kind: Kind
    way_back: Stage
    to: Stage
    began: str
    deadline: Annotated[str, gauge("trial_deadline_timestamp_seconds",
        "When the pending trial reverts or ends, Unix time; absent while none is pending.",
        "is there for longer than a change is meant to wait")]  # fmt: skip
    left_s: int
    by: str
    comment: str
    is_applied: bool


class OrderView(msgspec.Struct, frozen=True):
    """A stage by the word of an operator, in place of the file's. `survives`: a restart leaves it as it is."""

    stage: Stage
    since: str
    by: str
    comment: str
    survives: bool


class NoticeView(msgspec.Struct, frozen=True):
    """A trial that came back by itself: `tried` was in force, then `back`."""

    kind: NoticeKind
    id: str
    at: str
    tried: Stage
    back: Stage
    by: str
    comment: str


class TripView(msgspec.Struct, frozen=True):
    """Why the mode is observe until `gatewayd rearm`; `text` has the evidence in words."""

    cause: str
    at: str
    count: int
    threshold: int
    names: tuple[str, ...]
    text: str


class ArmingView(msgspec.Struct, frozen=True):
    """All of it. `mode`: in force in the kernel. `wanted`: by operators and the file, whatever keeps it back.
    `file`: the stage of the configuration that was read last. `differs`: an order stands over it.
    `reverting`: the way back that the kernel does not have yet. `not_saved`: why the record on disk is old.
    `path`: of the configuration file. `report_of`: the trial that a report is kept of."""

    mode: Mode = "observe"
    wanted: Stage = Stage("observe")
    file: Stage = Stage("observe")
    pending: TrialView | None = None
    order: OrderView | None = None
    differs: Annotated[bool, gauge("mode_differs_from_file",
        "1 while the mode is another than the file's by the word of an operator.",
        "`== 1` for a day: `gatewayd mode --write`")] = False  # fmt: skip
    notices: Annotated[tuple[NoticeView, ...], gauge("trial_reverts_unacknowledged",
        "Trials that came back by themselves, until `gatewayd trial --ack`.", "`> 0`", read=len)] = ()  # fmt: skip
    trip: Annotated[TripView | None, gauge("tripped",
        "1 from a trip until `gatewayd rearm`: the mode is observe.", "`== 1`", read=is_there)] = None  # fmt: skip
    reverting: Annotated[Stage | None, gauge("trial_reverting",
        "1 while a mode is to come back that the kernel does not have yet.", "`== 1` for 10 s",
        read=is_there)] = None  # fmt: skip
    not_saved: Annotated[str | None, gauge("trial_record_not_saved",
        "1 while `trial.json` on disk is older than what is in force.", "`== 1`: look at the disk",
        read=is_there)] = None  # fmt: skip
    reverts: Annotated[int, counter("trial_reverts",
        "Trials that were not confirmed in time, or did not survive a reboot.", "rises")] = 0  # fmt: skip
    path: str = ""
    report_of: str = ""


def arming_view(
    state: TrialState,
    file: Stage,
    now: Instant,
    *,
    reverting: Stage | None = None,
    not_saved: str | None = None,
    path: str = "",
    report_of: str = "",
    reverts: int = 0,
    mode: Mode = "observe",
) -> ArmingView:
    """Of a moment."""
    order = state.order
    return ArmingView(
        mode=mode,
        wanted=stage_of(file, state).stage,
        file=file,
        pending=None if state.trial is None else _trial_view(state.trial, now),
        order=None
        if order is None
        else OrderView(
            order.stage, _text(order.since_s), order.by, order.comment, order.stage.enforces_no_more_than(file)
        ),
        differs=order is not None and order.stage != file,
        notices=tuple(
            NoticeView(each.kind, each.id, _text(each.at_s), each.tried, each.back, each.by, each.comment)
            for each in state.notices
        ),
        trip=None if state.trip is None else _trip_view(state.trip),
        reverting=reverting,
        not_saved=not_saved,
        path=path,
        report_of=report_of,
        reverts=reverts,
    )


def _trial_view(trial: Trial, now: Instant) -> TrialView:
    return TrialView(
        trial.id,
        trial.kind,
        trial.way_back,
        trial.to,
        _text(trial.began_s),
        _text(trial.deadline_at(now)),
        round(trial.left_s(now.elapsed_s)),
        trial.by,
        trial.comment,
        trial.is_applied,
    )


def _trip_view(trip: Trip) -> TripView:
    return TripView(trip.cause, _text(trip.at_s), trip.count, trip.threshold, trip.names, describe_trip(trip))


def _text(at_s: float) -> str:
    text = format_time(round(at_s))
    assert text is not None
    return text


# -- words ---------------------------------------------------------------------------------------------------

_CAME_BACK: dict[NoticeKind, str] = {
    "reverted": "was not confirmed in time",
    "ended": "has ended as planned",
    "rebooted": "did not survive the reboot",
    "cut_short": "was not in the kernel when the daemon started",
}


def headlines(view: ArmingView) -> Iterator[str]:
    """For the first line of a status, what matters most first."""
    if view.trip is not None:
        yield f"TRIPPED: observe since {view.trip.at}, {view.trip.text}; gatewayd rearm"
    if view.reverting is not None:
        yield f"REVERTING to {view.reverting}: the kernel does not have it yet"
    if view.pending is not None:
        yield f"TRIAL {describe_trial(view.pending)}"
    if any(each.kind != "ended" for each in view.notices):
        yield "REVERTED: gatewayd trial"


def describe_for_systemd(view: ArmingView) -> str:
    """Without a time that runs; "" in peace."""
    if view.trip is not None:
        return f"TRIPPED by {view.trip.cause.replace('_', ' ')}"
    if view.reverting is not None:
        return f"REVERTING to {view.reverting}"
    if view.pending is not None:
        end = "ends" if view.pending.kind == "timed" else "reverts"
        return f"TRIAL of {view.pending.to} {end} at {view.pending.deadline}"
    return "REVERTED, see gatewayd trial" if any(each.kind != "ended" for each in view.notices) else ""


def describe_trial(trial: TrialView) -> str:
    """`of reject, canary 10%: reverts to observe in 9m 12s unless it is confirmed`."""
    if not trial.is_applied:
        return f"of {trial.to}: being applied"
    if trial.kind == "timed":
        return f"of {trial.to}: ends in {span(trial.left_s)}, then {trial.way_back}"
    return f"of {trial.to}: reverts to {trial.way_back} in {span(trial.left_s)}, unless gatewayd confirm"


def describe_notice(notice: NoticeView) -> str:
    """What came back, and why."""
    comment = f" ({notice.comment})" if notice.comment else ""
    return (
        f"the trial of {notice.tried} by {notice.by}{comment} {_CAME_BACK[notice.kind]}: "
        f"{notice.back} since {notice.at}; gatewayd trial --ack"
    )


def describe_order(view: ArmingView) -> str:
    """That an order stands over the file, and what a restart makes of it; "" where none does."""
    order = view.order
    if order is None or not view.differs:
        return ""
    then = "stays after a restart" if order.survives else f"a restart makes it {view.file}"
    return (
        f"{order.stage} by {order.by} since {order.since}, the file says {view.file}; {then}; gatewayd mode --write"
    )


def span(seconds: int) -> str:
    """`45s`, `9m 12s`, `2h 5m`."""
    if seconds < 60:
        return f"{seconds}s"
    minutes, rest_s = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m {rest_s}s"
    return f"{minutes // 60}h {minutes % 60}m"
