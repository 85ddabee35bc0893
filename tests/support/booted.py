"""A whole Debian host, booted with its own systemd, whose network is the gateway of a lab.

    with Lab(prefixes) as lab, booted(lab, [base_tree("bookworm")]) as host:
        host.run("systemctl", "start", "gatewayd")

A host is layers: directories that lie over each other (overlayfs), the topmost first, the tree of a suite last. The
writes of the host are in memory and go with it. It runs in systemd-nspawn as a child of this process: killed, this
process leaves nothing behind. It has CAP_NET_ADMIN for the lab's gateway, and no part of the machine's own network.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from gatewayd.lab.lab import Lab
from tests.support.lab_daemon import holds

TREE = Path(__file__).parents[1] / "tree.sh"
SUITES = ("bookworm", "trixie")
BOOT_DEADLINE_S = 120.0
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=dumb",
    "SYSTEMD_PAGER=cat",
    "DEBIAN_FRONTEND=noninteractive",
)
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd=/")
# systemd-nspawn leaves its host running when it is killed; a namespace of processes ends whole.
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_A_SERVICE = (
    "systemd-run",
    "--quiet",
    "--pipe",
    "--wait",
    "--collect",
    "--working-directory=/root",
    *(f"--setenv={each}" for each in _ENVIRONMENT),
)
# A cgroup of its own: two hosts in one would take each other's services for theirs. A /run of its own: the machine
# may have no systemd, and should see nothing of ours. adjtimex and clock_adjtime are for asking: without
# CAP_SYS_TIME no process sets the machine's clock. /proc/sys/net is the lab's.
_BOOT = """
[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/$1
echo 0 >/sys/fs/cgroup/$1/cgroup.procs
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/upper /run/work /run/root
mount -t overlay overlay -o "lowerdir=$2,upperdir=/run/upper,workdir=/run/work" /run/root
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec systemd-nspawn --quiet --boot --directory=/run/root --machine="$1" \\
    --capability=CAP_NET_ADMIN --system-call-filter='adjtimex clock_adjtime' \\
    --network-namespace-path=/proc/self/ns/net --register=no --keep-unit --console=pipe \\
    --resolv-conf=off --timezone=off --link-journal=no
"""
# A test that was killed could not take away its own, which are empty.
_FORGET = """
[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup
for left in /sys/fs/cgroup/gatewayd-*-*; do
    process=${left#*/gatewayd-}
    [ -e "/proc/${process%%-*}" ] || find "$left" -depth -type d -exec rmdir {} + || true
done
find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""
_numbers = count()


def base_tree(suite: str) -> Path:
    """The tree of a suite as debootstrap leaves it, made if it is not there. Nobody writes to it."""
    return Path(subprocess.run([TREE, "make", suite], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


def add_layer(base: Path, layer: Path, *command: str) -> Path:
    """`layer`, with what the command changed. It runs on `base`, not booted, on this machine's network."""
    done = subprocess.run([TREE, "over", base, layer, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return layer


class BootedHost:
    """`root`: its files, as they can be read and written from here."""

    def __init__(self, lab: Lab, name: str, process: subprocess.Popen[bytes], init: int) -> None:
        self.lab = lab
        self.name = name
        self._process = process
        self._inside = ("nsenter", f"--target={init}", *_NAMESPACES, "env", "-i", *_ENVIRONMENT)
        self.root = Path(f"/proc/{init}/root")

    def run(self, *command: str, status: int | None = 0, input: str | None = None) -> str:
        """What a command of root's prints, errors included. `status` None: whatever it ends with."""
        done = self.ask(*command, input=input)
        assert status in (None, done.returncode), f"{command}: {done.returncode}\n{done.stdout}{self.tail()}"
        return done.stdout

    def ask(self, *command: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Its stdout has the errors too."""
        return self.enter(*_AS_A_SERVICE, *command, input=input)

    def enter(self, *command: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Not by its systemd: with privileges of this machine, for what its systemd cannot do."""
        return subprocess.run(
            [*self._inside, *command],
            input="" if input is None else input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """A file of root's."""
        here = self.root / path.lstrip("/")
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text(text)
        here.chmod(mode)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def property(self, name: str, unit: str = "gatewayd") -> str:
        """A property of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str = "gatewayd") -> str:
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", f"--unit={unit}")

    def tail(self) -> str:
        """The end of its journal, for people."""
        return self.ask("journalctl", "--no-pager", "--lines=40").stdout


@contextmanager
def booted(lab: Lab, layers: Sequence[Path]) -> Iterator[BootedHost]:
    """Up: systemd is done with its boot, whatever services came to. Its network is `lab.gateway`."""
    name = f"gatewayd-{os.getpid()}-{next(_numbers)}"
    with (Path("/tmp") / f"{name}.log").open("w+b") as console:
        os.unlink(console.name)
        process = lab.gateway.popen(
            [*_ALONE, "sh", "-euc", _BOOT, "sh", name, ":".join(str(each) for each in layers)],
            stdout=console,
            stderr=console,
        )
        try:
            yield _up(lab, name, process, console)
        finally:
            # Orderly, it would take seconds, and to lose its memory is all that follows.
            process.send_signal(signal.SIGKILL)
            process.wait()
            _forget(name)


def _up(lab: Lab, name: str, process: subprocess.Popen[bytes], console: IO[bytes]) -> BootedHost:
    def words() -> str:
        console.seek(0)
        return console.read().decode(errors="replace")[-3000:]

    found: list[int] = []

    def is_there() -> bool:
        found[:] = [init for child in _children(process.pid) for init in _children(child) if _is_systemd(init)]
        return bool(found) or process.poll() is not None

    assert holds(is_there, BOOT_DEADLINE_S), words()
    assert found, words()
    host = BootedHost(lab, name, process, found[0])

    def is_up() -> bool:
        state = host.enter("systemctl", "is-system-running").stdout.strip()
        return state in ("running", "degraded") or process.poll() is not None

    assert holds(is_up, BOOT_DEADLINE_S), words() + host.tail()
    assert process.poll() is None, words()
    return host


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_systemd(pid: int) -> bool:
    """Whether it is no more a process of systemd-nspawn."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "systemd\n"
    except OSError:
        return False


def _forget(name: str) -> None:
    """Its cgroups, which are empty once its processes are gone."""

    def is_gone() -> bool:
        forget = ["unshare", "--mount", "sh", "-euc", _FORGET, "sh", name]
        return subprocess.run(forget, stderr=subprocess.DEVNULL, check=False).returncode == 0

    assert holds(is_gone), name
