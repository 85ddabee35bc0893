"""A real daemon on a signed feed that misbehaves in every way, one after another, under registered traffic.

An hour of a registry's bad day, taken at the pace of `gatewayd sync`: after each misbehaviour what was in force
still is, and the daemon says what is wrong; after each recovery it follows the registry again.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, ELSEWHERE, EMBASSY, FAR, FREELANCER, SOFTWARE_HOUSE
from gatewayd.demo.lab import Lab
from gatewayd.demo.stream import Stream
from gatewayd.demo.traffic import flow_of, probe
from gatewayd.registry.notification import generate_key
from tests.support.feeds import KEY, Publisher, line_of
from tests.support.lab_daemon import LabDaemon, elements

pytestmark = pytest.mark.kernel

CAST = (BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER)
_ports = count(30000)


class _Files(BaseHTTPRequestHandler):
    """Serves `server.publisher.files`, unless `server.special` has something else for the kind of file."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        name = self.path.removeprefix("/feed/")
        kind = name.rpartition("/")[2].partition("-")[0].partition(".")[0]
        status, octets, promised, media_type = server.special.get(
            kind, (200, None, None, "application/octet-stream")
        )
        body = server.publisher.files.get(name, b"") if octets is None else octets
        if status == 200 and octets is None and name not in server.publisher.files:
            status = 404
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = promised is not None

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def registry_in(lab: Lab, publisher: Publisher) -> Iterator[Any]:
    with lab.gateway.entered():
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    server.publisher, server.special = publisher, {}
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def upsert(fields: dict[str, Any]) -> dict[str, object]:
    return {"op": "upsert", "registration": fields}


def publish_truncated(server: Any) -> None:
    """A snapshot of a new session that is not a whole gzip stream, its hash being right."""
    publisher = server.publisher
    publisher.begin_session("00000009-0000-4000-8000-000000000000")
    publisher.serial, publisher.issued_at = 1, publisher.issued_at + 1
    publisher.issue_file(gzip.compress(b"".join(map(line_of, publisher.records.values())))[:-9], 4)


def publish_bomb(server: Any) -> None:
    publisher = server.publisher
    publisher.begin_session("00000010-0000-4000-8000-000000000000")
    publisher.serial, publisher.issued_at = 1, publisher.issued_at + 1
    publisher.issue_file(gzip.compress(b" " * (96 << 20)), 4)


def say(
    kind: str, status: int, body: bytes, promised: int | None = None, media: str = "text/html"
) -> Callable[..., None]:
    def misbehave(server: Any) -> None:
        server.special[kind] = (status, body, promised, media)

    return misbehave


def edit(**changes: Any) -> Callable[..., None]:
    """The notification with these fields changed; a callable is given the publisher."""

    def misbehave(server: Any) -> None:
        now = {name: value(server.publisher) if callable(value) else value for name, value in changes.items()}
        server.publisher.edit(**now)

    return misbehave


def sign_with_another_key(server: Any) -> None:
    server.publisher.key = generate_key("national-1")
    server.publisher.edit(issued_at=server.publisher.issued_at + 1)
    server.publisher.key = KEY


MISBEHAVIOURS: dict[str, Callable[[Any], None]] = {
    "not found": say("notification", 404, b"gone"),
    "server error": say("notification", 503, b"busy"),
    "captive portal": say("notification", 200, b"<html>log in first</html>"),
    "cut within the notification": say("notification", 200, b"eyJ", 4000, "application/jose"),
    "nothing at all": say("notification", 200, b"", None, "application/jose"),
    "wrong key": sign_with_another_key,
    "issued in the future": edit(issued_at=lambda _: time.time() + 86400.0),
    "serial backwards": edit(serial=1, deltas=(), issued_at=lambda publisher: publisher.issued_at + 1),
    "issued before": edit(issued_at=lambda publisher: publisher.issued_at - 500),
    "truncated gzip": publish_truncated,
    "gzip bomb": publish_bomb,
}


def test_a_registry_that_misbehaves_in_every_way_takes_nothing_away(daemon: LabDaemon) -> None:
    lab = daemon.lab
    publisher = Publisher(issued_at=time.time() - 3600.0)
    publisher.publish(*(upsert(fields) for fields in CAST))
    key = daemon.write_file("national.pub", KEY.public_text().encode())
    with registry_in(lab, publisher) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/feed/notification.jws"
        daemon.configure(sources=[{"name": "national", "url": url, "keys": [str(key)]}])
        daemon.start()
        daemon.wait_ready()
        flows = [
            flow_of("39.32.64.10", ELSEWHERE, "udp/51820", next(_ports)),
            flow_of("39.32.0.5", FAR, "udp/4500", next(_ports)),
            flow_of("39.33.7.30", ELSEWHERE, "udp/1701", next(_ports)),
        ]
        with Stream(lab, flows, rate_pps=300) as stream:
            assert stream.wait_for_arrivals(30)
            for number, (name, misbehave) in enumerate(MISBEHAVIOURS.items()):
                extra = dict(FREELANCER, id=f"EXTRA-{number}", clients=[f"39.34.60.{number}/32"])
                publisher.publish(upsert(extra))
                assert daemon.ask("sync").returncode == 0, name
                before = elements(lab)
                saved = (publisher.session, publisher.serial, publisher.issued_at, publisher.deltas)
                misbehave(server)
                done = daemon.ask("sync")
                assert done.returncode == 1, f"{name}: {done.stdout}"
                assert daemon.get("/readyz") == {"ready": True}, name
                assert daemon.status()["sources"][0]["last_error"], name
                assert elements(lab) == before, name
                server.special.clear()
                publisher.session, publisher.serial, publisher.issued_at, publisher.deltas = saved
            publisher.publish(upsert(dict(EMBASSY, id="AFTER", clients=["39.33.8.0/27"])))
            done = daemon.ask("sync")
            assert done.returncode == 0, done.stdout
            fresh = flow_of("39.33.8.1", ELSEWHERE, "udp/1701", next(_ports))
            assert probe(lab, [fresh]) == ["passed"]
            assert stream.wait_for_arrivals(30)
        report = stream.report()
    assert report.lost == (), f"{len(report.lost)} of {report.sent} packets"
