"""Sets that the rules fill themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile.rule_sets import COUNTED_SETS, RULE_SETS, flushed_sets_of, key_bytes, rule_sets_of
from gatewayd.model.mask import parse_set_name
from gatewayd.model.policy import Policy
from tests.support.rulesets import OBSERVE, REJECT

LOG, LIMIT = (
    ["nearby4", "nearby6", "noted4", "noted6"],
    ["followed4", "followed6", "limiter4", "limiter6", "unfollowed"],
)
COUNT = sorted([*COUNTED_SETS, "recent4", "recent6"])


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        (replace(OBSERVE, counts=False), LOG),
        (OBSERVE, sorted(LOG + COUNT)),
        (REJECT, sorted(LOG + COUNT)),
        (replace(OBSERVE, mode="limit"), sorted(LOG + LIMIT + COUNT)),
        (replace(OBSERVE, shadows_limit=True), sorted(LOG + LIMIT + COUNT)),
    ],
)
def test_a_policy_has_the_sets_that_its_rules_fill(policy: Policy, names: list[str]) -> None:
    assert [each.name for each in rule_sets_of(policy)] == names
    assert set(flushed_sets_of(policy)) == set(LIMIT) & set(names)


def test_no_set_has_a_name_of_the_allowlist() -> None:
    assert not [name for name in RULE_SETS if parse_set_name(name) is not None]


def test_a_set_is_declared_with_its_bound_and_its_timeout() -> None:
    service = next(each for each in rule_sets_of(OBSERVE) if each.name == "service_flows")
    assert list(service.lines()) == [
        "set service_flows {",
        "\ttype inet_proto . inet_service . mark",
        "\tsize 65536",
        "\tflags dynamic,timeout",
        "\ttimeout 1h",
        "}",
    ]


def test_the_length_of_a_key_is_that_of_its_fields_each_of_four_bytes_at_least() -> None:
    assert key_bytes("ipv6_addr . inet_proto . inet_service") == 24
    assert key_bytes("ifname") == 16
