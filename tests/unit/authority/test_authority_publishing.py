from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.authority.database import Publication, RegistryDatabase
from gatewayd.authority.disk import Disk, locked
from gatewayd.authority.publishing import PublishOptions, PublishReport, publish
from gatewayd.errors import RegistryUnusable
from gatewayd.feed.notification import Notification, generate_key, load_verifying_keys, open_notification
from gatewayd.sources.client import FeedClient
from gatewayd.sources.client_plan import FeedRequest
from tests.support.feeds import ORIGIN, Answer, attempt, kind_of

KEY = generate_key("national-2026")
KEYS = load_verifying_keys([KEY.public_text()])
SESSION, OTHER = "0b0f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69", "1c1f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69"
NOW = 1_700_000_000.0


def record(id: str, host: int = 0) -> str:
    return f'{{"id":"{id}","category":"bank","status":"active","clients":["203.0.113.{host}/32"]}}'


class Registry:
    """A database and the directory it is published to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = path / "feed"
        self.database = RegistryDatabase(path / "r.db")

    def reopen(self) -> None:
        """As after a crash of the process: what was not committed is gone."""
        self.database.close()
        self.database = RegistryDatabase(self.path / "r.db")

    def put(self, *ids: str, host: int = 0, replace: bool = False) -> None:
        self.database.apply(
            [(id, record(id, host)) for id in ids],
            at_s=NOW, action="upsert", actor="me", is_all=lambda: replace,
        )  # fmt: skip

    def publish(
        self,
        now: float = NOW,
        session: str = SESSION,
        disk: Disk | None = None,
        options: PublishOptions | None = None,
    ) -> PublishReport:
        return publish(
            self.database,
            self.directory,
            KEY,
            options or PublishOptions(),
            now=now,
            fresh_session=session,
            disk=disk,
        )

    def served(self) -> Notification:
        return open_notification((self.directory / "notification.jws").read_bytes(), KEYS)

    def lines(self, url: str, sha256: str, size: int) -> list[str]:
        """The lines of a file, its hash and size checked as a client does."""
        raw = (self.directory / url).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (size, sha256)
        return gzip.decompress(raw).decode().splitlines()

    def client(self) -> Client:
        client = Client()
        client.follow(self)
        return client

    def files(self) -> set[str]:
        return {path.relative_to(self.directory).as_posix() for path in self.directory.rglob("*") if path.is_file()}


class Client:
    """Follows a feed by snapshot and deltas, and by deltas wherever it can."""

    def __init__(self) -> None:
        self.position: tuple[str, int] | None = None
        self.issued_at = 0.0
        self.held: dict[str, str] = {}
        self.snapshots = 0

    def follow(self, registry: Registry) -> None:
        served = registry.served()
        assert served.issued_at > self.issued_at
        self.issued_at = served.issued_at
        deltas = {delta.serial: delta for delta in served.deltas}
        session, serial = self.position or ("", 0)
        missing = range(serial + 1, served.serial + 1)
        if session == served.session:
            assert served.serial >= serial
        if session == served.session and all(number in deltas for number in missing):
            for number in missing:
                delta = deltas[number]
                for line in registry.lines(delta.url, delta.sha256, delta.size):
                    change = json.loads(line)
                    if change["op"] == "withdraw":
                        del self.held[change["id"]]
                    else:
                        text = json.dumps(change["registration"], separators=(",", ":"))
                        self.held[change["registration"]["id"]] = text
        else:
            self.snapshots += 1
            snapshot = served.snapshot
            lines = registry.lines(snapshot.url, snapshot.sha256, snapshot.size)
            assert len(lines) == snapshot.count
            self.held = {json.loads(line)["id"]: line for line in lines}
        self.position = served.session, served.serial


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path)
    registry.put(*(f"PK-{number:04}" for number in range(300)))
    yield registry
    registry.database.close()


def path(serial: int, kind: str, session: str = SESSION) -> str:
    return f"{session}/{serial}/{kind}.ndjson.gz"


def test_the_first_publication_is_a_session_with_a_snapshot(registry: Registry) -> None:
    report = registry.publish()
    assert (report.outcome, report.why) == ("new_session", "first publication of this database")
    served = registry.served()
    assert served == report.notification
    assert (served.session, served.serial, served.issued_at) == (SESSION, 1, NOW)
    assert (served.refresh, served.retry, served.expire, served.deltas) == (60, 10, 604800, ())
    assert served.snapshot.count == 300
    assert list(registry.client().held.values()) == list(registry.database.records())
    assert registry.files() == {"notification.jws", path(1, "snapshot")}


def test_a_change_is_a_serial_with_a_delta(registry: Registry) -> None:
    registry.publish()
    client = registry.client()
    registry.put("PK-0001", host=9)
    registry.put("PK-1000")
    report = registry.publish(NOW + 60)
    assert (report.outcome, report.notification.serial, report.upserts, report.withdrawals) == (
        "new_serial",
        2,
        2,
        0,
    )
    client.follow(registry)
    assert (client.snapshots, client.held) == (1, registry.client().held)


def test_withdrawals_are_in_the_delta(registry: Registry) -> None:
    registry.publish()
    client = registry.client()
    registry.put(*(f"PK-{number:04}" for number in range(298)), replace=True)
    assert registry.publish(NOW + 60).withdrawals == 2
    client.follow(registry)
    assert len(client.held) == 298
    assert client.snapshots == 1


def test_no_change_is_the_same_serial_issued_anew(registry: Registry) -> None:
    first = registry.publish().notification
    registry.put("PK-0001", host=9)
    registry.put("PK-0001", host=0)
    report = registry.publish(NOW + 60)
    assert report.outcome == "reissued"
    assert report.notification.serial == 1
    assert report.notification.issued_at == NOW + 60
    assert report.notification.snapshot == first.snapshot
    assert registry.client().position == (SESSION, 1)


def test_issued_at_never_goes_backwards_but_follows_a_clock_that_was_wrong(registry: Registry) -> None:
    registry.publish(NOW)
    assert registry.publish(NOW - 60).notification.issued_at == NOW + 0.001
    registry.publish(NOW + 1e6)
    assert registry.publish(NOW).notification.issued_at == NOW


def test_two_notifications_are_never_of_the_same_second(registry: Registry) -> None:
    """nginx would give both the same ETag, and gateways would take the second for the first."""
    seconds = []
    for step in range(4):
        registry.put("PK-0001", host=step)
        registry.publish(NOW + step)
        seconds.append(int((registry.directory / "notification.jws").stat().st_mtime))
    assert len(set(seconds)) == 4
    assert seconds == sorted(seconds)


def test_the_same_registry_gives_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    registry.publish()
    (tmp_path / "other").mkdir()
    other = Registry(tmp_path / "other")
    other.put(*(f"PK-{number:04}" for number in reversed(range(300))))
    other.publish(NOW + 5, OTHER)
    raw = [(each.directory / each.served().snapshot.url).read_bytes() for each in (registry, other)]
    other.database.close()
    assert raw[0] == raw[1]
    assert raw[0][4:8] == bytes(4)


def test_deltas_are_kept_while_they_are_smaller_than_the_snapshot(registry: Registry) -> None:
    registry.publish()
    client = registry.client()
    for step in range(1, 31):
        registry.put(*(f"PK-{number:04}" for number in range(20)), host=step)
        served = registry.publish(NOW + step).notification
        assert sum(delta.size for delta in served.deltas) < served.snapshot.size
        assert [delta.serial for delta in served.deltas] == list(
            range(served.serial - len(served.deltas) + 1, served.serial + 1)
        )
        client.follow(registry)
    assert 1 < len(served.deltas) < 30
    assert client.snapshots == 1
    assert client.held == registry.client().held


def test_at_most_so_many_deltas_are_offered(registry: Registry) -> None:
    registry.publish()
    for step in range(1, 6):
        registry.put("PK-0001", host=step)
        served = registry.publish(NOW + step, options=PublishOptions(max_deltas=2)).notification
    assert [delta.serial for delta in served.deltas] == [5, 6]
    assert not registry.publish(NOW + 9, options=PublishOptions(max_deltas=0)).notification.deltas
    assert [d.serial for d in registry.publish(NOW + 9).notification.deltas] == [2, 3, 4, 5, 6]


def test_a_delta_that_outweighs_the_snapshot_is_not_offered(registry: Registry) -> None:
    registry.publish()
    registry.put(*(f"PK-{number:04}" for number in range(300)), host=1)
    assert not registry.publish(NOW + 1).notification.deltas
    registry.put("PK-0000", replace=True)
    report = registry.publish(NOW + 2)
    assert (report.withdrawals, report.notification.deltas) == (299, ())
    assert path(3, "delta") not in registry.files()
    assert registry.client().position == (SESSION, 3)


def test_old_files_are_deleted_after_the_grace_period(registry: Registry) -> None:
    registry.publish(NOW)
    registry.put("PK-0001", host=1)
    registry.publish(NOW + 10_000)
    assert path(1, "snapshot") in registry.files()
    assert not registry.publish(NOW + 13_000).deleted
    assert registry.publish(NOW + 13_600).deleted == (path(1, "snapshot"),)
    assert registry.files() == {"notification.jws", path(2, "snapshot"), path(2, "delta")}
    assert not (registry.directory / SESSION / "1").exists()
    assert registry.client().position == (SESSION, 2)


def test_a_new_session_begins_at_serial_one(registry: Registry) -> None:
    registry.publish()
    client = registry.client()
    report = registry.publish(NOW + 1, OTHER, options=PublishOptions(new_session=True, grace_s=0))
    assert (report.outcome, report.why) == ("new_session", "asked for")
    assert (report.notification.session, report.notification.serial) == (OTHER, 1)
    client.follow(registry)
    assert client.snapshots == 2
    assert registry.publish(NOW + 2, options=PublishOptions(grace_s=0)).notification.session == OTHER
    assert registry.files() == {"notification.jws", path(1, "snapshot", OTHER)}
    assert not (registry.directory / SESSION).exists()


def test_a_database_that_was_restored_begins_a_new_session(registry: Registry) -> None:
    registry.publish()
    backup = registry.path / "backup.db"
    registry.database.close()
    backup.write_bytes((registry.path / "r.db").read_bytes())
    registry.reopen()
    registry.put("PK-0001", host=1)
    registry.publish(NOW + 1)
    client = registry.client()
    registry.database.close()
    os.replace(backup, registry.path / "r.db")
    registry.reopen()
    report = registry.publish(NOW + 2, OTHER)
    assert report.outcome == "new_session"
    assert "serial 2 is served and 1 is the database's" in report.why
    client.follow(registry)
    assert client.held["PK-0001"] == record("PK-0001")


def test_a_lost_database_spares_what_is_served_for_the_grace_period(registry: Registry) -> None:
    registry.publish()
    registry.database.close()
    for file in registry.path.glob("r.db*"):
        file.unlink()
    registry.reopen()
    registry.put("a")
    assert registry.publish(NOW, OTHER).notification.issued_at == NOW + 0.001
    assert path(1, "snapshot") in registry.files()
    assert registry.publish(NOW + 3600).deleted == (path(1, "snapshot"),)


@pytest.mark.parametrize("damage", ["missing", "flipped", "unknown"])
def test_a_snapshot_that_is_damaged_is_written_anew(registry: Registry, damage: str) -> None:
    url = registry.publish().notification.snapshot.url
    file = registry.directory / url
    raw = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "unknown":
        registry.database.forget_files([url])
    else:
        raw[100] ^= 1
        file.write_bytes(raw)
    report = registry.publish(NOW + 1)
    assert (report.outcome, report.repaired) == ("reissued", (url,))
    assert len(registry.client().held) == 300


def test_a_delta_that_is_damaged_ends_the_history(registry: Registry) -> None:
    registry.publish()
    for step in (1, 2, 3):
        registry.put("PK-0001", host=step)
        registry.publish(NOW + step)
    (registry.directory / path(3, "delta")).write_bytes(b"x")
    report = registry.publish(NOW + 9)
    assert report.repaired == (path(3, "delta"),)
    assert [delta.serial for delta in report.notification.deltas] == [4]


def test_a_notification_that_is_damaged_is_replaced(registry: Registry) -> None:
    registry.publish()
    (registry.directory / "notification.jws").write_bytes(b"x")
    assert registry.publish(NOW + 1).outcome == "reissued"
    assert registry.client().position == (SESSION, 1)


def test_other_files_in_the_directory_are_left_alone(registry: Registry) -> None:
    kept = ["index.html", "archive/1/notes.gz", f"{SESSION}/1/README"]
    for name in kept:
        (registry.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (registry.directory / name).write_text("x")
    for step in (0, 1, 2):
        registry.put("PK-0001", host=step)
        registry.publish(NOW + step, options=PublishOptions(grace_s=0))
    assert set(kept) <= registry.files()


def test_an_empty_registry_is_published_only_when_asked_for(registry: Registry) -> None:
    registry.publish()
    registry.put(replace=True)
    with pytest.raises(RegistryUnusable, match="--allow-empty"):
        registry.publish(NOW + 1)
    assert registry.client().position == (SESSION, 1)
    registry.publish(NOW + 2, options=PublishOptions(allow_empty=True))
    assert registry.client().held == {}


def test_two_publications_at_once_are_refused(registry: Registry) -> None:
    with locked(registry.directory), pytest.raises(RegistryUnusable, match="another publish is at work"):
        registry.publish()
    assert registry.publish().outcome == "new_session"


def test_a_publication_that_another_one_overtook_is_given_up(registry: Registry) -> None:
    class Overtaken(Disk):
        def step(self, what: str, path: Path) -> None:
            if what == "rename" and path.name.startswith("snapshot"):
                with RegistryDatabase(registry.database.path) as other:
                    other.note_publication(None, Publication(OTHER, 1, NOW, 1), [])

    with pytest.raises(RegistryUnusable, match="another publish went ahead"):
        registry.publish(disk=Overtaken())
    assert not (registry.directory / "notification.jws").exists()


@pytest.mark.parametrize("what", ["mkdir", "open", "write", "fsync", "rename"])
def test_a_disk_that_fails_leaves_what_is_served(registry: Registry, what: str) -> None:
    class Failing(Disk):
        def step(self, step: str, path: Path) -> None:
            if step == what:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

    registry.publish()
    before = registry.files()
    registry.put("PK-0001", host=1)
    with pytest.raises(RegistryUnusable, match="No space left on device"):
        registry.publish(NOW + 1, disk=Failing())
    assert registry.files() == before
    assert registry.client().position == (SESSION, 1)
    assert registry.publish(NOW + 2).notification.serial == 2


def test_a_directory_that_cannot_be_made_is_said_to_be_so(registry: Registry) -> None:
    registry.directory.write_text("a file")
    with pytest.raises(RegistryUnusable, match="File exists"):
        registry.publish()


def test_a_gateway_follows_what_is_published(registry: Registry) -> None:
    """The daemon's own client: snapshot, deltas, a serial issued anew, a new session."""
    gateway = FeedClient("national", f"{ORIGIN}/feed/notification.jws", KEYS)

    def answers(request: FeedRequest) -> Answer:
        raw = (registry.directory / request.url.removeprefix(f"{ORIGIN}/feed/")).read_bytes()
        return Answer(200, {"content-length": str(len(raw))}, raw)

    def follow(now: float) -> tuple[str, list[str]]:
        outcome, asked = attempt(gateway, answers, now)
        return kind_of(outcome), asked

    registry.publish(NOW)
    assert follow(NOW) == ("snapshot", ["notification", "snapshot"])
    for step in (1, 2):
        registry.put("PK-0001", f"PK-100{step}", host=step)
        registry.publish(NOW + step)
    assert follow(NOW + 2) == ("delta", ["notification", "delta 2", "delta 3"])
    registry.put(*(f"PK-{number:04}" for number in range(1, 300)), replace=True)
    registry.publish(NOW + 3)
    assert follow(NOW + 3)[0] in ("delta", "snapshot")
    registry.publish(NOW + 4)
    assert follow(NOW + 4) == ("unchanged", ["notification"])
    registry.publish(NOW + 5, OTHER, options=PublishOptions(new_session=True))
    assert follow(NOW + 5) == ("snapshot", ["notification", "snapshot"])


class Killed(BaseException):
    """The process is gone: nothing of ours runs any more."""


class Mortal(Disk):
    """Lives for so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, what: str, path: Path) -> None:
        if self.steps == 0:
            raise Killed
        self.steps -= 1


def test_killed_at_any_step_clients_can_follow_and_the_next_publication_repairs(registry: Registry) -> None:
    """Every publication is cut at each of its steps in turn, among them those that prune."""
    registry.publish(NOW)
    client, now, host = registry.client(), NOW, 0
    for new_session in (False, True):
        steps, is_cut = 0, True
        while is_cut:
            now, host = now + 2000.0, host % 200 + 1
            registry.put("PK-0001", f"PK-1{host:03}", host=host)
            session = f"{steps:08x}{SESSION[8:]}"
            try:
                options = PublishOptions(new_session=new_session)
                registry.publish(now, session, Mortal(steps), options)
                is_cut = False
            except Killed:
                registry.reopen()
            if registry.served().issued_at > client.issued_at:
                client.follow(registry)
            fresh = registry.client()
            assert fresh.held == client.held
            steps += 1
            registry.publish(now + 1, session)
            client.follow(registry)
            assert client.held == {json.loads(line)["id"]: line for line in registry.database.records()}
            assert not [name for name in registry.files() if name.endswith(".tmp")]
            registry.publish(now + 2)
            client.follow(registry)
        assert steps > 15
    end = registry.publish(now + 10_000).notification
    announced = {end.snapshot.url, *(delta.url for delta in end.deltas)}
    registry.publish(now + 20_000)
    assert registry.files() == {"notification.jws", *announced}
