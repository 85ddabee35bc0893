"""A real Prometheus on a real daemon: each panel of the dashboard has data; in peace no alert is even pending."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd.demo import cast
from gatewayd.demo.gateway import START, DemoNas, write_subscribers
from gatewayd.demo.registry import DemoRegistry
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.world import encode_ndjson
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.metrics_table import SECTIONS, names_of, rows_of
from tests.support.panels import NOW, POLICY_CHANGES, ROWS
from tests.support.prometheus import Prometheus

pytestmark = pytest.mark.kernel

TARGET = "127.0.0.1:9480"
SCRAPES = 15
PATIENCE_S = 180.0
"""What the kernel counts is read twice a minute, and the machine may be busy."""
WRONG = b'{"id":"WRONG","category":"bank","status":"active","clients":["39.33.0.1/28"]}\n'
"""Host bits: it is rejected."""
ASSERTED = {
    "must_pass": [
        {"name": "bank", "source": "39.32.0.5", "destination": cast.FAR, "service": "ipsec", "comment": "their NOC"}
    ],
    "pins": [cast.EMBASSY | {"id": "PINNED", "comment": "until the registry has it"}],
}


@pytest.fixture
def registry(shared_lab: Lab, tmp_path: Path) -> Iterator[DemoRegistry]:
    """Signed, and served on the lab's internet."""
    made = DemoRegistry(shared_lab, tmp_path)
    made.replace_all(cast.CAST)
    made.publish()
    made.serve()
    yield made
    made.stop_serving()


@contextmanager
def scraped(daemon: LabDaemon, registry: DemoRegistry, lab_records: bytes) -> Iterator[Prometheus]:
    """All that a gateway can have: a signed source and a file, local files, subscribers."""
    (daemon.directory / "local.d").mkdir()
    daemon.write_file("local.d/customers.yaml", yaml.safe_dump(ASSERTED).encode())
    daemon.write_registry("lab", lab_records)
    national = {"name": "national", "url": registry.url, "keys": [str(registry.public_key_path)]}
    daemon.configure(
        "observe",
        sources=(national, "lab"),
        registry={"sources": daemon.sources_of(national, "lab"), "local": str(daemon.directory / "local.d")},
        policy={"interfaces": {"inside": ["inside0"], "outside": ["outside0"]}},
        subscribers=write_subscribers(daemon.directory),
    )
    daemon.start()
    daemon.wait_ready()
    (daemon.directory / "prometheus").mkdir()
    with Prometheus(daemon.lab.gateway, daemon.directory / "prometheus", TARGET) as prometheus:
        yield prometheus


def at_once(expr: str) -> str:
    """With what Grafana puts in place of its variables."""
    return re.sub(r"\$__\w*interval", "1m", expr.replace("$T", 'job=~".*",instance=~".*"'))


def without_data(prometheus: Prometheus, queries: list[str]) -> list[str]:
    """Expressions without a series, or with one that is no number: 0 / 0."""
    wanting = []
    for expr in queries:
        found = prometheus.query(at_once(expr))
        if not found or any(each["value"][1] == "NaN" for each in found):
            wanting.append(expr)
    return wanting


def queries_of(*rows: Any) -> list[str]:
    return [expr for row in rows for panel in row for expr, _ in panel.queries]


def alerts_but_of_the_host(prometheus: Prometheus) -> set[str]:
    """The machine under the lab may have no NTP, for example: then the daemon has a finding, and is right."""
    ours: set[str] = set() if prometheus.number("gatewayd_host_findings") == 0 else {"GatewaydHostFindings"}
    return prometheus.alerts().keys() - ours


def test_in_peace_no_alert_is_even_pending(daemon: LabDaemon, registry: DemoRegistry) -> None:
    """Registered flows pass, strangers are refused, a subscriber is online: so it is for months."""
    good = encode_ndjson([cast.LATECOMER])
    with scraped(daemon, registry, good) as prometheus, DemoNas(daemon.lab) as nas:
        assert daemon.ask("mode", "reject").returncode == 0
        daemon.wait_mode("reject")
        assert holds(lambda: prometheus.number("gatewayd_armed") == 1)
        # What came out between two questions confirms the clock, where no NTP does.
        registry.publish()
        daemon.sync()
        nas.tell(START, "s-1", cast.MOBILE_NUMBER, cast.MOBILE_ADDRESSES[0])
        flows = [
            line.flow
            for line in cast.lines(40000)
            if cast.is_streamable(line) and (line.who == "stranger" or line.expected == "registered")
        ]
        with Stream(daemon.lab, flows, rate_pps=50.0):
            assert holds(
                lambda: prometheus.number('increase(gatewayd_radius_requests_total{kind="event"}[1m])') > 0
            )
            assert holds(lambda: prometheus.number("count_over_time(up[1m])") >= SCRAPES, PATIENCE_S)
            assert holds(lambda: not without_data(prometheus, queries_of(NOW)))
        # An element on its way to the kernel is pending for the second that it takes.
        assert holds(lambda: alerts_but_of_the_host(prometheus) == {"GatewaydModeNotInFile"}), prometheus.alerts()
        assert prometheus.faulty_rules() == []
        assert daemon.ask("mode", "--write").returncode == 0
        assert holds(lambda: not alerts_but_of_the_host(prometheus)), prometheus.alerts()
        daemon.end(signal.SIGTERM)
        assert holds(lambda: prometheus.alerts() == {"GatewaydDown": "pending"}), prometheus.alerts()


def test_every_panel_has_data(daemon: LabDaemon, registry: DemoRegistry) -> None:
    """After traffic, near misses, a repair, a trial, accounting and a wrong record."""
    lab = daemon.lab
    with scraped(daemon, registry, encode_ndjson([cast.LATECOMER]) + WRONG) as prometheus, DemoNas(lab) as nas:
        assert holds(lambda: prometheus.number("gatewayd_ready") == 1)
        flows = [line.flow for line in cast.lines(41000) if cast.is_streamable(line)]
        with Stream(lab, flows, rate_pps=100.0):
            nas.tell(START, "s-1", cast.MOBILE_NUMBER, cast.MOBILE_ADDRESSES[0])
            assert daemon.ask("mode", "reject", "--confirm", "4m").returncode == 0
            lab.gateway.run(["nft", "flush", "ruleset"])
            lab.gateway.run(["nft", "add table inet other { chain c { ct mark set 0x1; }; }"])
            registry.upsert(cast.LATECOMER)
            registry.publish()
            daemon.sync()
            wanted = [*queries_of(*ROWS.values()), POLICY_CHANGES]
            assert holds(lambda: not without_data(prometheus, wanted), PATIENCE_S), without_data(prometheus, wanted)
            expected = {"GatewaydNearMisses", "GatewaydTrialEnding", "GatewaydMarksChangedByOthers"}
            assert holds(lambda: expected <= prometheus.alerts().keys()), prometheus.alerts()
        repairs = prometheus.number("increase(gatewayd_kernel_repairs_total[5m])")
        assert repairs > 0
        assert prometheus.faulty_rules() == []
        seen = {each["metric"]["__name__"] for each in prometheus.query('{job="gatewayd"}')}
        declared = {name for section in SECTIONS for metric, _ in rows_of(section) for name in names_of(metric)}
        assert {name for name in seen if name.startswith("gatewayd_")} <= declared
