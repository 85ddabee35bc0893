"""The incident pages of docs/operations.md, followed as they are printed, each in its incident."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, ELSEWHERE, EMBASSY, FAR, SOFTWARE_HOUSE
from gatewayd.lab.traffic import flow_of, probe
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.renewed import OPERATIONS

pytestmark = pytest.mark.kernel

CONFIGURED = ("check", "plan")
"""Commands that are told where the file is; the others where the socket is."""
_ports = count(21000)


def page_of(title: str) -> str:
    """The text below a heading of Incidents."""
    section = OPERATIONS.read_text().partition("\n## Incidents\n")[2].partition("\n## ")[0]
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL)
    assert found, f"no page {title!r}"
    return found[1]


def follow(daemon: LabDaemon, title: str, block: int = 0) -> str:
    """Types the commands of one block, and returns all that they say."""
    blocks = re.findall(r"^```console\n(.*?)^```", page_of(title), re.MULTILINE | re.DOTALL)
    said = []
    lines = blocks[block].splitlines()
    assert 1 <= len(lines) <= 3
    for line in lines:
        assert line.startswith("# gatewayd ")
        words = line.removeprefix("# gatewayd ").split()
        is_configured = words[0] in CONFIGURED
        done = daemon.cli(*words, "--config", str(daemon.config_path)) if is_configured else daemon.ask(*words)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        said.append(done.stdout)
    return "\n".join(said)


def signs_of(title: str) -> set[str]:
    """What the table of the page tells to look for."""
    return set(re.findall(r"^\| `([^`]+)` \|", page_of(title), re.MULTILINE))


def start(daemon: LabDaemon, mode: str, **sections: Any) -> None:
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY])
    daemon.configure(mode, **sections)
    daemon.start()
    daemon.wait_ready()


def test_a_bank_says_its_vpn_is_cut(daemon: LabDaemon) -> None:
    title = "A bank says its VPN is cut"
    start(daemon, "reject")
    cut = flow_of("39.32.0.5", ELSEWHERE, "udp/500", next(_ports))
    assert probe(daemon.lab, [cut]) == ["rejected"]
    assert holds(lambda: bool(daemon.get("/v1/near-misses")["items"]))
    said = follow(daemon, title)
    found = {"IS REJECTED: it is not registered", "registry: add the far end"}
    assert found < signs_of(title)
    assert [sign for sign in found if sign not in said] == []
    assert "DEMO-BANK" in said
    follow(daemon, title, 1)
    daemon.wait_mode("observe")
    assert probe(daemon.lab, [flow_of("39.32.0.5", ELSEWHERE, "udp/500", next(_ports))]) == ["passed"]


def test_the_registry_is_unreachable(daemon: LabDaemon) -> None:
    title = "The registry is unreachable"
    start(daemon, "reject", registry={"retry": "1s"})
    (daemon.directory / "national.ndjson").unlink()
    daemon.wait(lambda: daemon.status()["sources"][0]["state"] == "failing", "the failure")
    said = follow(daemon, title)
    assert signs_of(title) == {"FAILING: source national", "last read"}
    assert [sign for sign in signs_of(title) if sign not in said] == []
    assert probe(daemon.lab, [flow_of("39.32.0.5", FAR, "udp/500", next(_ports))]) == ["passed"]
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY])
    assert daemon.ask("sync").returncode == 0
    daemon.wait(lambda: daemon.status()["sources"][0]["state"] == "ok", "the answer")


def test_the_unregistered_count_jumps_after_a_reload(daemon: LabDaemon) -> None:
    title = "The unregistered count jumps after a reload"
    start(daemon, "observe", policy={"scope": ["ipsec"]})
    stranger = "39.40.9.9"
    assert probe(daemon.lab, [flow_of(stranger, FAR, "udp/51820", next(_ports))]) == ["passed"]
    assert "udp/51820" not in daemon.ask("impact", "--since", "1h").stdout
    daemon.configure("observe", policy={"scope": ["ipsec", "wireguard"]})
    assert daemon.ask("reload").returncode == 0
    daemon.wait(lambda: "51820" in daemon.status()["policy"]["text"], "the new scope")
    assert probe(daemon.lab, [flow_of(stranger, FAR, "udp/51820", next(_ports))]) == ["passed"]
    assert holds(lambda: "udp/51820" in daemon.ask("impact", "--since", "1h").stdout)
    said = follow(daemon, title)
    assert signs_of(title) == {"policy", "no change", "udp/51820"}
    assert [sign for sign in signs_of(title) if sign not in said] == []


def test_the_gateway_was_replaced(daemon: LabDaemon) -> None:
    title = "The gateway was replaced"
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY])
    daemon.configure("observe")
    said = follow(daemon, title)
    assert signs_of(title) == {"ok", "elements"}
    assert [sign for sign in signs_of(title) if sign not in said] == []
    daemon.start()
    daemon.wait_ready()
    assert follow(daemon, title, 1).startswith("READY")
    assert probe(daemon.lab, [flow_of("39.32.0.5", FAR, "udp/500", next(_ports))]) == ["passed"]
