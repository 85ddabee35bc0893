"""The way to a source's server: proxy, trusted authorities, patience; and what went wrong on it, in words.

Plain sources and signed feeds ask by it alike. Redirects are the caller's: what comes back is the first answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from gatewayd.sources.file_source import FileSignature, signature_of

FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""What `Route.get` and reading of the answer raise, and what `describe_failure` has words for."""


class CaFileUnusable(OSError):
    """A file of authorities cannot be read, or holds no certificate."""


class Route:
    """Asks URLs of one source.

    `session` comes from `fetch.open_session`. `proxy`: URL; None: what the environment says. `ca_file`: PEM of
    the only authorities that are trusted for TLS, read anew when it changes; None: those of the system.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        timeout: aiohttp.ClientTimeout,
        *,
        proxy: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        if session.auto_decompress:
            raise ValueError("a source needs a session of open_session()")
        self._session = session
        self._timeout = timeout
        self._proxy = proxy
        self._ca_file = None if ca_file is None else Path(ca_file)
        self._signature: FileSignature | None = None
        self._context: ssl.SSLContext | None = None

    async def get(self, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The head of the answer, its body still to be read; to be closed. Raises FAILURES."""
        context = await self._trusted()
        return await self._session.get(
            url,
            headers=headers,
            timeout=self._timeout,
            allow_redirects=False,
            proxy=self._proxy,
            ssl=True if context is None else context,
        )

    async def _trusted(self) -> ssl.SSLContext | None:
        if self._ca_file is None:
            return None
        signature = await asyncio.to_thread(signature_of, self._ca_file)
        if self._context is None or signature != self._signature:
            self._context = await asyncio.to_thread(load_authorities, self._ca_file)
            self._signature = signature
        return self._context


def load_authorities(ca_file: Path) -> ssl.SSLContext:
    """Trusts nobody but those in the file, PEM. Blocking. Raises CaFileUnusable."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise CaFileUnusable(f"ca_file {ca_file} {why}") from None


def shown_url(url: URL) -> str:
    """The URL for people: without user, password, query and fragment."""
    if not url.host:
        return "(no HTTP URL)"
    return str(url.with_user(None).with_query(None).with_fragment(None))


def describe_failure(error: Exception) -> str:
    """An error of the network or a file in words. They name hosts, files and numbers, never a query."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the body was cut short"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answers {error.status} {error.message}".rstrip()
    if isinstance(error, aiohttp.ClientConnectionError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return type(error).__name__
