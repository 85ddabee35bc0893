"""An hour of registry misbehaviour in the life of a real daemon, with registered traffic flowing and nothing lost.

The daemon's time, the registry's and this test's runs FACTOR times as fast as the host's (`tests.support.hurried`);
the kernel, the packets and HTTP are real. Every SLOT_S seconds of that time the registry misbehaves in another way,
until the daemon has noticed by its own refresh, retry and back-off, and then is good again, until it is followed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gatewayd.demo.cast import ELSEWHERE, FAR, FREELANCER
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from tests.support.bad_input import BAD_INPUTS, MAX_BYTES, BadInput, check_complete, published_register
from tests.support.bad_registry import BadRegistry, Special, bad_registry
from tests.support.feeds import KEY, upsert
from tests.support.hurried import HurriedClock
from tests.support.hurried_lab import HurriedDaemon, hurried_daemon_in
from tests.support.lab_daemon import elements, holds

pytestmark = pytest.mark.kernel

FACTOR = 75.0
HOUR_S = 3600.0
SLOT_S = 75.0
REFRESH_S, RETRY_S, EXPIRE_S = 30, 5, 480
RATE_PPS = 300.0

BY_NAME: dict[str, BadInput] = {}
"""Of each name one, the first; the others are for the table's other test."""
for _case in BAD_INPUTS:
    BY_NAME.setdefault(_case.name, _case)
FLOWS = [
    flow_of("39.32.64.10", ELSEWHERE, "udp/51820", 31001),
    flow_of("39.32.0.5", FAR, "udp/4500", 31002),
    flow_of("39.33.7.30", ELSEWHERE, "udp/1701", 31003),
    flow_of(FREELANCER["clients"][0].partition("/")[0], ELSEWHERE, "udp/51900", 31004),
]
"""One of each of the cast; what happens to records happens to the last."""
STRANGER = flow_of("39.40.9.9", ELSEWHERE, "udp/51820", 31009)


class Hour:
    """What each part of the hour works on, and what holds after each: `check`."""

    def __init__(self, daemon: HurriedDaemon, registry: BadRegistry, stream: Stream, lab: Lab) -> None:
        self.daemon = daemon
        self.registry = registry
        self.disk = daemon.disk
        self.clock = daemon.clock
        self._stream = stream
        self._lab = lab
        self._slot = self.clock()
        self._began = self._daemons_time()
        self.register = self._keys()

    def _daemons_time(self) -> datetime:
        return datetime.fromisoformat(self.daemon.status()["now"])

    @property
    def passed_s(self) -> float:
        """By the daemon's own word."""
        return (self._daemons_time() - self._began).total_seconds()

    def _keys(self) -> frozenset[bytes]:
        return frozenset().union(*elements(self._lab).values())

    def wait_for_slot(self) -> None:
        self.clock.sleep(self._slot - self.clock())
        self._slot = max(self.clock(), self._slot) + SLOT_S
        self.registry.remember()

    def check(self, what: object) -> None:
        """Ready and armed; all that was registered at the beginning is in the kernel; packets arrive."""
        assert self.daemon.get("/readyz") == {"ready": True}, what
        assert self.daemon.status()["mode"] == "reject", what
        assert self._keys() >= self.register, what
        assert self._stream.wait_for_arrivals(len(FLOWS)), what

    def wait_followed(self) -> dict[str, Any]:
        publisher = self.registry.publisher
        return self.daemon.wait_source(session=publisher.session, serial=publisher.serial, last_error=None)

    def recover(self, what: object, *, was_followed: bool) -> None:
        """Within a refresh or a retry the daemon has what the registry says now."""
        extra = self.registry.recover(was_followed=was_followed)
        self.wait_followed()
        client = self.registry.publisher.records[extra]["clients"]
        assert isinstance(client, list)
        fresh = flow_of(client[0].partition("/")[0], ELSEWHERE, "udp/51820", 31008)
        self.daemon.wait_in_kernel(fresh)
        self.check(what)


def misbehave(hour: Hour, case: BadInput) -> None:
    """One line of the table, noticed and got over."""
    case.misbehave(hour)
    if case.error:
        hour.daemon.wait_source(last_error=case.error)
    else:
        source = hour.wait_followed()
        assert not case.rejected or source["rejected_by_code"][case.rejected] > 0, case
    if case.is_held:
        assert hour.daemon.status()["sources"][0]["held"]["count"] > 0
    if case.store_error:
        hour.daemon.wait_source(store_error=case.store_error)
    hour.check(case)
    if case.store_error:
        hour.disk.mend()
        hour.clock.sleep(61.0)  # the store's own pause before it writes everything anew
    hour.recover(case, was_followed=not case.error)
    hour.daemon.wait_source(store_error=None, held=None)


# -- what has no name in the table -----------------------------------------------------------------------------


def redirect_elsewhere(hour: Hour) -> None:
    """Another port is another origin."""
    location = {"Location": "http://127.0.0.1:9/feed/notification.jws"}
    hour.registry.special["notification"] = Special(302, b"", headers=location)
    hour.daemon.wait_source(last_error="leads to another origin")
    hour.check("redirect")
    hour.recover("redirect", was_followed=False)


def refuse_connections_past_expiry(hour: Hour) -> None:
    """Nobody listens until what is known has run out: `on_stale: keep` keeps it, and enforces on."""
    hour.registry.go_away()
    hour.daemon.wait_source(last_error="Cannot connect")
    hour.daemon.wait_source(freshness="stale")
    hour.check("outage past expiry")
    hour.registry.come_back()
    hour.recover("outage past expiry", was_followed=False)
    hour.daemon.wait_source(freshness="fresh")


def say_nothing_new(hour: Hour) -> None:
    """304 to every question: a cache that no longer asks, or a registry that froze."""
    asked = hour.registry.asked["notification"]
    hour.daemon.wait_source(last_error=f"and good for {EXPIRE_S} s")
    assert hour.registry.asked["notification"] - asked > EXPIRE_S / REFRESH_S / 2
    hour.check("frozen")
    hour.recover("frozen", was_followed=False)


def be_killed_in_an_outage(hour: Hour) -> None:
    """kill -9 while the registry is away: the last good is in force before anybody answers."""
    hour.registry.go_away()
    hour.daemon.wait_source(last_error="Cannot connect")
    hour.daemon.end(signal.SIGKILL)
    hour.daemon.start()
    hour.daemon.wait_ready()
    source = hour.daemon.wait_source(last_error="Cannot connect")
    assert source["restored_at"] is not None
    assert source["registrations"] == len(hour.registry.publisher.records)
    hour.check("killed")
    hour.registry.come_back()
    hour.recover("killed", was_followed=False)


def accept_what_is_held(hour: Hour) -> None:
    """Half of those nobody watches are withdrawn, and an operator says that this is right."""
    publisher = hour.registry.publisher
    gone = [id for id in publisher.records if not id.startswith("DEMO-")][::2]
    for id in gone:
        del publisher.records[id]
    hour.registry.publish_anew()
    hour.wait_followed()
    held = hour.daemon.wait_source(last_error=None)["held"]
    assert held["count"] == len(gone)
    hour.check("held")
    assert hour.daemon.ask("accept", str(held["serial"])).returncode == 0
    hour.daemon.wait_source(held=None)
    assert holds(lambda: hour.daemon.status()["registrations"]["total"] == len(publisher.records))


EPISODES = (
    redirect_elsewhere,
    refuse_connections_past_expiry,
    say_nothing_new,
    be_killed_in_an_outage,
    accept_what_is_held,
)


@pytest.fixture
def hurried(shared_lab: Lab, tmp_path: Path) -> Iterator[HurriedDaemon]:
    with hurried_daemon_in(shared_lab, tmp_path, HurriedClock.starting_now(tmp_path / "clock", FACTOR)) as daemon:
        yield daemon


def test_every_bad_input_of_the_requirement_has_its_place_in_the_hour() -> None:
    check_complete(BY_NAME)


def test_an_hour_of_registry_misbehaviour_loses_nothing(hurried: HurriedDaemon) -> None:
    daemon, lab = hurried, hurried.lab
    publisher = published_register(daemon.clock())
    publisher.intervals = (REFRESH_S, RETRY_S, EXPIRE_S)
    key = daemon.write_file("national.pub", KEY.public_text().encode())
    pace_s = 10.0 / FACTOR
    with bad_registry(publisher, daemon.clock, inside=lab.gateway.entered, trickle_s=pace_s) as registry:
        registry.publish(upsert("HOUR", "39.36.3.1/32", category="bpo"))
        source = {"name": "national", "url": registry.url, "keys": [str(key)], "max_bytes": MAX_BYTES}
        daemon.configure(
            sources=[source],
            registry={"shrink_guard": {"max_removed": "5%", "min_removed": 3}},
            policy={"scope": ["ipsec", "wireguard", "openvpn", "pptp", "l2tp", "udp/51900-51999"]},
        )
        daemon.start()
        daemon.wait_ready()
        with Stream(lab, FLOWS, rate_pps=RATE_PPS) as stream:
            assert stream.wait_for_arrivals(30)
            hour = Hour(daemon, registry, stream, lab)
            for case in BY_NAME.values():
                hour.wait_for_slot()
                misbehave(hour, case)
            for episode in EPISODES:
                hour.wait_for_slot()
                episode(hour)
            hour.clock.sleep(HOUR_S - hour.passed_s)
            passed_s, attempts = hour.passed_s, registry.asked["notification"]
            assert probe(lab, [STRANGER]) == ["rejected"]
            assert stream.wait_for_arrivals(30)
        report = stream.report()
    assert report.lost == (), f"{len(report.lost)} of {report.sent} packets"
    assert report.sent > RATE_PPS * HOUR_S / FACTOR / 4
    assert passed_s >= HOUR_S
    assert attempts >= HOUR_S / REFRESH_S / 2
    # Never but before it was ready: at its start, and at the one after kill -9. A change takes some milliseconds of
    # a busy machine, which are seconds of this hour.
    lines = [line for line in daemon.log_text().splitlines() if "daemon.not_ready" in line]
    assert len([line for line in lines if "not in the kernel yet" not in line]) <= 2
