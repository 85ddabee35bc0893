"""`gatewayd doctor`: exit status, JSON, the words on the screen, and a user who is not root."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gatewayd.cli import check, doctor, main
from gatewayd.cli.status import describe_status
from gatewayd.doctor.facts import BaseChain, Facts, Question, Rule, Versions
from gatewayd.doctor.findings import Finding, HostView
from tests.support.facts import facts
from tests.support.fake_queries import FakeQueries

CONFIG = """
registry: {sources: [{name: any, url: "file:/any", allow_unsigned: true}]}
policy: {interfaces: {outside: [eth0]}}
"""
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """With facts in place of the host's; `asked` remembers the question."""
    config = tmp_path / "gatewayd.yaml"
    config.write_text(CONFIG)

    async def no_refusal(script: str) -> None:
        assert "table inet" in script

    def invoke(*arguments: str, found: Facts | None = None) -> Result:
        def read(question: Question, refusal: str | None) -> Facts:
            assert (question.outside, refusal) == (("eth0",), None)
            return found or facts()

        monkeypatch.setattr(doctor, "read_facts", read)
        monkeypatch.setattr(check, "find_refusal", no_refusal)
        return CliRunner().invoke(main, ["doctor", "--config", str(config), *arguments])

    return invoke


def test_a_host_with_nothing_wrong_ends_with_0(run: Run) -> None:
    result = run()
    assert (result.exit_code, result.stdout) == (0, "Nothing is wrong\n")


def test_notes_are_said_and_nothing_is_wrong(run: Run) -> None:
    chain = BaseChain("inet", "fw", "f", "forward", 0, False)
    drops = Rule("inet", "fw", "f", 3, deeds=frozenset({"drops"}))
    result = run(found=facts(chains=(chain,), rules=(drops,)))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "Nothing is wrong; 1 note"
    assert result.stdout.splitlines()[-2:] == [
        "hook     priority  chain      to ours  drops",
        "forward  0         inet fw f  after    1 rules",
    ]


def test_a_finding_is_what_why_and_the_command(run: Run) -> None:
    rule = Rule("inet", "fw", "p", 3, writes=0xFF000000)
    result = run(found=facts(sysctls={"net.ipv4.ip_forward": 0}, rules=(rule,), versions=Versions("6.1")))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[:2] == ["2 faults", "kernel         6.1"]
    assert lines[3:6] == [
        "FAULT          net.ipv4.ip_forward is 0 (forwarding)",
        "  why          the host forwards no IPv4 packet, so no customer's traffic passes it",
        "  command      sysctl -w net.ipv4.ip_forward=1",
    ]
    assert '  or, in file  kernel.ct_mark_mask: "0x00ff0000"' in lines
    assert lines[-1].startswith("sysctl -w holds until the next boot")


def test_json_has_all_of_it(run: Run) -> None:
    result = run("--json", found=facts(is_synced=False))
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [(each["check"], each["severity"]) for each in document["findings"]] == [("clock", "warning")]
    assert document["at"].endswith("Z")


def test_a_configuration_that_cannot_be_used_is_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gatewayd.yaml").write_text("registry: 7\n")
    assert run().exit_code == 2
    assert run("--config", str(tmp_path / "none")).exit_code == 2


def test_without_a_file_the_defaults_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Question] = []

    def read(question: Question, refusal: str | None) -> Facts:
        asked.append(question)
        return facts()

    monkeypatch.setattr(doctor, "DEFAULT_CONFIG", missing := str(tmp_path / "none"))
    monkeypatch.setattr(doctor, "read_facts", read)
    result = CliRunner().invoke(main, ["doctor", "--config", missing])
    assert result.exit_code == 0
    assert "findings for the defaults" in result.stderr
    assert asked[0].mask == 0xFF000000


def test_status_names_the_checks_and_says_when_a_look_failed() -> None:
    wrong = Finding("forwarding", "fault", "what", "why")
    note = Finding("other-drops", "note", "what", "why")
    shown = msgspec.structs.replace(FakeQueries().status(), host=HostView("now", (wrong, note), error="no answer"))
    lines = {line.label: line.text for line in describe_status(shown)}
    assert lines["host"] == "1 finding: forwarding (gatewayd doctor)"
    assert "the latest look failed: no answer" in [line.text for line in describe_status(shown)]
    well = msgspec.structs.replace(shown, host=HostView("now", (note,)))
    assert "host" not in {line.label for line in describe_status(well)}
