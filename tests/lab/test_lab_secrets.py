"""Persons and secrets go in wherever they can, and come out nowhere: log, state, API, page, commands, kernel."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cli import main
from gatewayd.demo.cast import FAR, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.log.journald import SOCKET
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.leaks import Planted, find, places, spellings
from tests.support.nas import Nas
from tests.support.planting import (
    ALL,
    HOME,
    KEYED,
    KINDS_OF_GOSSIP,
    NUMBER,
    PASSWORD,
    PERSONS,
    SECRET,
    SPELLINGS,
    TOKEN,
    Plantation,
    answers_of,
    commands_of,
    files_of,
    gossip,
    kernel_of,
    memory_of,
    override_file,
    process_of,
)
from tests.support.planting_commands import ASKS, asked, leaves

pytestmark = pytest.mark.kernel

INPUTS = frozenset(
    {"national.ndjson", "sessions.csv", "local.d", "pepper", "radius.secret", "gatewayd.yaml", "gatewayd.log"}
)
"""What the test wrote itself, and the log, which is searched apart."""
MAX_IN_MEMORY = 2000
"""Places where the digits of one number stay, of freed buffers that are not yet written over."""


@pytest.fixture
def planted(daemon: LabDaemon) -> Iterator[Plantation]:
    with gossip(daemon.lab.gateway) as server:
        made = Plantation(daemon, server)
        made.configure()
        daemon.start()
        daemon.wait_ready()
        yield made


def leaks(outputs: Iterable[tuple[str, bytes]], planted: tuple[Planted, ...] = (*ALL, KEYED)) -> list[str]:
    return [f"{label}: {form}" for label, content in outputs for form in find(planted, content)]


def everything_happens(planted: Plantation) -> None:
    """Readings good and bad, overrides, accounting, a trial with its report, flows of every kind."""
    daemon = planted.daemon
    for _ in range(KINDS_OF_GOSSIP * len(SPELLINGS)):
        daemon.sync()
    for number, each in enumerate(SPELLINGS):
        (daemon.directory / "local.d" / f"bad-{number}.yaml").write_bytes(override_file(each))
    daemon.reload()
    daemon.wait_log("overrides.refused")
    planted.tell_by_radius()
    daemon.wait(lambda: daemon.get("/v1/bindings")["total"] > 0, "a binding")
    near = {**SOFTWARE_HOUSE, "services": ["ipsec"]}
    flows = [flow_of(HOME, FAR, "udp/51820", 20001), flow_of(STRANGER, FAR, "udp/51820", 20002)]
    flows.append(flow_of(near["clients"][0].partition("/")[0], FAR, "esp"))
    assert probe(daemon.lab, flows) == ["passed"] * 3
    assert daemon.ask("mode", "mark", "--for", "3s", "--comment", "order 2026-118").returncode == 0
    daemon.wait_log("trial.reported")


def what_is_answered(daemon: LabDaemon) -> Iterator[tuple[str, bytes]]:
    """Of each command that asks a daemon, by the table of the commands."""
    places = {
        "directory": str(daemon.directory / "local.d"),
        "socket": str(daemon.socket_path),
        "config": str(daemon.config_path),
    }
    for leaf in leaves():
        if leaf.name in ASKS:
            for label, words in asked(leaf, places):
                yield label, CliRunner().invoke(main, list(words)).output.encode()


def test_nothing_planted_comes_out_anywhere(planted: Plantation) -> None:
    daemon = planted.daemon
    everything_happens(planted)
    assert leaks(planted.tell_by_api()) == []
    assert leaks(answers_of(planted)) == []
    done = [(label, daemon.cli(*words)) for label, words in commands_of(daemon)]
    assert leaks((label, (each.stdout + each.stderr).encode()) for label, each in done) == []
    assert leaks(what_is_answered(daemon)) == []
    report = daemon.directory / "report.html"
    assert daemon.ask("trial", "--report", str(report)).returncode == 0
    assert daemon.ask("impact", "--html", str(daemon.directory / "impact.html")).returncode == 0
    assert daemon.ask("report", "--html", str(daemon.directory / "months.html")).returncode == 0
    # The keyed digest is what stands in the registry and beside a session.
    assert leaks(files_of(daemon.directory, inputs=INPUTS), ALL) == []
    assert leaks([*kernel_of(daemon), *process_of(daemon.pid)]) == []
    assert leaks([("log", daemon.log_path.read_bytes())]) == []
    assert '"level":"debug"' in daemon.log_text()
    daemon.end()
    assert leaks(files_of(daemon.directory, inputs=INPUTS), ALL) == []


def test_the_search_finds_a_leak(planted: Plantation) -> None:
    """A session id of another number is kept as it is: the search sees it in each place that sessions are in."""
    daemon = planted.daemon
    with Nas(daemon.lab.gateway, secret=SECRET) as nas:
        nas.start(f"x-{spellings('923217654983')[3]}", f"+{NUMBER}", HOME)
    daemon.wait(lambda: "x-0321" in str(daemon.get("/v1/bindings")), "the session")
    seen = {each.partition(":")[0] for each in leaks(answers_of(planted), ALL)}
    assert {"socket GET /v1/bindings", "port GET /v1/bindings"} <= seen
    assert any(
        each.startswith("file sessions.sqlite") for each in leaks(files_of(daemon.directory, inputs=INPUTS), ALL)
    )
    words = ("bindings", "--json", "--socket", str(daemon.socket_path))
    assert leaks([("bindings", daemon.cli(*words).stdout.encode())], ALL) != []


def test_fields_of_the_journal_have_nothing_of_it(planted: Plantation, tmp_path: Path) -> None:
    """And what a start reads from the state of the former run."""
    daemon = planted.daemon
    everything_happens(planted)
    daemon.end()
    for path in (daemon.directory / "local.d").glob("bad-*"):
        path.unlink()
    place = tmp_path / "journal"
    place.mkdir()
    entries: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place / "socket"))
        journal.settimeout(0.2)
        where = os.path.dirname(SOCKET)
        script = f'mount -t tmpfs none /run && mkdir -p {where} && mount --bind {place} {where} && exec "$@"'
        status = daemon.log_path.stat()
        environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        daemon.start(wrapper=["unshare", "-m", "sh", "-c", script, "sh"], env=environment)

        def read() -> bool:
            try:
                while True:
                    entries.append(journal.recv(1 << 20))
            except TimeoutError:
                return b"GATEWAYD_EVENT=radius.unusable\n" in b"".join(entries)

        assert holds(lambda: read() or b"GATEWAYD_EVENT=radius.listening\n" in b"".join(entries))
        planted.tell_by_radius()
        planted.tell_by_api()
        assert holds(read)
    assert leaks([("journal", b"\n".join(entries))]) == []


def test_what_the_memory_keeps_of_a_number_is_bounded(planted: Plantation) -> None:
    """Freed buffers are not wiped: the digits of what came in last may stay there. They do not grow in number with
    the records, and no other process of the user and no core has them."""
    daemon = planted.daemon
    kept = []
    for _ in range(3):
        with Nas(daemon.lab.gateway, secret=SECRET) as nas:
            for number in range(400):
                nas.interim("m1", f"+{NUMBER}", f"39.41.{number % 200}.7")
        found = [places(PERSONS[0], region, forms=frozenset({"digits"})) for region in memory_of(daemon.pid)]
        kept.append(sum(sum(each.values()) for each in found))
    assert max(kept) < MAX_IN_MEMORY, kept
    assert kept[-1] <= kept[0] + 50, kept
    # fs/proc/base.c: the files of a process that may not be dumped are root's alone.
    assert os.stat(f"/proc/{daemon.pid}/mem").st_uid == 0
    prefix = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    denied = daemon.lab.gateway.run([*prefix, "cat", f"/proc/{daemon.pid}/environ"], check=False)
    assert denied.returncode != 0


def test_a_url_with_a_password_is_refused_and_not_repeated(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [SOFTWARE_HOUSE])
    for url in (
        f"http://clerk:{PASSWORD}@127.0.0.1:1/list.csv?key={TOKEN}",
        f"clerk:{PASSWORD}@127.0.0.1/?{TOKEN}",
    ):
        daemon.configure("observe", sources=({"name": "branch", "url": url, "allow_unsigned": True},))
        done = daemon.cli("check", "--config", str(daemon.config_path))
        assert done.returncode == 2
        assert leaks([("check", (done.stdout + done.stderr).encode())]) == []


def test_files_that_are_written_are_closed_to_others(planted: Plantation) -> None:
    daemon = planted.daemon
    everything_happens(planted)
    for path in daemon.directory.rglob("*"):
        if path.relative_to(daemon.directory).parts[0] not in INPUTS:
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o007, path.name
    daemon.end(signal.SIGTERM)
