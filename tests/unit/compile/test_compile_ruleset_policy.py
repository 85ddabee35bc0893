"""The policy of a moment."""

from __future__ import annotations

from dataclasses import replace

from gatewayd.compile.ruleset import effective_mode, policy_in_force, schedule_of
from gatewayd.model.moment import Moment
from gatewayd.settings.model import PolicySettings
from tests.support.manual_clock import START_S
from tests.support.owning import settings_of


def test_before_it_starts_the_mode_is_observe() -> None:
    policy = PolicySettings(mode="reject", enforce_from=100.0)
    assert effective_mode(policy, 99.999) == "observe"
    assert effective_mode(policy, 100.0) == "reject"
    assert effective_mode(PolicySettings(mode="limit"), 0.0) == "limit"


def test_from_its_end_on_the_mode_is_observe() -> None:
    policy = PolicySettings(mode="reject", enforce_from=100.0, enforce_until=200.0)
    assert [effective_mode(policy, at_s) for at_s in (99.0, 100.0, 199.999, 200.0, 300.0)] == [
        "observe", "reject", "reject", "observe", "observe",
    ]  # fmt: skip
    assert [schedule_of(policy, at_s) for at_s in (99.0, 150.0, 200.0)] == ["not begun", "in force", "over"]


def test_where_the_time_is_not_certain_observe_wins_at_either_end() -> None:
    policy = PolicySettings(mode="reject", enforce_from=100.0, enforce_until=200.0)
    assert effective_mode(policy, Moment(90.0, 110.0)) == "observe"
    assert effective_mode(policy, Moment(110.0, 190.0)) == "reject"
    assert effective_mode(policy, Moment(190.0, 210.0)) == "observe"
    # What is armed stays so while it may have begun, and not while it may have ended.
    assert effective_mode(policy, Moment(90.0, 110.0), is_armed=True) == "reject"
    assert effective_mode(policy, Moment(90.0, 95.0), is_armed=True) == "observe"
    assert effective_mode(policy, Moment(190.0, 210.0), is_armed=True) == "observe"


def test_the_policy_in_force_has_everything_that_the_settings_say() -> None:
    settings = settings_of("national", mode="limit", canary_percent=7)
    policy = policy_in_force(settings, START_S)
    assert (policy.mode, policy.canary_percent, policy.limit_bytes_s) == ("limit", 7, 64 * 1024)
    unlimited = replace(settings, policy=replace(settings.policy, mode="mark"))
    unlimited = replace(
        unlimited,
        policy=replace(unlimited.policy, on_unregistered=replace(unlimited.policy.on_unregistered, limit=None)),
    )
    assert policy_in_force(unlimited, START_S).limit_bytes_s == 0
