"""A published feed behind a web server in a process of its own, for the rows that read one."""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.bench.material import packed_snapshot
from tests.support.feeds import KEY, Publisher

NOTIFICATION = "notification.jws"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Head and body are two writes; the second would wait for a delayed acknowledgement."""

    def send_header(self, keyword: str, value: str) -> None:
        """No Last-Modified: of files published several times a second it says nothing."""
        if keyword != "Last-Modified":
            super().send_header(keyword, value)

    def log_message(self, *_: Any) -> None: ...


class Registry:
    """`url`: of the notification. `key_file`: the public key to trust."""

    def __init__(self, material: Path, directory: Path, size: int) -> None:
        self.directory = directory / "feed"
        self.key_file = directory / "registry.pub"
        self.key_file.write_text(KEY.public_text())
        self._publisher = Publisher(serial=1, issued_at=time.time() - 60.0)
        self._publisher.issue_file(packed_snapshot(material, size).read_bytes(), size)
        self._write()
        self.url = ""

    def publish(self, *operations: dict[str, object]) -> int:
        """One more serial, with a delta; the snapshot stays that of the first serial, which a bench never asks for
        again. Returns the serial."""
        publisher = self._publisher
        snapshot = publisher.notification.snapshot
        publisher.records = {}
        publisher.publish(*operations)
        publisher.edit(snapshot=snapshot)
        self._write()
        return publisher.serial

    def _write(self) -> None:
        files = self._publisher.files
        for name in [*(each for each in files if each != NOTIFICATION), NOTIFICATION]:
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(files[name])
            fresh.replace(path)
        files.clear()


@contextmanager
def served(registry: Registry) -> Iterator[Registry]:
    """The registry on loopback of the present network namespace."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(registry.directory, theirs), daemon=True)
    server.start()
    try:
        registry.url = f"http://127.0.0.1:{ours.recv()}/{NOTIFICATION}"
        yield registry
    finally:
        server.terminate()
        server.join()


def _serve(directory: Path, told: Connection) -> None:
    handler = functools.partial(_Handler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        told.send(server.server_address[1])
        server.serve_forever()
