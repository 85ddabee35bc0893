"""The rig: a booted host is one, and goes whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of, probe
from tests.support.booted import BootedHost, booted
from tests.support.lab_daemon import holds

pytestmark = pytest.mark.host
DROP = "table ip a { chain b { type filter hook forward priority 0; policy drop; }; }\n"


def test_a_host_has_a_systemd_a_journal_and_the_network_of_the_lab(lab: Lab, base: Path) -> None:
    with booted(lab, [base]) as host:
        assert host.run("systemctl", "is-system-running").strip() == "running"
        assert host.run("hostname").strip() == "gateway"
        assert "inside0" in host.run("ip", "link")
        assert "Reached target" in host.run("journalctl", "--no-pager")
        host.run("sysctl", "net.netfilter.nf_conntrack_acct=0")
        assert host.read("/proc/sys/net/netfilter/nf_conntrack_acct") == "0\n"


def test_packets_of_the_lab_cross_the_host_and_meet_its_rules(lab: Lab, base: Path) -> None:
    flow = flow_of("39.32.0.5", "198.51.100.7", "udp/500", 30001)
    with booted(lab, [base]) as host:
        assert probe(lab, [flow]) == ["passed"]
        host.run("nft", "-f", "-", input=DROP)
        assert probe(lab, [flow], deadline_s=1.0) == ["lost"]


def test_a_layer_lies_over_the_tree_and_writes_change_neither(lab: Lab, base: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/motd").write_text("of a layer\n")
    with booted(lab, [tmp_path, base]) as host:
        assert host.read("/etc/motd") == "of a layer\n"
        host.write("/etc/motd", "of the host\n")
        assert host.run("cat", "/etc/motd") == "of the host\n"
    assert (tmp_path / "etc/motd").read_text() == "of a layer\n"
    assert (base / "etc/motd").read_text() not in ("of a layer\n", "of the host\n")


def test_a_command_of_the_host_ends_with_its_status_and_cannot_set_the_clock(lab: Lab, base: Path) -> None:
    with booted(lab, [base]) as host:
        assert host.run("sh", "-c", "cat; echo of stderr >&2; exit 3", status=3, input="to stdin\n") == (
            "to stdin\nof stderr\n"
        )
        assert "not permitted" in host.run("date", "--set=2030-01-01", status=1)


def processes_of(host: BootedHost) -> list[Path]:
    """Their directories in /proc."""

    def namespace_of(process: Path) -> str:
        try:
            return os.readlink(process / "ns/pid")
        except OSError:
            return ""

    own = namespace_of(host.root.parent)
    return [each for each in Path("/proc").glob("[0-9]*") if namespace_of(each) == own]


def test_no_process_of_a_host_is_left_when_a_test_fails(lab: Lab, base: Path) -> None:
    def fail() -> None:
        with booted(lab, [base]) as host:
            processes.extend(processes_of(host))
            raise RuntimeError("the test")

    processes: list[Path] = []
    with pytest.raises(RuntimeError, match="the test"):
        fail()
    assert len(processes) > 3
    assert holds(lambda: not any(each.exists() for each in processes))


KILLED = """
import sys
from tests.host.test_host_itself import *
with Lab(()) as lab, booted(lab, [Path(sys.argv[1])]) as host:
    print(*processes_of(host), flush=True)
    sys.stdin.read()
"""


def test_no_process_of_a_host_is_left_when_the_test_is_killed(kernel: None, base: Path) -> None:
    arguments = [sys.executable, "-c", KILLED, str(base)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        processes = [Path(each) for each in test.stdout.readline().split()]
        test.kill()
    assert len(processes) > 3
    assert holds(lambda: not any(each.exists() for each in processes))
