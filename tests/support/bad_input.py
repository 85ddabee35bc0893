"""What registries and networks have sent that no gateway should fall for: a table, by the requirement's names.

Each line is tried twice: on client, owner, store and a kernel in memory (`tests/contract/test_bad_input_feed.py`),
and in an hour of a real daemon's life (`tests/lab/test_lab_feed_hour.py`).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from gatewayd.demo.cast import CAST, FREELANCER
from gatewayd.feed.notification import generate_key
from gatewayd.sources.update import SnapshotReason
from tests.support.bad_registry import BadRegistry, Special, packed
from tests.support.feeds import Fields, Publisher, fields_of, line_of, upsert, withdraw

NAMES = (
    "404", "5xx", "connection cut mid-body", "slow body", "wrong content type",
    "HTML captive portal instead of JSON", "truncated gzip", "gzip bomb", "hash mismatch", "wrong key",
    "expired `issued_at`", "future `issued_at`", "serial backwards", "session change", "missing delta",
    "delta that withdraws an unknown id", "duplicate ids", "an empty snapshot", "a snapshot of half the size",
    "a record with identity fields", "10 MB line", "NUL bytes", "wrong encoding", "disk full",
    "directory not writable",
)  # fmt: skip
"""Word for word, and in the order of the requirement."""

MAX_BYTES = 16 << 20
"""Of a source in these tests: more than a line of 10 MB, less than a bomb."""
LONG_LINE_BYTES = 10 << 20
BOMB = gzip.compress(b" " * (64 << 20), mtime=0)
VICTIM = FREELANCER["id"]
"""Of no protected category: nobody but the reader of its record stands between it and its removal."""


class Disk(Protocol):
    """What the last good is written to."""

    def fill(self) -> None: ...
    def make_read_only(self) -> None: ...
    def mend(self) -> None: ...


class World(Protocol):
    @property
    def registry(self) -> BadRegistry: ...
    @property
    def disk(self) -> Disk: ...


@dataclass(frozen=True)
class BadInput:
    """One misbehaviour. `error`: what the status says of the source then; empty where the registry is followed in
    spite of it. `reason`: why a snapshot is taken, `rejected`: reason code of a record that is not, `is_held`: the
    guard holds removals, `store_error`: what the status says of the disk."""

    name: str
    misbehave: Callable[[World], None]
    error: str = ""
    variant: str = ""
    reason: SnapshotReason | None = None
    rejected: str = ""
    is_held: bool = False
    store_error: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.variant})" if self.variant else self.name


def check_complete(tried: Iterable[str], expected: Iterable[str] = NAMES) -> None:
    """AssertionError names what is missing and what nobody asked for."""
    assert set(tried) == set(expected)


def register() -> dict[str, Fields]:
    """The demo's cast, and a dozen that nobody protects."""
    others = [fields_of(f"PK-{number}", f"39.36.0.{16 * number}/28", category="bpo") for number in range(12)]
    return {str(fields["id"]): fields for fields in [*CAST, *others]}


def published_register(now: float) -> Publisher:
    """Three serials, the last issued `now`."""
    publisher = Publisher(issued_at=now - 3.0)
    operations: list[Fields] = [{"op": "upsert", "registration": fields} for fields in register().values()]
    publisher.publish(*operations)
    for number in (1, 2):
        publisher.publish(upsert(f"EARLY-{number}", f"39.36.1.{number}/32", category="bpo"))
    return publisher


# -- how to misbehave ------------------------------------------------------------------------------------------


def say(kind: str, special: Special) -> Callable[[World], None]:
    """About the notification, or about a file that there is a new reason to ask for."""

    def misbehave(world: World) -> None:
        if kind == "snapshot":
            world.registry.publish_anew()
        elif kind == "delta":
            world.registry.publish()
        world.registry.special[kind] = special

    return misbehave


def content(kind: str, raw: bytes) -> Callable[[World], None]:
    """The file is these bytes, and is said to be."""

    def misbehave(world: World) -> None:
        registry = world.registry
        (registry.publish_anew_as if kind == "snapshot" else registry.publish_delta_as)(raw)

    return misbehave


def victims_line(damage: Callable[[bytes], bytes]) -> Callable[[World], None]:
    """A snapshot in which one record of many has come to harm."""

    def misbehave(world: World) -> None:
        registry = world.registry
        line = line_of(registry.publisher.records[VICTIM])
        registry.publish_anew(registry.lines_with(VICTIM, damage(line)))

    return misbehave


def edit(change: Callable[[BadRegistry], dict[str, object]]) -> Callable[[World], None]:
    """The notification signed again with some fields changed."""

    def misbehave(world: World) -> None:
        world.registry.publisher.edit(**change(world.registry))

    return misbehave


def _say_html(world: World) -> None:
    special = Special(media_type="text/html")
    world.registry.publish()
    world.registry.special["notification"] = special


def _truncate_snapshot(world: World) -> None:
    lines = map(line_of, world.registry.publisher.records.values())
    world.registry.publish_anew_as(packed(*lines)[:-9])


def _spoil_snapshot(world: World) -> None:
    world.registry.publish_anew()
    world.registry.spoil(world.registry.publisher.notification.snapshot.url)


def _spoil_delta(world: World) -> None:
    world.registry.publish(upsert("NEXT", "39.36.2.1/32", category="bpo"))
    world.registry.spoil(world.registry.publisher.deltas[-1].url)


def _sign_otherwise(kid: str) -> Callable[[World], None]:
    def misbehave(world: World) -> None:
        publisher = world.registry.publisher
        good, publisher.key = publisher.key, generate_key(kid)
        publisher.edit(issued_at=world.registry.now())
        publisher.key = good

    return misbehave


def _begin_in_the_past(world: World) -> None:
    world.registry.publish_anew()
    world.registry.publisher.edit(issued_at=world.registry.now() - 250.0)


def _lose_delta(world: World) -> None:
    world.registry.publish(upsert("NEXT", "39.36.2.2/32", category="bpo"))
    del world.registry.publisher.files[world.registry.publisher.deltas[-1].url]


def _list_no_deltas(world: World) -> None:
    world.registry.publish(upsert("NEXT", "39.36.2.3/32", category="bpo"))
    world.registry.publisher.deltas.clear()
    world.registry.publisher.edit(deltas=())


def _repeat_everything(world: World) -> None:
    """Every id twice, the second time with other prefixes."""
    records = world.registry.publisher.records
    others = [dict(fields, clients=["39.47.0.0/24"]) for fields in records.values()]
    world.registry.publish_anew([*map(line_of, records.values()), *map(line_of, others)])


def _halve(world: World) -> None:
    """The cast is gone, and every other of the rest."""
    records = world.registry.publisher.records
    left = [id for id in records if not id.startswith("DEMO-")][::2]
    world.registry.publisher.records = {id: records[id] for id in left}
    world.registry.publish_anew()


def _name_somebody(world: World) -> None:
    world.registry.publish({"op": "upsert", "registration": dict(FREELANCER, cnic="42101-1234567-1")})


def _withdraw_nobody(world: World) -> None:
    world.registry.publisher.issued_at = world.registry.now() - 1.0
    world.registry.publisher.publish_lines(line_of(withdraw("NOBODY")))


def _fill_disk(world: World) -> None:
    world.disk.fill()
    world.registry.publish_anew()


def _fill_disk_for_delta(world: World) -> None:
    world.disk.fill()
    world.registry.publish(upsert("NEXT", "39.36.2.4/32", category="bpo"))


def _forbid_writing(world: World) -> None:
    world.disk.make_read_only()
    world.registry.publish_anew()


def _forbid_writing_delta(world: World) -> None:
    world.disk.make_read_only()
    world.registry.publish(upsert("NEXT", "39.36.2.5/32", category="bpo"))


def _overlong(line: bytes) -> bytes:
    return line[:-2] + b', "padding": "' + b"x" * LONG_LINE_BYTES + b'"}\n'


def _identified(line: bytes) -> bytes:
    return json.dumps({**json.loads(line), "name": "A. Person", "msisdn": "+923001234567"}).encode() + b"\n"


_LONG_DELTA = packed(line_of({"op": "upsert", "registration": fields_of("x"), "padding": "x" * LONG_LINE_BYTES}))
_UTF16 = gzip.compress("".join(json.dumps(each) + "\n" for each in register().values()).encode("utf-16"), mtime=0)
_PORTAL = b"<!DOCTYPE html><html><body>Please log in to continue</body></html>"
_CUT = Special(manner="cut")
_NO_FILE = Special(404, b"<html>gone</html>", "text/html")
_NO_SPACE, _READ_ONLY = "database or disk is full", "Read-only file system"
_READ_ONLY_FILE = "attempt to write a readonly database"

BAD_INPUTS = (
    BadInput("404", say("notification", _NO_FILE), "HTTP status 404"),
    BadInput("404", say("snapshot", _NO_FILE), "snapshot: HTTP status 404", "of the snapshot"),
    BadInput("5xx", say("notification", Special(503, b"busy")), "HTTP status 503"),
    BadInput("5xx", say("delta", Special(502, b"bad gateway")), "HTTP status 502", "of a delta"),
    BadInput("connection cut mid-body", say("notification", _CUT), "the body was cut short"),
    BadInput("connection cut mid-body", say("snapshot", _CUT), "snapshot: the body was cut", "of the snapshot"),
    BadInput("connection cut mid-body", say("delta", _CUT), "the body was cut short", "of a delta"),
    BadInput("slow body", say("notification", Special(manner="trickle")), "notification: no answer in time"),
    BadInput("slow body", say("snapshot", Special(manner="stall")), "snapshot: no answer in time", "that stops"),
    BadInput("wrong content type", _say_html, "a page for people"),
    BadInput(
        "HTML captive portal instead of JSON",
        say("notification", Special(200, _PORTAL, "application/json")),
        "the server sends markup",
    ),
    BadInput("truncated gzip", _truncate_snapshot, "snapshot: its gzip has no end"),
    BadInput(
        "truncated gzip",
        content("delta", packed(line_of(withdraw(VICTIM)))[:-9]),
        variant="of a delta",
        reason="delta_damaged",
    ),
    BadInput("gzip bomb", content("snapshot", BOMB), f"snapshot: more than {MAX_BYTES} bytes"),
    BadInput("gzip bomb", content("delta", BOMB), variant="of a delta", reason="delta_damaged"),
    BadInput("hash mismatch", _spoil_snapshot, "snapshot: sha256"),
    BadInput("hash mismatch", _spoil_delta, variant="of a delta", reason="delta_digest"),
    BadInput("wrong key", _sign_otherwise("national-1"), "the signature is not of key"),
    BadInput("wrong key", _sign_otherwise("somebody-1"), "signed with key 'somebody-1'", "of another name"),
    BadInput(
        "expired `issued_at`",
        edit(lambda it: {"issued_at": it.now() - it.publisher.intervals[2] - 60.0}),
        "and good for",
    ),
    BadInput(
        "future `issued_at`", edit(lambda it: {"issued_at": it.now() + 86400.0}), "ahead of this host's clock"
    ),
    BadInput(
        "serial backwards",
        edit(lambda it: {"serial": 1, "deltas": (), "issued_at": it.now()}),
        "notification: serial 1 after",
    ),
    BadInput("session change", lambda world: world.registry.publish_anew(), reason="new_session"),
    BadInput("session change", _begin_in_the_past, "before the one that is in force", "to one begun in the past"),
    BadInput("missing delta", _lose_delta, reason="delta_missing"),
    BadInput("missing delta", _list_no_deltas, variant="that is not listed either", reason="serial_gap"),
    BadInput("delta that withdraws an unknown id", _withdraw_nobody, reason="delta_conflict"),
    BadInput("duplicate ids", _repeat_everything, reason="new_session", rejected="duplicate_id"),
    BadInput("an empty snapshot", lambda world: world.registry.publish_anew([]), "snapshot: is empty"),
    BadInput("a snapshot of half the size", _halve, reason="new_session", is_held=True),
    BadInput("a record with identity fields", _name_somebody, rejected="identity_field"),
    BadInput(
        "a record with identity fields",
        victims_line(_identified),
        variant="in the snapshot",
        reason="new_session",
        rejected="identity_field",
    ),
    BadInput("10 MB line", victims_line(_overlong), reason="new_session", rejected="line_too_long"),
    BadInput("10 MB line", content("delta", _LONG_DELTA), variant="in a delta", reason="delta_malformed"),
    BadInput(
        "10 MB line",
        say("notification", Special(200, b"x" * LONG_LINE_BYTES)),
        "notification: more than 1048576 bytes",
        "as the notification",
    ),
    BadInput(
        "NUL bytes",
        victims_line(lambda line: line.replace(b"freelancer", b"free\0lancer")),
        reason="new_session",
        rejected="nul_byte",
    ),
    BadInput("NUL bytes", say("notification", Special(200, bytes(4096))), "not a compact JWS", "and nothing else"),
    BadInput(
        "wrong encoding",
        victims_line(lambda line: line.replace(b"freelancer", "indépendant".encode("latin-1"))),
        reason="new_session",
        rejected="not_utf8",
    ),
    BadInput("wrong encoding", content("snapshot", _UTF16), "snapshot:", "UTF-16"),
    BadInput(
        "wrong encoding",
        say("notification", Special(headers={"Content-Encoding": "br"})),
        "a content encoding that was not asked for",
        "Content-Encoding",
    ),
    BadInput("disk full", _fill_disk, reason="new_session", store_error=_NO_SPACE),
    BadInput("disk full", _fill_disk_for_delta, variant="for a delta", store_error=_NO_SPACE),
    BadInput("directory not writable", _forbid_writing, reason="new_session", store_error=_READ_ONLY),
    BadInput("directory not writable", _forbid_writing_delta, variant="for a delta", store_error=_READ_ONLY_FILE),
)
