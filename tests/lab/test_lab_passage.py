"""The passage check, beside real packets: what it says is what the gateway does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gatewayd.demo.cast import FAR, FAR_IPV6, SOFTWARE_HOUSE, STRANGER, STRANGER_IPV6
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import parse_prefix
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.warm import run_warm

pytestmark = pytest.mark.kernel

EXPLAIN = ["explain", "--probe"]
COMMAND = [sys.executable, "-m", "gatewayd", *EXPLAIN]
PREFIXES = ("39.32.0.0/11", "2400:adc0::/32")
BANK_CLIENT = "39.32.0.10"
_ports = count(30000)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab([parse_prefix(each) for each in PREFIXES]) as made:
        yield made


def ask(lab: Lab, *words: str) -> dict[str, Any]:
    done = run_warm(lab.gateway.descriptor, [*EXPLAIN, *words, "--json"])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def places(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(each["table"], each["chain"], each["verdict"]) for each in found["chains"]]


BEFORE_AND_AFTER = """
table inet early {
	chain f {
		type filter hook forward priority -50; policy accept;
		ip daddr 198.51.100.1 counter drop
		ip6 daddr 2001:db8::1 drop
	}
}
table inet late {
	chain own {
		udp dport { 51820, 4500 } counter drop
	}
	chain f {
		type filter hook forward priority 50; policy accept;
		ip daddr 198.51.100.2 jump own
	}
}
table ip strict {
	chain f {
		type filter hook forward priority 60; policy drop;
		ip daddr != 198.51.100.3 accept
	}
}
"""


@pytest.mark.parametrize(
    ("src", "dst", "service", "outcome", "by"),
    [
        (BANK_CLIENT, "198.51.100.7", "udp/51820", "passes", None),
        (BANK_CLIENT, "198.51.100.1", "udp/51820", "dropped", ("early", "f")),
        (STRANGER_IPV6, "2001:db8::1", "esp", "dropped", ("early", "f")),
        (BANK_CLIENT, "198.51.100.2", "udp/4500", "dropped", ("late", "own")),
        (BANK_CLIENT, "198.51.100.2", "tcp/443", "passes", None),
        (BANK_CLIENT, "198.51.100.3", "gre", "dropped", ("strict", "f")),
    ],
)
def test_a_drop_of_another_table_is_found_where_it_is(
    lab: Lab, src: str, dst: str, service: str, outcome: str, by: tuple[str, str] | None
) -> None:
    lab.gateway.nft(BEFORE_AND_AFTER)
    found = ask(lab, src, dst, service)
    assert found["outcome"] == outcome
    assert found["is_certain"]
    real = probe(lab, [flow_of(src, dst, service, next(_ports))], deadline_s=2.0)
    assert real == ["passed" if outcome == "passes" else "lost"]
    if by is not None:
        last = found["chains"][-1]
        assert (last["table"], last["by"]["chain"], last["verdict"]) == (*by, "drop")
    else:
        assert [each["hook"] for each in found["chains"]] == ["forward"] * (3 if ":" not in src else 2)
        assert [each["priority"] for each in found["chains"]] == [-50, 50, 60]


def test_the_rule_is_named_as_the_host_knows_it(lab: Lab) -> None:
    lab.gateway.nft(BEFORE_AND_AFTER)
    listed = lab.gateway.run(["nft", "-a", "list", "chain", "inet", "late", "own"]).stdout
    (handle,) = (line.rpartition(" ")[2] for line in listed.splitlines() if "dport" in line)
    done = lab.gateway.run([*COMMAND, BANK_CLIENT, "198.51.100.2", "udp/4500"])
    first, *rest = done.stdout.splitlines()
    head = f"udp/4500 from {BANK_CLIENT} to 198.51.100.2 IS DROPPED by table inet late chain own rule {handle} ("
    assert first.startswith(head)
    assert "interfaces     inside0 to outside0" in rest
    assert any(line.startswith("forward  50        inet late") for line in rest)


def test_rules_of_iptables_are_asked_too(lab: Lab) -> None:
    for command in (
        ["iptables-nft", "-A", "FORWARD", "-p", "tcp", "-m", "multiport", "--dports", "1194,443", "-j", "DROP"],
        ["iptables-nft", "-A", "FORWARD", "-p", "udp", "-m", "comment", "--comment", "no", "-j", "REJECT",
         "--reject-with", "icmp-admin-prohibited"],
        ["ip6tables-nft", "-P", "FORWARD", "DROP"],
    ):  # fmt: skip
        lab.gateway.run(command)
    for src, dst, service, outcome in (
        (STRANGER, FAR, "tcp/443", "dropped"),
        (STRANGER, FAR, "tcp/444", "passes"),
        (STRANGER, FAR, "udp/51820", "rejected"),
        (STRANGER_IPV6, FAR_IPV6, "udp/51820", "dropped"),
    ):
        found = ask(lab, src, dst, service)
        assert (found["outcome"], found["is_certain"]) == (outcome, True), (service, found["reason"])
    assert places(ask(lab, STRANGER, FAR, "tcp/444")) == [("filter", "FORWARD", "accept")]


def test_translated_addresses_are_followed(lab: Lab) -> None:
    lab.gateway.nft("""
table ip nat {
	chain pre {
		type nat hook prerouting priority -100;
		iifname "outside0" tcp dport 8443 dnat to 39.32.0.5:443
	}
	chain post {
		type nat hook postrouting priority 100;
		oifname "outside0" masquerade
	}
}
table inet fw {
	chain f {
		type filter hook forward priority 0; policy accept;
		ip daddr 39.32.0.5 tcp dport 443 accept
		iifname "outside0" drop
	}
}
""")
    own = "198.19.255.5"
    found = ask(lab, FAR, own, "tcp/8443")
    assert (found["outcome"], found["translated"]) == ("passes", "39.32.0.5:443")
    assert (found["incoming"], found["outgoing"]) == ("outside0", "inside0")
    assert ask(lab, FAR, own, "tcp/8444")["outcome"] == "for the host"
    masked = ask(lab, STRANGER, FAR, "udp/51820")
    assert (masked["outcome"], places(masked)[-1]) == ("passes", ("nat", "post", "accept"))


def test_a_drop_at_the_ingress_of_the_interface_is_seen_and_that_of_another_is_not(lab: Lab) -> None:
    lab.gateway.nft("""
table netdev edge {
	chain in {
		type filter hook ingress device "outside0" priority 0; policy accept;
		ip daddr 39.32.0.9 drop
	}
	chain lo {
		type filter hook ingress device "lo" priority 0; policy accept;
		drop
	}
}
""")
    found = ask(lab, FAR, "39.32.0.9", "udp/51820")
    assert (found["outcome"], places(found)) == ("dropped", [("edge", "in", "drop")])
    assert ask(lab, "39.32.0.9", FAR, "udp/51820")["outcome"] == "passes"
    assert places(ask(lab, FAR, "39.32.0.8", "udp/51820")) == [("edge", "in", "accept")]


def test_a_bridge_is_one_in_the_copy_too(lab: Lab) -> None:
    for command in (
        "ip link add br0 type bridge",
        "ip link set inside0 master br0",
        "ip link set br0 up",
        "ip route replace 39.32.0.0/11 dev br0",
    ):
        lab.gateway.run(command.split())
    lab.gateway.nft("""
table inet fw {
	chain f {
		type filter hook forward priority 0; policy accept;
		meta iifkind "bridge" iifname "br0" drop
	}
}
""")
    found = ask(lab, STRANGER, FAR, "udp/51820")
    assert (found["incoming"], found["outcome"]) == ("br0", "dropped")


def test_of_a_real_gateway_in_reject(daemon: LabDaemon) -> None:
    lab = daemon.lab
    daemon.write_registry("national", [SOFTWARE_HOUSE])
    daemon.configure("reject", policy={"interfaces": {"inside": ["inside0"], "outside": ["outside0"]}})
    daemon.start()
    daemon.wait_ready()
    client = "39.32.64.10"
    generation = _ruleset(lab)
    stranger, house = ask(lab, STRANGER, FAR, "udp/51820"), ask(lab, client, FAR, "udp/51820")
    assert stranger["outcome"] == "rejected"
    assert stranger["chains"][-1]["by"]["text"].startswith("reject with")
    assert stranger["copied"]["found"] == 0
    assert house["outcome"] == "passes"
    assert house["copied"]["found"] >= 1
    assert house["chains"][-1]["by"]["chain"] == "registered"
    assert probe(lab, [flow_of(STRANGER, FAR, "udp/51820"), flow_of(client, FAR, "udp/51820")]) == [
        "rejected", "passed",
    ]  # fmt: skip
    # A far end's answer, and what no rule is about.
    assert ask(lab, FAR, client, "udp/51820", "--sport", "51820")["outcome"] == "passes"
    assert ask(lab, STRANGER, FAR, "tcp/443")["outcome"] == "passes"
    assert _ruleset(lab) == generation, "the host has what it had"


def _ruleset(lab: Lab) -> str:
    said = lab.gateway.run(["nft", "-s", "list", "tables"]).stdout
    return said + lab.gateway.run(["ip", "-br", "link"]).stdout + lab.gateway.run(["ip", "route"]).stdout


def test_beside_a_million_elements_it_asks_for_a_few(lab: Lab) -> None:
    """Of a table that says that it is ours; 2 s and 390 MB by `nft list ruleset`."""
    tag = "gatewayd epoch=1 mode=reject policy=0123456789abcdef rules=0123456789abcdef"
    lab.gateway.nft(f"""
table inet gatewayd {{
	set c4_32 {{
		type ipv4_addr
	}}
	chain forward {{
		type filter hook forward priority -10; policy accept;
		ip saddr @c4_32 accept comment "{tag}"
		reject with icmpx admin-prohibited
	}}
}}
""")
    ends = [f"{third}.{fourth}" for third in range(250) for fourth in range(250)]
    names = [f"39.{second}.{end}" for second in range(32, 48) for end in ends]
    for begin in range(0, len(names), 25_000):
        some = ", ".join(names[begin : begin + 25_000])
        lab.gateway.nft(f"add element inet gatewayd c4_32 {{ {some} }}")
    found = ask(lab, "39.32.200.7", FAR, "udp/51820")
    assert (found["outcome"], found["copied"]["found"], found["copied"]["left_empty"]) == ("passes", 1, 1)
    assert ask(lab, "39.63.0.1", FAR, "udp/51820")["outcome"] == "rejected"


def test_what_cannot_be_copied_is_named(lab: Lab) -> None:
    lab.gateway.nft("""
table inet fw {
	ct helper sip {
		type "ftp" protocol tcp
	}
	chain f {
		type filter hook forward priority 0; policy accept;
		limit rate 5/second accept
		drop
	}
}
""")
    found = ask(lab, STRANGER, FAR, "udp/51820")
    assert not found["is_certain"]
    assert any("limit has a rate of its own" in note for note in found["notes"])
    assert any("conntrack helpers" in note for note in found["notes"])
    said = lab.gateway.run([*COMMAND, STRANGER, FAR, "udp/51820"]).stdout.splitlines()[0]
    assert "NOT CERTAIN" in said


def test_a_host_that_cannot_be_asked_says_why(lab: Lab) -> None:
    def refused(*words: str) -> str:
        done = run_warm(lab.gateway.descriptor, [*EXPLAIN, *words])
        assert done.returncode == 1, done.stdout
        return done.stderr

    assert "this host has no interface ppp9" in refused(STRANGER, FAR, "esp", "--in", "ppp9", "--out", "outside0")
    assert "is an address of this host" in refused("198.19.255.1", FAR, "esp")
    lab.gateway.run(["ip", "route", "add", "blackhole", "203.0.113.0/24"])
    assert "blackhole" in refused(STRANGER, "203.0.113.7", "esp")
    lab.gateway.sysctl("net.ipv4.ip_forward", "0")
    assert "forwards nothing: sysctl net.ipv4.ip_forward is 0" in refused(STRANGER, FAR, "esp")


def test_a_stranger_to_root_gets_a_sentence(lab: Lab) -> None:
    drop = ["setpriv", "--reuid", "65534", "--clear-groups"]
    done = lab.gateway.run([*drop, *COMMAND, STRANGER, FAR, "esp"], check=False)
    assert done.returncode == 2
    assert "run it as root" in done.stderr


def test_nothing_is_left_of_it_also_after_a_kill(lab: Lab) -> None:
    """Rules that lose the packet unseen keep it waiting; then it is killed."""

    def namespaces() -> set[int]:
        found = set()
        for path in Path("/proc").glob("[0-9]*/ns/net"):
            try:
                found.add(os.stat(path).st_ino)
            except OSError:
                continue
        return found

    own = namespaces()
    child = subprocess.Popen(
        lab.gateway.command([*COMMAND, STRANGER, FAR, "udp/51820", "--json"]), stdout=subprocess.PIPE
    )
    try:
        descriptors = Path(f"/proc/{child.pid}/fd")
        assert holds(lambda: len(_namespaces_in(descriptors)) >= 3 or child.poll() is not None)
        # Others come and go meanwhile, those of other tests.
        made = _namespaces_in(descriptors) - own
        assert made or child.poll() is not None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert holds(lambda: not made & namespaces())


def _namespaces_in(directory: Path) -> set[int]:
    """Their numbers, of the descriptors of a process."""
    found = set()
    try:
        for each in directory.iterdir():
            target = os.readlink(each)
            if target.startswith("net:"):
                found.add(int(target.strip("net:[]")))
    except OSError:
        return set()
    return found
