"""The network's side of a source: the way to its server, keys and authorities, and HTTP(S) as an Origin.

Decompression is ours, not aiohttp's: only so is a gzip bomb stopped at the limit, whatever its ratio, and a
gzip stream without its end noticed. A response whose end cannot be told from a lost connection is refused,
because a cut body must never become a shorter allowlist. Redirects are the caller's: what `Route` gives is the
first answer.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from aiohttp import hdrs
from cryptography import x509
from cryptography.x509.extensions import ExtensionNotFound
from yarl import URL

from gatewayd import __version__
from gatewayd.errors import KeyInvalid, KeysUnusable, SourceTooLarge, SourceUnreadable, SourceUnusable
from gatewayd.feed.files import GzipDamaged, Inflater
from gatewayd.feed.notification import VerifyingKey, load_verifying_keys
from gatewayd.settings import open_regular
from gatewayd.sources.files import FileSignature, signature_of
from gatewayd.sources.update import Body

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
                raise self._unreadable(f"redirected to another origin, {_shown_origin(url)}; refused")
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
            raise self._unreadable(f"HTTP status {name_status(response.status)}")
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


# -- the way -----------------------------------------------------------------------------------------------

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
        os.close(open_regular(ca_file))  # OpenSSL would wait for a FIFO
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise CaFileUnusable(f"ca_file {ca_file} {why}") from None


def shown_url(url: URL) -> str:
    """The URL for people: without user, password, query and fragment."""
    if not url.host:
        return "(no HTTP URL)"
    return str(url.with_user(None).with_query(None).with_fragment(None))


def _shown_origin(url: URL) -> str:
    """The path is the server's own text, and would go into our log."""
    try:
        return str(url.origin())
    except ValueError:
        return "(no HTTP URL)"


def name_status(status: int) -> str:
    """With our phrase: the server's may be any text, and a person's number."""
    with suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def describe_failure(error: Exception) -> str:
    """An error of the network or a file in words. They name hosts, files and numbers, never a query."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the body was cut short"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answers {name_status(error.status)}"
    if isinstance(error, aiohttp.ClientConnectionError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return type(error).__name__


# -- keys and authorities ----------------------------------------------------------------------------------

MAX_KEY_FILE_BYTES: Final = 64 * 1024


def read_keys(paths: Iterable[Path]) -> dict[str, VerifyingKey]:
    """By `kid`, of all files together. Blocking. Raises KeysUnusable, which names the file."""
    keys: dict[str, VerifyingKey] = {}
    for path in paths:
        try:
            with open(open_regular(path), "rb") as file:
                raw = file.read(MAX_KEY_FILE_BYTES)
            found = load_verifying_keys([raw.decode()])
            for kid, key in found.items():
                if keys.setdefault(kid, key) != key:
                    raise KeyInvalid(f"{kid} is another key in another file")
        except OSError as error:
            raise KeysUnusable(str(path), error.strerror or str(error)) from None
        except UnicodeDecodeError:
            raise KeysUnusable(str(path), "is not UTF-8") from None
        except KeyInvalid as error:
            raise KeysUnusable(str(path), error.why) from None
    return keys


def find_shortcomings(pem: bytes) -> list[str]:
    """A sentence for each certificate of the file that Python 3.13 and newer (Debian 13) would refuse.

    From there on `ssl.create_default_context` sets VERIFY_X509_STRICT, and OpenSSL holds certificates to RFC 5280
    (crypto/x509/x509_vfy.c: check_extensions). Much of what `openssl req -x509` made for years lacks an extension.
    The server's own certificate is not in the file: it needs an Authority Key Identifier as well.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []
    found = []
    for number, certificate in enumerate(certificates, 1):
        try:
            lacks = _lacks(certificate)
        except ValueError:
            lacks = ["extensions that can be read"]
        if lacks:
            found.append(f"certificate {number} ({certificate.subject.rfc4514_string()}) lacks {', '.join(lacks)}")
    return found


def _lacks(certificate: x509.Certificate) -> list[str]:
    extensions = certificate.extensions
    lacks = []
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        if not (constraints.critical and constraints.value.ca):
            lacks.append("critical Basic Constraints CA:TRUE")
    except ExtensionNotFound:
        lacks.append("critical Basic Constraints CA:TRUE")
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            lacks.append("the Key Usage keyCertSign")
    except ExtensionNotFound:
        lacks.append("the Key Usage keyCertSign")
    if not _has(extensions, x509.SubjectKeyIdentifier):
        lacks.append("a Subject Key Identifier")
    if certificate.issuer != certificate.subject and not _has(extensions, x509.AuthorityKeyIdentifier):
        lacks.append("an Authority Key Identifier")
    return lacks


def _has(extensions: x509.Extensions, kind: type[x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier]) -> bool:
    try:
        extensions.get_extension_for_class(kind)
    except ExtensionNotFound:
        return False
    return True
