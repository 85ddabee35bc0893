"""One source, asked again and again: one attempt at a time, and a wait after each that a request cuts short.

`FeedRunner` is the thin shell around `client.FeedClient`: it opens URLs, reads key files, feeds bytes in slices and
waits; the client decides what an answer means. A plain source, read whole: `plain_source`.

An update is delivered when it is complete and never before. A failure is delivered as the error it is, and changes
nothing else: the registrations of the last reading stay in force, however long.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from time import time as wall_clock
from typing import Final, Protocol, TypeVar

import aiohttp
from yarl import URL

from gatewayd.errors import FeedFailed, FeedRefused, KeysUnusable, TransferFailed
from gatewayd.model.registration import Slices
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.client import FeedClient, Outcome
from gatewayd.sources.client_plan import FeedIntervals, FeedLimits, FeedRequest
from gatewayd.sources.fetch import (
    CHUNK_BYTES,
    FAILURES,
    FetchLimits,
    Route,
    Session,
    describe_failure,
    read_keys,
    shown_url,
)
from gatewayd.sources.last_good import Restored
from gatewayd.sources.update import Deliver, FeedPosition, SourceUpdate

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


class FeedRunner(Runner):
    """Reads one signed feed: at the start, every `refresh_s`, and when asked to; the feed's own values win.

    The files of public keys are read anew at every attempt. `restored`: the last good of an earlier run.
    """

    def __init__(
        self,
        source: SourceSettings,
        registry: RegistrySettings,
        tools: Tools,
        deliver: Deliver,
        restored: Restored | None = None,
        fetch_limits: FetchLimits | None = None,
    ) -> None:
        super().__init__(source.name, tools, deliver)
        if tools.session is None:
            raise ValueError(f"source {source.name}: no session for its URL")
        self._url = URL(source.url)
        self._key_files = [Path(path) for path in source.keys]
        self._asked_at: float | None = None
        """When the latest question was put that had an answer, by the event loop's clock."""
        limits = fetch_limits or FetchLimits(max_bytes=source.max_bytes)
        self._route = Route(tools.session, limits.timeout(), proxy=source.proxy, ca_file=source.ca_file)
        known = restored or Restored({})
        # What was rejected under other settings is in no delta.
        reads_again = source.allow_endpoints and "endpoints_not_allowed" in known.rejected
        self.client = FeedClient(
            source.name,
            source.url,
            {},
            limits=FeedLimits(max_bytes=source.max_bytes),
            intervals=FeedIntervals(registry.refresh_s, registry.retry_s, registry.expire_s),
            position=known.position if known.is_feed and not reads_again else None,
            registrations=known.registrations,
            allows_endpoints=source.allow_endpoints,
        )

    @property
    def place(self) -> str:
        return shown_url(self._url)

    def _wait_s(self) -> float:
        return self.client.wait_s()

    async def _ask(self) -> SourceUpdate:
        before, asked_at = self.client.position, asyncio.get_running_loop().time()
        outcome = await self._read()
        self._witness(outcome, before, asked_at)
        now = self._tools.clock()
        if isinstance(outcome, FeedRefused):
            return SourceUpdate(self.name, now, FeedFailed(self.name, self.place, outcome))
        return replace(outcome, at_s=now)

    def _witness(self, outcome: Outcome, before: FeedPosition | None, asked_at: float) -> None:
        """A notification that was not there at the last question came out since."""
        is_refused, time = isinstance(outcome, FeedRefused), self._tools.time
        last_asked_at, self._asked_at = self._asked_at, None if is_refused else asked_at
        position, stale_after = self.client.position, self.client.stale_after
        if time is None or is_refused or position is None or stale_after is None:
            return
        since_s = None
        if last_asked_at is not None and before is not None and position.issued_at > before.issued_at:
            since_s = asyncio.get_running_loop().time() - last_asked_at
        time.witness(position.issued_at, stale_after - position.issued_at, since_s)

    def _moment(self) -> float:
        return self._tools.clock() if self._tools.time is None else self._tools.time.feed_moment()

    # -- reading -------------------------------------------------------------------------------------------

    async def _read(self) -> Outcome:
        client = self.client
        client.begin()
        try:
            client.use_keys(await asyncio.to_thread(read_keys, self._key_files))
        except KeysUnusable as error:
            client.on_failure(error)
        while (request := client.next_request()) is not None:
            await self._get(request)
        if client.outcome is None:
            raise RuntimeError("the feed has neither a request nor an outcome")
        return client.outcome

    async def _get(self, request: FeedRequest) -> None:
        """One GET, its body fed to the client."""
        try:
            async with await self._route.get(URL(request.url, encoded=True), request.headers) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                self.client.on_response(response.status, headers, self._moment())
                if self.client.is_reading:
                    await self._read_body(response)
                if not response.content.is_eof():
                    response.close()
        except FAILURES as error:
            self.client.on_failure(TransferFailed(str(request), describe_failure(error)))

    async def _read_body(self, response: aiohttp.ClientResponse) -> None:
        """The loop turns after every slice; whatever of the body is not wanted any more is not read."""
        client = self.client
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            await run_in_slices(client.on_chunk(chunk))
            if not client.is_reading:
                return
        await run_in_slices(client.on_end(self._moment()))
