"""Debian's FreeRADIUS in front of gatewayd, configured as docs/operations.md says; radclient in the NAS's place.

    with FreeRadius(directory, "buffered", receiver=("127.0.0.1", 18130)) as radius:
        assert radius.send('Acct-Status-Type = Start, Acct-Session-Id = "s1", Framed-IP-Address = 100.64.3.9')

The configuration directory is made anew below `directory`: what Debian's has that matters here, and over it the
files, links and lines of the document, to the letter but for address, port and secret of the receiver. The server
is a child process; nothing outside `directory` is read but its dictionaries and modules.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, Self

from gatewayd.lab.namespace import Namespace
from tests.support.lab_daemon import holds

Way = Literal["replicate", "buffered"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
HEADINGS: dict[Way, str] = {
    "buffered": "### FreeRADIUS, buffered",
    "replicate": "### FreeRADIUS, replicated",
}
RADDB = "/etc/freeradius/3.0/"
NAS_SECRET = "what-the-nas-has"
RECEIVER_SECRET = "what-gatewayd-has"

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
FREERADIUS = shutil.which("freeradius", path=_PATH)
RADCLIENT = shutil.which("radclient", path=_PATH)

# Debian's radiusd.conf, without what accounting does not need.
RADIUSD = """
prefix = /usr
exec_prefix = /usr
raddbdir = {raddb}
confdir = ${{raddbdir}}
modconfdir = ${{confdir}}/mods-config
logdir = {log}
radacctdir = ${{logdir}}/radacct
run_dir = ${{logdir}}
libdir = /usr/lib/freeradius
name = freeradius
pidfile = ${{run_dir}}/${{name}}.pid
max_request_time = 30
cleanup_delay = 5
max_requests = 16384
log {{
    destination = stdout
}}
security {{
    max_attributes = 200
    status_server = yes
}}
proxy_requests = yes
thread pool {{
    start_servers = 2
    max_servers = 4
    min_spare_servers = 1
    max_spare_servers = 2
    max_requests_per_server = 0
}}
client loopback {{
    ipaddr = 127.0.0.0/8
    secret = {nas_secret}
}}
modules {{
    $INCLUDE mods-enabled/
}}
$INCLUDE sites-enabled/
"""
# Of those that Debian enables.
STOCK_MODULES = """
always ok {
    rcode = ok
}
preprocess {
    huntgroups = ${confdir}/huntgroups
    hints = ${confdir}/hints
}
replicate {
}
"""
DEFAULT_SITE = """
server default {{
    listen {{
        type = acct
        ipaddr = {host}
        port = {port}
    }}
    preacct {{
        preprocess
    }}
    accounting {{
        {first}
        ok
    }}
}}
"""


def documented_blocks(way: Way) -> list[str]:
    """The fenced blocks of one way, in order, without the fences."""
    return _blocks_under(HEADINGS[way])


def _blocks_under(heading: str) -> list[str]:
    section = DOCUMENT.read_text().partition(f"\n{heading}\n")[2]
    section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
    blocks: list[str] = re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks, f"{DOCUMENT.name} has no blocks under {heading!r}"
    return blocks


def radclient(
    attributes: str,
    host: str,
    port: int,
    secret: str,
    *,
    command: str = "acct",
    tries: int = 1,
    timeout_s: float = 3,
) -> bool:
    """Whether `tries` requests with these attributes (radclient(1)) got one believable answer."""
    assert RADCLIENT is not None, "radclient is not installed (Debian: freeradius-utils)"
    call = [RADCLIENT, "-q", "-r", str(tries), "-t", str(timeout_s), f"{host}:{port}", command, secret]
    done = subprocess.run(
        call, input=attributes, text=True, capture_output=True, timeout=30 + 2 * tries * timeout_s
    )
    assert "error" not in done.stderr.lower() or "no reply" in done.stderr.lower(), done.stderr
    return done.returncode == 0


class FreeRadius:
    """A FreeRADIUS that has NAS on 127.0.0.0/8 and passes their accounting on to `receiver` (address, port).

    The port that it listens on stays the same over `start`, and so does what it keeps for the receiver. In
    `namespace`; None: in this one.
    """

    def __init__(
        self, directory: Path, way: Way, receiver: tuple[str, int], *, secret: str = RECEIVER_SECRET,
        nas_secret: str = NAS_SECRET, host: str = "127.0.0.1", namespace: Namespace | None = None,
    ) -> None:  # fmt: skip
        self.way = way
        self.host = host
        self.nas_secret = nas_secret
        self._raddb = directory / "raddb"
        self._log = directory / "log"
        self._namespace = namespace
        self._server: subprocess.Popen[bytes] | None = None
        with self._within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((host, 0))
            self.port: int = free.getsockname()[1]
        self._write(receiver, secret)

    @property
    def queue(self) -> Path:
        """Where the buffered way keeps what was not answered."""
        return self._log / "radacct" / "gatewayd"

    def _write(self, receiver: tuple[str, int], secret: str) -> None:
        for each in ("mods-available", "mods-enabled", "sites-available", "sites-enabled"):
            (self._raddb / each).mkdir(parents=True)
        self._log.mkdir()
        (self._raddb / "huntgroups").touch()
        (self._raddb / "hints").touch()
        (self._raddb / "mods-enabled" / "stock").write_text(STOCK_MODULES)
        text = RADIUSD.format(raddb=self._raddb, log=self._log, nas_secret=self.nas_secret)
        (self._raddb / "radiusd.conf").write_text(text)
        first = ""
        for block in documented_blocks(self.way):
            head, _, body = block.partition("\n")
            if head.startswith(f"# first in accounting {{ }} of {RADDB}sites-available/default"):
                first += body
            elif head.startswith(f"# {RADDB}"):
                name = head.removeprefix(f"# {RADDB}")
                (self._raddb / name).write_text(_for_receiver(block, receiver, secret))
            else:
                self._link(block)
        assert first
        site = DEFAULT_SITE.format(host=self.host, port=self.port, first=first)
        (self._raddb / "sites-available" / "default").write_text(site)
        (self._raddb / "sites-enabled" / "default").symlink_to("../sites-available/default")

    def _link(self, commands: str) -> None:
        """The commands of the document that make links; in its directory, not in Debian's."""
        links = [line for line in commands.splitlines() if line.startswith("ln -s ")]
        subprocess.run(["sh", "-ec", "\n".join(links)], cwd=self._raddb, check=True)

    def add_second_gateway(self, receiver: tuple[str, int]) -> None:
        """As the document says; before `start`."""
        (commands,) = _blocks_under("### FreeRADIUS, to two gateways")
        lines = [line for line in commands.splitlines() if line.startswith(("sed ", "ln -s "))]
        subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=self._raddb, check=True)
        site = self._raddb / "sites-available" / "gatewayd-b"
        text = site.read_text()
        assert "ipaddr = 192.0.2.2" in text
        text = text.replace("ipaddr = 192.0.2.2", f"ipaddr = {receiver[0]}")
        site.write_text(re.sub(r"^(\s*port = )\S+$", rf"\g<1>{receiver[1]}", text, flags=re.MULTILINE))
        assert "\n        gatewayd-b\n" in (self._raddb / "sites-available" / "default").read_text()

    def start(self) -> None:
        """Until it takes requests."""
        assert FREERADIUS is not None, "freeradius is not installed (Debian: freeradius)"
        command = [FREERADIUS, "-f", "-l", "stdout", "-d", str(self._raddb)]
        if self._namespace is not None:
            command = self._namespace.command(command)
        said = self.words().count("Ready to process requests")
        with (self._log / "said").open("ab") as output:
            self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.wait_ready(said)

    def wait_ready(self, before: int = 0) -> None:
        """Until it has said that it is ready more often than `before`."""
        server = self._server
        assert server is not None
        assert holds(lambda: server.poll() is not None or self.words().count("Ready to process requests") > before)
        assert server.poll() is None, self.words()

    def words(self) -> str:
        """Its log, of all its runs."""
        said = self._log / "said"
        return said.read_text(errors="replace") if said.exists() else ""

    def stop(self) -> None:
        assert self._server is not None
        self._server.terminate()
        self._server.wait(20)

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait(20)

    def send(self, attributes: str, *, source: str | None = None, tries: int = 1) -> bool:
        """What a NAS tells it, by radclient; whether it was answered. `source`: the NAS's address."""
        if source is not None:
            attributes += f", Packet-Src-IP-Address = {source}"
        with self._within():
            return radclient(attributes, self.host, self.port, self.nas_secret, tries=tries)

    def send_raw(self, request: bytes) -> bool:
        """The same for a request that is encoded under the NAS's secret; whether anything came back."""
        with self._within(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
            nas.settimeout(5)
            nas.sendto(request, (self.host, self.port))
            try:
                return bool(nas.recv(4096))
            except TimeoutError:
                return False

    def _within(self) -> AbstractContextManager[None]:
        return nullcontext() if self._namespace is None else self._namespace.entered()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        assert self._server is not None
        ended = self._server.poll()
        if ended is None:
            self.stop()


def _for_receiver(block: str, receiver: tuple[str, int], secret: str) -> str:
    """The three values that the document leaves to the operator, where the block has a home server."""
    if "home_server gatewayd {" not in block:
        return block
    for key, value in (("ipaddr", receiver[0]), ("port", receiver[1]), ("secret", secret)):
        block, count = re.subn(rf"^(\s*{key} = )\S+$", rf"\g<1>{value}", block, flags=re.MULTILINE)
        assert count == 1, (key, block)
    return block
