"""HTTP(S) as a source: conditional GET, and a body that is either whole or an error.

Decompression is ours, not aiohttp's: only so is a gzip bomb stopped at the limit, whatever its ratio, and a
gzip stream without its end noticed. A response whose end cannot be told from a lost connection is refused,
because a cut body must never become a shorter allowlist.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import aiohttp
from aiohttp import hdrs
from yarl import URL

from gatewayd import __version__
from gatewayd.errors import SourceTooLarge, SourceUnreadable, SourceUnusable
from gatewayd.feed.inflate import GzipDamaged, Inflater
from gatewayd.sources.origin import Body
from gatewayd.sources.route import FAILURES, Route, describe_failure, shown_url

Session = aiohttp.ClientSession

CHUNK_BYTES: Final = 64 * 1024
MAX_REDIRECTS: Final = 5

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MARKUP_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})


class HttpValidator(NamedTuple):
    """RFC 9110 §8.8: what the server said of the content, to ask whether it still is so."""

    etag: str | None
    last_modified: str | None


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """`max_bytes` holds for what comes over the wire and again for what it decompresses to."""

    max_bytes: int = 1 << 30
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    total_timeout_s: float = 600.0

    def timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=self.total_timeout_s, connect=self.connect_timeout_s, sock_read=self.read_timeout_s
        )


def open_session() -> Session:
    """A session as HttpSource needs it, to be closed by the caller."""
    return aiohttp.ClientSession(
        auto_decompress=False, headers={hdrs.USER_AGENT: f"gatewayd/{__version__}"}, trust_env=True
    )


class HttpSource:
    """A URL as an Origin; `name` is the source's in errors. `session`, `proxy`, `ca_file`: see Route."""

    def __init__(
        self,
        name: str,
        url: str,
        session: Session,
        limits: FetchLimits,
        *,
        proxy: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        if not URL(url).host:
            raise ValueError(f"source {name}: the URL names no host")
        self.name = name
        self._url = URL(url)
        self._route = Route(session, limits.timeout(), proxy=proxy, ca_file=ca_file)
        self._limits = limits

    @property
    def place(self) -> str:
        """The URL without user, password, query and fragment."""
        return shown_url(self._url)

    @asynccontextmanager
    async def open(self, previous: Hashable | None = None) -> AsyncIterator[Body | None]:
        """See Origin. Raises SourceUnreadable (no answer, a status, a redirect elsewhere, a cut body),
        SourceTooLarge, SourceUnusable (a page for people, an unknown encoding, no stated end)."""
        response = await self._answer(previous)
        try:
            if response.status == 304 and previous is not None:
                yield None
            else:
                self._check_head(response)
                content_type = response.headers.get(hdrs.CONTENT_TYPE)
                yield Body(self._chunks(response), _validator_of(response), content_type)
        finally:
            response.close()

    async def _answer(self, previous: Hashable | None) -> aiohttp.ClientResponse:
        """The response after redirects within the origin, its body still to be read."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._request(url, previous)
            location = response.headers.get(hdrs.LOCATION)
            if response.status not in _REDIRECTS or location is None:
                return response
            response.close()
            try:
                url = url.join(URL(location))
                is_ours = url.origin() == self._url.origin()
            except ValueError:
                is_ours = False
            if not is_ours:
                raise self._unreadable(f"redirected to another origin, {shown_url(url)}; refused")
        raise self._unreadable(f"redirected more than {MAX_REDIRECTS} times")

    async def _request(self, url: URL, previous: Hashable | None) -> aiohttp.ClientResponse:
        headers: dict[str, str] = {
            hdrs.ACCEPT: "application/x-ndjson, text/csv, application/json;q=0.9, */*;q=0.5",
            hdrs.ACCEPT_ENCODING: "gzip",
        }
        if isinstance(previous, HttpValidator):
            if previous.etag is not None:
                headers[hdrs.IF_NONE_MATCH] = previous.etag
            if previous.last_modified is not None:
                headers[hdrs.IF_MODIFIED_SINCE] = previous.last_modified
        try:
            return await self._route.get(url, headers)
        except FAILURES as error:
            raise self._unreadable(describe_failure(error)) from None

    def _check_head(self, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:
            raise self._unreadable(f"HTTP status {response.status} {response.reason or ''}".rstrip())
        if response.content_type in _MARKUP_TYPES:
            raise self._unusable(f"the server sends a page for people ({response.content_type})")
        encoding = _encoding_of(response)
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise self._unusable("the server uses a content encoding that was not asked for")
        is_chunked = "chunked" in response.headers.get(hdrs.TRANSFER_ENCODING, "").lower()
        size_bytes = response.content_length
        if size_bytes is None and not is_chunked and encoding == "identity":
            raise self._unusable("the server states no length: a cut body could not be told from a whole one")
        if size_bytes is not None and size_bytes > self._limits.max_bytes:
            raise self._too_large()

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        inflater = Inflater(must_be_gzip=_encoding_of(response) != "identity")
        raw_bytes = plain_bytes = 0
        try:
            async for raw in response.content.iter_chunked(CHUNK_BYTES):
                raw_bytes += len(raw)
                for chunk in inflater.feed(raw):
                    if not plain_bytes:
                        self._check_start(chunk)
                    plain_bytes += len(chunk)
                    if max(raw_bytes, plain_bytes) > self._limits.max_bytes:
                        raise self._too_large()
                    yield chunk
        except FAILURES as error:
            raise self._unreadable(describe_failure(error)) from None
        except GzipDamaged as error:
            raise self._unusable(str(error)) from None
        if not inflater.is_whole():
            raise self._unreadable("the body was cut short (its gzip has no end)")
        if rest := inflater.finish():
            yield rest

    def _check_start(self, chunk: bytes) -> None:
        if chunk.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
            raise self._unusable("the server sends markup (a login page?)")

    def _unreadable(self, why: str) -> SourceUnreadable:
        return SourceUnreadable(self.name, f"{self.place}: {why}")

    def _unusable(self, why: str) -> SourceUnusable:
        return SourceUnusable(self.name, f"{self.place}: {why}")

    def _too_large(self) -> SourceTooLarge:
        return SourceTooLarge(self.name, f"{self.place}: more than {self._limits.max_bytes} bytes")


def _encoding_of(response: aiohttp.ClientResponse) -> str:
    return response.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()


def _validator_of(response: aiohttp.ClientResponse) -> HttpValidator | None:
    validator = HttpValidator(response.headers.get(hdrs.ETAG), response.headers.get(hdrs.LAST_MODIFIED))
    return None if validator == (None, None) else validator
