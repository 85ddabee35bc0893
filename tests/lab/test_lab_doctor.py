"""Each check of the doctor: a fault made in a host of its own is named, and what the doctor prints mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gatewayd.doctor.diagnosis import CHECKS
from gatewayd.doctor.findings import Finding
from gatewayd.doctor.keeper import FIRST_LOOK_S, TIMEOUT_S
from gatewayd.lab.lab import Lab
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.room import Room, room

pytestmark = pytest.mark.kernel

LISTENER = """
import sys
from gatewayd.kernel import attributes as nl
from gatewayd.kernel.netlink import open_netfilter_socket
sock = open_netfilter_socket(65536)
sock.setblocking(True)
sock.send(nl.message(0x401, nl.NLM_F_REQUEST | nl.NLM_F_ACK, 1, 0, int(sys.argv[1]), nl.attribute(1, bytes((1,)))))
sock.recv(4096)
print("listens", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Case:
    """`broken`: how the host is made wrong. `config`: settings before. `by`: how it is mended: the finding's
    command or its setting, or both."""

    check: str
    broken: str
    config: tuple[str, ...] = ()
    by: str = "command"
    label: str = ""


TABLE = "nft add table inet fw; nft 'add chain inet fw {} {{ type filter hook {} priority {}; {}}}'\n"
FORWARD = TABLE.format("f", "forward", "0", "policy drop; ")
PRE = TABLE.format("p", "prerouting", "-300", "")
CASES = (
    Case("forwarding", "sysctl -w net.ipv4.ip_forward=0"),
    Case(
        "forwarding", "ip addr add 2001:db8::1/64 dev inside0; sysctl -w net.ipv6.conf.all.forwarding=0", label="v6"
    ),
    Case("interface-forwarding", "sysctl -w net.ipv4.conf.inside0.forwarding=0"),
    Case(
        "interface-forwarding",
        "ip link add in.100 type veth peer name in.101; ip link set in.100 up\n"
        "sysctl -w net/ipv4/conf/in.100/forwarding=0",
        ("policy.interfaces.inside: [in.100]",),
        label="dots",
    ),
    Case("conntrack-max", "echo 65536 > max"),
    Case(
        "conntrack-fill",
        "echo 1000000 > max; echo 900000 > n; mount --bind n /proc/sys/net/netfilter/nf_conntrack_count",
    ),
    Case(
        "conntrack-drops",
        "mkdir -p net/stat; n=1; echo 500000 > max\n"
        "echo 450000 > entries; mount --bind entries /proc/sys/net/netfilter/nf_conntrack_count\n"
        "drop() { printf 'entries drop\\n%08x %08x\\n' 1 $1 |"
        " dd of=net/stat/nf_conntrack conv=notrunc status=none; }\n"
        "drop 1; mount --bind net $TASK/net\n"
        "(while [ -e alive ] && [ $(cat max) -lt 900000 ]; do n=$((n+1)); drop $n; sleep 0.05; done) > log 2>&1 &",
    ),
    Case("conntrack-acct", "sysctl -w net.netfilter.nf_conntrack_acct=0"),
    Case(
        "rp-filter",
        "ip addr add 203.0.113.1/24 dev outside1; sysctl -w net.ipv4.conf.outside0.rp_filter=1\n"
        "ip route add default via 198.51.100.9 metric 1; ip route add default via 203.0.113.9 metric 2",
    ),
    Case(
        "icmp-limits",
        "sysctl -w net.ipv4.icmp_msgs_per_sec=1000 net.ipv4.icmp_ratelimit=1000 net.ipv6.icmp.ratelimit=1000",
        ("policy.mode: reject",),
    ),
    Case(
        "bridge-netfilter",
        "ip link add br0 type bridge; ip link set inside1 master br0; ip link set outside1 master br0\n"
        "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        ("policy.interfaces.inside: [br0]",),
    ),
    Case("chain-order", TABLE.format("f", "forward", "-10", ""), by="setting"),
    Case("dropping-chain", FORWARD),
    Case("dropping-chain", "iptables-nft -P FORWARD DROP", label="iptables"),
    Case("dropping-chain", "ip6tables-nft -A FORWARD -j REJECT", label="reject"),
    Case("dropping-chain", TABLE.format("f", "forward", "-100", "policy drop; "), by="both", label="before"),
    Case("dropping-chain", TABLE.format("f", "postrouting", "0", "policy drop; "), label="postrouting"),
    Case("mark-written", PRE + "nft add rule inet fw p ct mark set 0x01000000"),
    Case(
        "mark-written",
        PRE + "nft add rule inet fw p ct mark set ct mark and 0xff00ffff or 0x01000000",
        by="setting",
        label="setting",
    ),
    Case("mark-written", "iptables-nft -t mangle -A PREROUTING -j CONNMARK --set-mark 0x1", label="iptables"),
    Case("mark-leaked", PRE + "nft add rule inet fw p meta mark set ct mark"),
    Case(
        "mark-leaked",
        "iptables-nft -t mangle -A PREROUTING -j ACCEPT -s 192.0.2.9\n"
        "iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark",
        label="iptables",
    ),
    Case("mark-leaked", PRE + "nft add rule inet fw p ip saddr 192.0.2.9 meta mark set ct mark", label="of some"),
    Case("conntrack-zone", PRE + "nft add rule inet fw p ct zone set 5"),
    Case("conntrack-zone", "iptables-nft -t raw -A PREROUTING -j CT --zone 3", label="iptables"),
    Case("notrack", PRE + "nft add rule inet fw p notrack"),
    Case("notrack", "iptables-nft -t raw -A PREROUTING -s 192.0.2.9 -j CT --notrack", label="iptables"),
    Case("legacy-iptables", "iptables-legacy -A FORWARD -s 192.0.2.9 -j DROP"),
    Case("legacy-iptables", "iptables-legacy -P FORWARD DROP", label="policy"),
    Case("interface-absent", "", ("policy.interfaces.inside: [inside]",), "setting"),
    Case("interface-absent", "", ("policy.interfaces.outside: [outside0, outside]",), "setting", "one of two"),
    Case("interface-down", "ip link set inside0 down"),
    Case("interface-port", "ip link add br0 type bridge; ip link set inside0 master br0", by="setting"),
)
ELSEWHERE = {
    "other-drops": "a note; its command shows the rules: below",
    "invalid-drop": "a note, which a gateway that sees both directions need not mind: test_lab_coexist_network",
    "nflog-group": "needs a process: below",
    "disk": "no command makes room; its command shows what takes it: below",
    "version": "the command is an upgrade: below, with programs that call themselves old",
    "rules-refused": "the command is an upgrade: below, with an nft that refuses",
    "unread": "the command is to be root: below",
    "flowtable": "the kernel of the tests has none: unit tests",
    "clock": "a clock is of the whole machine: unit tests",
    "kernel-feature": "the kernel of the tests has all: unit tests",
    "kernel-fault": "one kernel has one version: unit tests",
}
"""Checks that no case above has, and why."""


@pytest.fixture
def host(kernel: None, tmp_path: Path) -> Iterator[Room]:
    with room(tmp_path) as made:
        yield made


def wrong(found: dict[str, list[Finding]]) -> set[str]:
    """Checks with a fault or a warning, without those that are of the machine that the tests run on."""
    of_machine = {"clock", "version", "kernel-fault"}
    return {name for name, each in found.items() if any(one.severity != "note" for one in each)} - of_machine


def test_each_check_has_a_case_or_a_reason() -> None:
    assert {case.check for case in CASES} | ELSEWHERE.keys() == CHECKS.keys()
    assert not {case.check for case in CASES} & ELSEWHERE.keys()


def test_a_healthy_host_has_no_findings(host: Room) -> None:
    assert wrong(host.examine()) == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check} {case.label}".strip())
def test_a_fault_is_named_and_what_is_printed_mends_it(host: Room, case: Case) -> None:
    for setting in case.config:
        host.set(setting)
    host.run(case.broken or "true")
    found = host.examine()
    assert case.check in wrong(found), found
    for finding in found[case.check]:
        if case.by != "setting":
            assert finding.command is not None, finding
            host.run(finding.command)
        if case.by != "command":
            assert finding.setting is not None, finding
            host.set(finding.setting)
    assert case.check not in wrong(host.examine())


@pytest.mark.parametrize("group", [9480, 9481])
def test_a_listener_of_our_group_is_named_and_ended_by_what_is_printed(host: Room, group: int) -> None:
    command = [sys.executable, "-c", LISTENER, str(group)]
    started = host.inside(lambda: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    with started as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listens\n"
            (finding,) = host.examine()["nflog-group"]
            assert f"process {process.pid}" in finding.what
            assert finding.setting is not None
            host.set(finding.setting)
            assert "nflog-group" not in host.examine()
            host.set(f"kernel.{finding.setting.split(':')[0].partition('.')[2]}: {group}")
            assert "nflog-group" in host.examine()
            assert finding.command is not None
            host.run(finding.command)
            process.wait()
        finally:
            process.kill()
    assert "nflog-group" not in host.examine()


def test_rules_that_drop_some_packets_are_a_note(host: Room) -> None:
    host.run(TABLE.format("f", "forward", "0", "") + "nft add rule inet fw f ip saddr 192.0.2.9 drop")
    (finding,) = host.examine()["other-drops"]
    assert finding.severity == "note"
    assert finding.command is not None
    host.run(finding.command)
    host.run("nft flush chain inet fw f")
    assert "other-drops" not in host.examine()


def test_a_full_disk_is_a_fault(host: Room) -> None:
    host.run("mount -t tmpfs -o size=64m none state; head -c 60M /dev/zero > state/rubbish")
    (finding,) = host.examine()["disk"]
    assert finding.severity == "fault"
    assert finding.command is not None
    host.run(finding.command)
    host.run("rm state/rubbish")
    assert "disk" not in host.examine()


def test_programs_that_are_too_old_are_named(host: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shims = tmp_path / "bin"
    shims.mkdir()
    for name, says in (("nft", "nftables v0.9.8 (E.D.S.)"), ("systemctl", "systemd 249 (249.11)")):
        (shims / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (shims / name).chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{shims}:/usr/sbin:/usr/bin:/sbin:/bin")
        said = [each.what for each in host.examine()["version"]]
    assert said == ["nft is 0.9.8, older than 1.0.2", "systemd is 249, older than 252"]
    assert "version" not in host.examine()


def ask(host: Room, tmp_path: Path, *before: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """The command itself, in the host."""
    config = tmp_path / "gatewayd.yaml"
    config.write_text('registry: {sources: [{name: any, url: "file:/any", allow_unsigned: true}]}\n')
    command = [*before, sys.executable, "-m", "gatewayd", "doctor", "--json", "--config", str(config)]
    env = {**os.environ, "PATH": f"{path}{os.environ['PATH']}"}
    return host.inside(lambda: subprocess.run(command, capture_output=True, text=True, check=False, env=env))


def checks_of(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {each["check"] for each in json.loads(done.stdout)["findings"]}


def test_the_command_examines_the_host_that_it_runs_in(host: Room, tmp_path: Path) -> None:
    assert "forwarding" not in checks_of(ask(host, tmp_path))
    host.run("sysctl -w net.ipv4.ip_forward=0")
    done = ask(host, tmp_path)
    assert done.returncode == 1
    assert "forwarding" in checks_of(done)


def test_a_user_who_may_not_look_is_told_so(host: Room, tmp_path: Path) -> None:
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all")
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    if host.inside(lambda: subprocess.run([*nobody, sys.executable, "-c", "1"], check=False)).returncode:
        pytest.skip("this Python is root's alone")
    done = ask(host, tmp_path, *nobody)
    if done.stdout:
        assert (done.returncode, "unread" in checks_of(done)) == (1, True)
    else:
        assert done.returncode == 2
    assert "unread" not in checks_of(ask(host, tmp_path))


def test_the_daemon_shows_what_it_sees_of_its_host(shared_lab: Lab, daemon: LabDaemon) -> None:
    """Its own groups are no finding. A mended host is seen at the next look, here that of the next daemon."""
    daemon.write_registry("national", b"")
    daemon.configure("observe")
    shared_lab.gateway.nft(
        "add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }"
    )
    try:
        for expected in (True, False):
            daemon.start()
            # Its look has the lowest priority, and as much time as this on a busy host.
            assert holds(lambda: host_of(daemon).get("at") is not None, FIRST_LOOK_S + TIMEOUT_S)
            found = {each["check"] for each in host_of(daemon)["findings"]}
            assert ("dropping-chain" in found, "nflog-group" in found) == (expected, False)
            assert ("dropping-chain" in daemon.ask("status").stdout) is expected
            daemon.end()
            shared_lab.gateway.nft("add table inet fw; delete table inet fw")
    finally:
        shared_lab.gateway.nft("add table inet fw; delete table inet fw")


def host_of(daemon: LabDaemon) -> dict[str, Any]:
    """Of its status; nothing while it does not answer."""
    done = daemon.ask("status", "--json")
    found: dict[str, Any] = {} if done.returncode else json.loads(done.stdout)["host"]
    return found


def test_rules_that_nft_refuses_are_a_fault(host: Room, tmp_path: Path) -> None:
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "nft").write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && exec {shutil.which("nft")} --version\n'
        "grep -q chain /dev/stdin && echo 'Error: syntax error, unexpected masq' >&2 && exit 1\n"
        "exit 0\n"
    )
    (shims / "nft").chmod(0o755)
    assert "rules-refused" in checks_of(ask(host, tmp_path, path=f"{shims}:"))
    assert "rules-refused" not in checks_of(ask(host, tmp_path))
