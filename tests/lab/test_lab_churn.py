"""Registered packets and new registered flows while the daemon is killed at random moments; see tests/soak."""

from __future__ import annotations

import random

import pytest

from gatewayd.lab.lab import Lab
from tests.soak.damage import run_damages
from tests.soak.rounds import Churn
from tests.soak.sight import sight_of
from tests.support.lab_daemon import LabDaemon

pytestmark = pytest.mark.kernel

ROUNDS = 28


@pytest.fixture
def seed() -> int:
    """Another one every time; pytest shows it with a failure."""
    chosen = random.randrange(1_000_000)
    print(f"./run soak --rounds {ROUNDS} --seed {chosen}")
    return chosen


def test_a_daemon_killed_at_any_moment_loses_no_registered_packet(
    shared_lab: Lab, daemon: LabDaemon, seed: int
) -> None:
    with sight_of(shared_lab) as sight:
        stats = Churn(daemon, sight, seed=seed).run(ROUNDS)
    assert (stats.lost, stats.refused) == (0, 0), "\n".join(stats.losses)
    assert stats.kills > ROUNDS
    assert stats.sent > 100 * ROUNDS


def test_emptied_sets_and_lookups_are_filled_again_and_cost_no_flow_that_was_there(
    shared_lab: Lab, daemon: LabDaemon, seed: int
) -> None:
    with sight_of(shared_lab) as sight:
        bill = run_damages(daemon, sight, seed=seed, rounds=4)
    assert bill.lost == 0, "\n".join(bill.losses)
