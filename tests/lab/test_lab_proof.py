"""The harness of `./run proof`: rows that are quickly made, and losses planted by hand, which it has to find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from tests.proof.faults import FAULTS
from tests.proof.harness import Fault, World, proof_lab, row_of
from tests.proof.table import PROOF, README, load, renewed, table_of
from tests.soak.sight import Sight

PLANTED = """table inet planted {
  chain forward {
    type filter hook forward priority -300
    ip saddr 39.36.0.1 drop
    ip6 daddr 2400:adc1:7::/64 reject with icmpx admin-prohibited
  }
}
"""


@pytest.fixture(scope="module")
def gateway(kernel: None) -> Iterator[tuple[Lab, Sight]]:
    with proof_lab() as made:
        yield made


def fault_named(name: str) -> Fault:
    return next(each for each in FAULTS if each.name == name)


@contextmanager
def nothing(world: World) -> Iterator[None]:
    yield


@contextmanager
def planted(world: World) -> Iterator[None]:
    world.lab.gateway.nft(PLANTED)
    yield
    world.lab.gateway.run(["nft", "delete table inet planted"])
    world.learns("by the test", is_told=True)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["SIGKILL"])
def test_a_fault_costs_no_registered_packet(gateway: tuple[Lab, Sight], tmp_path: Path, name: str) -> None:
    row = row_of(*gateway, tmp_path, fault_named(name))
    assert row.is_good, row.notes
    assert row.sent > 500
    assert row.told


@pytest.mark.kernel
def test_planted_losses_are_found(gateway: tuple[Lab, Sight], tmp_path: Path) -> None:
    row = row_of(*gateway, tmp_path, Fault("planted", "Some flows are cut for a moment.", planted, lasts=True))
    assert not row.is_good
    assert row.lost > 0
    assert row.refused > 0
    assert {"39.36.0.1", "2400:adc1:7::5"} <= {word for note in row.notes for word in note.split()}


@pytest.mark.kernel
def test_a_fault_of_which_nothing_is_told_has_no_row(gateway: tuple[Lab, Sight], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="told nothing"):
        row_of(*gateway, tmp_path, Fault("silence", "Nothing.", nothing))


# -- the tables ----------------------------------------------------------------------------------------------------


def test_the_tables_of_the_documents_are_the_results() -> None:
    results = load("faults")
    for path, explained in ((README, False), (PROOF, True)):
        text = path.read_text(encoding="utf-8")
        assert renewed(text, "faults", table_of(results, explained=explained)) == text


def test_no_row_has_a_loss_that_a_design_could_avoid() -> None:
    results = load("faults")
    assert [row.name for row in results.rows if not row.is_good] == []
    assert all(row.told and row.sent for row in results.rows)


def test_every_row_is_of_a_fault() -> None:
    assert {row.name for row in load("faults").rows} <= {each.name for each in FAULTS}
