"""A signed feed in memory: a publisher that is as simple as can be, and a way to run a client against it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import msgspec

from gatewayd.errors import FeedRefused, TransferFailed
from gatewayd.feed.canonical import LineWriter, upsert_line, withdraw_line
from gatewayd.feed.notification import (
    DeltaRef,
    Notification,
    SigningKey,
    SnapshotRef,
    generate_key,
    load_verifying_keys,
    sign_notification,
)
from gatewayd.feed.reading import Rejection
from gatewayd.feed.record import registration_of
from gatewayd.model import Registration
from gatewayd.model.registration import Changes, run_slices
from gatewayd.sources.client import FeedClient, Outcome
from gatewayd.sources.client_plan import FeedRequest
from gatewayd.sources.update import FeedPosition, SnapshotReason, SourceUpdate

ORIGIN = "https://registry.example"
URL = f"{ORIGIN}/feed/notification.jws"
SESSIONS = tuple(f"{number:08x}-0000-4000-8000-000000000000" for number in range(1, 9))
KEY = generate_key("national-1")
KEYS = load_verifying_keys([KEY.public_text()])
NOW = 1_750_000_000.0

Fields = dict[str, object]


def fields_of(id: str, client: str = "203.0.113.0/28", **others: Any) -> Fields:
    return {"id": id, "category": "bank", "status": "active", "clients": [client], **others}


def line_of(fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def upsert(id: str, client: str = "203.0.113.0/28", **others: Any) -> Fields:
    return {"op": "upsert", "registration": fields_of(id, client, **others)}


def withdraw(id: str) -> Fields:
    return {"op": "withdraw", "id": id}


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@dataclass
class Publisher:
    """`records` is the registry. `files`: path → bytes as served; `edit` changes a notification before signing."""

    session: str = SESSIONS[0]
    serial: int = 0
    issued_at: float = NOW - 1000.0
    key: SigningKey = KEY
    max_deltas: int = 100
    intervals: tuple[int, int, int] = (60, 10, 604800)
    records: dict[str, Fields] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    deltas: list[DeltaRef] = field(default_factory=list)
    notification: Notification = field(init=False)

    def publish(self, *operations: Fields) -> Notification:
        """The next serial."""
        for operation in operations:
            if operation["op"] == "upsert":
                registration = operation["registration"]
                assert isinstance(registration, dict)
                self.records[registration["id"]] = registration
            else:
                self.records.pop(str(operation["id"]), None)
        return self.publish_lines(b"".join(map(line_of, operations)))

    def publish_lines(self, delta: bytes) -> Notification:
        """The next serial, with this as the plain content of its delta."""
        self.serial += 1
        self.issued_at += 1.0
        if self.serial > 1:
            self.put_delta(gzip.compress(delta, mtime=0))
        return self.issue(b"".join(map(line_of, self.records.values())), len(self.records))

    def put_delta(self, raw: bytes) -> DeltaRef:
        path = f"delta-{self.serial}.gz"
        self.files[path] = raw
        ref = DeltaRef(self.serial, path, sha256(raw), len(raw))
        self.deltas = [*self.deltas, ref][-self.max_deltas :]
        return ref

    def issue(self, snapshot: bytes, count: int) -> Notification:
        """The notification of the present serial over this plain snapshot."""
        return self.issue_file(gzip.compress(snapshot, mtime=0), count)

    def issue_file(self, raw: bytes, count: int) -> Notification:
        path = f"{self.session}/snapshot-{self.serial}.gz"
        self.files[path] = raw
        ref = SnapshotRef(path, sha256(raw), len(raw), count)
        refresh, retry, expire = self.intervals
        self.sign(
            Notification(self.session, self.serial, self.issued_at, refresh, retry, expire, ref, tuple(self.deltas))
        )
        return self.notification

    def edit(self, **changes: Any) -> None:
        """The notification with these fields changed, signed again."""
        self.sign(msgspec.structs.replace(self.notification, **changes))

    def sign(self, notification: Notification) -> None:
        self.notification = notification
        self.files["notification.jws"] = sign_notification(notification, self.key)

    def begin_session(self, session: str) -> None:
        self.session, self.serial, self.deltas = session, 0, []

    def registrations(self) -> dict[str, Registration]:
        """What a gateway should hold."""
        return {id: registration_of(fields) for id, fields in self.records.items()}


@dataclass
class Answer:
    """`body` None: the request comes to nothing. `is_cut`: the connection is lost after `body`."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = b""
    is_cut: bool = False


Serve = Callable[[FeedRequest], Answer]


def serve(publisher: Publisher, **special: Answer) -> Serve:
    """A web server. `special`: what it answers instead, by the kind of file."""

    def answer(request: FeedRequest) -> Answer:
        if request.kind in special:
            return special[request.kind]
        raw = publisher.files.get(request.url.removeprefix(f"{ORIGIN}/feed/"))
        if raw is None:
            return Answer(404, {"content-type": "text/html"})
        etag = f'"{sha256(raw)[:16]}"'
        if request.headers.get("if-none-match") == etag:
            return Answer(304)
        return Answer(200, {"etag": etag, "content-length": str(len(raw))}, raw)

    return answer


def attempt(
    client: FeedClient, answers: Serve, now: float = NOW, chunk_bytes: int = 1000
) -> tuple[Outcome, list[str]]:
    """One attempt: its outcome and what was asked for."""
    asked = []
    client.begin()
    while (request := client.next_request()) is not None:
        asked.append(str(request))
        answer = answers(request)
        if answer.body is None:
            client.on_failure(TransferFailed(str(request), "no answer in time"))
            continue
        client.on_response(answer.status, answer.headers, now)
        for start in range(0, len(answer.body), chunk_bytes):
            if client.is_reading:
                run_slices(client.on_chunk(answer.body[start : start + chunk_bytes]))
        if client.is_reading and answer.is_cut:
            client.on_failure(TransferFailed(str(request), "the body was cut short"))
        elif client.is_reading:
            run_slices(client.on_end(now))
    assert client.outcome is not None
    return client.outcome, asked


class Snapshot(Protocol):
    """An update with all of a feed."""

    @property
    def registrations(self) -> Mapping[str, Registration]: ...
    @property
    def position(self) -> FeedPosition: ...
    @property
    def reason(self) -> SnapshotReason: ...
    @property
    def rejected(self) -> Mapping[str, int]: ...
    @property
    def rejections(self) -> tuple[Rejection, ...]: ...


class Delta(Protocol):
    """An update with what changed."""

    @property
    def registrations(self) -> Mapping[str, Registration]: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def before(self) -> FeedPosition: ...
    @property
    def position(self) -> FeedPosition: ...
    @property
    def rejected(self) -> Mapping[str, int]: ...
    @property
    def rejections(self) -> tuple[Rejection, ...]: ...


def is_snapshot(outcome: Outcome | None) -> TypeGuard[Snapshot]:
    """The feed was read whole."""
    return isinstance(outcome, SourceUpdate) and outcome.registrations is not None and outcome.changes is None


def is_delta(outcome: Outcome | None) -> TypeGuard[Delta]:
    """A chain of deltas was read, and its last serial is another."""
    return isinstance(outcome, SourceUpdate) and outcome.changes is not None and not is_reissued(outcome)


def is_reissued(outcome: Outcome | None) -> TypeGuard[Delta]:
    """The notification is another, and its content is not."""
    if not isinstance(outcome, SourceUpdate) or outcome.before is None or outcome.position is None:
        return False
    return outcome.before.serial == outcome.position.serial


def is_unchanged(outcome: Outcome) -> TypeGuard[SourceUpdate]:
    """The feed has nothing else than before."""
    return is_reissued(outcome) or (isinstance(outcome, SourceUpdate) and outcome.registrations is None)


def kind_of(outcome: Outcome) -> str:
    if isinstance(outcome, FeedRefused):
        return "refused"
    return "unchanged" if is_unchanged(outcome) else "delta" if is_delta(outcome) else "snapshot"


def encode_delta(upserts: Iterable[Registration], withdrawals: Iterable[str]) -> bytes:
    """A delta as a feed has it."""
    lines = [upsert_line(record) for record in LineWriter().lines(upserts)]
    lines += [withdraw_line(id) for id in withdrawals]
    return gzip.compress("\n".join([*lines, ""]).encode(), 1, mtime=0)
