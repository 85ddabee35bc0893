"""The reference registry from the shell."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from gatewayd.cli import main, registry_authoring
from gatewayd.cli.registry_authoring import Meter
from gatewayd.feed.notification import load_verifying_keys, open_notification

CONFIG = Path(__file__).parents[3] / "config"
RECORD = '{"id":"a","category":"bank","status":"active","clients":["203.0.113.0/28"]}'

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `gatewayd registry …` in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str | Path, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, ["registry", *map(str, arguments)], input=stdin)

    return invoke


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("a pepper for tests alone\n")
    return path


def test_the_whole_way_from_a_file_to_a_feed(run: Run, tmp_path: Path) -> None:
    assert run("keygen", "--kid", "national-2026", "key").stdout.splitlines() == [
        "kid national-2026", "private key", "public key.pub",
    ]  # fmt: skip
    imported = run("import", CONFIG / "registry.example.csv")
    assert (imported.exit_code, imported.stderr) == (0, "")
    assert imported.stdout.splitlines()[-5:] == [
        "added 12", "changed 0", "unchanged 0", "withdrawn 0", "not_reactivated 0",
    ]  # fmt: skip
    published = run("publish", "--key", "key")
    assert published.exit_code == 0
    assert published.stdout.splitlines()[0] == "new_session: first publication of this database"
    assert published.stdout.splitlines()[2:4] == ["serial 1", "registrations 12"]
    assert run("revoke", "PK-2024-000101").stdout == "PK-2024-000101 revoked\n"
    document = json.loads(run("publish", "--key", "key", "--json").stdout)
    assert (document["outcome"], document["upserts"], document["notification"]["serial"]) == ("new_serial", 1, 2)
    assert run("publish", "--key", "key", "--refresh", "5m").stdout.startswith("reissued\n")
    keys = load_verifying_keys([(tmp_path / "key.pub").read_text()])
    served = open_notification((tmp_path / "feed" / "notification.jws").read_bytes(), keys)
    assert (served.serial, served.refresh, len(served.deltas)) == (2, 300, 1)


def test_a_private_key_is_for_this_user_alone_and_never_overwritten(run: Run, tmp_path: Path) -> None:
    run("keygen", "--kid", "k", "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    before = (tmp_path / "key").read_bytes()
    for kept in ("key", "key.pub"):
        result = run("keygen", "--kid", "k", "key")
        assert (result.exit_code, result.stderr) == (
            2,
            f"gatewayd: {kept}: is there already; a key is never overwritten\n",
        )
        if kept == "key":
            (tmp_path / "key").rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").read_bytes() == before
    assert not (tmp_path / "key").exists()
    assert json.loads(run("keygen", "--kid", "k", "other", "--json").stdout) == {
        "kid": "k", "private": "other", "public": "other.pub",
    }  # fmt: skip
    assert "No such file" in run("keygen", "--kid", "k", "none/key").stderr
    assert run("keygen", "--kid", "no kid", "third").exit_code == 2


def test_rejected_rows_are_shown_with_their_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text("id,category,status,clients\na,bank,active,203.0.113.1/28\n" + "x\n" * 1200)
    result = run("import", "lab.csv", "--replace")
    assert result.exit_code == 1
    assert result.stdout.startswith("lab.csv:2: a: prefix_host_bits: clients: 203.0.113.1/28: host bits are set")
    assert "lab.csv: 201 more rejected records are not listed" in result.stdout
    assert result.stdout.endswith("rejected bad_columns 1200\nrejected prefix_host_bits 1\n")
    assert result.stderr == "nothing is withdrawn: 1201 rejected: mend them and import again\n"
    document = json.loads(run("import", "lab.csv", "--json").stdout)
    assert document["rejected"] == {"bad_columns": 1200, "prefix_host_bits": 1}
    assert document["applied"] == {"added": 0, "changed": 0, "unchanged": 0, "withdrawn": 0, "not_reactivated": 0}


def test_a_dry_run_says_so_and_changes_nothing(run: Run) -> None:
    assert (
        "dry run: nothing is changed\nrecords 12\nadded 12\n"
        in run("import", CONFIG / "registry.example.csv", "--dry-run").stdout
    )
    assert "added 12\n" in run("import", CONFIG / "registry.example.csv").stdout
    assert "unchanged 12\n" in run("import", CONFIG / "registry.example.ndjson", "--replace").stdout


def test_a_file_that_is_not_there_fails(run: Run) -> None:
    result = run("import", "none.csv")
    assert (result.exit_code, result.stderr) == (1, "gatewayd: source none.csv: No such file or directory\n")


def test_a_column_of_numbers_needs_the_pepper(run: Run, tmp_path: Path, pepper: Path) -> None:
    (tmp_path / "lab.csv").write_text("id,category,status,mobile\na,freelancer,active,0300-1234567\n")
    result = run("import", "lab.csv")
    assert result.exit_code == 2
    assert "give --pepper-file FILE" in result.stderr
    result = run("import", "lab.csv", "--pepper-file", pepper, "--country-code", "92")
    assert (result.exit_code, result.stdout.splitlines()[2]) == (0, "added 1")
    assert "1234567" not in run("history", "--json").stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--pepper-file", "none"), "none: No such file or directory"),
        (("--pepper-file", "short"), "fewer than 16 bytes"),
        (("--pepper-file", "pepper", "--country-code", "+92"), "one to three digits"),
    ],
)
def test_a_pepper_that_cannot_be_used_is_a_usage_error(
    run: Run, tmp_path: Path, pepper: Path, arguments: tuple[str, ...], why: str
) -> None:
    (tmp_path / "short").write_text("short")
    result = run("import", CONFIG / "registry.example.csv", *arguments)
    assert result.exit_code == 2
    assert why in result.stderr


def test_one_registration_is_added_changed_and_left_alone(run: Run) -> None:
    assert run("upsert", RECORD).stdout == "a added\n"
    assert run("upsert", stdin=RECORD.replace("bank", "embassy")).stdout == "a changed\n"
    assert json.loads(run("upsert", "-", "--json", stdin=RECORD.replace("bank", "embassy")).stdout) == {
        "id": "a", "result": "unchanged",
    }  # fmt: skip


def test_a_number_may_come_by_stdin(run: Run, pepper: Path) -> None:
    record = '{"id":"a","category":"freelancer","status":"active","mobile":"0300 1234567"}'
    assert run("upsert", "--pepper-file", pepper, "--country-code", "92", stdin=record).stdout == "a added\n"
    bad = run("upsert", "--pepper-file", pepper, stdin=record)
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert bad.stderr.startswith("gatewayd: bad_mobile: mobile: has no + or 00")
    assert "1234567" not in bad.stderr


def test_a_record_that_is_wrong_is_said_to_be_so(run: Run) -> None:
    result = run("upsert", '{"id":"a"}')
    assert (result.exit_code, result.stderr) == (1, "gatewayd: missing_field: category: is required\n")


def test_revoking_and_suspending_leave_an_audit(run: Run) -> None:
    run("upsert", RECORD, "--actor", "Desk 4")
    assert run("revoke", "a", "--suspend", "--actor", "Desk 4").stdout == "a suspended\n"
    assert run("revoke", "a").stdout == "a revoked\n"
    assert run("revoke", "a", "--json").stdout == '{\n  "id": "a",\n  "result": "unchanged"\n}\n'
    rows = json.loads(run("history", "a", "--json").stdout)
    assert [(row["action"], row["actor"]) for row in rows] == [
        ("revoke", pwd.getpwuid(os.getuid()).pw_name), ("suspend", "Desk 4"), ("upsert", "Desk 4"),
    ]  # fmt: skip
    assert rows[0]["after"]["status"] == "revoked"
    assert rows[2]["before"] is None
    text = run("history", "--limit", "1").stdout.splitlines()
    assert text[0].split() == ["at", "action", "actor", "id", "change"]
    assert len(text) == 2


def test_a_user_without_a_name_is_its_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    run("upsert", RECORD)
    assert json.loads(run("history", "--json").stdout)[0]["actor"] == f"uid {os.getuid()}"


def test_what_is_not_there_cannot_be_revoked(run: Run) -> None:
    assert run("revoke", "a").stderr.startswith("gatewayd: registry.db: there is no such database")
    run("upsert", RECORD)
    result = run("revoke", "b\x1b[2J")
    assert (result.exit_code, result.stderr) == (1, "gatewayd: there is no registration 'b�[2J'\n")


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("--key", "none"), 2, "none: No such file or directory"),
        (("--key", "registry.db"), 2, "registry.db: is not text"),
        (("--key", "key.pub"), 2, "is a public key"),
        (("--key", "key", "--grace", "1 fortnight"), 2, "unknown unit fortnight; such as 60s, 10m, 7d"),
        (("--key", "key", "--database", "none.db"), 2, "none.db: there is no such database"),
    ],
)
def test_what_publish_cannot_work_with_is_named(
    run: Run, arguments: tuple[str, ...], status: int, why: str
) -> None:
    run("keygen", "--kid", "k", "key")
    run("upsert", RECORD)
    result = run("publish", *arguments)
    assert result.exit_code == status
    assert why in result.stderr


def test_repaired_and_deleted_files_are_listed(run: Run, tmp_path: Path) -> None:
    run("keygen", "--kid", "k", "key")
    run("upsert", RECORD)
    session = run("publish", "--key", "key").stdout.splitlines()[1].removeprefix("session ")
    (tmp_path / "feed" / session / "1" / "snapshot.ndjson.gz").unlink()
    assert f"repaired {session}/1/snapshot.ndjson.gz\n" in run("publish", "--key", "key").stdout
    assert (
        f"deleted {session}/1/snapshot.ndjson.gz\n"
        in run("publish", "--key", "key", "--new-session", "--grace", "0").stdout
    )


@pytest.mark.parametrize("listen", ["localhost:80", "127.0.0.1"])
def test_serve_wants_an_address_and_a_port(run: Run, listen: str) -> None:
    result = run("serve", "--listen", listen)
    assert result.exit_code == 2
    assert f"{listen!r} " in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_until_it_is_told_to_stop(run: Run, tmp_path: Path, number: int) -> None:
    run("keygen", "--kid", "k", "key")
    run("upsert", RECORD)
    run("publish", "--key", "key")
    command = [sys.executable, "-m", "gatewayd", "registry", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("serving ").strip()
            with urllib.request.urlopen(url + "notification.jws") as answer:
                assert answer.read() == (tmp_path / "feed" / "notification.jws").read_bytes()
        finally:
            server.send_signal(number)
    assert server.returncode == 0
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))) != 0


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_bar_appears_on_a_terminal_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(registry_authoring, "time", clock)
    console = Console(force_terminal=True, width=80, file=open(os.devnull, "w"))  # noqa: SIM115
    meter = Meter(console)
    meter("reading", 1, 10)
    assert meter._bar is None
    clock.now = 1.5
    meter("reading", 2, 10)
    meter("reading", 3, 10)
    assert [(task.description, task.completed, task.total) for task in meter._bar.tasks] == [("reading", 3, 10)]  # type: ignore[attr-defined]
    meter("storing", 0, 0)
    assert [(task.description, task.total) for task in meter._bar.tasks] == [("storing", None)]  # type: ignore[attr-defined]
    meter.stop()
    console.file.close()


def test_there_is_no_bar_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(registry_authoring, "time", clock)
    with registry_authoring.metered() as meter:
        clock.now = 9.0
        meter("reading", 1, 10)
        assert meter._bar is None
