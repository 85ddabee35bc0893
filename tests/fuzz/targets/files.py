"""Files of the operator and of the state directory: the configuration, secrets, the trial, SQLite files."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from gatewayd.activity.store import SCHEMA as ACTIVITY
from gatewayd.activity.store import read_notes, read_runs, read_seen
from gatewayd.control.drain_keeper import SCHEMA as DRAINS
from gatewayd.control.drain_keeper import _read as read_drains
from gatewayd.errors import PrefixInvalid, SecretFileUnusable, ServiceInvalid, SettingsInvalid
from gatewayd.impact.store import ImpactStore
from gatewayd.model import parse_prefix, parse_services, service_words
from gatewayd.model.policy import Stage
from gatewayd.near_miss.store import LineStore, decode_line
from gatewayd.settings import load_settings
from gatewayd.settings.edit import EditRefused, set_stage
from gatewayd.settings.load import write_example
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.update import FeedPosition, SourceUpdate
from gatewayd.state_file.file import StateFileUnusable, read_state_file
from gatewayd.state_file.view import StateFileView
from gatewayd.subscribers.journal_file import JournalFile
from gatewayd.subscribers.journal_rows import Row
from gatewayd.subscribers.secret_files import read_pepper, read_secrets
from gatewayd.trial.record import RecordUnusable, decode_state, encode_state
from gatewayd.trial.state import Instant, Order, Request, TrialState, Trip, begin, expire, restore
from gatewayd.trial.state import apply as apply_trial
from tests.fuzz.target import Target
from tests.fuzz.targets.registry import PREVIOUS, YAML_WORDS, _hashed
from tests.support.accounting import ALI, Table

STAGE = Stage("observe", 100)
NOW = Instant(1_750_000_000.0, 5000.0, "boot-1")
SESSION = "6b9a7f0e-0000-4000-8000-000000000001"


# -- texts ---------------------------------------------------------------------------------------------------


def settings(raw: bytes) -> None:
    load_settings(raw.decode("utf-8", "replace"), "g.yaml")


def edit(raw: bytes) -> None:
    """What is written anew means the same but for the stage."""
    text = raw.decode("utf-8", "replace")
    stage = Stage("reject" if len(text) % 2 else "observe", 1 + len(text) % 100)
    edited = load_settings(set_stage(text, stage, "g.yaml"), "g.yaml")
    assert edited.policy.mode == stage.mode


def services(raw: bytes) -> None:
    found = parse_services(raw.decode("utf-8", "replace").split(","))
    assert parse_services(service_words(found)) == found


def prefix(raw: bytes) -> None:
    found = parse_prefix(raw.decode("utf-8", "replace"))
    assert parse_prefix(str(found)) == found


def secrets(raw: bytes) -> None:
    """No message of it has a secret in it; it is not looked at here whether one may be read by others."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "secret")
        path.write_bytes(raw)
        path.chmod(0o600)
        for read in (read_secrets, read_pepper):
            try:
                read(path)
                said = ""
            except SecretFileUnusable as error:
                said = str(error)
            assert "hush" not in said


# -- the trial -----------------------------------------------------------------------------------------------


def trial(raw: bytes) -> None:
    """A record whose hash is right where the first byte is odd. Whatever it says, a start goes on from it."""
    state = decode_state(_hashed(raw))
    for boot_id in ("boot-1", "boot-2", ""):
        now = Instant(NOW.wall_s, NOW.elapsed_s, boot_id)
        restored = restore(state, STAGE, now, None)
        expired = expire(restored, STAGE, now)
        assert decode_state(encode_state(expired)) == expired
        if restored.trial is not None:
            restored.trial.reminders_due(now.elapsed_s)
            restored.trial.deadline_at(now)


@cache
def _trials() -> tuple[bytes, ...]:
    state = begin(TrialState(), STAGE, Request(Stage("reject", 100), "confirm", 600.0, "uid 0", "x"), NOW, "t-1")
    applied = apply_trial(state, STAGE, "t-1", NOW)
    order = TrialState(
        order=Order(Stage("limit", 50), STAGE, 5.0, "uid 0"), trip=Trip("late", 1.0, 9, 5, ("PK-1",))
    )
    return tuple(b"\1" + encode_state(each).partition(b"\n")[2] for each in (TrialState(), state, applied, order))


TRIAL_WORDS = (
    b'"mode":"reject"', b'"canary_percent":', b'"trial":', b'"order":', b'"notices":[', b'"trip":',
    b'"deadline_s":', b'"boot_id":"boot-1"', b"1e308", b"-1e308", b'"version":2', b"null",
)  # fmt: skip


def line(raw: bytes) -> None:
    """A row of the list of near misses."""
    decode_line(raw.decode("utf-8", "replace"))


# -- SQLite --------------------------------------------------------------------------------------------------


def _in_file(raw: bytes, name: str, work: Callable[[Path], object]) -> None:
    """`raw` as the file of this name; an odd first byte: as its journal, beside a file that is sound."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, name).parent.mkdir(exist_ok=True, parents=True)
        Path(directory, name).write_bytes(raw)
        work(Path(directory))


def journal(raw: bytes) -> None:
    """What is read is restored; and it takes rows again."""

    def work(directory: Path) -> None:
        file = JournalFile(directory / "j.sqlite")
        with suppress(sqlite3.Error, OSError):
            rows = file.open()
            table = Table()
            table.sessions.restore(rows, NOW.wall_s)
            file.write(_rows())
        file.close()

    _in_file(raw, "j.sqlite", work)


def last_good(raw: bytes) -> None:
    """What it restores is one of the states that were, and it can be saved to again."""

    def work(directory: Path) -> None:
        found = asyncio.run(_load_and_save(directory))
        assert found == {} or found == PREVIOUS

    _in_file(raw, "registry/lab.sqlite3", work)


async def _load_and_save(directory: Path) -> dict[str, object]:
    kept = LastGood(directory, clock=lambda: 5.0, monotonic=lambda: 0.0)
    found = await kept.load("lab")
    await kept.save(_update())
    again = await LastGood(directory, clock=lambda: 5.0, monotonic=lambda: 0.0).load("lab")
    assert (dict(again.registrations), again.damage) == (PREVIOUS, None)
    return dict(found.registrations)


def _update() -> SourceUpdate:
    return SourceUpdate("lab", 5.0, registrations=PREVIOUS, position=FeedPosition(SESSION, 1))


def state_files(raw: bytes) -> None:
    """Each of the others, as a command reads it or as the daemon does: the first byte chooses."""
    way = (raw[0] if raw else 0) % 4
    body = raw[1:]
    if way == 0:
        _in_file(body, "x", lambda where: read_state_file(where / "x", ACTIVITY, _read_activity))
    elif way == 1:
        _in_file(
            body, "x", lambda where: read_state_file(where / "x", DRAINS, lambda one: read_drains("boot-1", one))
        )
    elif way == 2:
        _in_file(body, "impact.sqlite", lambda where: asyncio.run(_impact(where)))
    else:
        _in_file(body, "near_misses.sqlite", lambda where: asyncio.run(_near_misses(where)))


def _read_activity(connection: sqlite3.Connection) -> None:
    read_runs(connection)
    read_seen(connection)
    read_notes(connection, 0.0, 1e12)


async def _impact(directory: Path) -> None:
    store = ImpactStore(directory)
    try:
        await store.load()
        await store.read(0.0, 1e12)
    finally:
        await store.close()


async def _near_misses(directory: Path) -> None:
    store = LineStore(directory, StateFileView("near_misses"))
    try:
        await store.load()
    finally:
        await store.close()


def _rows() -> list[Row]:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    return table.next_rows()


@cache
def _journals() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as directory:
        file = JournalFile(Path(directory, "j.sqlite"))
        file.open()
        file.write(_rows())
        file.close()
        return (Path(directory, "j.sqlite").read_bytes(),)


@cache
def _last_goods() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as directory:
        kept = LastGood(Path(directory), clock=lambda: 5.0, monotonic=lambda: 0.0)
        asyncio.run(kept.save(_update()))
        return (Path(directory, "registry/lab.sqlite3").read_bytes(),)


@cache
def _state_files() -> tuple[bytes, ...]:
    found = []
    for number, schema in enumerate((ACTIVITY, DRAINS)):
        with tempfile.TemporaryDirectory() as directory:
            connection = sqlite3.connect(Path(directory, "x"), isolation_level=None)
            for statement in schema.statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema.version}")
            connection.close()
            found.append(bytes([number]) + Path(directory, "x").read_bytes())
    for number, name, read in ((2, "impact.sqlite", _impact), (3, "near_misses.sqlite", _near_misses)):
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(read(Path(directory)))
            found += [bytes([number]) + path.read_bytes() for path in Path(directory).glob(name)]
    return tuple(found)


def _settings() -> Sequence[bytes]:
    example = write_example()
    own = "policy: {mode: reject, scope: [ipsec, udp/1-5], interfaces: {inside: [ppp*]}}\n"
    source = "registry:\n  sources:\n    - {name: a, url: 'file:/x', allow_unsigned: true}\n"
    return [example.encode(), (source + own).encode(), (source + "policy:\n  mode: observe\n").encode()]


SETTINGS_WORDS = (
    *YAML_WORDS,
    b"policy:",
    b"mode: reject",
    b"registry:",
    b"sources:",
    b"{",
    b"7d",
    b"64kbyte/s",
    b"100%",
)
TARGETS = (
    Target("files.settings", settings, (SettingsInvalid,), lambda: _settings()[1:], SETTINGS_WORDS, cost=20),
    Target("files.example", settings, (SettingsInvalid,), lambda: _settings()[:1], SETTINGS_WORDS, cost=300),
    Target("files.edit", edit, (SettingsInvalid, EditRefused), lambda: _settings()[1:], SETTINGS_WORDS, cost=40),
    Target("files.services", services, (ServiceInvalid,), lambda: [b"ipsec,udp/1-5,tcp/443,esp", b"gre"],
           (b"udp/", b"65535", b"ipsec"), cost=0.3),
    Target("files.prefix", prefix, (PrefixInvalid,), lambda: [b"203.0.113.0/28", b"2001:db8::/48", b"1.2.3.4"],
           (b"::", b"/128", b"%eth0", b"::ffff:"), cost=0.3),
    Target("files.secrets", secrets, (), lambda: [b"hush-1\nhush-2\n", b"# x\nhush\n"], (b"\n", b"#"), cost=12),
    Target("files.trial", trial, (RecordUnusable,), lambda: list(_trials()), TRIAL_WORDS),
    Target("files.near_miss_line", line, (), lambda: [b"{}", b"[]", b"null"], cost=0.3),
    Target("files.journal", journal, (), lambda: list(_journals()), cost=150),
    Target("files.last_good", last_good, (), lambda: list(_last_goods()), cost=300),
    Target("files.state_files", state_files, (StateFileUnusable,), lambda: list(_state_files()), cost=100),
)  # fmt: skip
