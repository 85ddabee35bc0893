"""What a registry and a policy would make of live flows, each by the rule itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gatewayd.allowlist import Allowlist
from gatewayd.api.plan import FlowCounts
from gatewayd.compile.effects import canary_bucket
from gatewayd.control.flow_changes import FlowSum
from gatewayd.model import Flow, parse_address
from gatewayd.model.flow import reverse_flow
from tests.support.owning import flow, registration
from tests.support.reconciling import policy

BANK = registration("BANK", "203.0.113.0/28")
OURS, STRANGER, ELSE = flow("203.0.113.5"), flow("192.0.2.1"), flow("203.0.113.5", "tcp/9")


def counted(*flows: tuple[Flow, str], mode: str = "reject", canary: int = 100, **fields: Any) -> FlowCounts:
    world = Allowlist()
    world.upsert(BANK)
    found = FlowSum(world, replace(policy(mode, **fields), canary_percent=canary), 1_000.0)
    for each, was in flows:
        found.count(each, was=was)
    assert found.looked_at == len(flows)
    return found.result(is_complete=True)


def test_registered_flows_pass_whoever_opened_them() -> None:
    found = counted((OURS, "registered"), (reverse_flow(OURS), "judged"))
    assert found == FlowCounts(looked_at=2, registered=2, gains=1)


@pytest.mark.parametrize(
    ("mode", "field"), [("reject", "refused"), ("limit", "limited"), ("mark", "marked"), ("observe", "passed")]
)
def test_each_mode_has_its_effect_on_the_others(mode: str, field: str) -> None:
    found = counted((STRANGER, "judged"), (STRANGER, "registered"), (reverse_flow(STRANGER), ""), mode=mode)
    assert found == replace_counts(FlowCounts(looked_at=3, loses=1, enters=1), field, 3)


def replace_counts(counts: FlowCounts, field: str, number: int) -> FlowCounts:
    import msgspec

    return msgspec.structs.replace(counts, **{field: number})


def test_a_client_beyond_the_canary_passes() -> None:
    bucket = canary_bucket(parse_address("192.0.2.1"))
    assert 0 < bucket < 99
    assert counted((STRANGER, "judged"), canary=bucket).passed == 1
    assert counted((STRANGER, "judged"), canary=bucket + 1).refused == 1


def test_what_is_out_of_scope_is_left_alone() -> None:
    found = counted((ELSE, "judged"), (ELSE, "registered"), (ELSE, ""))
    assert found == FlowCounts(looked_at=3, leaves=2)
