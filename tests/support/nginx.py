"""Debian's nginx over one directory, with nothing configured but the directory; it can be killed and come back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gatewayd.lab.namespace import Namespace
from tests.support.lab_daemon import holds

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NOT_INSTALLED = "nginx is not installed (Debian: nginx-light)"
# One process and no workers: these would outlive a SIGKILL of the first, and in a user namespace cannot begin.
CONFIG = """
{user} master_process off; daemon off; pid {prefix}/nginx.pid; error_log stderr;
events {{ }}
http {{
    log_format asked escape=none '$status $request_uri $http_if_none_match';
    access_log {prefix}/access.log asked;
    client_body_temp_path {prefix}/t1; proxy_temp_path {prefix}/t2; fastcgi_temp_path {prefix}/t3;
    uwsgi_temp_path {prefix}/t4; scgi_temp_path {prefix}/t5;
    include /etc/nginx/mime.types;
    gzip on;
    server {{ listen 127.0.0.1:{port}; root {directory}; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was answered. `etag`: its If-None-Match; empty without one."""

    status: int
    path: str
    etag: str


class Nginx:
    """`directory` on the loopback of `namespace`; None: of this one. The port stays the same over `start`."""

    def __init__(self, directory: Path, prefix: Path, namespace: Namespace | None = None) -> None:
        self._directory = directory
        self._prefix = prefix
        self._namespace = namespace
        self._server: subprocess.Popen[bytes] | None = None
        with self._within(), socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Until it answers."""
        assert NGINX is not None
        config = self._prefix / "nginx.conf"
        # Else it would give its directories to nobody, whom a user namespace does not know.
        user = "user root;" if os.geteuid() == 0 else ""
        text = CONFIG.format(user=user, prefix=self._prefix, port=self._port, directory=self._directory)
        config.write_text(text)
        command = [NGINX, "-e", "stderr", "-p", str(self._prefix), "-c", str(config)]
        if self._namespace is not None:
            command = self._namespace.command(command)
        with (self._prefix / "stderr").open("ab") as stderr:
            server = self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
        assert holds(lambda: server.poll() is not None or self._queries()), "nginx does not answer"
        assert server.poll() is None, self._words()

    def _queries(self) -> bool:
        try:
            with self._within():
                socket.create_connection(("127.0.0.1", self._port), timeout=1.0).close()
        except ConnectionRefusedError:
            return False
        return True

    def _within(self) -> AbstractContextManager[None]:
        return nullcontext() if self._namespace is None else self._namespace.entered()

    def _words(self) -> str:
        return (self._prefix / "stderr").read_text()

    def kill(self) -> None:
        """From now on connections are refused."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def asked(self) -> list[Asked]:
        """What was answered so far; the latest a moment after its answer."""
        log = self._prefix / "access.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [Asked(int(status), path, etag) for status, path, etag in (line.split(" ", 2) for line in lines)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        assert self._server is not None
        ended = self._server.poll()
        self._server.terminate()
        self._server.wait(10)
        assert ended is None or error_type is not None, self._words()
