"""A signed registry behind a real web server that can be told to misbehave.

`Publisher` makes the files; threads serve them, with ETag and 304, and with whatever is `special` instead. After
each misbehaviour `recover` makes a good registry of it again, with all it had before and one registration more.
"""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, Literal
from uuid import uuid4

from tests.support.feeds import Fields, Publisher, line_of, upsert

FRESH_S = 60.0
"""Of the registry's own time."""

Kind = Literal["notification", "snapshot", "delta"]
Manner = Literal["whole", "cut", "trickle", "stall"]


@dataclass(frozen=True)
class Special:
    """What is said in place of a file. `body` None: its own bytes. `manner`: `cut` loses the connection in the
    middle, `trickle` comes byte by byte, `stall` stops in the middle and keeps the connection."""

    status: int = 200
    body: bytes | None = None
    media_type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    manner: Manner = "whole"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        registry: BadRegistry = self.server.registry  # type: ignore[attr-defined]
        if registry.is_away:
            self.close_connection = True
            return
        registry.keep_fresh()
        name = self.path.removeprefix("/feed/")
        kind = name.rpartition("/")[2].partition("-")[0].partition(".")[0]
        registry.asked[kind] = registry.asked.get(kind, 0) + 1
        special = registry.special.get(kind, Special())
        raw = special.body if special.body is not None else registry.publisher.files.get(name)
        if raw is None:
            self._say(Special(404, b"no such file", "text/plain"), b"no such file")
            return
        etag = f'"{hashlib.sha256(raw).hexdigest()[:16]}"'
        if special == Special() and self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            self.end_headers()
            return
        self._say(special, raw, etag)

    def _say(self, special: Special, raw: bytes, etag: str = "") -> None:
        registry: BadRegistry = self.server.registry  # type: ignore[attr-defined]
        self.send_response(special.status)
        for name, value in {"Content-Type": special.media_type, "ETag": etag, **special.headers}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if special.manner == "whole":
            self.wfile.write(raw)
            return
        self.close_connection = True
        if special.manner == "trickle":
            for place in range(len(raw)):
                self.wfile.write(raw[place : place + 1])
                if registry.released.wait(registry.trickle_s):
                    break
            return
        self.wfile.write(raw[: len(raw) // 2])
        if special.manner == "stall":
            registry.released.wait()

    def log_message(self, *_: Any) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: BadRegistry, port: int) -> None:
        self.registry = registry
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: Any) -> None:
        """A client that goes away in the middle is what these tests are about."""


class BadRegistry:
    """`special`: by the kind of file. `asked`: how many requests, by kind. `trickle_s`: host's seconds between two
    bytes. `inside`: the network namespace to listen in. `now`: the clock of what is signed."""

    def __init__(
        self,
        publisher: Publisher,
        now: Callable[[], float],
        *,
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
        trickle_s: float = 0.02,
    ) -> None:
        self.publisher = publisher
        self.now = now
        self.special: dict[Kind | str, Special] = {}
        self.asked: dict[str, int] = {}
        self.trickle_s = trickle_s
        self.released = Event()
        self.is_away = False
        self._inside = inside
        self._port = 0
        self._numbers = iter(range(1, 1 << 16))
        self._good: dict[str, Any] | None = None
        self._signing = Lock()
        self.come_back()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/feed/notification.jws"

    def go_away(self) -> None:
        """No connection is taken any more, and none that there was is answered."""
        self.is_away = True
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def come_back(self) -> None:
        """At the same port."""
        self.is_away = False
        self.released = Event()
        with self._inside():
            self._server = _Server(self, self._port)
        self._port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    # -- what is published ---------------------------------------------------------------------------------

    def publish(self, *operations: Fields) -> None:
        """The next serial, issued now."""
        self.publisher.issued_at = self.now() - 1.0
        self.publisher.publish(*operations)

    def publish_anew(self, lines: list[bytes] | None = None, count: int | None = None) -> None:
        """The first serial of another session. `lines`: the snapshot, if not the records."""
        publisher = self.publisher
        publisher.begin_session(str(uuid4()))
        publisher.serial, publisher.issued_at = 1, self.now()
        lines = [line_of(each) for each in publisher.records.values()] if lines is None else lines
        publisher.issue(b"".join(lines), len(lines) if count is None else count)

    def publish_anew_as(self, raw: bytes) -> None:
        """As `publish_anew`, with these bytes as the file of the snapshot, rightly hashed."""
        self.publish_anew()
        self.publisher.issue_file(raw, len(self.publisher.records))

    def publish_delta_as(self, raw: bytes) -> None:
        """The next serial, its delta being these bytes, rightly hashed; the snapshot is good."""
        self.publish()
        self.publisher.deltas.pop()
        self.publisher.put_delta(raw)
        self.publisher.edit(deltas=tuple(self.publisher.deltas))

    def lines_with(self, id: str, line: bytes) -> list[bytes]:
        """The snapshot's lines, with another for this id."""
        return [line if name == id else line_of(fields) for name, fields in self.publisher.records.items()]

    def spoil(self, path: str) -> None:
        """One byte in the middle of a file is another."""
        raw = self.publisher.files[path]
        middle = len(raw) // 2
        self.publisher.files[path] = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]

    def keep_fresh(self) -> None:
        """As a registry does from a timer: what has not changed is signed again now and then. While it is good."""
        with self._signing:
            if self._good is None and self.now() > self.publisher.notification.issued_at + FRESH_S:
                self.publisher.issued_at = self.now()
                self.publisher.edit(issued_at=self.publisher.issued_at)

    def remember(self) -> None:
        """This is the good state; what comes now, until `recover`, is not."""
        publisher = self.publisher
        with self._signing:
            self._good = {
                "session": publisher.session,
                "serial": publisher.serial,
                "deltas": list(publisher.deltas),
                "records": dict(publisher.records),
            }

    def recover(self, *, was_followed: bool) -> str:
        """A good registry again: its next serial has one registration more, whose id is returned.

        `was_followed`: gateways took what was published meanwhile; what it lacked is put right from there on.
        """
        publisher, good = self.publisher, self._good
        assert good is not None
        self.special.clear()
        self.released.set()
        self.released = Event()
        if not was_followed:
            publisher.session, publisher.serial = good["session"], good["serial"]
            publisher.deltas = list(good["deltas"])
        publisher.records = {**(publisher.records if was_followed else {}), **good["records"]}
        number = next(self._numbers)
        extra = dict(upsert(f"EXTRA-{number}", f"39.34.{128 + number // 256}.{number % 256}/32", category="bpo"))
        again = [{"op": "upsert", "registration": fields} for fields in good["records"].values()]
        self.publish(*(again if was_followed else ()), extra)
        self._good = None
        return f"EXTRA-{number}"


@contextmanager
def bad_registry(
    publisher: Publisher, now: Callable[[], float] = time.time, **options: Any
) -> Iterator[BadRegistry]:
    registry = BadRegistry(publisher, now, **options)
    try:
        yield registry
    finally:
        if not registry.is_away:
            registry.go_away()


def packed(*lines: bytes) -> bytes:
    return gzip.compress(b"".join(lines), mtime=0)
