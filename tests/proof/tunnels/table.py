"""Rows of tunnels as JSON, and as the tables of README and docs/proof.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from rich.table import Table

from tests.bench.row import Machine
from tests.proof.harness import Row
from tests.proof.table import PROOF, README, RESULTS, describe, renew, save
from tests.proof.tunnels.roaming import Roaming
from tests.proof.tunnels.unregistered import MARKED

NAME: Final = "tunnels"
UNDER_FAULTS: Final = "tunnels under faults"
MAX_SHARE, MIN_SHARE = 1.1, 0.8
"""Of the rate that `limit` gives. A TCP below a tunnel may stay under it."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Over all faults. `bounded`: those that no design can save. `handshakes`: None where it has none."""

    comes_up_s: float
    packets: int
    lost: int
    bounded: int
    handshakes: int | None


@dataclass(frozen=True, slots=True)
class Unregistered:
    """`told`: how the customer learns that it is refused; "" = not at all. `share`: of the rate of `limit`."""

    told: str
    comes_up_s: float
    share: float
    dscp: frozenset[int | None]


@dataclass(frozen=True, slots=True)
class TunnelRow:
    """`woken`: datagrams, and the lost ones, after the far end spoke first to a tunnel that had been forgotten."""

    kind: str
    family: int
    registered: Registered
    woken: tuple[int, int] | None
    moved: Roaming | None
    unregistered: Unregistered | None

    def wrong(self) -> list[str]:
        """Why it is not as it should be."""
        found = [f"{self.registered.lost} lost under faults"] if self.registered.lost else []
        if self.registered.handshakes not in (None, 1):
            found.append(f"{self.registered.handshakes} handshakes")
        if self.woken is None or self.woken[1]:
            found.append(f"woken: {self.woken}")
        if self.moved is not None and (self.moved.lost or not self.moved.told):
            found.append(f"moved: {self.moved}")
        return found + self._wrong_unregistered()

    def _wrong_unregistered(self) -> list[str]:
        other = self.unregistered
        if other is None:
            return ["unregistered: not measured"]
        found = [] if other.told or (self.kind, self.family) in UNTOLD else ["not told"]
        least = 0.0 if "TCP" in self.kind else MIN_SHARE
        if not least < other.share <= MAX_SHARE:
            found.append(f"{other.share:.0%} of the limit")
        if other.dscp != {MARKED}:
            found.append(f"DSCP {sorted(map(str, other.dscp))}")
        return found


UNTOLD: Final = {("AH", 6)}
"""The kernel looks for a checksum in what AH carries, and gives no answer without one (nf_reject_verify_csum)."""


@dataclass(frozen=True, slots=True)
class Results:
    """Of one run on one machine. `faults`: the rows of the fault table with tunnels for traffic."""

    machine: Machine
    rows: tuple[TunnelRow, ...]
    faults: tuple[Row, ...]


def load() -> Results:
    return msgspec.json.decode((RESULTS / f"{NAME}.json").read_bytes(), type=Results)


def save_tunnels(results: Results) -> None:
    """And the tables of it."""
    save(NAME, results)
    renew(README, NAME, tunnels_table(results))
    renew(PROOF, NAME, tunnels_table(results, is_whole=True))
    renew(PROOF, UNDER_FAULTS, faults_table(results))


def tunnels_table(results: Results, *, is_whole: bool = False) -> str:
    """Markdown. `is_whole`: with idle tunnels, and customers that move."""
    columns = _columns(is_whole=is_whole)
    lines = [columns, ["---" if each in LEFT else "---:" for each in columns]]
    lines += [_cells(row, is_whole=is_whole) for row in results.rows]
    return f"{describe(results.machine)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(rows: Sequence[TunnelRow]) -> Table:
    """On the terminal."""
    table = Table(*_columns(is_whole=True))
    for row in rows:
        table.add_row(*_cells(row, is_whole=True), style="red" if row.wrong() else "")
    return table


LEFT: Final = ("tunnel", "`reject`")


def _columns(*, is_whole: bool) -> list[str]:
    idle = ["idle: packets", "lost", "moved: packets", "lost"] if is_whole else []
    return [
        "tunnel", "IP", "comes up", "packets", "lost", "handshakes", *idle,
        "`reject`", "`observe`", "`limit`", "`mark`",
    ]  # fmt: skip


def _cells(row: TunnelRow, *, is_whole: bool) -> list[str]:
    own, other = row.registered, row.unregistered
    cells = [row.kind, str(row.family), f"{own.comes_up_s:.1f} s", f"{own.packets:,}", f"{own.lost:,}"]
    cells += ["–" if own.handshakes is None else str(own.handshakes)]
    if is_whole:
        cells += ["–"] * 2 if row.woken is None else [f"{each:,}" for each in row.woken]
        cells += ["–"] * 2 if row.moved is None else [f"{row.moved.sent:,}", f"{row.moved.lost:,}"]
    if other is None:
        return [*cells, "–", "–", "–", "–"]
    dscp = ", ".join(str(each) for each in sorted(other.dscp, key=str))
    return [*cells, other.told or "no answer", f"{other.comes_up_s:.1f} s", f"{other.share:.0%}", f"DSCP {dscp}"]


def faults_table(results: Results) -> str:
    """Each fault, with all tunnels up under it."""
    lines = [["fault", "packets", "lost", "why"], ["---", "---:", "---:", "---"]]
    lines += [[row.name, f"{row.sent:,}", f"{row.lost:,}", row.bounded] for row in results.faults]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
