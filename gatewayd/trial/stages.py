"""Which stage is in force, of all that may say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gatewayd.model.policy import Stage
from gatewayd.trial.state import TrialState

Cause = Literal["trip", "schedule", "staleness", "trial", "order", "file"]


@dataclass(frozen=True, slots=True)
class Decided:
    """`cause`: what decides on the stage."""

    stage: Stage
    cause: Cause


def decide(file: Stage, state: TrialState, *, is_in_schedule: bool, is_stale: bool) -> Decided:
    """The first that applies. What says observe comes before all that may arm; of the others the latest word of an
    operator counts.

    | # | cause | stage |
    | --- | --- | --- |
    | 1 | trip: latched until `gatewayd rearm` | observe |
    | 2 | schedule: before `enforce_from`, or from `enforce_until` on | observe |
    | 3 | staleness, with `registry.on_stale: observe` | observe |
    | 4 | trial: pending, or being applied | that of the trial |
    | 5 | order: `gatewayd mode`, or a trial that was confirmed | the one ordered |
    | 6 | file | `policy.mode` and `policy.canary` |
    """
    wanted = stage_of(file, state)
    observe = Stage("observe", wanted.stage.canary_percent)
    if state.trip is not None:
        return Decided(observe, "trip")
    if not is_in_schedule:
        return Decided(observe, "schedule")
    if is_stale:
        return Decided(observe, "staleness")
    return wanted


def stage_of(file: Stage, state: TrialState) -> Decided:
    """What is wanted by operators, whatever keeps it from being in force."""
    if state.trial is not None:
        return Decided(state.trial.to, "trial")
    if state.order is not None:
        return Decided(state.order.stage, "order")
    return Decided(file, "file")
