"""The doctor on a booted Debian, from the package: what it prints is typed, and the service sees what it may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.lab import Lab
from tests.host.test_host_package import configure, install
from tests.support.booted import BootedHost, booted
from tests.support.lab_daemon import holds
from tests.support.packages import debian_package

pytestmark = pytest.mark.host

BROKEN = (
    ("forwarding", "sysctl -w net.ipv4.ip_forward=0"),
    ("conntrack-acct", "sysctl -w net.netfilter.nf_conntrack_acct=0"),
    ("dropping-chain", "nft add table inet fw"),
    ("dropping-chain", "nft 'add chain inet fw forward { type filter hook forward priority 0; policy drop; }'"),
    ("interface-down", "ip link set outside0 down"),
)


@pytest.fixture(scope="module")
def package(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return debian_package(base.name.removesuffix("-base"), tmp_path_factory.mktemp("packages"))


def examine(host: BootedHost) -> dict[str, dict[str, Any]]:
    document = json.loads(host.run("gatewayd", "doctor", "--json", status=None))
    return {each["check"]: each for each in document["findings"]}


def seen_by_the_service(host: BootedHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run("gatewayd", "status", "--json"))["host"]
    return found


def test_what_the_doctor_prints_mends_a_booted_host(lab: Lab, base: Path, package: Path) -> None:
    with booted(lab, [base]) as host:
        install(host, package)
        assert "there is no /etc/gatewayd/gatewayd.yaml" in host.run("gatewayd", "doctor", status=None).lower()
        configure(host)
        for _, command in BROKEN:
            host.run("sh", "-c", command)
        found = examine(host)
        checks = {check for check, _ in BROKEN}
        assert checks <= found.keys()
        assert "unread" not in found
        for check in checks:
            host.run("sh", "-c", found[check]["command"])
        assert not checks & examine(host).keys()

        host.run("sysctl", "-w", "net.ipv4.ip_forward=0")
        host.run("systemctl", "start", "gatewayd")
        assert holds(lambda: seen_by_the_service(host)["at"] is not None), host.journal()
        seen = seen_by_the_service(host)
        assert seen["error"] is None
        assert "forwarding" in {each["check"] for each in seen["findings"]}
        assert [each["name"] for each in seen["chains"]] == ["forward"]
        assert not {"nflog-group", "unread"} & examine(host).keys()
