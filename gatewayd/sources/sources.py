"""One configured source, read again and again: when it is asked, and what an answer or a failure means.

A reading is delivered when it is complete and never before. A failure is delivered as the error it is, and
changes nothing else: the registrations of the last reading stay in force, however long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from gatewayd.errors import SourceFailed, SourceUnusable
from gatewayd.feed.reading import Format, ReadLimits, RecordReader, Rejection, format_of, reader_for
from gatewayd.model import Registration
from gatewayd.model.changes import Slices
from gatewayd.sources.client_plan import back_off_s
from gatewayd.sources.fetch import FetchLimits, HttpSource, Session
from gatewayd.sources.file_source import FileSource, watch_file
from gatewayd.sources.origin import Body, Origin
from gatewayd.sources.pacing import Pacer, Randomness

SLICE_BYTES: Final = 16 * 1024
"""Fed to a reader between two turns of the event loop: half a millisecond, 20 where every other byte begins a
rejected line (the worst there is)."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SourceReading:
    """A source, read to its end. `registrations` is never changed afterwards; whoever gets it may keep it.

    `rejected` counts what was not usable by reason code, `rejections` lists the first of it. `is_empty`:
    there was no record at all, which is accepted only of a source that never had one; worth a warning. `kept`:
    records that are not usable now and were; what they said then is among `registrations`.
    """

    name: str
    registrations: dict[str, Registration]
    rejected: Mapping[str, int]
    rejections: tuple[Rejection, ...]
    read_at: float
    validator: Hashable | None
    origin: str
    kept: int = field(default=0, kw_only=True)

    @property
    def is_empty(self) -> bool:
        return not self.registrations


@dataclass(frozen=True, slots=True)
class SourceConfirmed:
    """A source was asked, and has nothing else than before: as good an answer as a reading."""

    name: str
    checked_at: float


@dataclass(frozen=True, slots=True)
class SourceState:
    """For health and status. Times are of the injected clock; -inf = never, inf = not planned.

    `checked_at`: when the origin last confirmed or gave the content in force. `error`: why the last attempt
    failed; None if it did not.
    """

    checked_at: float = -inf
    error: SourceFailed | None = None
    failures: int = 0
    next_attempt_at: float = inf
    rejected: Mapping[str, int] = field(default_factory=dict)


Deliver = Callable[[SourceReading | SourceConfirmed | SourceFailed], Awaitable[None]]


class SourceRunner:
    """Reads one source: at the start, every `refresh_s`, when its file changes, and when asked to.

    After a failure it tries again after `retry_s`, doubled each time up to `refresh_s`. `previous`: the
    registrations in force from an earlier run (the last good ones); they make an empty answer an error too.
    `session`, `proxy`, `ca_file`: see Route. `state` may be read at any time; `attempt` may be called from any
    task.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        deliver: Deliver,
        clock: Callable[[], float],
        randomness: Randomness,
        session: Session | None = None,
        format: Format | None = None,
        max_bytes: int = 1 << 30,
        proxy: str | None = None,
        ca_file: str | None = None,
        refresh_s: float = 60.0,
        retry_s: float = 10.0,
        previous: Mapping[str, Registration] | None = None,
        allow_empty: bool = False,
    ) -> None:
        self.name = name
        self._allow_empty = allow_empty
        self.state = SourceState()
        self._origin = open_origin(name, url, session, max_bytes, proxy=proxy, ca_file=ca_file)
        self._deliver = deliver
        self._clock = clock
        self._pacer = Pacer(self._attempt, clock=clock, randomness=randomness)
        self._format = format
        self._limits = ReadLimits(max_bytes=max_bytes)
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._registrations = previous or {}
        self._validator: Hashable | None = None

    @property
    def place(self) -> str:
        """Where the source is read from, without secrets."""
        return self._origin.place

    def request_now(self) -> None:
        """The source is asked at once."""
        self._pacer.request_now()

    async def run(self) -> None:
        """Until cancelled. Raises only what `deliver` raises."""
        async with asyncio.TaskGroup() as group:
            if isinstance(self._origin, FileSource):
                group.create_task(self._watch(self._origin.path))
            await self._pacer.run()

    async def attempt(self) -> None:
        """One reading: delivers it, or the error, or that the content is still the same.

        One that is under way is waited for first (`gatewayd sync`).
        """
        await self._pacer.attempt()

    async def _attempt(self) -> None:
        try:
            reading = await self._read()
        except SourceFailed as error:
            failures = self.state.failures + 1
            wait_s = back_off_s(failures, self._retry_s, max(self._refresh_s, self._retry_s))
            next_at = self._pacer.plan(wait_s)
            self.state = replace(self.state, error=error, failures=failures, next_attempt_at=next_at)
            await self._deliver(error)
            return
        self.state = replace(
            self.state,
            checked_at=self._clock(),
            error=None,
            failures=0,
            next_attempt_at=self._pacer.plan(self._refresh_s),
        )
        if reading is None:
            await self._deliver(SourceConfirmed(self.name, self.state.checked_at))
            return
        self.state = replace(self.state, rejected=reading.rejected)
        self._registrations = reading.registrations
        self._validator = reading.validator
        await self._deliver(reading)

    async def _watch(self, path: Path) -> None:
        async with aclosing(watch_file(path)) as changes:
            async for signature in changes:
                if signature != self._validator:
                    self.request_now()

    async def _read(self) -> SourceReading | None:
        async with self._origin.open(self._validator) as body:
            if body is None:
                return None
            reader = await self._read_records(body)
        self._check_usable(reader)
        return SourceReading(
            self.name,
            reader.registrations,
            dict(reader.rejected),
            tuple(reader.rejections),
            self._clock(),
            body.validator,
            self.place,
            kept=reader.kept,
        )

    async def _read_records(self, body: Body) -> RecordReader:
        """All records of a body, the event loop turning after every slice."""
        reader: RecordReader | None = None
        async with aclosing(body.chunks) as chunks:
            async for chunk in chunks:
                if reader is None:
                    reader = self._reader(format_of(self.place, body.content_type, chunk))
                for start in range(0, len(chunk), SLICE_BYTES):
                    reader.feed(chunk[start : start + SLICE_BYTES])
                    await asyncio.sleep(0)
        if reader is None:
            reader = self._reader("ndjson")
        reader.finish()
        return reader

    def _reader(self, found: Format) -> RecordReader:
        return reader_for(self._format or found, self.name, self._limits, self._registrations)

    def _check_usable(self, reader: RecordReader) -> None:
        """An empty allowlist never comes about by accident. Raises SourceUnusable."""
        if reader.registrations:
            return
        if reader.rejections:
            first = reader.rejections[0]
            raise SourceUnusable(
                self.name, f"{self.place}: none of its {reader.records} records is usable; line {first}"
            )
        if self._registrations:
            raise SourceUnusable(
                self.name, f"{self.place}: is empty and had {len(self._registrations)} registrations before"
            )
        if not self._allow_empty:
            raise SourceUnusable(self.name, f"{self.place}: is empty; `allow_empty: true` says that it may be")


def open_origin(
    name: str,
    url: str,
    session: Session | None,
    max_bytes: int,
    *,
    proxy: str | None = None,
    ca_file: str | None = None,
) -> Origin:
    """The origin a source's URL stands for: `file:PATH`, `http://…`, `https://…`. ValueError for another."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FileSource(name, Path(unquote(parts.path)))
    if parts.scheme in ("http", "https") and session is not None:
        return HttpSource(name, url, session, FetchLimits(max_bytes=max_bytes), proxy=proxy, ca_file=ca_file)
    raise ValueError(f"source {name}: {parts.scheme or 'no'} URL, or no session for it")


async def run_in_slices(slices: Slices[_T]) -> _T:
    """The result of a generator of slices (`merge`), the event loop turning after each of them."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        await asyncio.sleep(0)
