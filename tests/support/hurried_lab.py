"""A real daemon in the lab's gateway in hurried time, with a disk for its state that can be full or read-only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gatewayd.lab.lab import Lab
from tests.support.hurried import HurriedClock
from tests.support.lab_daemon import LabDaemon, clean, holds

DISK_BYTES = 32 * 1024 * 1024
"""Room for the logs of all files of the state, 4 MiB each before SQLite takes one in."""
ROOT = Path(__file__).parents[2]


class SmallDisk:
    """A tmpfs at `path`, to be seen in a mount namespace of its own; `wrapper` starts a program there."""

    def __init__(self, lab: Lab, path: Path) -> None:
        path.mkdir()
        mount = f"mount -t tmpfs -o size={DISK_BYTES},mode=700 tmpfs {path} && echo && exec sleep infinity"
        self._holder = lab.gateway.popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n"
        namespace = f"/proc/{self._holder.pid}/ns/mnt"
        self.wrapper = ["nsenter", f"--mount={namespace}", f"--wd={ROOT}", "--"]
        self._path = path
        self._is_covered = False
        self._filler = Path(f"/proc/{self._holder.pid}/root{path}/filler")

    def fill(self) -> None:
        """To the last byte."""
        with self._filler.open("wb", buffering=0) as file:
            size_bytes = 64 * 1024
            while size_bytes:
                try:
                    size_bytes = size_bytes if file.write(bytes(size_bytes)) else 0
                except OSError:
                    size_bytes //= 2

    def make_read_only(self) -> None:
        """For what is opened from now on: the kernel refuses it for a disk on which files are open for writing, and
        those of the state are as long as the daemon runs. So the path is read-only through a mount over it."""
        self._mount("--bind", str(self._path))
        self._mount("-o", "remount,bind,ro")
        self._is_covered = True

    def mend(self) -> None:
        if self._is_covered:
            subprocess.run([*self.wrapper, "umount", str(self._path)], check=True)
            self._is_covered = False
        self._filler.unlink(missing_ok=True)

    def _mount(self, *arguments: str) -> None:
        subprocess.run([*self.wrapper, "mount", *arguments, str(self._path)], check=True)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class HurriedDaemon(LabDaemon):
    """`gatewayd run` by another clock, its `state_dir` on a SmallDisk."""

    def __init__(self, lab: Lab, directory: Path, clock: HurriedClock) -> None:
        super().__init__(lab, directory)
        self.clock = clock
        self.disk = SmallDisk(lab, directory / "state")
        self._base["state_dir"] = str(directory / "state")

    def start(self, **_: Any) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        arguments = [*self.clock.arguments(), "--config", str(self.config_path)]
        with self.log_path.open("ab") as output:
            self._process = self.lab.gateway.popen(
                [*self.disk.wrapper, sys.executable, "-m", "tests.support.hurried", *arguments],
                stdout=output,
                stderr=output,
                env=environment | {"PYTHONUNBUFFERED": "1"},
            )

    def wait_source(self, **wanted: Any) -> dict[str, Any]:
        """The status of the one source, once it has these values; for a text: once it holds it."""

        def is_as_wanted() -> bool:
            last.update(self.status()["sources"][0])
            return all(
                expected in (last[name] or "") if isinstance(expected, str) and expected else last[name] == expected
                for name, expected in wanted.items()
            )

        last: dict[str, Any] = {}
        assert holds(is_as_wanted), f"{wanted} never came: {last}\n{self.log_text()[-3000:]}"
        return last


@contextmanager
def hurried_daemon_in(lab: Lab, directory: Path, clock: HurriedClock) -> Iterator[HurriedDaemon]:
    """A daemon of a gateway as good as new; whatever it leaves goes afterwards."""
    clean(lab)
    daemon = HurriedDaemon(lab, directory, clock)
    try:
        yield daemon
    finally:
        daemon.stop_for_good()
        daemon.disk.close()
        clean(lab)
