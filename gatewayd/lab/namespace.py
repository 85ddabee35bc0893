"""An anonymous network namespace, held by a file descriptor and gone with it.

No name under /run/netns, no helper process: the kernel destroys the namespace with the last descriptor,
socket or process in it, so nothing has to clean up after a SIGKILL. Works as root, and as nobody inside
`unshare -Urn`.

Links, addresses, routes and rules go by pyroute2. Namespaces do not: `pyroute2.netns` makes named ones alone, which
outlive a killed process. Nor do sysctls, which it does not have: /proc/sys shows those of the thread's namespace.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Self, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gatewayd.errors import MissingPrerequisite

CLONE_NEWNET = 0x40000000
"""include/uapi/linux/sched.h."""
IFA_F_NODAD = 0x02
"""include/uapi/linux/if_addr.h."""
STOP_PATIENCE_S = 3.0
"""How long a child may take to end after SIGTERM."""

File = int | IO[bytes] | None
_T = TypeVar("_T")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def enter(descriptor: int) -> None:
    """The calling thread is in the network namespace of `descriptor` from now on."""
    _checked(_libc.setns(descriptor, CLONE_NEWNET), "setns")


@contextmanager
def entered(descriptor: int) -> Iterator[None]:
    """The calling thread is in the network namespace of `descriptor`; sockets made here stay there.

    Never await inside: whatever else runs on this thread would be in the namespace too.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(descriptor)
        try:
            yield
        finally:
            _checked(_libc.setns(before, CLONE_NEWNET), "setns back")
    finally:
        os.close(before)


def _in_thread(work: Callable[[], _T]) -> _T:
    """The result of `work`, or its error, from a thread that ends with it, and so does what was done to it."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def _unshare() -> int:
    """A descriptor of a new namespace. The caller's thread stays where it is."""
    try:
        _checked(_libc.unshare(CLONE_NEWNET), "unshare")
    except OSError as error:
        raise MissingPrerequisite(
            f"this process may not make a network namespace ({error.strerror})",
            "run as root, or in `unshare -Urn`",
        ) from None
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """Owns the descriptor and every process started by `popen`; `close` ends those and lets the kernel have
    it back. Its loopback is up.

    `name` is for people (error notes) only.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.descriptor = _in_thread(_unshare)
        self._children: list[subprocess.Popen[bytes]] = []
        self._spawner: ThreadPoolExecutor | None = None
        self.bring_up("lo")

    @property
    def path(self) -> str:
        """For `nsenter --net=PATH`, also from another terminal; valid while this process holds the
        namespace."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """See the module's `entered`."""
        with entered(self.descriptor):
            yield

    def configure(self, work: Callable[[IPRoute], _T]) -> _T:
        """The result of `work`, which is given rtnetlink in this namespace.

        It runs in a thread of its own: IPRoute runs an event loop, and so fails in a thread that runs one already.
        Raises OSError with the kernel's errno for a request that it refuses.
        """

        def inside() -> _T:
            enter(self.descriptor)
            with IPRoute() as ip:
                return work(ip)

        try:
            return _in_thread(inside)
        except NetlinkError as error:
            raise OSError(error.code, f"rtnetlink in namespace {self.name}: {os.strerror(error.code)}") from error

    def bring_up(self, interface: str, *addresses: str) -> None:
        """Set a link up and give it `addresses` in CIDR notation, which can be used at once."""

        def work(ip: IPRoute) -> None:
            index = ip.link_lookup(ifname=interface)[0]
            ip.link("set", index=index, state="up")
            for text in addresses:
                address, _, length = text.partition("/")
                flags = IFA_F_NODAD if ":" in address else 0
                ip.addr("add", index=index, address=address, prefixlen=int(length), flags=flags)

        self.configure(work)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """`arguments` made to run in the namespace and to die with the *thread* that starts them
        (PR_SET_PDEATHSIG).

        For asyncio.create_subprocess_exec; otherwise use `run` and `popen`.
        """
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={self.path}", "--", *arguments]

    def run(
        self, arguments: Sequence[str], *, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end, output captured. With `check`, CalledProcessError carries stderr as a note."""
        done = subprocess.run(self.command(arguments), input=input, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, list(arguments), done.stdout, done.stderr)
            error.add_note(f"in namespace {self.name}: {done.stderr.strip()}")
            raise error
        return done

    def nft(self, script: str) -> None:
        """Apply an nft script inside, in one transaction. Raises as `run`."""
        self.run(["nft", "-f", "-"], input=script)

    def popen(
        self,
        arguments: Sequence[str],
        *,
        stdin: File = subprocess.DEVNULL,
        stdout: File = None,
        stderr: File = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process that dies with this one, however this one dies, and is ended by `close`.

        Started by a thread of the namespace's own, which lives as long as it does: PR_SET_PDEATHSIG goes by
        the thread that forked, and the caller's may be a short-lived one. The signal is not inherited: what
        the child forks is its own to end.
        """
        if self._spawner is None:
            self._spawner = ThreadPoolExecutor(1, thread_name_prefix=f"spawn-{self.name}")

        def spawn() -> subprocess.Popen[bytes]:
            return subprocess.Popen(self.command(arguments), stdin=stdin, stdout=stdout, stderr=stderr, env=env)

        child = self._spawner.submit(spawn).result()
        self._children.append(child)
        return child

    def sysctl(self, name: str, value: str) -> None:
        """Set `net.…` in this namespace. Raises MissingPrerequisite where the kernel lacks it or it is
        read-only."""
        with self.entered():
            try:
                with open(f"/proc/sys/{name.replace('.', '/')}", "w") as file:
                    file.write(f"{value}\n")
            except OSError as error:
                raise MissingPrerequisite(
                    f"sysctl {name} cannot be set ({error.strerror})",
                    "this kernel or container is too limited",
                ) from None

    def close(self) -> None:
        """End the children (SIGTERM, then SIGKILL) and let go of the namespace. Again is harmless."""
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        for child in self._children:
            self._end(child)
        self._children.clear()
        if self._spawner is not None:
            self._spawner.shutdown()
            self._spawner = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _end(child: subprocess.Popen[bytes]) -> None:
        try:
            child.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
