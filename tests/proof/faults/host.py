"""What happens to the process: killed, stopped, without memory or files, told too often, begun twice."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from gatewayd.demo.cast import registration
from tests.proof.harness import Fault, World
from tests.support.lab_daemon import holds

STOPPED_S = 60.0
STARTS_UNDER_LIMIT = (12, 24, 40, 52, 60)
"""MiB of memory, of a daemon that needs some 60: it dies sooner or later on its way."""
GROWTH_LIMIT = 8
GROWTH = 40_000
HANGUPS = 400
MEMORY_CONTROLLERS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))

_numbers = count(1)


@contextmanager
def kill(world: World) -> Iterator[None]:
    world.daemon.end(signal.SIGKILL)
    world.daemon.start()
    yield
    world.hears("daemon.started")
    world.hears("daemon.ready")


@contextmanager
def stop_a_minute(world: World) -> Iterator[None]:
    """The registry changes meanwhile."""
    os.kill(world.daemon.pid, signal.SIGSTOP)
    try:
        ends = time.monotonic() + STOPPED_S
        world.write(*world.constant, *extras(50))
        asked = world.daemon.ask("status")
        world.learns("`gatewayd status` ends with 3", is_told=asked.returncode == 3)
        time.sleep(max(0.0, ends - time.monotonic()))
    finally:
        os.kill(world.daemon.pid, signal.SIGCONT)
        world.mark()
    yield
    world.hears("registry.applied")


def extras(size: int) -> list[dict[str, object]]:
    """Registrations that come in the course of a row."""
    return [
        registration(
            f"PROOF-{number}", "software_house", [f"39.{44 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32"]
        )
        for number in range(size)
    ]


# -- memory --------------------------------------------------------------------------------------------------------


class MemoryGroup:
    """A control group of our own, of either version, with a limit."""

    def __init__(self) -> None:
        self._is_old = MEMORY_CONTROLLERS[0].is_dir()
        parent = MEMORY_CONTROLLERS[0] if self._is_old else MEMORY_CONTROLLERS[1]
        self.path = parent / f"gatewayd-proof-{os.getpid()}-{next(_numbers)}"
        self.path.mkdir()

    def limit(self, size_mib: int) -> None:
        name = "memory.limit_in_bytes" if self._is_old else "memory.max"
        (self.path / name).write_text(str(size_mib << 20))

    @property
    def wrapper(self) -> tuple[str, ...]:
        """Of a program that is in it from its first instruction."""
        return ("sh", "-c", f'echo $$ >{self.path}/cgroup.procs && exec "$@"', "sh")

    def take(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Empty."""
        assert holds(lambda: not (self.path / "cgroup.procs").read_text())
        self.path.rmdir()


@contextmanager
def run_out_of_memory(world: World) -> Iterator[None]:
    """Once as it grows, and then at every stage of its start, before somebody gives it more."""
    daemon = world.daemon
    group = MemoryGroup()
    try:
        group.limit(GROWTH_LIMIT)
        group.take(daemon.pid)
        world.write(*world.constant, *extras(GROWTH))
        assert holds(lambda: not daemon.is_running())
        ends = [daemon.end(signal.SIGKILL)]
        for size_mib in STARTS_UNDER_LIMIT:
            group.limit(size_mib)
            daemon.start(wrapper=group.wrapper)
            assert holds(lambda: not daemon.is_running() or world.is_ready())
            ends.append(daemon.end(signal.SIGKILL))
        world.mark()
        daemon.start()
        yield
        world.learns("killed by the kernel", is_told=ends[0] == -signal.SIGKILL)
        world.hears("daemon.started")
        world.hears("daemon.ready")
    finally:
        daemon.end(signal.SIGKILL)
        group.close()


# -- files ---------------------------------------------------------------------------------------------------------


@contextmanager
def use_up_files(world: World) -> Iterator[None]:
    """It can open none; those that it has stay open. Another program's flush cannot be repaired meanwhile: then all
    passes."""
    pid = world.daemon.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        world.write(*world.constant, *extras(50))
        world.hears("source.failed")
        world.cgnat.change()
        world.expect()
        world.daemon.reload()
        world.hears("reload.refused")
        asked = world.daemon.ask("status")
        world.learns("`gatewayd status` ends with 3", is_told=asked.returncode == 3)
        world.hears("api.no_files")
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


# -- signals and seconds -------------------------------------------------------------------------------------------


@contextmanager
def hang_up_again_and_again(world: World) -> Iterator[None]:
    """The file is another each time: a mode, a scope, a drain, or no configuration at all."""
    daemon = world.daemon
    for number in range(HANGUPS):
        match number % 8:
            case 0:
                world.configure("reject", policy={"drain": f"{2 + number % 5}s"})
            case 2:
                world.configure("limit", policy={"on_unregistered": {"limit": "10/second"}})
            case 4:
                daemon.write_file("gatewayd.yaml", b"policy: [")
            case 6:
                world.configure("observe")
        daemon.reload()
        time.sleep(0.005)
    world.configure("reject", policy={"drain": "2s"})
    world.mark()
    daemon.reload()
    yield
    world.hears("reload.refused")
    world.hears("reload.done")
    world.hears("policy.in_force")


@contextmanager
def start_a_second(world: World) -> Iterator[None]:
    """By hand beside the first, with its state directory and without; and two at once where the first has died."""
    daemon = world.daemon
    other = daemon.write_file("other.yaml", daemon.config_path.read_bytes().replace(b"/state", b"/other"))
    (world.directory / "other").mkdir()
    for config in (daemon.config_path, other):
        second = daemon.cli("run", "--config", str(config))
        world.learns(
            "the second ends: “another daemon …”", is_told=second.returncode != 0 and "another" in second.stderr
        )
    assert daemon.is_running()
    world.mark()
    daemon.end(signal.SIGKILL)
    rival = _run_beside(world, other)
    daemon.start()
    assert holds(lambda: rival.poll() is not None or not daemon.is_running())
    if not daemon.is_running():
        rival.kill()
        rival.wait()
        daemon.start()
    yield
    assert rival.poll() is not None
    world.hears("daemon.ready")


def _run_beside(world: World, config: Path) -> subprocess.Popen[bytes]:
    with (world.directory / "rival.log").open("wb") as log:
        command = [sys.executable, "-m", "gatewayd", "run", "--config", str(config)]
        return world.lab.gateway.popen(command, stdout=log, stderr=log)


FAULTS = (
    Fault("SIGKILL", "The process is killed, and the service manager starts it again.", kill),
    Fault("SIGSTOP for a minute", "The process stands still, and the registry changes meanwhile.", stop_a_minute),
    Fault(
        "out of memory",
        "The kernel kills it as it grows, and then five times as it starts, each time with a little more memory.",
        run_out_of_memory,
    ),
    Fault(
        "no file descriptor left",
        "It can open nothing: neither source nor configuration, no connection, no program.",
        use_up_files,
        lasts=True,
    ),
    Fault(
        "SIGHUP storm",
        f"{HANGUPS} reloads within seconds, with three modes by turns, and with a file that is none.",
        hang_up_again_and_again,
    ),
    Fault(
        "two daemons",
        "A second one is started beside the first, and two at once where the first was killed.",
        start_a_second,
    ),
)
