"""A real daemon whose clock is wrong, and real packets: nobody who is registered is cut, and it is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gatewayd.authority.database import RegistryDatabase
from gatewayd.authority.publishing import PublishOptions, publish
from gatewayd.demo.cast import BANK, EMBASSY, FAR, FREELANCER, SOFTWARE_HOUSE, STRANGER
from gatewayd.feed.canonical import Canonicaliser
from gatewayd.feed.notification import generate_key
from gatewayd.feed.record import registration_of
from gatewayd.lab.traffic import Outcome, flow_of, probe
from tests.support.lab_daemon import LabDaemon
from tests.support.nginx import NGINX, Nginx
from tests.support.nginx import NOT_INSTALLED as NO_NGINX
from tests.support.wrong_clock import LIBRARY, NOT_INSTALLED, WrongClock

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(LIBRARY is None, reason=NOT_INSTALLED),
    pytest.mark.skipif(NGINX is None, reason=NO_NGINX),
]

KEY = generate_key("national-2026")
SESSION = "0b0f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69"
HOUR_S = 3600
DAY_S = 86400
YEAR_S = 365 * DAY_S
_ports = count(42000)


def moment(in_s: float) -> str:
    return datetime.fromtimestamp(time.time() + in_s, UTC).isoformat().replace("+00:00", "Z")


def cast() -> list[dict[str, Any]]:
    """An open window, one that ends next month, one that ended last month, one that begins next month."""
    return [
        BANK,
        EMBASSY | {"valid_from": moment(-YEAR_S), "valid_until": moment(30 * DAY_S)},
        FREELANCER | {"valid_until": moment(-30 * DAY_S)},
        SOFTWARE_HOUSE | {"valid_from": moment(30 * DAY_S)},
    ]


def outcomes(daemon: LabDaemon) -> list[Outcome]:
    """What becomes of a new flow of each of them, and of a stranger's."""
    clients = ("39.32.0.5", "39.33.7.30", "39.34.55.123", "39.32.64.10", STRANGER)
    services = ("udp/4500", "udp/51820", "udp/51900", "udp/51820", "udp/51820")
    return probe(
        daemon.lab,
        [flow_of(client, FAR, service, next(_ports)) for client, service in zip(clients, services, strict=True)],
    )


RIGHT = ["passed", "passed", "rejected", "rejected", "rejected"]
"""As it is by the true time."""


class Registry:
    """Publishes the cast; every time anew, so that it is issued anew."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "feed"
        self._database = directory / "registry.db"

    def publish(self) -> None:
        writer = Canonicaliser()
        lines = [(each["id"], writer.line(registration_of(each))) for each in cast()]
        with RegistryDatabase(self._database) as database:
            database.apply(lines, at_s=time.time(), action="import", actor="lab", is_all=lambda: True)
            options = PublishOptions(refresh=3600, retry=3600)
            publish(database, self.directory, KEY, options, now=time.time(), fresh_session=SESSION)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path)
    made.publish()
    return made


@pytest.fixture
def nginx(daemon: LabDaemon, registry: Registry, tmp_path: Path) -> Iterator[Nginx]:
    (tmp_path / "nginx").mkdir()
    with Nginx(registry.directory, tmp_path / "nginx", daemon.lab.gateway) as made:
        yield made


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path / "faketime")


@pytest.fixture
def start(daemon: LabDaemon, nginx: Nginx, clock: WrongClock) -> Callable[[], None]:
    def start() -> None:
        key = daemon.write_file("national.pub", KEY.public_text().encode())
        source = {"name": "national", "url": f"{nginx.url}/notification.jws", "keys": [str(key)]}
        daemon.configure("reject", sources=[source], policy={"scope": ["udp/1024-65535"]})
        daemon.start(env=clock.environment)
        daemon.wait_ready()

    return start


def is_doubted(daemon: LabDaemon, word: str) -> bool:
    return doubt(daemon) == word


def doubt(daemon: LabDaemon) -> str | None:
    word: str | None = daemon.status()["clock"]["doubt"]
    return word


def test_a_clock_that_is_set_while_running_cuts_nobody(
    daemon: LabDaemon, registry: Registry, clock: WrongClock, start: Callable[[], None]
) -> None:
    start()
    assert outcomes(daemon) == RIGHT
    time.sleep(1.1)
    registry.publish()
    assert daemon.ask("sync").returncode == 0
    assert daemon.status()["clock"]["confirmed"] is True
    steps = ((-6 * YEAR_S, "behind"), (5 * YEAR_S, "ahead"), (-HOUR_S, "behind"))
    for number, (seconds, word) in enumerate(steps, 1):
        clock.set_by(seconds)
        daemon.wait(partial(is_doubted, daemon, word), word)
        daemon.wait_log("clock.doubted", times=number)
        time.sleep(1.5)
        assert outcomes(daemon) == RIGHT
        view = daemon.status()["clock"]
        assert abs(view["offset_s"] - seconds) < 30
        said = daemon.ask("status").stdout
        assert said.startswith("READY\n")
        assert f"{word}: not believed" in said
        # What is signed is evidence for the clock, and the feed goes on being read.
        registry.publish()
        assert daemon.ask("sync").returncode == 0
        assert "in the future" not in daemon.ask("status").stdout
        assert all(each["last_error"] is None for each in daemon.status()["sources"])
    clock.set_by(0)
    daemon.wait(lambda: doubt(daemon) is None, "the clock is believed")
    assert outcomes(daemon) == RIGHT
    daemon.wait_log("clock.trusted")
    log = daemon.log_text()
    assert log.count("clock.doubted") == 3
    assert "window.closed" not in log


@pytest.mark.parametrize(
    ("off_s", "knows", "is_reachable"),
    [
        (-6 * YEAR_S, "the last good", False),
        (5 * YEAR_S, "the last good", False),
        (5 * HOUR_S, "the last good", True),
        (-6 * YEAR_S, "this boot", True),
    ],
)
def test_a_boot_with_a_wrong_clock_cuts_nobody(
    daemon: LabDaemon,
    nginx: Nginx,
    clock: WrongClock,
    start: Callable[[], None],
    off_s: int,
    knows: str,
    is_reachable: bool,
) -> None:
    """`knows`: after a restart also the elapsed time; after a reboot of an older version only what is on disk."""
    start()
    # Ready is what the kernel has; what is kept on disk comes after.
    kept = daemon.directory / "registry" / "national.sqlite3"
    daemon.wait(kept.exists, "the last good is on disk")
    daemon.end()
    daemon.lab.gateway.run(["nft", "flush", "ruleset"])
    if knows == "the last good":
        (daemon.directory / "clock.json").unlink(missing_ok=True)
    if not is_reachable:
        nginx.kill()
    clock.set_by(off_s)
    start()
    time.sleep(1.5)
    after = outcomes(daemon)
    assert after[:3] == RIGHT[:3]
    assert after[4] == "rejected"
    if knows == "the last good" and abs(off_s) > DAY_S:
        assert doubt(daemon) == ("behind" if off_s < 0 else "ahead")
        assert "clock.doubted" in daemon.log_text()
    clock.set_by(0)
    daemon.wait(lambda: doubt(daemon) is None, "the clock is believed")
    daemon.wait(lambda: outcomes(daemon) == RIGHT, "all is as by the true time")
    if not is_reachable:
        nginx.start()


def test_a_boot_in_2020_with_unsigned_sources_alone_cuts_nobody_who_is_registered(
    daemon: LabDaemon, clock: WrongClock
) -> None:
    """All that is known of the time is when the last good was saved; a second boot knows no less."""
    daemon.write_registry("national", cast())
    daemon.configure("reject", policy={"scope": ["udp/1024-65535"]})
    daemon.start(env=clock.environment)
    daemon.wait_ready()
    kept = daemon.directory / "registry" / "national.sqlite3"
    daemon.wait(kept.exists, "the last good is on disk")
    daemon.end()
    (daemon.directory / "clock.json").unlink(missing_ok=True)
    clock.set_by(-6 * YEAR_S)
    for _ in range(2):
        daemon.lab.gateway.run(["nft", "flush", "ruleset"])
        daemon.start(env=clock.environment)
        daemon.wait_ready()
        assert doubt(daemon) == "behind"
        daemon.ask("sync")
        after = outcomes(daemon)
        assert after[:2] == RIGHT[:2]
        assert after[4] == "rejected"
        daemon.end()
