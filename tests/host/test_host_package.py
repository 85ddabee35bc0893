"""The Debian package on a booted host, from its installation to its purge, under traffic."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from tests.support.booted import BootedHost, booted
from tests.support.lab_daemon import holds
from tests.support.packages import ROOT, debian_package, other_version

pytestmark = pytest.mark.host

DOCUMENT = (ROOT / "docs/feed.md").read_text()
SERVICES = DOCUMENT[DOCUMENT.index("install -d -m 700 /etc/gatewayd-registry") :].partition("```")[0]
KEY = "/etc/gatewayd-registry/signing.key"

CONFIG = "/etc/gatewayd/gatewayd.yaml"
CONFIGURED = """\
registry:
  sources: [{name: lab, url: "file:/etc/gatewayd/lab.ndjson", allow_unsigned: true}]
policy:
  mode: reject
  interfaces: {inside: [inside0], outside: [outside0]}
kernel: {verify_every: 1m}
"""
BANK = {"id": "A", "category": "bank", "status": "active", "clients": ["39.32.0.0/28"], "services": ["ipsec"]}
REGISTERED = [flow_of("39.32.0.5", "198.51.100.7", "udp/500", port) for port in range(20001, 30001)]
"""Each packet begins a flow: the rules judge it, and no mark of an earlier one lets it pass."""
UNREGISTERED = flow_of("39.33.0.5", "198.51.100.7", "udp/500", 30001)
WATCHED_PACKETS = 200
"""A second of a stream, before and after what happens to it."""


@dataclass(frozen=True, slots=True)
class Versions:
    """`old` has other rules than `new`; `strict` refuses CONFIGURED."""

    old: Path
    new: Path
    strict: Path


@pytest.fixture(scope="module")
def versions(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    new = debian_package(base.name.removesuffix("-base"), tmp_path_factory.mktemp("packages"))
    old = other_version(new, "0.0.9", {"compile/judging.py": ('[*lines, "accept"]', '[*lines, "counter accept"]')})
    bounds = ('duration("1s", "1d", "5m")', 'duration("2m", "1d", "5m")')
    strict = other_version(new, "0.2.0", {"settings/model.py": bounds})
    return Versions(old, new, strict)


def install(host: BootedHost, package: Path) -> str:
    """What dpkg prints; no question is asked."""
    (host.root / "root" / package.name).write_bytes(package.read_bytes())
    printed = host.run("dpkg", "--install", f"/root/{package.name}")
    (host.root / "root" / package.name).unlink()
    return printed


def configure(host: BootedHost) -> None:
    host.write(CONFIG, CONFIGURED)
    host.write("/etc/gatewayd/lab.ndjson", json.dumps(BANK) + "\n")


def pid(host: BootedHost) -> str:
    return host.property("MainPID")


def version(host: BootedHost) -> str:
    """Of the daemon that runs, not of the files."""
    status = json.loads(host.run("gatewayd", "status", "--json"))
    return str(status["version"])


def is_in_force(host: BootedHost) -> bool:
    return probe(host.lab, [REGISTERED[0], UNREGISTERED]) == ["passed", "rejected"]


@contextmanager
def no_registered_packet_is_lost(lab: Lab) -> Iterator[None]:
    with Stream(lab, REGISTERED) as stream:
        assert stream.wait_for_arrivals(WATCHED_PACKETS)
        yield
        assert stream.wait_for_arrivals(WATCHED_PACKETS)
    report = stream.stop()
    assert report.lost == ()


def rules(host: BootedHost) -> str:
    return host.run("nft", "list", "chain", "inet", "gatewayd", "uncrossed")


def test_a_package_lives_on_a_host(lab: Lab, base: Path, versions: Versions) -> None:
    with booted(lab, [base]) as host:
        installs_and_is_not_configured_yet(host, versions.old)
        starts_and_reloads(host)
        takes_over_under_traffic(host, versions.new)
        stays_where_the_new_version_refuses_the_file(host, versions.strict)
        takes_over_when_the_file_is_mended(host)
        leaves_the_table_when_it_is_removed(host)
        starts_again_when_it_is_installed_again(host, versions.new)
        asks_at_the_purge(host)


def installs_and_is_not_configured_yet(host: BootedHost, package: Path) -> None:
    assert "gatewayd: not configured yet. Write /etc/gatewayd/gatewayd.yaml" in install(host, package)
    assert host.run("systemctl", "is-system-running").strip() == "running"
    host.run("systemctl", "start", "gatewayd")
    assert host.property("ActiveState") == "inactive"
    assert host.property("ConditionResult") == "no"
    assert host.property("UnitFileState") == "enabled"
    assert host.property("UnitFileState", "gatewayd-registry") == "disabled"
    assert host.run("gatewayd", "--version").strip().endswith("0.0.9")
    for unit in ("gatewayd", "gatewayd-registry", "gatewayd-registry-publish"):
        host.run("systemd-analyze", "security", "--threshold=20", unit)


def starts_and_reloads(host: BootedHost) -> None:
    configure(host)
    host.run("gatewayd", "check")
    host.run("systemctl", "start", "gatewayd")
    assert version(host) == "0.0.9"
    assert is_in_force(host)
    host.write(CONFIG, CONFIGURED.replace("mode: reject", "mode: observe"))
    host.run("systemctl", "reload", "gatewayd")
    assert holds(lambda: probe(host.lab, [UNREGISTERED]) == ["passed"])
    host.write(CONFIG, CONFIGURED)
    host.run("systemctl", "reload", "gatewayd")
    assert holds(lambda: is_in_force(host))


def takes_over_under_traffic(host: BootedHost, package: Path) -> None:
    before = rules(host)
    with no_registered_packet_is_lost(host.lab):
        printed = install(host, package)
    assert "refuses" not in printed
    assert version(host) == "0.1.0"
    assert rules(host) != before
    assert is_in_force(host)
    assert not (host.root / "usr/lib/gatewayd/previous").exists()
    assert host.run("dpkg", "--verify", "gatewayd") == ""


def stays_where_the_new_version_refuses_the_file(host: BootedHost, package: Path) -> None:
    daemon = pid(host)
    with no_registered_packet_is_lost(host.lab):
        printed = install(host, package)
    assert "verify_every" in printed
    assert f"gatewayd: this version refuses {CONFIG}. The daemon goes on with version 0.1.0." in printed
    assert (pid(host), version(host)) == (daemon, "0.1.0")
    # Killed, it starts again, and is the version that it was.
    host.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "gatewayd")
    assert holds(lambda: pid(host) not in (daemon, "0") and host.property("ActiveState") == "active")
    assert version(host) == "0.1.0"
    # A second attempt changes nothing.
    assert "The daemon goes on with version 0.1.0." in host.run("dpkg-reconfigure", "gatewayd")
    assert "this version refuses" in install(host, package)
    assert version(host) == "0.1.0"
    assert is_in_force(host)


def takes_over_when_the_file_is_mended(host: BootedHost) -> None:
    host.write(CONFIG, CONFIGURED.replace("verify_every: 1m", "verify_every: 5m"))
    with no_registered_packet_is_lost(host.lab):
        host.run("dpkg-reconfigure", "gatewayd")
    assert version(host) == "0.2.0"
    assert host.run("gatewayd", "--version").strip().endswith("0.2.0")
    assert is_in_force(host)


def leaves_the_table_when_it_is_removed(host: BootedHost) -> None:
    with no_registered_packet_is_lost(host.lab):
        printed = host.run("dpkg", "--remove", "gatewayd")
    assert "gatewayd: the kernel keeps table inet gatewayd" in printed
    assert is_in_force(host)
    assert not (host.root / "usr/lib/gatewayd").exists()
    assert (host.root / "etc/gatewayd/gatewayd.yaml").exists()


def starts_again_when_it_is_installed_again(host: BootedHost, package: Path) -> None:
    with no_registered_packet_is_lost(host.lab):
        install(host, package)
    assert version(host) == "0.1.0"
    assert is_in_force(host)


def asks_at_the_purge(host: BootedHost) -> None:
    """Not asked, it leaves the table."""
    with no_registered_packet_is_lost(host.lab):
        host.run("dpkg", "--purge", "gatewayd")
    assert is_in_force(host)
    for path in ("etc/gatewayd", "var/lib/gatewayd", "usr/lib/gatewayd", "usr/share/doc/gatewayd"):
        assert not (host.root / path).exists(), path
    assert not (host.root / "usr/bin/gatewayd").is_symlink()


def test_an_answer_to_the_question_of_the_purge_takes_the_table_away(
    lab: Lab, base: Path, versions: Versions
) -> None:
    """Its name is the one that the file has."""
    with booted(lab, [base]) as host:
        configure(host)
        configured = CONFIGURED.replace("kernel: {", "kernel: {table: vpn, ")
        host.write(CONFIG, configured)
        install(host, versions.new)
        assert is_in_force(host)
        assert "nft delete table inet vpn" in host.run("dpkg", "--remove", "gatewayd")
        host.run("debconf-set-selections", input="gatewayd gatewayd/purge-table boolean true\n")
        host.run("debconf-set-selections", input="gatewayd gatewayd/purge-files boolean false\n")
        host.run("dpkg", "--purge", "gatewayd")
        assert probe(host.lab, [UNREGISTERED]) == ["passed"]
        assert host.run("nft", "list", "tables") == ""
        assert host.read(CONFIG) == configured


STATE = "/var/lib/gatewayd-registry"
FED = CONFIGURED.replace(
    'url: "file:/etc/gatewayd/lab.ndjson", allow_unsigned: true',
    'url: "http://127.0.0.1:8080/notification.jws", keys: [/etc/gatewayd/keys/national.pub]',
)


def test_the_registry_of_the_package_feeds_a_gateway(lab: Lab, base: Path, versions: Versions) -> None:
    """As docs/feed.md says it."""
    with booted(lab, [base]) as host:
        install(host, versions.new)
        host.write("/srv/registrations.ndjson", json.dumps(BANK) + "\n")
        for line in SERVICES.splitlines():
            host.run("sh", "-ec", line)
        assert host.property("ActiveState", "gatewayd-registry") == "active"
        assert host.property("UnitFileState", "gatewayd-registry") == "enabled"
        host.write("/etc/gatewayd/keys/national.pub", host.read(f"{KEY}.pub"))
        host.write(CONFIG, FED)
        host.run("systemctl", "start", "gatewayd")
        assert holds(lambda: is_in_force(host))
        # The server has nothing of the key, and a restart publishes first.
        assert host.run("runuser", "-u", "gatewayd-registry", "--", "cat", KEY, status=1)
        host.run("systemctl", "restart", "gatewayd-registry")
        assert holds(lambda: "serving http://127.0.0.1:8080/" in host.journal("gatewayd-registry"))


def test_a_second_build_gives_the_same_bytes(base: Path, versions: Versions, tmp_path: Path) -> None:
    again = debian_package(base.name.removesuffix("-base"), tmp_path, again=True)
    assert again.name == versions.new.name
    assert again.read_bytes() == versions.new.read_bytes()


def test_each_wheel_has_its_licence_and_pytricia_its_source(versions: Versions, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", versions.new, tmp_path], check=True)
    documents = tmp_path / "usr/share/doc/gatewayd"
    named = set(re.findall(r"^ (\S+) \d\S*: \S", (documents / "copyright").read_text(), re.MULTILINE))
    lock = (ROOT / "requirements/package.txt").read_text()
    carried = set(re.findall(r"^([\w-]+)==(?!.*win32)", lock, re.MULTILINE))
    assert {normal(each) for each in carried} == {normal(each) for each in named}
    assert list(documents.glob("source/pytricia-*.tar.gz"))


def test_each_link_of_the_documents_leads_to_a_file_of_the_package(versions: Versions, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", versions.new, tmp_path], check=True)
    documents = tmp_path / "usr/share/doc/gatewayd"
    found = {
        page.parent / target
        for page in documents.rglob("*.md")
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text())
        if not re.match("[a-z]+:", target)
    }
    assert documents / "docs/operations.md" in found
    assert [str(each) for each in found if not each.exists()] == []
    assert (documents / "docs/images/page.jpg").exists()


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
