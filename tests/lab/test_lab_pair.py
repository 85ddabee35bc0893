"""Two gateways with keepalived and conntrackd as docs/operations.md configures them: a failover costs no packet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof.harness import planted_table
from tests.proof.pair import HOUSE, HOUSE_IPV6, LANES, PairCase, PairWorld, run
from tests.proof.pair_cases import CASES
from tests.proof.pair_table import load, table_of
from tests.proof.table import PROOF, renewed
from tests.support.pair import missing_for_pair

needs_programs = pytest.mark.skipif(missing_for_pair() is not None, reason=str(missing_for_pair()))

PLANTED = planted_table(
    f"ip saddr {HOUSE} udp sport 19001 drop",
    f"ip6 daddr {HOUSE_IPV6} udp dport 19001 reject with icmpx admin-prohibited",
)


@pytest.mark.kernel
@needs_programs
def test_a_failover_and_the_way_back_cost_nothing(kernel: None, tmp_path: Path) -> None:
    (case,) = [each for each in CASES if each.name == "keepalived stopped, and back"]
    traffic, connections, _ = run(tmp_path, case, has_daemons=True)
    assert (traffic.beyond, traffic.refused, traffic.leaked) == ({}, {}, {})
    assert connections.failed == {}
    assert connections.new > 0
    assert traffic.sent > 1000
    assert traffic.unregistered > 50


@pytest.mark.kernel
@needs_programs
def test_a_loss_at_the_gateway_that_takes_over_is_found(kernel: None, tmp_path: Path) -> None:
    def act(world: PairWorld) -> None:
        world.second.gateway.nft(PLANTED)
        world.fail_over()

    lanes = tuple(lane for lane in LANES if lane.is_registered)
    traffic, _, _ = run(tmp_path, PairCase("planted", "Two flows are cut.", act, lanes=lanes), has_daemons=False)
    assert set(traffic.beyond) == {"WireGuard, IPv4", "WireGuard, IPv6"}
    assert set(traffic.refused) == {"WireGuard, IPv6"}


def test_the_table_of_the_document_is_the_results() -> None:
    text = PROOF.read_text(encoding="utf-8")
    assert renewed(text, "pair", table_of(load())) == text


def test_every_case_has_a_row_without_a_loss_that_a_design_could_avoid() -> None:
    rows = load().rows
    assert [row.name for row in rows] == [case.name for case in CASES]
    assert [row.name for row in rows if not row.is_good] == []
    assert all(bool(row.bounded) or not row.beyond for row in rows)
