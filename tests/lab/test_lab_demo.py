"""`gatewayd demo` as a newcomer runs it, and as one interrupts it."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.test_lab_itself import cookie_at, cookies_held, holds_within

pytestmark = pytest.mark.kernel

DEADLINE_S = 90.0


class Demo:
    """A demo in a temporary directory of its own; `text` is what it said so far."""

    def __init__(self, scratch: Path, *arguments: str) -> None:
        self.scratch = scratch
        self.output = scratch / "output.txt"
        # A short path: it ends in a socket's, which has 107 bytes at most.
        self.temporary = Path(tempfile.mkdtemp(prefix="gwd-"))
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gatewayd", "demo", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        assert holds_within(lambda: text in self.text or self.process.poll() is not None, DEADLINE_S)
        assert text in self.text, self.text

    def children(self) -> set[int]:
        """Of the demo and of its children: the daemon among them."""
        found: set[int] = set()
        waiting = [self.process.pid]
        while waiting:
            for path in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
                try:
                    born = {int(word) for word in path.read_text().split()} - found
                except OSError:
                    continue
                found |= born
                waiting += born
        return found

    def namespaces(self) -> set[int]:
        """Cookies of the namespaces that it holds, but for the one it came from."""
        found = set()
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                if os.readlink(path).startswith("net:["):
                    found.add(cookie_at(str(path)))
            except OSError:
                continue
        return found - {cookie_at("/proc/self/ns/net")}


@contextmanager
def demo(scratch: Path, *arguments: str) -> Iterator[Demo]:
    made = Demo(scratch, *arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        shutil.rmtree(made.temporary)


def is_alive(pid: int) -> bool:
    """And not a zombie: in a container, nobody may be there to reap an orphan."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def assert_nothing_is_left(made: Demo, children: set[int], namespaces: set[int]) -> None:
    assert holds_within(lambda: not any(map(is_alive, children)), 20)
    assert holds_within(lambda: not namespaces & cookies_held(), 20)
    assert list(made.temporary.iterdir()) == []


def operate(made: Demo, *commands: str) -> None:
    """Type what the demo says one may type, in the directory that it says."""
    directory = re.search(r"^ *cd (.*)$", made.text, re.MULTILINE)
    assert directory is not None
    for command in commands:
        line = re.search(rf"^ *gatewayd ({command} .*)$", made.text, re.MULTILINE)
        assert line is not None, command
        arguments = [sys.executable, "-m", "gatewayd", *line[1].split()]
        subprocess.run(arguments, cwd=directory[1], check=True, capture_output=True)


def decision_of(source: str, host: str, port: int) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request("GET", f"/v1/explain?src={source}&dst=203.0.113.99&service=udp/51950")
    decision = re.search(r'"decision": ?"(\w+)"', connection.getresponse().read().decode())
    connection.close()
    assert decision is not None
    return decision[1]


def test_every_promise_is_kept(tmp_path: Path) -> None:
    with demo(tmp_path, "--registrations", "2000") as made:
        assert made.process.wait(DEADLINE_S) == 0, made.text
        assert re.search(r"All \d+ promises were kept\.", made.text), made.text
        assert "a delta of 1 record" in made.text
        assert "✗" not in made.text
        assert "Traceback" not in made.text
        assert list(made.temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "act",
    ["starting gatewayd", "4. A packet for each", "6. A registry that is forged", "10. The daemon is stopped"],
)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, act: str, number: Any) -> None:
    with demo(tmp_path, "--registrations", "500") as made:
        made.wait_for(act)
        children, namespaces = made.children(), made.namespaces()
        assert len(namespaces) == 3
        made.process.send_signal(number)
        assert made.process.wait(DEADLINE_S) == 130, made.text
        assert "Traceback" not in made.text
        assert_nothing_is_left(made, children, namespaces)


def test_it_can_be_kept_and_looked_at_until_it_is_interrupted(tmp_path: Path) -> None:
    with demo(tmp_path, "--registrations", "300", "--keep") as made:
        made.wait_for("gatewayd sync --socket")
        url = re.search(r"http://(127\.0\.0\.1):(\d+)(/v1/status\?pretty)", made.text)
        assert url is not None
        # As a browser does: a connection that is open when it ends.
        idle = http.client.HTTPConnection(url[1], int(url[2]), timeout=30)
        idle.request("GET", "/healthz")
        assert idle.getresponse().read() != b""
        for path, word in ((url[3], '"ready": true'), ("/metrics", "gatewayd_"), ("/v1/flows?pretty", '"total"')):
            connection = http.client.HTTPConnection(url[1], int(url[2]), timeout=30)
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            assert word in answer.read().decode()
            connection.close()
        operate(made, "registry revoke", "registry publish", "sync")
        assert decision_of("39.34.55.123", url[1], int(url[2])) == "unregistered"
        children, namespaces = made.children(), made.namespaces()
        assert len(children) >= 2
        # As a terminal does: the daemon gets it, too.
        os.killpg(made.process.pid, signal.SIGINT)
        assert made.process.wait(DEADLINE_S) == 0, made.text
        idle.close()
        assert "Traceback" not in made.text
        assert_nothing_is_left(made, children, namespaces)
