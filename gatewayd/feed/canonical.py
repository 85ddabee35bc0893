"""The one way in which a registration is written: what the database holds and the feed carries (docs/feed.md).

Two records that mean the same are the same bytes, so "did it change" is a comparison of bytes, and the same
registry gives the same snapshot, hash and all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final, TypeVar

import msgspec

from gatewayd.feed.record import MAX_SHARED
from gatewayd.model import Extension, Prefix, Registration, Service, service_words

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_TIME_S: Final = -62_135_596_800.0
LAST_TIME_S: Final = 253_402_300_799.0
"""From the year 1 to the year 9999 in UTC, to the second: what RFC 3339 can write with `Z`."""

_SEPARATOR: Final = '","'
_NO_HOST: Final = bytes(8)

_K = TypeVar("_K")


class Canonicaliser:
    """Writes registrations in canonical form; keeps the texts of parts that repeat.

    Each cache is emptied when it holds `record.MAX_SHARED`. Nothing needs escaping: every text of a
    Registration was checked to be of letters, digits and a few harmless signs.
    """

    __slots__ = ("_peers", "_services", "_times")

    def __init__(self) -> None:
        self._peers: dict[tuple[Prefix, ...], str] = {}
        self._services: dict[tuple[Service, ...], str] = {}
        self._times: dict[tuple[str, float], str] = {}

    def line(self, registration: Registration) -> str:
        """JSON without blanks, on one line, ASCII; what says nothing is left out.

        Times are FIRST_TIME_S to LAST_TIME_S or open; others are the caller's mistake (OverflowError).
        """
        id, category, status, clients, subscriber, peers, services, valid_from_s, valid_until_s, extension = (
            msgspec.structs.astuple(registration)
        )
        peers_text, services_text = self._peers.get(peers), self._services.get(services)
        return (
            f'{{"id":"{id}","category":"{category}","status":"{status}"'
            f"{_prefixes('clients', clients)}"
            f"{'' if subscriber is None else _subscriber(subscriber)}"
            f"{self._share_peers(peers) if peers_text is None else peers_text}"
            f"{self._share_services(services) if services_text is None else services_text}"
            f"{'' if valid_from_s == -inf else self._time('valid_from', valid_from_s)}"
            f"{'' if valid_until_s == inf else self._time('valid_until', valid_until_s)}"
            f"{'' if extension is None else _extend(extension)}}}"
        )

    def _share_peers(self, peers: tuple[Prefix, ...]) -> str:
        _bound(self._peers)
        text = self._peers[peers] = _prefixes("peers", peers)
        return text

    def _share_services(self, services: tuple[Service, ...]) -> str:
        _bound(self._services)
        words = _SEPARATOR.join(service_words(services))
        text = self._services[services] = f',"services":["{words}"]' if words else ""
        return text

    def _time(self, field: str, moment_s: float) -> str:
        text = self._times.get((field, moment_s))
        if text is None:
            _bound(self._times)
            text = self._times[field, moment_s] = f',"{field}":"{write_time(moment_s)}"'
        return text


def _bound(cache: dict[_K, str]) -> None:
    if len(cache) >= MAX_SHARED:
        cache.clear()


def _subscriber(digest: bytes) -> str:
    return f',"subscriber":"hmac-sha256:{digest.hex()}"'


def _extend(extension: Extension) -> str:
    text = "" if extension.registrant is None else f',"registrant":"{extension.registrant}"'
    if extension.is_provisional:
        text += ',"provisional":true'
    return text + _prefixes("endpoints", extension.endpoints)


def _prefixes(field: str, prefixes: tuple[Prefix, ...]) -> str:
    if not prefixes:
        return ""
    return f',"{field}":["{_SEPARATOR.join([_text_of(prefix) for prefix in prefixes])}"]'


def _text_of(prefix: Prefix) -> str:
    """What str(prefix) says, sooner where the prefix is IPv4 or, as most are, an IPv6 network of up to /64."""
    packed = prefix.packed
    if len(packed) == 4:
        a, b, c, d = packed
        return f"{a}.{b}.{c}.{d}/{prefix.length}"
    if packed.endswith(_NO_HOST) and packed[0]:
        high, low = divmod(int.from_bytes(packed[:8], "big"), 1 << 32)
        text = f"{high >> 16:x}:{high & 0xFFFF:x}:{low >> 16:x}:{low & 0xFFFF:x}"
        while text.endswith(":0"):
            text = text[:-2]
        return f"{text}::/{prefix.length}"
    return str(prefix)


def write_time(moment_s: float) -> str:
    """RFC 3339 in UTC with `Z`, with a fraction only where there is one. Raises OverflowError."""
    moment = _EPOCH + timedelta(seconds=moment_s)
    text = moment.replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def upsert_line(record: str) -> str:
    """The line of a delta that gives a registration, which is in canonical form already."""
    return f'{{"op":"upsert","registration":{record}}}'


def withdraw_line(id: str) -> str:
    """The line of a delta that takes a registration away. An id needs no escaping (record.is_id)."""
    return f'{{"op":"withdraw","id":"{id}"}}'


class Damaged(ValueError):
    """The bytes are not what was written; the text says how."""


class Newer(Damaged):
    """The bytes are whole, and of a later version of gatewayd."""


class LineWriter:
    """Registrations as the lines of a feed, without newline."""

    __slots__ = ("_line",)

    def __init__(self) -> None:
        self._line = Canonicaliser().line

    def lines(self, registrations: Iterable[Registration]) -> Iterator[str]:
        """One line each, but for those with a window beyond the years 1 to 9999 in UTC: no clock is there."""
        for registration in registrations:
            try:
                yield self._line(registration)
            except OverflowError:
                continue
