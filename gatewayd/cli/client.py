"""One request to the daemon's API, for the commands that ask it."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Final, TypeVar

import aiohttp
import click
import msgspec

from gatewayd.errors import DaemonNotReachable
from gatewayd.model.decoding import UNDECODABLE

DEFAULT_SOCKET: Final = "/run/gatewayd/api.sock"
READ_TIMEOUT_S: Final = 30.0
_MAX_SINCE_S: Final = 400 * 86400.0
LONG_READ_TIMEOUT_S: Final = 300.0
"""Of what looks at every registration: a million take half a minute where the daemon is busy."""
WRITE_TIMEOUT_S: Final = 900.0
"""A sync reads every source over the network and waits for the kernel."""

_Command = Callable[..., None]
_T = TypeVar("_T")

_HINTS: Final = {
    errno.ENOENT: "the socket is not there (is the service running?)",
    errno.ECONNREFUSED: "nobody listens there (is the service running?)",
    errno.EACCES: "permission denied (the socket is for its owner and group; try sudo)",
}


class NotOffered(click.ClickException):
    """The daemon has no such thing: the path, or what it names."""


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

    def get(
        self,
        path: str,
        parameters: Mapping[str, str | int | None] | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """The JSON of an answer, READ_TIMEOUT_S at most; parameters that are None are left out.

        Raises DaemonNotReachable; click.UsageError when the daemon finds a parameter wrong (400);
        click.ClickException with its reason for all else that is not 200.
        """
        return self._ask("GET", path, _given(parameters), READ_TIMEOUT_S if timeout_s is None else timeout_s)

    def post(
        self,
        path: str,
        parameters: Mapping[str, str | int | None] | None = None,
        body: bytes | None = None,
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> bytes:
        """As `get`; for what changes something, or has more to say than parameters can."""
        return self._ask("POST", path, _given(parameters), timeout_s, body)

    def parse(self, body: bytes, view: type[_T]) -> _T:
        """Raises DaemonNotReachable when what answered does not speak as the daemon does."""
        try:
            return msgspec.json.decode(body, type=view)
        except UNDECODABLE:
            raise DaemonNotReachable(self.place, "what answers there is not this gatewayd") from None

    async def stream(
        self, path: str, parameters: Mapping[str, str], headers: Mapping[str, str], silence_s: float
    ) -> AsyncGenerator[bytes, None]:
        """An answer as it comes, until the daemon ends it. `silence_s`: the longest pause of a stream that lives.

        Raises as `get`.
        """
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise self._not_a_url()
        timeout = aiohttp.ClientTimeout(total=None, connect=READ_TIMEOUT_S, sock_read=silence_s)
        try:
            async with (
                aiohttp.ClientSession(connector=self._connector(), timeout=timeout) as session,
                session.get(
                    self._base() + path, params=dict(parameters), headers=dict(headers), allow_redirects=False
                ) as answer,
            ):
                if answer.status != 200:
                    raise self._fault(answer.status, await answer.read())
                async for chunk in answer.content.iter_any():
                    yield chunk
        except aiohttp.InvalidURL:
            raise self._not_a_url() from None
        except TimeoutError:
            raise DaemonNotReachable(self.place, f"nothing came for {silence_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise DaemonNotReachable(self.place, _why(error)) from None

    async def ask(self, path: str, parameters: Mapping[str, str | int | None] | None = None) -> bytes:
        """As `get`, for a program that has a loop of its own."""
        return await self._answer("GET", path, _given(parameters), READ_TIMEOUT_S)

    def _ask(
        self, method: str, path: str, parameters: dict[str, str], timeout_s: float, content: bytes | None = None
    ) -> bytes:
        return asyncio.run(self._answer(method, path, parameters, timeout_s, content))

    async def _answer(
        self, method: str, path: str, parameters: dict[str, str], timeout_s: float, content: bytes | None = None
    ) -> bytes:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise self._not_a_url()
        try:
            status, body = await self._request(method, path, parameters, timeout_s, content)
        except aiohttp.InvalidURL:
            raise self._not_a_url() from None
        except TimeoutError:
            raise DaemonNotReachable(self.place, f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise DaemonNotReachable(self.place, _why(error)) from None
        if status == 200:
            return body
        raise self._fault(status, body)

    def _fault(self, status: int, body: bytes) -> click.ClickException:
        fault = self.parse(body, _Fault).error or f"HTTP status {status}"
        if status == 404:
            return NotOffered(fault)
        return click.UsageError(fault) if status == 400 else click.ClickException(fault)

    def _connector(self) -> aiohttp.UnixConnector | None:
        return None if self.url else aiohttp.UnixConnector(self.socket)

    def _base(self) -> str:
        return self.url.rstrip("/") if self.url else "http://gatewayd"

    def _not_a_url(self) -> click.UsageError:
        return click.UsageError(f"{self.url!r} is not a URL, expected http://HOST:PORT")

    async def _request(
        self, method: str, path: str, parameters: dict[str, str], timeout_s: float, content: bytes | None
    ) -> tuple[int, bytes]:
        timeout, url = aiohttp.ClientTimeout(total=timeout_s), self._base() + path
        async with (
            aiohttp.ClientSession(connector=self._connector(), timeout=timeout) as session,
            session.request(method, url, params=parameters, data=content, allow_redirects=False) as answer,
        ):
            return answer.status, await answer.read()


def moment_of(text: str | None) -> str | None:
    """A length of time, back from now, as a moment; else as it is, for the daemon to judge."""
    from gatewayd.model.moment import format_time
    from gatewayd.settings.values import parse_duration

    try:
        return None if text is None else format_time(time.time() - parse_duration(text, 0.0, _MAX_SINCE_S))
    except ValueError:
        return text


def _given(parameters: Mapping[str, str | int | None] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (parameters or {}).items() if value is not None}


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
