"""One request to the daemon's API, for the commands that ask it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Final, TypeVar

import aiohttp
import click
import msgspec

from gatewayd.errors import DaemonNotReachable

DEFAULT_SOCKET: Final = "/run/gatewayd/api.sock"
READ_TIMEOUT_S: Final = 30.0
WRITE_TIMEOUT_S: Final = 900.0
"""A sync reads every source over the network and waits for the kernel."""

_Command = Callable[..., None]
_T = TypeVar("_T")

_HINTS: Final = {
    errno.ENOENT: "the socket is not there (is the service running?)",
    errno.ECONNREFUSED: "nobody listens there (is the service running?)",
    errno.EACCES: "permission denied (the socket is for its owner and group; try sudo)",
}


class _Fault(msgspec.Struct, frozen=True):
    error: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the daemon answers: `url` if there is one, else `socket`."""

    socket: str = DEFAULT_SOCKET
    url: str | None = None

    @property
    def place(self) -> str:
        return self.url or self.socket

    def get(self, path: str, parameters: Mapping[str, str | int | None] | None = None) -> bytes:
        """The JSON of an answer; parameters that are None are left out.

        Raises DaemonNotReachable; click.UsageError when the daemon finds a parameter wrong (400);
        click.ClickException with its reason for all else that is not 200.
        """
        given = {name: str(value) for name, value in (parameters or {}).items() if value is not None}
        return self._ask("GET", path, given, READ_TIMEOUT_S)

    def post(self, path: str) -> bytes:
        """As `get`; for what changes something."""
        return self._ask("POST", path, {}, WRITE_TIMEOUT_S)

    def parse(self, body: bytes, view: type[_T]) -> _T:
        """Raises DaemonNotReachable when what answered does not speak as the daemon does."""
        try:
            return msgspec.json.decode(body, type=view)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise DaemonNotReachable(self.place, "what answers there is not this gatewayd") from None

    def _ask(self, method: str, path: str, parameters: dict[str, str], timeout_s: float) -> bytes:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise self._not_a_url()
        try:
            status, body = asyncio.run(self._request(method, path, parameters, timeout_s))
        except aiohttp.InvalidURL:
            raise self._not_a_url() from None
        except TimeoutError:
            raise DaemonNotReachable(self.place, f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise DaemonNotReachable(self.place, _why(error)) from None
        if status == 200:
            return body
        fault = self.parse(body, _Fault).error or f"HTTP status {status}"
        raise click.UsageError(fault) if status == 400 else click.ClickException(fault)

    def _not_a_url(self) -> click.UsageError:
        return click.UsageError(f"{self.url!r} is not a URL, expected http://HOST:PORT")

    async def _request(
        self, method: str, path: str, parameters: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        connector = None if self.url else aiohttp.UnixConnector(self.socket)
        base = self.url.rstrip("/") if self.url else "http://gatewayd"
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.request(method, base + path, params=parameters, allow_redirects=False) as answer,
        ):
            return answer.status, await answer.read()


def socket_options(function: _Command) -> _Command:
    """`--socket` and `--json`; the command gets an Endpoint first, and `as_json`."""

    @click.option(
        "--socket",
        envvar="GATEWAYD_SOCKET",
        show_envvar=True,
        default=DEFAULT_SOCKET,
        show_default=True,
        metavar="PATH",
        help="The daemon's Unix socket.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the API's JSON.")
    @wraps(function)
    def with_endpoint(socket: str, url: str | None = None, **arguments: object) -> None:
        function(Endpoint(socket, url), **arguments)

    return with_endpoint


def daemon_options(function: _Command) -> _Command:
    """As socket_options, and `--url`: for commands that only read."""
    return click.option("--url", metavar="URL", help="Ask http://HOST:PORT instead of the socket.")(
        socket_options(function)
    )


def _why(error: Exception) -> str:
    """aiohttp wraps what the system said; its own text repeats where, which we say already."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None or number < 0:
        return str(error) or type(error).__name__
    return _HINTS.get(number) or os.strerror(number)
