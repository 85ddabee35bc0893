"""The precedence of what may say which stage is in force."""

from __future__ import annotations

import pytest

from gatewayd.model.policy import Stage
from gatewayd.trial.stages import Cause, decide
from gatewayd.trial.state import Order, Trial, TrialState, Trip

FILE = Stage("mark", 40)
TRIAL = Trial("t1", "confirm", FILE, Stage("reject", 10), 0.0, 600.0, "boot", 0.0, 600.0, "uid 0")
ORDER = Order(Stage("limit", 20), FILE, 0.0, "uid 0")
TRIP = Trip("late_admissions", 0.0, 75, 60)


@pytest.mark.parametrize(
    ("state", "is_in_schedule", "is_stale", "stage", "cause"),
    [
        (TrialState(TRIAL, ORDER, trip=TRIP), False, True, Stage("observe", 10), "trip"),
        (TrialState(TRIAL, ORDER), False, True, Stage("observe", 10), "schedule"),
        (TrialState(TRIAL, ORDER), True, True, Stage("observe", 10), "staleness"),
        (TrialState(TRIAL, ORDER), True, False, Stage("reject", 10), "trial"),
        (TrialState(None, ORDER), True, False, Stage("limit", 20), "order"),
        (TrialState(), True, False, FILE, "file"),
        (TrialState(), False, False, Stage("observe", 40), "schedule"),
    ],
)
def test_what_says_observe_comes_first_then_the_latest_word_of_an_operator(
    state: TrialState, is_in_schedule: bool, is_stale: bool, stage: Stage, cause: Cause
) -> None:
    decided = decide(FILE, state, is_in_schedule=is_in_schedule, is_stale=is_stale)
    assert (decided.stage, decided.cause) == (stage, cause)
