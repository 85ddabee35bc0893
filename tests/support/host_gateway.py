"""A gateway for the tests of booted hosts: its files, and questions to its daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from gatewayd.demo.cast import CAST, registered_flows
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream, StreamReport
from gatewayd.lab.traffic import flow_of, probe
from tests.support.booted import BootedHost

CONFIGURATION = "/etc/gatewayd/gatewayd.yaml"
REGISTRY = "/etc/gatewayd/national.ndjson"
STRANGER = ("39.40.9.9", "203.0.113.99", "udp/51820")
RATE_PPS = 400.0
_ports = count(20_000)


def configure(host: BootedHost, mode: str, **sections: Any) -> None:
    """`sections`: in the place of those that stand here."""
    whole: dict[str, Any] = {
        "registry": {
            "sources": [{"name": "national", "url": f"file:{REGISTRY}", "allow_unsigned": True}],
            "local": None,
        },
        "policy": {
            "mode": mode,
            "scope": ["ipsec", "wireguard", "openvpn", "pptp", "l2tp", "udp/51900-51999"],
            "interfaces": {"inside": ["inside0"], "outside": ["outside0"]},
        },
    }
    host.write(CONFIGURATION, json.dumps(whole | sections))


def publish(host: BootedHost) -> None:
    """The demo's cast is registered."""
    host.write(REGISTRY, "".join(json.dumps(each) + "\n" for each in CAST))


def start(host: BootedHost, mode: str = "reject", **sections: Any) -> None:
    configure(host, mode, **sections)
    publish(host)
    host.run("systemctl", "start", "gatewayd")


def status(host: BootedHost) -> dict[str, Any]:
    """As the daemon has it; empty while none answers."""
    answer = host.run("gatewayd", "status", "--json", status=None)
    found: dict[str, Any] = json.loads(answer) if answer.startswith("{") else {}
    return found


def is_ready(host: BootedHost) -> bool:
    return bool(status(host).get("ready"))


def has_mode(host: BootedHost, mode: str) -> bool:
    return status(host).get("mode") == mode


def has_restarted(host: BootedHost, times: int) -> bool:
    return host.property("NRestarts") == str(times)


def refuses_strangers(lab: Lab) -> bool:
    """By a flow that was never there before."""
    return probe(lab, [flow_of(*STRANGER, next(_ports))]) == ["rejected"]


@contextmanager
def registered_traffic(lab: Lab) -> Iterator[list[StreamReport]]:
    """It flows before and after. The report comes at the end."""
    reports: list[StreamReport] = []
    flows = registered_flows(30_000)
    with Stream(lab, flows, rate_pps=RATE_PPS) as stream:
        assert stream.wait_for_arrivals(len(flows))
        yield reports
        assert stream.wait_for_arrivals(len(flows))
        reports.append(stream.stop())
