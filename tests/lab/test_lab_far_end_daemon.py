"""A whole daemon where the far end speaks first: flows are known, kept, refused and drained all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from gatewayd.demo.cast import FAR, registration
from gatewayd.lab.traffic import flow_of
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model import Flow, reverse_flow
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.nas import Nas, write_secrets
from tests.support.talk import Talk

pytestmark = pytest.mark.kernel

NAMED = {"interfaces": {"inside": ["inside*"], "outside": ["outside0"]}}
FREELANCER = registration(
    "PK-FREELANCER", "freelancer", [], subscriber=subscriber_of(1), services=["wireguard", "ipsec"]
)
HOME, NUMBER = "39.41.0.7", f"+{mobile_number(1)}"
_ports = count(31000)


@pytest.fixture
def talk(daemon: LabDaemon) -> Iterator[Talk]:
    with Talk(daemon.lab) as made:
        yield made


def banks(*addresses: str) -> list[Any]:
    return [
        registration(f"PK-{address}", "bank", [f"{address}/32"], peers=[f"{FAR}/32"], services=["wireguard"])
        for address in addresses
    ]


def wireguard(source: str) -> Flow:
    return flow_of(source, FAR, "udp/51820", next(_ports))


def live(daemon: LabDaemon) -> int:
    return int(daemon.status()["watch"]["flows_tracked"])


def start(daemon: LabDaemon, mode: str, records: Sequence[Any], **sections: Any) -> None:
    daemon.write_registry("national", records)
    daemon.configure(mode, policy=NAMED, **sections)
    daemon.start()
    daemon.wait_ready()


def test_after_a_reboot_under_live_flows_the_registered_are_known_and_the_others_judged(
    daemon: LabDaemon, talk: Talk
) -> None:
    """The gateway's tables are empty, and most of what arrives first comes from the far end."""
    known, unknown = [f"39.33.0.{each}" for each in range(1, 21)], [f"39.34.0.{each}" for each in range(1, 21)]
    registered, others = [wireguard(each) for each in known], [wireguard(each) for each in unknown]
    # The gateway forwards already, before there are any rules of ours.
    talk.forget()
    assert {talk.far_end(flow) for flow in registered + others} == {"passed"}
    start(daemon, "reject", banks(*known))
    for _ in range(3):
        assert {talk.far_end(flow) for flow in registered} == {"passed"}
        assert {talk.client(flow) for flow in registered} == {"passed"}
    assert holds(lambda: live(daemon) == 20)
    # The far end's packet alone tells nothing of a flow; with the client's it is judged, in both directions.
    assert {talk.far_end(flow) for flow in others} == {"passed"}
    for _ in range(2):
        assert {talk.client(flow) for flow in others} == {"rejected"}
        assert {talk.far_end(flow) for flow in others} == {"rejected"}
    # A look at all registered flows takes none of them for lost.
    daemon.write_registry("national", banks(*known[1:]))
    assert holds(lambda: daemon.status()["registrations"]["effective"] == 19)
    assert holds(lambda: talk.client(registered[0]) == "rejected")
    time.sleep(2.5)  # the drain, and more
    assert {talk.client(flow) for flow in registered[1:]} == {"passed"}
    assert {talk.far_end(flow) for flow in registered[1:]} == {"passed"}


def test_a_flow_that_the_far_end_opened_is_drained_like_any_other(daemon: LabDaemon, talk: Talk) -> None:
    start(daemon, "reject", banks("39.33.0.1", "39.33.0.2"))
    talk.forget()
    flow = wireguard("39.33.0.1")
    assert [talk.far_end(flow), talk.client(flow)] == ["passed"] * 2
    daemon.write_registry("national", banks("39.33.0.2"))
    assert holds(lambda: talk.client(flow) == "rejected")
    assert talk.far_end(flow) == "rejected"


@pytest.mark.parametrize("mode", ["reject", "limit"])
def test_a_subscribers_tunnel_that_the_far_end_wakes_passes(daemon: LabDaemon, talk: Talk, mode: str) -> None:
    subscribers = write_secrets(daemon.directory, pepper=DEMO_PEPPER)
    sections = {"on_unregistered": {"limit": "100byte/s"}} if mode == "limit" else {}
    daemon.write_registry("national", [FREELANCER])
    daemon.configure(mode, policy=NAMED | sections, subscribers=subscribers)
    daemon.start()
    daemon.wait_ready()
    tunnels = [
        flow_of(HOME, FAR, "udp/500", 500),
        flow_of(HOME, FAR, "udp/4500", 4500),
        flow_of(HOME, FAR, "udp/51820", 51820),
        flow_of(HOME, FAR, "udp/51820", 40123),
        flow_of(HOME, FAR, "esp"),
    ]
    with Nas(daemon.lab.gateway) as nas:
        nas.start("s1", NUMBER, HOME)
        assert holds(lambda: talk.client(wireguard(HOME)) == "passed" and live(daemon) > 0)
        talk.forget()
        for flow in tunnels:
            assert [talk.far_end(flow) for _ in range(3)] == ["passed"] * 3
            assert [talk.client(flow) for _ in range(3)] == ["passed"] * 3
        assert holds(lambda: live(daemon) == len(tunnels))
        # Its session ends: so does what passes, after the drain.
        nas.stop("s1", NUMBER, HOME)
        if mode == "reject":
            assert holds(lambda: {talk.client(flow) for flow in tunnels} == {"rejected"})


def test_a_flow_judged_before_its_registration_passes_once_that_is_in_the_kernel(
    daemon: LabDaemon, talk: Talk
) -> None:
    """The far end's packet was judged; no mark has to be cleared for it."""
    start(daemon, "reject", banks("39.33.0.2"))
    talk.forget()
    flow = flow_of("39.33.0.1", FAR, "udp/51820", 51820)
    assert talk.say("internet", reverse_flow(flow)) == "rejected"
    daemon.write_registry("national", banks("39.33.0.1", "39.33.0.2"))
    assert holds(lambda: talk.say("internet", reverse_flow(flow)) == "passed")
    assert talk.client(flow) == "passed"
