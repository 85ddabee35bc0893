"""One source, asked again and again: one attempt at a time, and a wait after each that a request cuts short.

`SourceRunner` reads a plain source whole: a file or URL of NDJSON or CSV. A signed feed: `feed_source`.

An update is delivered when it is complete and never before. A failure is delivered as the error it is, and changes
nothing else: the registrations of the last reading stay in force, however long.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import time as wall_clock
from typing import Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from gatewayd.errors import SourceFailed, SourceUnusable
from gatewayd.feed.files import SLICE_BYTES
from gatewayd.feed.reading import Format, ReadLimits, RecordReader, format_of, reader_for
from gatewayd.model import Registration
from gatewayd.model.registration import Slices
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.client_plan import back_off_s
from gatewayd.sources.fetch import FetchLimits, HttpSource, Session
from gatewayd.sources.file_source import FileSource, watch_file
from gatewayd.sources.update import Body, Deliver, Origin, SourceUpdate

JITTER: Final = 0.1
"""A wait is between its length less this part and its length: gateways do not ask in step."""

_T = TypeVar("_T")


class Randomness(Protocol):
    """The part of random.Random that waits are spread with."""

    def uniform(self, a: float, b: float, /) -> float: ...


class WitnessedTime(Protocol):
    """What time it is, to a feed, and who is told when a notification was issued."""

    def feed_moment(self) -> float: ...

    def witness(self, issued_at_s: float, holds_s: float, since_s: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What all runners share. `session`: of `open_session`; None: files alone. `clock`: for people; `time`: what a
    notification's times are judged by, None = `clock`."""

    session: Session | None = None
    clock: Callable[[], float] = wall_clock
    time: WitnessedTime | None = None
    randomness: Randomness = field(default_factory=random.Random)


class Runner(ABC):
    """Asks one source at the start, every `refresh`, when something calls for it, and when asked to."""

    def __init__(self, name: str, tools: Tools, deliver: Deliver) -> None:
        self.name = name
        self.failures = 0
        """In a row, up to now."""
        self.next_attempt_at = inf
        """By the tools' clock; inf: not planned."""
        self._tools = tools
        self._deliver = deliver
        self._pacer = Pacer(self._attempt, clock=tools.clock, randomness=tools.randomness)

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the source is read from, without user, password, query and fragment."""

    @abstractmethod
    async def _ask(self) -> SourceUpdate:
        """One complete answer or failure; never raises for the source's sake."""

    @abstractmethod
    def _wait_s(self) -> float:
        """Until the next attempt, after `failures`."""

    def request_now(self) -> None:
        """The source is asked at once."""
        self._pacer.request_now()

    async def run(self) -> None:
        """Until cancelled. Raises only what `deliver` raises."""
        await self._pacer.run()

    async def attempt(self) -> None:
        """One round: delivers what came of it. One that is under way is waited for first (`gatewayd sync`)."""
        await self._pacer.attempt()

    async def _attempt(self) -> None:
        update = await self._ask()
        self.failures = self.failures + 1 if update.error is not None else 0
        self.next_attempt_at = self._pacer.plan(self._wait_s())
        await self._deliver(update)


class Pacer:
    """Makes the attempts of one source. `attempt` calls `plan` to say when the next is due.

    `run` belongs to one task; any other may call `attempt` and `request_now`. What is waited is counted by the
    event loop, so that a wall clock that is set delays nothing; `clock` gives the times for people.
    """

    def __init__(
        self, attempt: Callable[[], Awaitable[None]], *, clock: Callable[[], float], randomness: Randomness
    ) -> None:
        self._attempt = attempt
        self._clock = clock
        self._randomness = randomness
        self._attempting = asyncio.Lock()
        self._is_asked = False
        self._wake = asyncio.Event()
        self._due_s = inf

    def plan(self, wait_s: float) -> float:
        """The next attempt is due after this, less jitter: the time of it."""
        wait_s *= self._randomness.uniform(1 - JITTER, 1)
        self._due_s = asyncio.get_running_loop().time() + wait_s
        self._wake.set()
        return self._clock() + wait_s

    def request_now(self) -> None:
        """Ends the present wait; during an attempt, another follows it at once."""
        self._is_asked = True
        self._wake.set()

    async def attempt(self) -> None:
        """One attempt of the caller's own: one that is under way is waited for first."""
        async with self._attempting:
            await self._attempt()

    async def run(self) -> None:
        """Attempts and waits, until cancelled. Raises only what an attempt raises."""
        while True:
            self._is_asked = False
            await self.attempt()
            await self._wait()

    async def _wait(self) -> None:
        """Until the next attempt is due; an attempt of somebody else's meanwhile has planned it anew."""
        loop = asyncio.get_running_loop()
        while not self._is_asked and loop.time() < self._due_s:
            self._wake.clear()
            try:
                async with asyncio.timeout_at(self._due_s if self._due_s < inf else None):
                    await self._wake.wait()
            except TimeoutError:
                pass


async def run_in_slices(slices: Slices[_T]) -> _T:
    """The result of a generator of slices, the event loop turning after each of them."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        await asyncio.sleep(0)


class SourceRunner(Runner):
    """Reads one source: at the start, every `refresh_s`, when its file changes, and when asked to.

    After a failure it tries again after `retry_s`, doubled each time up to `refresh_s`. `previous`: the
    registrations of an earlier run (the last good); they make an empty answer an error too.
    """

    def __init__(
        self,
        source: SourceSettings,
        registry: RegistrySettings,
        tools: Tools,
        deliver: Deliver,
        previous: Mapping[str, Registration] | None = None,
    ) -> None:
        super().__init__(source.name, tools, deliver)
        self._origin = open_origin(source, tools.session)
        self._source = source
        self._limits = ReadLimits(max_bytes=source.max_bytes)
        self._refresh_s = registry.refresh_s
        self._retry_s = registry.retry_s
        self._registrations: Mapping[str, Registration] = previous or {}
        self._validator: Hashable | None = None

    @property
    def place(self) -> str:
        return self._origin.place

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            if isinstance(self._origin, FileSource):
                group.create_task(self._watch(self._origin.path))
            await super().run()

    async def _watch(self, path: Path) -> None:
        async with aclosing(watch_file(path)) as changes:
            async for signature in changes:
                if signature != self._validator:
                    self.request_now()

    def _wait_s(self) -> float:
        if not self.failures:
            return self._refresh_s
        return back_off_s(self.failures, self._retry_s, max(self._refresh_s, self._retry_s))

    async def _ask(self) -> SourceUpdate:
        try:
            async with self._origin.open(self._validator) as body:
                if body is None:
                    return SourceUpdate(self.name, self._tools.clock())
                reader = await self._read_records(body)
            self._check_usable(reader)
        except SourceFailed as error:
            return SourceUpdate(self.name, self._tools.clock(), error)
        self._registrations, self._validator = reader.registrations, body.validator
        return SourceUpdate(
            self.name,
            self._tools.clock(),
            registrations=reader.registrations,
            rejected=dict(reader.rejected),
            rejections=tuple(reader.rejections),
            retained=reader.retained,
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
        format = found if self._source.format == "auto" else self._source.format
        return reader_for(format, self.name, self._limits, self._registrations)

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
        if not self._source.allow_empty:
            raise SourceUnusable(self.name, f"{self.place}: is empty; `allow_empty: true` says that it may be")


def open_origin(source: SourceSettings, session: Session | None) -> Origin:
    """The origin a source's URL stands for: `file:PATH`, `http://…`, `https://…`. ValueError for another."""
    parts = urlsplit(source.url)
    if parts.scheme == "file":
        return FileSource(source.name, Path(unquote(parts.path)))
    if parts.scheme in ("http", "https") and session is not None:
        limits = FetchLimits(max_bytes=source.max_bytes)
        return HttpSource(source.name, source.url, session, limits, proxy=source.proxy, ca_file=source.ca_file)
    raise ValueError(f"source {source.name}: {parts.scheme or 'no'} URL, or no session for it")
