"""The policy of a moment."""

from __future__ import annotations

from dataclasses import replace

from gatewayd.compile.ruleset import effective_mode, policy_in_force
from gatewayd.settings.model import PolicySettings
from tests.support.manual_clock import START_S
from tests.support.owning import settings_of


def test_before_it_starts_the_mode_is_observe() -> None:
    policy = PolicySettings(mode="reject", enforce_from=100.0)
    assert effective_mode(policy, 99.999) == "observe"
    assert effective_mode(policy, 100.0) == "reject"
    assert effective_mode(PolicySettings(mode="limit"), 0.0) == "limit"


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
