"""What is pending, what was ordered, and what became of it: one state, and a function for each event.

    command        mode MODE ─► begin ─► (disk, kernel, read back) ─► apply ─┬─ plain ─► the order
                                                │ fails                     └─ confirm, timed ─► pending
                                                ▼                                   │
                                             abandon                confirm ◄───────┼──────► revert, expire, trip
                                                                    the order       │        the way back
    mode observe ─► stand_down: always, at once, and whatever is pending is over    │
    start        ─► restore: goes on in the same boot, within its time  ◄───────────┘

A function takes the state and gives the next; where a command cannot be followed it raises ChangeRefused with a
sentence for the operator. Times on the wall are for people. `elapsed_s` is CLOCK_BOOTTIME, which decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from gatewayd.errors import InputRejected
from gatewayd.model.flow import Mode
from gatewayd.model.moment import format_time
from gatewayd.model.policy import Stage

Kind = Literal["plain", "confirm", "timed"]
"""How a change ends: with its order; with the way back unless it is confirmed; with the way back in any case."""
NoticeKind = Literal["reverted", "ended", "rebooted", "cut_short"]

MAX_NOTICES: Final = 5
SAME_S: Final = 2.0
"""A clock that was set by less than this moves no deadline that is shown."""
REMINDERS: Final = (0.5, 0.2, 0.1)
"""Shares of the time that are left when the log reminds of it."""


class ChangeRefused(InputRejected):
    """A change of the mode that is not made. The message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Instant:
    """Now: on the wall, as is likely; elapsed since the boot; and which boot that is, "" = not known."""

    wall_s: float
    elapsed_s: float
    boot_id: str


@dataclass(frozen=True, slots=True)
class Request:
    """`seconds`: until the way back; of a plain change, until it is given up. `by`: such as `uid 0`."""

    stage: Stage
    kind: Kind
    seconds: float
    by: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """A change under way. `timer_elapsed_s`: when its timer was set last. `is_applied`: the kernel was read back
    with it; before that its command has not succeeded."""

    id: str
    kind: Kind
    way_back: Stage
    to: Stage
    began_s: float
    deadline_s: float
    boot_id: str
    timer_elapsed_s: float
    deadline_elapsed_s: float
    by: str
    comment: str = ""
    is_applied: bool = False

    def left_s(self, elapsed_s: float) -> float:
        """Of its time, 0 at least."""
        return max(0.0, self.deadline_elapsed_s - elapsed_s)

    def deadline_at(self, now: Instant) -> float:
        """Its end on the wall clock of now, which may have been set since it began."""
        end_s = now.wall_s + self.deadline_elapsed_s - now.elapsed_s
        return self.deadline_s if abs(end_s - self.deadline_s) < SAME_S else end_s

    def reminders_due(self, elapsed_s: float) -> int:
        """How many of REMINDERS have come."""
        length_s = self.deadline_elapsed_s - self.timer_elapsed_s
        return sum(self.left_s(elapsed_s) <= share * length_s for share in REMINDERS)


@dataclass(frozen=True, slots=True)
class Order:
    """A stage by the word of an operator, in place of the file's. `over`: that of the file, when it was given."""

    stage: Stage
    over: Stage
    since_s: float
    by: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a trial came to without an operator: it stays until it is acknowledged."""

    kind: NoticeKind
    id: str
    at_s: float
    tried: Stage
    back: Stage
    by: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Trip:
    """Why the mode is observe until `gatewayd rearm`. `names`: registrations, assertions; at most a few."""

    cause: str
    at_s: float
    count: int
    threshold: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialState:
    """All of it. The empty state is that of a gateway that goes by its file."""

    trial: Trial | None = None
    order: Order | None = None
    notices: tuple[Notice, ...] = ()
    trip: Trip | None = None


# -- commands ------------------------------------------------------------------------------------------------


def begin(state: TrialState, file: Stage, request: Request, now: Instant, id: str) -> TrialState:
    """A change to another stage than observe, or with a timer: to be saved, then applied. Where only the timer of
    a pending trial moves, it is applied already. Raises ChangeRefused."""
    _check(state, request, now)
    trial = state.trial
    current = state.order.stage if state.order is not None else file
    made = Trial(
        id if trial is None else trial.id,
        request.kind,
        current if trial is None else trial.way_back,
        request.stage,
        now.wall_s if trial is None else trial.began_s,
        now.wall_s + request.seconds,
        now.boot_id,
        now.elapsed_s,
        now.elapsed_s + request.seconds,
        request.by,
        request.comment or (trial.comment if trial is not None else ""),
        is_applied=trial is not None and trial.to == request.stage,
    )
    return replace(state, trial=made)


def _check(state: TrialState, request: Request, now: Instant) -> None:
    trial = state.trial
    if request.stage.mode == "observe":
        raise ChangeRefused("observe needs no timer: no mode is ever armed by the end of one")
    if state.trip is not None:
        raise ChangeRefused(f"the gateway has tripped ({describe_trip(state.trip)}): gatewayd rearm comes first")
    if trial is not None and not trial.is_applied:
        raise ChangeRefused(
            f"a change to {trial.to} of {trial.by} is being applied: wait, or gatewayd mode observe"
        )
    if trial is not None and request.kind == "plain":
        raise ChangeRefused(
            f"{describe_pending(trial, now)}: gatewayd confirm, gatewayd revert, or --confirm again"
        )


def apply(state: TrialState, file: Stage, id: str, now: Instant) -> TrialState:
    """The kernel was read back with the change; without a timer it is the order from now on."""
    trial = state.trial
    if trial is None or trial.id != id:
        return state
    if trial.kind == "plain":
        return replace(state, trial=None, order=_order(trial.to, file, now, trial.by, trial.comment))
    return replace(state, trial=replace(trial, is_applied=True))


def abandon(state: TrialState, file: Stage, id: str, now: Instant) -> TrialState:
    """It could not be applied, or not be saved: no timer remains."""
    trial = state.trial
    if trial is None or trial.id != id:
        return state
    return _go_back(state, file, now, trial.by)


def confirm(state: TrialState, file: Stage, by: str, now: Instant) -> TrialState:
    """The stage of the trial stays. Raises ChangeRefused."""
    trial = _pending(state)
    if trial.kind == "timed":
        ends = format_time(round(trial.deadline_at(now)))
        raise ChangeRefused(f"the trial of {trial.to} ends by itself at {ends} and needs no word")
    return replace(state, trial=None, order=_order(trial.to, file, now, by, trial.comment))


def revert(state: TrialState, file: Stage, by: str, now: Instant) -> TrialState:
    """At once, to where the first command found the gateway. Raises ChangeRefused."""
    _pending(state)
    return _go_back(state, file, now, by)


def _pending(state: TrialState) -> Trial:
    trial = state.trial
    if trial is None or trial.kind == "plain":
        raise ChangeRefused("no trial is pending")
    if not trial.is_applied:
        raise ChangeRefused(f"the trial of {trial.to} is still being applied: gatewayd mode observe ends it")
    return trial


def stand_down(state: TrialState, file: Stage, by: str, comment: str, now: Instant) -> TrialState:
    """Observe: always allowed, and a trial is over with it. A trip stays latched."""
    observe = Stage("observe", file.canary_percent)
    return replace(state, trial=None, order=_order(observe, file, now, by, comment))


def rearm(state: TrialState) -> TrialState:
    """The latch of a trip is off. Raises ChangeRefused."""
    if state.trip is None:
        raise ChangeRefused("the gateway has not tripped")
    return replace(state, trip=None)


def acknowledge(state: TrialState) -> TrialState:
    """What came back by itself was seen. Raises ChangeRefused."""
    if not state.notices:
        raise ChangeRefused("there is no revert to acknowledge")
    return replace(state, notices=())


# -- what happens --------------------------------------------------------------------------------------------


def expire(state: TrialState, file: Stage, now: Instant) -> TrialState:
    """The way back, once the time is over; else the state as it is."""
    trial = state.trial
    if trial is None or trial.left_s(now.elapsed_s) > 0:
        return state
    return _notify(_go_back(state, file, now, trial.by), file, _end_of(trial), trial, now)


def trip(state: TrialState, file: Stage, cause: Trip, now: Instant) -> TrialState:
    """Latched; a trial is over with it. A second cause changes nothing."""
    if state.trip is not None:
        return state
    back = state if state.trial is None else _go_back(state, file, now, state.trial.by)
    return replace(back, trip=cause)


def use_file(state: TrialState, file: Stage) -> TrialState:
    """The file was read again: if its stage is another than the one that an order stands over, the file counts."""
    order = state.order
    return state if order is None or order.over == file else replace(state, order=None)


def restore(state: TrialState, file: Stage, now: Instant, found: Mode | None = None) -> TrialState:
    """At a start. A trial goes on in its boot and within its time. The file counts for what arms: an order outlives
    the process only if it enforces no more than the file, and only while the file is as it was.

    `found`: the mode of the rules in the kernel, None = there are none. Where it is observe the way back was taken,
    and only the disk has not heard of it: nothing is armed again.
    """
    trial = state.trial
    if trial is None:
        return _keep_order(state, file)
    if not trial.boot_id or trial.boot_id != now.boot_id:
        kind: NoticeKind = "rebooted"
    elif trial.left_s(now.elapsed_s) <= 0:
        kind = _end_of(trial)
    elif trial.is_applied and found != "observe":
        return state
    else:
        kind = "cut_short"
    return _notify(_keep_order(_go_back(state, file, now, trial.by), file), file, kind, trial, now)


def _end_of(trial: Trial) -> NoticeKind:
    """Of a trial that comes to its end by itself."""
    if not trial.is_applied:
        return "cut_short"
    return "ended" if trial.kind == "timed" else "reverted"


def _keep_order(state: TrialState, file: Stage) -> TrialState:
    order = state.order
    if order is None or (order.over == file and order.stage.enforces_no_more_than(file)):
        return state
    return replace(state, order=None)


def _go_back(state: TrialState, file: Stage, now: Instant, by: str) -> TrialState:
    assert state.trial is not None
    # An order that was there before the trial is what the trial goes back to: it stays as it was.
    if state.order is not None and state.order.stage == state.trial.way_back:
        return replace(state, trial=None)
    return replace(state, trial=None, order=_order(state.trial.way_back, file, now, by))


def _order(stage: Stage, file: Stage, now: Instant, by: str, comment: str = "") -> Order | None:
    return None if stage == file else Order(stage, file, now.wall_s, by, comment)


def _notify(state: TrialState, file: Stage, kind: NoticeKind, trial: Trial, now: Instant) -> TrialState:
    back = file if state.order is None else state.order.stage
    notice = Notice(kind, trial.id, now.wall_s, trial.to, back, trial.by, trial.comment)
    return replace(state, notices=(*state.notices, notice)[-MAX_NOTICES:])


# -- words ---------------------------------------------------------------------------------------------------


def describe_pending(trial: Trial, now: Instant) -> str:
    """A trial, and what becomes of it."""
    end = "ends" if trial.kind == "timed" else "reverts unless it is confirmed"
    return f"a trial of {trial.to} is pending and {end} at {format_time(round(trial.deadline_at(now)))}"


def describe_trip(trip: Trip) -> str:
    """The cause, with its numbers."""
    names = f": {', '.join(trip.names)}" if trip.names else ""
    return f"{trip.count} {trip.cause.replace('_', ' ')} within a minute, more than {trip.threshold}{names}"
