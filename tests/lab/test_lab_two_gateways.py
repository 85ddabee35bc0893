"""Two gateways with a real conntrackd each: the configuration of docs/operations.md, and what a failover finds."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, FAR, SOFTWARE_HOUSE, registration
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model import Flow, parse_prefix
from gatewayd.model.policy import MarkLayout
from tests.support.lab_daemon import LabDaemon, daemon_in, holds, mark_of
from tests.support.nas import Nas, write_secrets

CONNTRACKD = shutil.which("conntrackd")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(CONNTRACKD is None, reason="conntrackd is not installed"),
]

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
LAYOUT = MarkLayout(0xFF000000)
HOUSE, HOME = "39.32.64.10", "39.41.0.7"
FREELANCER = registration("PK-FREELANCER", "freelancer", [], subscriber=subscriber_of(1), services=["wireguard"])
NUMBER = f"+{mobile_number(1)}"
_ports = count(26000)


class Gateway:
    """A lab of its own, a daemon, and the conntrackd that speaks to the other's."""

    def __init__(self, lab: Lab, daemon: LabDaemon, own: str, peer: str) -> None:
        self.lab, self.daemon = lab, daemon
        directory = daemon.directory
        (block,) = re.findall(r"^  ```\n(  Sync \{\n.*?)^  ```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
        text = re.sub(r"10\.99\.0\.[12]$", lambda found: own if found[0].endswith("1") else peer, block, flags=re.M)
        text = text.replace("/var/lock/", f"{directory}/").replace("/var/run/", f"{directory}/")
        text = text.replace("LogFile on", f"LogFile {directory}/conntrackd.log")
        self._config = directory / "conntrackd.conf"
        self._config.write_text(text)
        assert CONNTRACKD is not None
        self._process = lab.gateway.popen(
            [CONNTRACKD, "-C", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert holds(lambda: (directory / "conntrackd.ctl").exists())

    def command(self, *words: str) -> str:
        assert CONNTRACKD is not None
        return self.lab.gateway.run([CONNTRACKD, "-C", str(self._config), *words]).stdout

    def take_over(self, other: Gateway) -> None:
        """What ha.sh does for `primary`, once the other's connections are here."""
        other.command("-n")
        assert holds(lambda: self.command("-e").strip() != "")
        for option in ("-c", "-f", "-R", "-B"):
            self.command(option)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def pair(kernel: None, tmp_path: Path) -> Iterator[tuple[Gateway, Gateway]]:
    with ExitStack() as stack:
        labs = [stack.enter_context(Lab((parse_prefix("39.32.0.0/11"),))) for _ in range(2)]
        first, second = (lab.gateway for lab in labs)
        peer = {"ifname": "sync0", "net_ns_fd": second.descriptor}
        first.configure(lambda ip: ip.link("add", ifname="sync0", kind="veth", peer=peer))
        for number, namespace in enumerate((first, second), 1):
            namespace.bring_up("sync0", f"10.99.0.{number}/30")
        made = []
        for number, lab in enumerate(labs, 1):
            directory = tmp_path / f"gw{number}"
            directory.mkdir()
            daemon = stack.enter_context(daemon_in(lab, directory, warm=True))
            gateway = Gateway(lab, daemon, f"10.99.0.{number}", f"10.99.0.{3 - number}")
            stack.callback(gateway.close)
            made.append(gateway)
        yield made[0], made[1]


def start(gateway: Gateway, mode: str, records: list[Any], **sections: Any) -> None:
    daemon = gateway.daemon
    daemon.write_registry("national", records)
    subscribers = write_secrets(daemon.directory, pepper=DEMO_PEPPER)
    daemon.configure(mode, subscribers=subscribers, **sections)
    daemon.start()
    daemon.wait_ready()


def wireguard(source: str) -> Flow:
    return flow_of(source, FAR, "udp/51820", next(_ports))


def test_a_tunnel_that_was_carried_over_is_not_cut_for_want_of_a_binding(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    for each in pair:
        start(each, "reject", [BANK, SOFTWARE_HOUSE, FREELANCER], policy={"drain": "0s"})
    with Nas(first.lab.gateway) as nas:
        nas.start("s1", NUMBER, HOME)
    live = wireguard(HOME)
    assert holds(lambda: probe(first.lab, [live], answered=True) == ["passed"])
    second.take_over(first)
    assert holds(lambda: mark_of(second.lab, live) == LAYOUT.registered)
    # A survey, whatever the reason.
    second.daemon.write_registry("national", [BANK, FREELANCER])
    second.daemon.sync()
    second.daemon.wait(lambda: second.daemon.status()["marks"]["waiting"] == 1, "one flow that waits")
    assert probe(second.lab, [live], answered=True) == ["passed"]
    assert mark_of(second.lab, live) == LAYOUT.registered
    assert any("accounting" in each for each in second.daemon.status()["warnings"])
    with Nas(second.lab.gateway) as nas:
        nas.interim("s1", NUMBER, HOME)
    assert holds(lambda: second.daemon.status()["marks"]["waiting"] == 0, deadline_s=90)
    assert mark_of(second.lab, live) == LAYOUT.registered
    assert probe(second.lab, [live, wireguard(HOME)]) == ["passed"] * 2


@pytest.mark.parametrize("mode", ["observe", "reject"])
def test_a_judgement_of_the_other_gateway_is_not_believed(pair: tuple[Gateway, Gateway], mode: str) -> None:
    first, second = pair
    start(first, "observe", [BANK])
    start(second, mode, [BANK, SOFTWARE_HOUSE])
    live = wireguard(HOUSE)
    assert probe(first.lab, [live], answered=True) == ["passed"]
    epoch = first.daemon.status()["epoch"]
    assert mark_of(first.lab, live) == LAYOUT.judged(epoch)
    assert second.daemon.status()["epoch"] == epoch
    second.take_over(first)
    assert holds(lambda: second.daemon.status()["marks"]["not_believed"] == 1)
    assert mark_of(second.lab, live) == 0
    assert probe(second.lab, [live], answered=True) == ["passed"]
    assert mark_of(second.lab, live) == LAYOUT.registered
