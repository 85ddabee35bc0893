"""What `plan` says of a policy, and the log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.control.policy import describe_change, describe_policy, describe_schedule
from gatewayd.model.flow import Mode
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import parse_services
from gatewayd.settings.model import PolicySettings

OBSERVE = Policy("observe", parse_services(["udp/51820"]), MarkLayout(0xFF000000))
REJECT = replace(OBSERVE, mode="reject", canary_percent=10, inside=("ppp*",))


@pytest.mark.parametrize(
    ("found", "policy", "sentence"),
    [
        (None, OBSERVE,
         "observe: unregistered flows in scope (udp/51820) pass, and are counted. Registered flows pass."),
        ("observe", REJECT,
         "observe → reject: unregistered flows of 10% of the client addresses in scope (udp/51820)"
         " between ppp* and any are refused; with observe they passed. Registered flows pass."),
        ("reject", OBSERVE,
         "reject → observe: unregistered flows in scope (udp/51820) pass, and are counted; with reject they were"
         " refused. Registered flows pass."),
        ("limit", replace(OBSERVE, mode="limit"),
         "limit stays (65536 bytes/s): unregistered flows of all clients in scope (udp/51820) are dropped above the"
         " limit. Registered flows pass."),
    ],
)  # fmt: skip
def test_a_change_of_policy_is_said_in_words(found: Mode | None, policy: Policy, sentence: str) -> None:
    assert describe_change(found, policy) == sentence


def test_a_policy_is_described_on_one_line() -> None:
    assert describe_policy(REJECT, 3600.0) == (
        "reject, canary 10%, scope udp/51820, inside ppp*, outside any, drain 3600 s"
    )
    assert describe_policy(replace(OBSERVE, mode="limit"), 0.0).startswith(
        "limit, 65536 bytes/s, canary 100%, scope"
    )


@pytest.mark.parametrize(
    ("begins_s", "ends_s", "now_s", "sentence"),
    [
        (None, None, 50.0, ""),
        (100.0, None, 50.0, " From 1970-01-01T00:01:40Z on: reject."),
        (100.0, None, 150.0, ""),
        (100.0, 200.0, 50.0, " From 1970-01-01T00:01:40Z on: reject. Until 1970-01-01T00:03:20Z; then observe."),
        (100.0, 200.0, 150.0, " Until 1970-01-01T00:03:20Z; then observe."),
        (100.0, 200.0, 200.0, " reject has ended at 1970-01-01T00:03:20Z (enforce_until)."),
    ],
)
def test_a_schedule_is_said(begins_s: float | None, ends_s: float | None, now_s: float, sentence: str) -> None:
    policy = PolicySettings(mode="reject", enforce_from=begins_s, enforce_until=ends_s)
    assert describe_schedule(policy, now_s) == sentence
