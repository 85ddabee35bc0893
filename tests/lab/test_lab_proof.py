"""The harness of `./run proof`: rows that are quickly made, and losses planted by hand, which it has to find."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gatewayd.lab.lab import Lab
from tests.proof.faults import FAULTS, fault_named, forms
from tests.proof.harness import Fault, World, planted_loss, proof_lab, row_of
from tests.proof.recording import Recorder, torn
from tests.proof.table import PROOF, README, load, renewed, table_of
from tests.soak.sight import Sight
from tests.support.lab_daemon import holds

PLANTED = planted_loss("ip saddr 39.36.0.1 drop", "ip6 daddr 2400:adc1:7::/64 reject with icmpx admin-prohibited")


@pytest.fixture(scope="module")
def gateway(kernel: None) -> Iterator[tuple[Lab, Sight]]:
    with proof_lab() as made:
        yield made


@contextmanager
def nothing(world: World) -> Iterator[None]:
    yield


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["SIGKILL", "SIGHUP storm", "nft flush ruleset", "registrations change form"])
def test_a_fault_costs_no_registered_packet(gateway: tuple[Lab, Sight], tmp_path: Path, name: str) -> None:
    row = row_of(*gateway, tmp_path, fault_named(name))
    assert row.is_good, row.notes
    assert row.sent > 500
    assert row.told


@pytest.mark.kernel
def test_planted_losses_are_found(gateway: tuple[Lab, Sight], tmp_path: Path) -> None:
    row = row_of(*gateway, tmp_path, PLANTED)
    assert not row.is_good
    assert row.lost > 0
    assert row.refused > 0
    assert {"39.36.0.1", "2400:adc1:7::5"} <= {word for note in row.notes for word in note.split()}


@pytest.mark.kernel
def test_a_form_that_leaves_flows_out_is_found(
    gateway: tuple[Lab, Sight], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "FORMS", {"SOAK-HOST": ({"services": ["udp/1701"]},)})
    row = row_of(*gateway, tmp_path, fault_named("registrations change form"))
    assert not row.is_good
    assert {word for note in row.notes for word in note.split()} >= {"39.36.0.1"}


@pytest.mark.kernel
def test_a_fault_of_which_nothing_is_told_has_no_row(gateway: tuple[Lab, Sight], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="told nothing"):
        row_of(*gateway, tmp_path, Fault("silence", "Nothing.", nothing))


# -- the record of a directory -------------------------------------------------------------------------------------

WRITER = """
import sqlite3, sys
database = sqlite3.connect("file.sqlite", isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = FULL")
database.execute("CREATE TABLE numbers (number INTEGER)")
for number in range(20):
    sys.stdin.readline()
    database.execute("INSERT INTO numbers VALUES (?)", (number,))
sys.stdin.readline()
"""


def numbers_in(state: Path) -> int:
    """How many a start on this state would find."""
    with closing(sqlite3.connect(state / "file.sqlite")) as database:
        return int(database.execute("SELECT count(*) FROM numbers").fetchone()[0])


def test_a_record_has_every_write_and_half_a_write_is_none(tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=watched, stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert holds(lambda: (watched / "file.sqlite-wal").exists())
        with Recorder(watched, tmp_path / "copies", writer.pid) as recorder:
            # One after the other: on a busy machine the recorder is not there between two that come at once.
            for written in range(1, 21):
                writer.stdin.write(b"\n")
                writer.stdin.flush()
                assert holds(
                    lambda: bool(recorder.states) and numbers_in_copy(recorder.states[-1].path, tmp_path) == written  # noqa: B023
                )
        writer.stdin.write(b"\n")
    half = list(torn(recorder.states, tmp_path / "torn"))
    counts = [numbers_in(each.path) for each in recorder.states]
    assert counts == sorted(counts)
    assert len(counts) > 5
    assert half
    for each in half:
        whole = next(number for number, state in enumerate(recorder.states) if state.taken_s == each.taken_s)
        assert numbers_in(each.path) <= counts[whole]


def numbers_in_copy(state: Path, directory: Path) -> int:
    """Without a change of it: who opens a database may take its log in."""
    with TemporaryDirectory(dir=directory) as copy:
        shutil.copytree(state, copy, dirs_exist_ok=True)
        return numbers_in(Path(copy))


# -- the tables ----------------------------------------------------------------------------------------------------


def test_the_tables_of_the_documents_are_the_results() -> None:
    results = load()
    for path, explained in ((README, False), (PROOF, True)):
        text = path.read_text(encoding="utf-8")
        assert renewed(text, "faults", table_of(results, explained=explained)) == text


def test_no_row_has_a_loss_that_a_design_could_avoid() -> None:
    results = load()
    assert [row.name for row in results.rows if not row.is_good] == []
    assert all(row.told and row.sent for row in results.rows)


def test_every_fault_has_its_row() -> None:
    assert [row.name for row in load().rows] == [each.name for each in FAULTS]
