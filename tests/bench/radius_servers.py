"""What an operator would have answer accounting instead: FreeRADIUS, and a script of pyrad's Server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.accounting import Place, on_server_core
from tests.bench.row import check
from tests.support.lab_daemon import holds
from tests.support.radius import SECRET

PORT = 1813
READY_WITHIN_S = 30.0
_END_S = 10.0

# Threads as in Debian's configuration; no module but the one that writes the file, as it comes, without fsync.
_FREERADIUS = """\
prefix = /usr
libdir = /usr/lib/freeradius
raddbdir = {directory}
logdir = {directory}
run_dir = {directory}
max_requests = 65536
cleanup_delay = 5
thread pool {{
    start_servers = 5
    max_servers = 32
    min_spare_servers = 3
    max_spare_servers = 10
    max_requests_per_server = 0
    max_queue_size = 65536
}}
security {{
    allow_core_dumps = no
}}
client everybody {{
    ipaddr = 127.0.0.0/8
    secret = {secret}
}}
modules {{
    detail {{
        filename = ${{logdir}}/detail
        permissions = 0600
    }}
}}
server accounting {{
    listen {{
        type = acct
        ipaddr = 127.0.0.1
        port = {port}
    }}
    accounting {{
        detail
    }}
}}
"""


@contextmanager
def freeradius(place: Place, scratch: Path, port: int = PORT) -> Iterator[int]:
    """Debian's, answering and writing a detail file; its process id."""
    directory = scratch / "freeradius"
    directory.mkdir()
    (directory / "radiusd.conf").write_text(
        _FREERADIUS.format(directory=directory, secret=SECRET.decode(), port=port)
    )
    (directory / "dictionary").touch()
    words = ["freeradius", "-f", "-d", str(directory), "-D", "/usr/share/freeradius", "-l", "stdout"]
    with _running(place, words, directory / "log", "Ready to process requests") as process:
        yield process
    check((directory / "detail").stat().st_size > 0, "no detail file")


@contextmanager
def pyrad_server(place: Place, scratch: Path, numbers: Path | None = None, port: int = PORT) -> Iterator[int]:
    """See pyrad_server.py; its process id."""
    words = [sys.executable, "-m", "tests.bench.pyrad_server", str(port), *([str(numbers)] if numbers else [])]
    with _running(place, words, scratch / "pyrad.log", "listening") as process:
        yield process


@contextmanager
def _running(place: Place, words: Sequence[str], log: Path, ready: str) -> Iterator[int]:
    with log.open("wb") as output:
        command = place([*on_server_core(), *words])
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        is_ready = holds(lambda: ready in log.read_text() or process.poll() is not None, READY_WITHIN_S)
        check(is_ready and process.poll() is None, f"{words[0]} does not start: {log.read_text()[-300:]}")
        yield process.pid
        check(process.poll() is None, f"{words[0]} ended: {log.read_text()[-300:]}")
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
