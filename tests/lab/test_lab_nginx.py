"""A published directory behind Debian's nginx, with nothing configured but the directory."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from gatewayd.registry.authoring.canonical import Canonicaliser
from gatewayd.registry.authoring.database import RegistryDatabase
from gatewayd.registry.authoring.publishing import PublishOptions, publish
from gatewayd.registry.notification import (
    DeltaRef,
    Notification,
    SnapshotRef,
    generate_key,
    load_verifying_keys,
    open_notification,
)
from gatewayd.registry.record import parse_record

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
KEY = generate_key("national-2026")
SESSION = "0b0f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69"
NOW = 1_700_000_000.0
CONFIG = """
{user} worker_processes 1; daemon off; pid {prefix}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {prefix}/t1; proxy_temp_path {prefix}/t2; fastcgi_temp_path {prefix}/t3;
    uwsgi_temp_path {prefix}/t4; scgi_temp_path {prefix}/t5;
    include /etc/nginx/mime.types;
    gzip on;
    server {{ listen 127.0.0.1:{port}; root {directory}; }}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")


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
    """The origin of an nginx that was given its listening socket, so it can be asked before it has started."""
    prefix = tmp_path_factory.mktemp("nginx")
    assert NGINX is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = prefix / "nginx.conf"
        # Of root its workers would become another user, who cannot enter pytest's directories.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(CONFIG.format(prefix=prefix, port=port, directory=directory, user=user))
        command = [NGINX, "-e", "stderr", "-p", str(prefix), "-c", str(config)]
        environment = {**os.environ, "NGINX": f"{listener.fileno()};"}
        with (prefix / "stderr").open("wb") as stderr:
            server = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stderr=stderr)
    try:
        yield f"http://127.0.0.1:{port}"
        assert server.poll() is None, (prefix / "stderr").read_text()
    finally:
        server.terminate()
        server.wait(10)


async def fetch(url: str, path: str, **headers: str) -> tuple[int, bytes, str]:
    """Status, body and ETag. As a gateway asks: gzip is welcome, and nothing is undone on the way."""
    async with (
        aiohttp.ClientSession(url, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=10)) as client,
        client.get(f"/{path}", headers={"Accept-Encoding": "gzip", **headers}) as answer,
    ):
        return answer.status, await answer.read(), answer.headers.get("ETag", "")


async def served(url: str) -> Notification:
    status, octets, _ = await fetch(url, "notification.jws", **{"Accept-Encoding": "identity"})
    assert status == 200
    return open_notification(octets, load_verifying_keys([KEY.public_text()]))


async def lines(url: str, ref: SnapshotRef | DeltaRef) -> list[bytes]:
    status, octets, _ = await fetch(url, ref.url)
    assert (status, len(octets), hashlib.sha256(octets).hexdigest()) == (200, ref.size, ref.sha256)
    return gzip.decompress(octets).splitlines()


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
    status, octets, _ = await fetch(url, snapshot.url, Range="bytes=100-")
    assert (status, octets) == (206, (directory / snapshot.url).read_bytes()[100:])
