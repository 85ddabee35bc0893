"""The registry of the demo: the reference registry's database and feed, and its web server on the lab's internet.

What is done to it is what its operator would do by `gatewayd registry`: change, publish, serve.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from gatewayd.authority.database import Action, Applied, RegistryDatabase
from gatewayd.authority.importing import FileImport, with_status, written_record
from gatewayd.authority.layout import NOTIFICATION
from gatewayd.authority.publishing import PublishOptions, PublishReport, publish
from gatewayd.errors import MissingPrerequisite
from gatewayd.feed.notification import Notification, generate_key, sign_notification
from gatewayd.lab.lab import OUTSIDE, Lab
from gatewayd.lab.world import encode_ndjson

ACTOR: Final = "registrar"
"""Who changes the registry, as its audit says."""
KID: Final = "demo"
_PORT: Final = 8080


class DemoRegistry:
    """Keeps all its files in `directory`, under the names that `gatewayd registry` expects in the current one.

    What is published is served on the lab's internet: the gateway reaches it over the wire, as it would a real
    one. The server ends with the lab.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._namespace = lab.internet
        self.directory = directory
        self._log_path = directory / "registry.log"
        self._file = directory / "registrations.ndjson"
        self.database_path = directory / "registry.db"
        self.feed_path = directory / "feed"
        self.private_key_path = directory / "national"
        self.public_key_path = directory / "national.pub"
        self.listen = f"{OUTSIDE.end_addresses[4]}:{_PORT}"
        self.url = f"http://{self.listen}/{NOTIFICATION}"
        self._key = generate_key(KID)
        self.private_key_path.touch(0o600)
        self.private_key_path.write_text(self._key.private_text())
        self.public_key_path.write_text(self._key.public_text())
        self._published: Notification | None = None
        self._server: subprocess.Popen[bytes] | None = None

    # -- changes -------------------------------------------------------------------------------------------

    def replace_all(self, records: Iterable[Any]) -> Applied:
        """`registry import --replace`: what is not among `records` is withdrawn."""
        self._file.write_bytes(encode_ndjson(records))
        with RegistryDatabase(self.database_path) as database:
            report = FileImport(self._file).store(database, at_s=time.time(), actor=ACTOR, replace=True)
        return report.applied

    def upsert(self, record: dict[str, Any]) -> None:
        """`registry upsert`."""
        self._store(written_record(msgspec.json.encode(record)), "upsert")

    def revoke(self, id: str) -> None:
        """`registry revoke`. The registration must be there."""
        with RegistryDatabase(self.database_path) as database:
            record = database.record_of(id)
        assert record is not None
        self._store((id, with_status(record, "revoked")), "revoke")

    def _store(self, pair: tuple[str, str], action: Action) -> None:
        with RegistryDatabase(self.database_path) as database:
            database.apply([pair], at_s=time.time(), action=action, actor=ACTOR, reactivates=True)

    def audit(self, id: str) -> list[str]:
        """What was done to a registration, the latest last."""
        with RegistryDatabase(self.database_path) as database:
            return [f"{row.action} by {row.actor}" for row in reversed(database.history(id))]

    # -- the feed ------------------------------------------------------------------------------------------

    def publish(self) -> PublishReport:
        """`registry publish`: the changes since the last time are a new serial, and a delta."""
        with RegistryDatabase(self.database_path) as database:
            report = publish(
                database,
                self.feed_path,
                self._key,
                PublishOptions(),
                now=time.time(),
                fresh_session=str(uuid.uuid4()),
            )
        self._published = report.notification
        return report

    @contextmanager
    def forged(self) -> Iterator[None]:
        """Inside, the next serial is announced by somebody with another key of the same name."""
        assert self._published is not None
        forged = msgspec.structs.replace(
            self._published, serial=self._published.serial + 1, issued_at=self._published.issued_at + 0.001
        )
        path = self.feed_path / NOTIFICATION
        genuine = path.read_bytes()
        _replace(path, sign_notification(forged, generate_key(KID)))
        try:
            yield
        finally:
            _replace(path, genuine)

    # -- the server ----------------------------------------------------------------------------------------

    def serve(self) -> None:
        """`registry serve`, until `stop_serving`. Listens when this returns. Raises MissingPrerequisite."""
        with self._log_path.open("ab") as log:
            self._server = self._namespace.popen(
                [
                    *(sys.executable, "-m", "gatewayd", "registry", "serve"),
                    *("--directory", str(self.feed_path), "--listen", self.listen),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        assert self._server.stdout is not None
        if not self._server.stdout.readline():  # it says where, once it listens
            raise MissingPrerequisite(f"the registry cannot be served at {self.listen}", f"see {self._log_path}")

    def stop_serving(self) -> None:
        """As a host that is gone: nobody is told."""
        assert self._server is not None
        self._server.kill()
        self._server.communicate()


def _replace(path: Path, raw: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(raw)
    fresh.replace(path)
