"""A published directory behind Debian's nginx, with nothing configured but the directory."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gatewayd.authority.database import RegistryDatabase
from gatewayd.authority.publishing import PublishOptions, publish
from gatewayd.demo.cast import BANK, ELSEWHERE, EMBASSY, FAR, FREELANCER, registration
from gatewayd.feed.canonical import Canonicaliser
from gatewayd.feed.notification import (
    DeltaRef,
    Notification,
    SnapshotRef,
    generate_key,
    load_verifying_keys,
    open_notification,
)
from gatewayd.feed.record import parse_record, registration_of
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.nginx import NGINX, NOT_INSTALLED, Nginx

KEY = generate_key("national-2026")
SESSION = "0b0f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69"
NOW = 1_700_000_000.0
_ports = count(34000)

pytestmark = pytest.mark.skipif(NGINX is None, reason=NOT_INSTALLED)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feed of three serials."""
    path = tmp_path_factory.mktemp("registry")
    with RegistryDatabase(path / "r.db") as database:
        for serial in (1, 2, 3):
            records = [
                (
                    f"PK-{number}",
                    f'{{"id":"PK-{number}","category":"bank","status":"active","clients":["{address}"]}}',
                )
                for number in range(500 if serial == 1 else 5)
                for address in (f"203.0.{number % 250}.{serial}/32",)
            ]
            database.apply(records, at_s=NOW, action="import", actor="lab")
            publish(database, path / "feed", KEY, PublishOptions(), now=NOW + serial, fresh_session=SESSION)
    return path / "feed"


@pytest.fixture(scope="module")
def url(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Nginx(directory, tmp_path_factory.mktemp("nginx")) as nginx:
        yield nginx.url


async def fetch(url: str, path: str, **headers: str) -> tuple[int, bytes, str]:
    """Status, body and ETag. As a gateway asks: gzip is welcome, and nothing is undone on the way."""
    async with (
        aiohttp.ClientSession(url, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=10)) as client,
        client.get(f"/{path}", headers={"Accept-Encoding": "gzip", **headers}) as answer,
    ):
        return answer.status, await answer.read(), answer.headers.get("ETag", "")


async def served(url: str) -> Notification:
    status, raw, _ = await fetch(url, "notification.jws", **{"Accept-Encoding": "identity"})
    assert status == 200
    return open_notification(raw, load_verifying_keys([KEY.public_text()]))


async def lines(url: str, ref: SnapshotRef | DeltaRef) -> list[bytes]:
    status, raw, _ = await fetch(url, ref.url)
    assert (status, len(raw), hashlib.sha256(raw).hexdigest()) == (200, ref.size, ref.sha256)
    return gzip.decompress(raw).splitlines()


async def test_the_notification_verifies(url: str) -> None:
    notification = await served(url)
    assert (notification.session, notification.serial) == (SESSION, 3)
    assert [delta.serial for delta in notification.deltas] == [2, 3]


async def test_the_snapshot_has_its_hash_and_its_records(url: str) -> None:
    snapshot = (await served(url)).snapshot
    records = await lines(url, snapshot)
    assert len(records) == snapshot.count == 500
    writer = Canonicaliser()
    assert all(writer.line(parse_record(record)).encode() == record for record in records)


async def test_the_deltas_have_their_hashes_and_their_operations(url: str) -> None:
    for delta in (await served(url)).deltas:
        operations = [msgspec.json.decode(line) for line in await lines(url, delta)]
        assert [operation["op"] for operation in operations] == ["upsert"] * 5
        assert operations[0]["registration"]["clients"] == [f"203.0.0.{delta.serial}/32"]


async def test_what_is_still_the_same_is_not_sent_again(url: str) -> None:
    _, _, etag = await fetch(url, "notification.jws", **{"Accept-Encoding": "identity"})
    assert (await fetch(url, "notification.jws", **{"If-None-Match": etag}))[:2] == (304, b"")


async def test_a_download_can_be_taken_up_again(url: str, directory: Path) -> None:
    snapshot = (await served(url)).snapshot
    status, raw, _ = await fetch(url, snapshot.url, Range="bytes=100-")
    assert (status, raw) == (206, (directory / snapshot.url).read_bytes()[100:])


# -- and a daemon --------------------------------------------------------------------------------------------------


class Registry:
    """A database and the directory that is published of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "feed"
        self._database = directory / "registry.db"

    def publish(self, *records: dict[str, Any]) -> None:
        """These are the registrations now, beside some that are always there: deltas shall be worth it."""
        others = [registration(f"OTHER-{n}", "bpo", [f"39.36.{n // 250}.{n % 250}/32"]) for n in range(500)]
        writer = Canonicaliser()
        lines = [(each["id"], writer.line(registration_of(each))) for each in (*others, *records)]
        with RegistryDatabase(self._database) as database:
            database.apply(lines, at_s=time.time(), action="import", actor="lab", is_all=lambda: True)
            options = PublishOptions(refresh=3600, retry=3600)
            publish(database, self.directory, KEY, options, now=time.time(), fresh_session=SESSION)


def of_bank() -> Flow:
    return flow_of("39.32.0.5", FAR, "udp/4500", next(_ports))


def of_embassy() -> Flow:
    return flow_of("39.33.7.30", ELSEWHERE, "udp/1701", next(_ports))


def of_freelancer() -> Flow:
    return flow_of("39.34.55.123", ELSEWHERE, "udp/51900", next(_ports))


def metrics(daemon: LabDaemon) -> str:
    with daemon.lab.gateway.entered():
        connection = http.client.HTTPConnection("127.0.0.1", 9480, timeout=10)
        connection.connect()
    with closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


@pytest.mark.kernel
def test_a_daemon_follows_what_nginx_serves_and_goes_on_while_it_is_down(daemon: LabDaemon, tmp_path: Path) -> None:
    lab, registry = daemon.lab, Registry(tmp_path)
    registry.publish(BANK, EMBASSY)
    key = daemon.write_file("national.pub", KEY.public_text().encode())
    (tmp_path / "nginx").mkdir()
    with Nginx(registry.directory, tmp_path / "nginx", lab.gateway) as nginx:
        url = f"{nginx.url}/notification.jws?token=secret"
        source = {"name": "national", "url": url, "keys": [str(key)]}
        scope = ["ipsec", "l2tp", "udp/51900-51999"]
        daemon.configure(sources=[source], policy={"scope": scope}, registry={"refresh": "1h", "retry": "1h"})
        daemon.start()
        daemon.wait_ready()
        assert probe(lab, [of_bank(), of_embassy(), of_freelancer()]) == ["passed", "passed", "rejected"]

        registry.publish(BANK, FREELANCER)
        assert daemon.ask("sync").returncode == 0
        assert probe(lab, [of_bank(), of_embassy(), of_freelancer()]) == ["passed", "rejected", "passed"]

        before = len(nginx.asked())
        assert daemon.ask("sync").returncode == 0
        assert holds(lambda: len(nginx.asked()) > before)
        [again] = nginx.asked()[before:]
        assert (again.status, again.path) == (304, "/notification.jws?token=secret")
        assert again.etag.startswith('"')

        nginx.kill()
        assert daemon.ask("sync").returncode == 1
        assert daemon.get("/readyz") == {"ready": True}
        assert daemon.status()["sources"][0]["state"] == "failing"
        assert probe(lab, [of_bank(), of_embassy(), of_freelancer()]) == ["passed", "rejected", "passed"]

        registry.publish(BANK, FREELANCER, EMBASSY)
        nginx.start()
        assert daemon.ask("sync").returncode == 0
        assert daemon.status()["sources"][0]["serial"] == 3
        assert probe(lab, [of_bank(), of_embassy(), of_freelancer()]) == ["passed"] * 3
        assert holds(lambda: f"/{SESSION}/3/delta.ndjson.gz" in [each.path for each in nginx.asked()])
        snapshots = [each.path for each in nginx.asked() if "snapshot" in each.path]
        assert snapshots == [f"/{SESSION}/1/snapshot.ndjson.gz"]

        told = [daemon.log_text(), metrics(daemon), str(daemon.status()), str(daemon.explain(of_bank()))]
        assert f"{nginx.url}/notification.jws" in told[0]
        assert "secret" not in "".join(told)
