"""The audit of the locks fails for what it must, and says what it could not ask."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests import audit
from tests.audit import LOCKS, REQUIREMENTS, Acceptance, Answer, Verdict, judge, read_accepted

TODAY = datetime.date(2026, 3, 1)
FOUND = b"""{"dependencies": [
  {"name": "yarl", "version": "1.0.0", "vulns": [
    {"id": "PYSEC-2026-7", "fix_versions": ["1.0.1"], "aliases": ["CVE-2026-1234"], "description": "a long text"}]},
  {"name": "idna", "version": "3.1", "vulns": []}
], "fixes": []}"""
SKIPPED = b"""{"dependencies": [{"name": "yarl", "skip_reason": "Dependency not found on PyPI"}], "fixes": []}"""


def answer(text: bytes) -> Answer:
    return msgspec.json.decode(text, type=Answer)


def acceptance(until: datetime.date) -> Acceptance:
    return Acceptance("CVE-2026-1234", "yarl", "gatewayd has no such call", datetime.date(2026, 1, 1), until)


def test_a_known_vulnerability_fails_and_names_the_version_that_mends_it() -> None:
    assert judge(answer(FOUND), (), TODAY) == Verdict(
        ("yarl 1.0.0 has PYSEC-2026-7, mended in 1.0.1",), ("2 of 2 locked packages audited",)
    )
    without = judge(answer(FOUND.replace(b'"1.0.1"', b"")), (), TODAY)
    assert without.faults == ("yarl 1.0.0 has PYSEC-2026-7, no version mends it yet",)


def test_an_accepted_one_passes_until_its_day_and_in_its_package_alone() -> None:
    assert judge(answer(FOUND), (acceptance(TODAY),), TODAY).faults == ()
    over = judge(answer(FOUND), (acceptance(datetime.date(2026, 2, 28)),), TODAY)
    assert "accepted until 2026-02-28" in over.faults[0]
    other = msgspec.structs.replace(acceptance(TODAY), package="idna")
    assert len(judge(answer(FOUND), (other,), TODAY).faults) == 1


def test_an_acceptance_that_is_needed_no_more_is_said() -> None:
    unused = msgspec.structs.replace(acceptance(TODAY), advisory="PYSEC-1")
    assert judge(answer(FOUND), (unused,), TODAY).remarks[-1] == "PYSEC-1 of yarl is found no more: remove it"


def test_without_data_the_step_says_so_and_does_not_say_that_all_is_well() -> None:
    verdict = judge(answer(SKIPPED), (), TODAY)
    assert verdict.faults == ()
    assert verdict.remarks == ("NOT DONE: the package index has no such data; 1 locked packages are unaudited",)
    half = Answer((*answer(SKIPPED).dependencies * 7, *answer(FOUND).dependencies))
    assert judge(half, (), TODAY).remarks == (
        "2 of 9 locked packages audited",
        "no data of yarl, yarl, yarl, yarl, yarl and 2 more",
    )


@pytest.mark.parametrize("output", [b"", b"Traceback (most recent call last)", b'{"dependencies": 1}'])
def test_an_index_that_is_not_reached_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: bytes
) -> None:
    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(words, 1, output, b"ConnectionError")

    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main() == 0
    assert "NOT DONE: the package index is not reached" in capsys.readouterr().err


def test_the_step_ends_with_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(words)
        return subprocess.CompletedProcess(words, 1, FOUND, b"")

    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main() == 1
    assert "audit: yarl 1.0.0 has PYSEC-2026-7" in capsys.readouterr().err
    assert {word for word in asked[0] if word.endswith(".txt")} == {str(REQUIREMENTS / f"{n}.txt") for n in LOCKS}


def test_the_program_knows_the_options_that_it_is_asked_with() -> None:
    """Nothing is asked for an empty lock, so no network is needed."""
    words = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "5", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *words, "--requirement", "/dev/null"], capture_output=True, check=True
    )
    assert answer(done.stdout) == Answer(())


def test_every_lock_is_audited() -> None:
    def pins(name: str) -> set[str]:
        lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        return {line.split()[0] for line in lines if "==" in line}

    locks = {path.stem for path in REQUIREMENTS.glob("*.txt")}
    assert set.union(*map(pins, locks)) == set.union(*map(pins, LOCKS))


def test_an_acceptance_has_a_reason_and_two_dates(tmp_path: Path) -> None:
    for each in read_accepted():
        assert each.reason
        assert each.since <= each.until <= each.since + datetime.timedelta(days=366)
    path = tmp_path / "audit.toml"
    path.write_text('[[accepted]]\nadvisory = "A-1"\npackage = "p"\nsince = 2026-01-01\nuntil = 2026-02-01\n')
    with pytest.raises(msgspec.ValidationError, match="reason"):
        read_accepted(path)
