"""Daemons and commands begun from a warm interpreter are as those begun by `python -m gatewayd`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.lab.namespace import Namespace
from tests.support.lab_daemon import holds
from tests.support.warm import ROOT, can_be_warm, run_warm, starter

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace(kernel: None) -> Iterator[Namespace]:
    with Namespace("warm") as made:
        yield made


@pytest.mark.parametrize(
    "arguments", [["--version"], ["check", "--config", "/nowhere.yaml"], ["status", "--socket", "/no"]]
)
def test_status_and_output_are_those_of_a_process_of_its_own(namespace: Namespace, arguments: list[str]) -> None:
    warm = run_warm(namespace.descriptor, arguments)
    cold = namespace.run([sys.executable, "-m", "gatewayd", *arguments], check=False)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)


def test_it_is_in_the_namespace_and_has_the_environment_and_directory_of_the_moment(
    namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAYD_SOCKET", "here.sock")
    done = run_warm(namespace.descriptor, ["status"])
    assert (done.returncode, "here.sock" in done.stderr) == (3, True)
    with (tmp_path / "log").open("wb") as log:
        process = starter().start(namespace.descriptor, ["demo"], os.environ, stdout=log, stderr=log)
        assert holds(lambda: os.readlink(f"/proc/{process.pid}/cwd") == str(tmp_path))
        with namespace.entered():
            inside = os.readlink("/proc/thread-self/ns/net")
        assert holds(lambda: os.readlink(f"/proc/{process.pid}/ns/net") == inside)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL


def test_what_the_loader_or_the_interpreter_is_told_needs_a_process_of_its_own() -> None:
    assert can_be_warm(os.environ | {"NOTIFY_SOCKET": "/run/notify"})
    assert not can_be_warm(os.environ | {"LD_PRELOAD": "libfaketime.so.1"})
    assert not can_be_warm(os.environ | {"PYTHONMALLOC": "debug"})


def test_it_ends_with_the_process_that_asked_for_it(kernel: None, tmp_path: Path) -> None:
    """However that ends."""
    program = """
import os, signal, sys
from tests.support.warm import starter
descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
log = open(os.devnull, "wb")
print(starter().start(descriptor, ["demo"], os.environ, stdout=log, stderr=log).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)

    def is_gone() -> bool:
        """Or a zombie: in a container, nobody may be there to reap an orphan."""
        try:
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True

    assert holds(is_gone)
