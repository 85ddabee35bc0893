"""The tables of tunnels are the results, and the results are as they should be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.proof.faults import FAULTS
from tests.proof.table import PROOF, README, renewed
from tests.proof.tunnels.fleet import FAMILIES, KINDS
from tests.proof.tunnels.table import (
    NAME,
    UNDER_FAULTS,
    Registered,
    TunnelRow,
    Unregistered,
    faults_table,
    load,
    tunnels_table,
)

GOOD = TunnelRow(
    "WireGuard", 4, Registered(0.2, 4000, 0, 0, 1), (18, 0), None, Unregistered("ICMP", 0.2, 1.0, frozenset({8}))
)


def test_the_tables_of_the_documents_are_the_results() -> None:
    results = load()
    readme, proof = (path.read_text(encoding="utf-8") for path in (README, PROOF))
    assert renewed(readme, NAME, tunnels_table(results)) == readme
    assert renewed(proof, NAME, tunnels_table(results, is_whole=True)) == proof
    assert renewed(proof, UNDER_FAULTS, faults_table(results)) == proof


def test_every_kind_of_both_families_is_as_it_should_be() -> None:
    results = load()
    assert [(row.kind, row.family) for row in results.rows] == [
        (kind.kind, family) for kind in KINDS for family in FAMILIES
    ]
    assert [(row.kind, row.family, why) for row in results.rows for why in row.wrong()] == []


def test_no_tunnel_loses_a_datagram_that_a_design_could_save() -> None:
    results = load()
    assert [(row.name, row.notes) for row in results.faults if not row.is_good] == []
    assert {row.name for row in results.faults} == {each.name for each in FAULTS}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"registered": Registered(0.2, 4000, 1, 0, 1)}, "1 lost"),
        ({"registered": Registered(0.2, 4000, 0, 0, 2)}, "2 handshakes"),
        ({"woken": (18, 1)}, "woken"),
        ({"unregistered": Unregistered("", 0.2, 1.0, frozenset({8}))}, "not told"),
        ({"unregistered": Unregistered("ICMP", 0.2, 1.3, frozenset({8}))}, "130%"),
        ({"unregistered": Unregistered("ICMP", 0.2, 1.0, frozenset({8, 0}))}, "DSCP"),
        ({"unregistered": None}, "not measured"),
    ],
)
def test_a_row_says_what_is_wrong_with_it(change: dict[str, object], word: str) -> None:
    assert GOOD.wrong() == []
    (why,) = replace(GOOD, **change).wrong()  # type: ignore[arg-type]
    assert word in why
