"""One signed feed, asked again and again: the thin shell around `feed.FeedClient`.

It opens URLs, reads key files, feeds bytes in slices and waits; what an answer means is decided by the client.
As with `sources.SourceRunner`, what is delivered is complete, and a failure changes nothing that is in force.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import msgspec
from yarl import URL

from gatewayd.errors import FeedFailed, KeysUnusable, SourceFailed, TransferFailed
from gatewayd.feed.reading import Rejection
from gatewayd.model import Registration
from gatewayd.sources.authorities import read_keys
from gatewayd.sources.client import FeedClient
from gatewayd.sources.client_outcome import (
    DeltaRead,
    FeedLimits,
    FeedPosition,
    FeedRequest,
    Outcome,
    Refused,
    SnapshotRead,
    SnapshotReason,
    Unchanged,
)
from gatewayd.sources.client_plan import FeedIntervals
from gatewayd.sources.fetch import CHUNK_BYTES, FetchLimits, HttpValidator, Session
from gatewayd.sources.last_good import FileMark, Position
from gatewayd.sources.last_good_sink import Keeper, Sink
from gatewayd.sources.pacing import Pacer, Randomness
from gatewayd.sources.route import FAILURES, Route, describe_failure, shown_url
from gatewayd.sources.sources import SourceConfirmed, SourceReading, SourceState, run_in_slices

MAX_HELD_CONTENT_BYTES: Final = 64 << 20
"""Of the deltas of one chain, as served."""


@dataclass(frozen=True, slots=True)
class FeedReading(SourceReading):
    """A whole snapshot of a signed feed. `reason`: why not deltas.

    `kept_file`: the bytes as served, committed by the Keeper and to be given to `save_snapshot`; None where
    they are not kept, or are not all that `registrations` has: what `kept` counts is not in them. `count`: its
    records, usable or not.
    """

    position: FeedPosition
    reason: SnapshotReason
    count: int
    kept_file: FileMark | None

    @property
    def session(self) -> str:
        return self.position.session

    @property
    def serial(self) -> int:
        return self.position.serial


@dataclass(frozen=True, slots=True)
class SourceDelta:
    """What changed in a signed feed, as one change; to be applied as a whole.

    `upserts` are new or differ from before. `registrations`: all of the source after the change, a mapping
    that never changes. `rejected`, `rejections`: of the change alone; a rejected upsert left the old
    registration in force. All but `position` may be empty: then only the serial or the time of issue went on.
    `after`: where the source stood before. `content`: the gzip files as served, end to end; None where they
    were too large to be held.
    """

    name: str
    upserts: tuple[Registration, ...]
    withdrawals: tuple[str, ...]
    registrations: Mapping[str, Registration]
    rejected: Mapping[str, int]
    rejections: tuple[Rejection, ...]
    read_at: float
    origin: str
    position: FeedPosition
    after: FeedPosition
    content: bytes | None

    @property
    def session(self) -> str:
        return self.position.session

    @property
    def serial(self) -> int:
        return self.position.serial


@dataclass(frozen=True, slots=True)
class FeedState(SourceState):
    """`issued_at`, `stale_after`: Unix seconds; -inf and inf with nothing held. `serial` 0: nothing held.

    `snapshot_reason`: why the last snapshot was taken rather than deltas.
    """

    session: str = ""
    serial: int = 0
    issued_at: float = -inf
    stale_after: float = inf
    snapshot_reason: SnapshotReason | None = None


Delivery = FeedReading | SourceDelta | SourceConfirmed | SourceFailed
Deliver = Callable[[Delivery], Awaitable[None]]


class WitnessedTime(Protocol):
    """What time it is, to a feed, and who is told when a notification was issued."""

    def feed_moment(self) -> float: ...

    def witness(self, issued_at_s: float, holds_s: float, since_s: float | None) -> None: ...


class FeedRunner:
    """Reads one signed feed: at the start, every `refresh_s`, and when asked to; the feed's own values win.

    `keys`: files of public keys, read anew at every attempt. `session`, `proxy`, `ca_file`: see Route. `resume`
    and `previous`: position and registrations of an earlier run, both or neither. `keeper`: takes the bytes of
    snapshots. `clock`: for people; `time`: what a notification's times are judged by, None = `clock`. `state` may
    be read at any time; `attempt` may be called from any task.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        keys: Sequence[str | Path],
        deliver: Deliver,
        clock: Callable[[], float],
        randomness: Randomness,
        session: Session,
        max_bytes: int = 1 << 30,
        refresh_s: float = 60.0,
        retry_s: float = 10.0,
        expire_s: float = 7 * 86400.0,
        proxy: str | None = None,
        ca_file: str | None = None,
        keeper: Keeper | None = None,
        resume: FeedPosition | None = None,
        previous: Mapping[str, Registration] | None = None,
        fetch_limits: FetchLimits | None = None,
        time: WitnessedTime | None = None,
    ) -> None:
        self.name = name
        self._url = URL(url)
        self._key_files = [Path(path) for path in keys]
        self._deliver = deliver
        self._clock = clock
        self._time = time
        self._asked_at: float | None = None
        """When the latest question was put that had an answer, by the event loop's clock."""
        limits = fetch_limits or FetchLimits(max_bytes=max_bytes)
        self._route = Route(session, limits.timeout(), proxy=proxy, ca_file=ca_file)
        self._pacer = Pacer(self._attempt, clock=clock, randomness=randomness)
        self._client = FeedClient(
            name,
            url,
            {},
            limits=FeedLimits(max_bytes=max_bytes),
            intervals=FeedIntervals(refresh_s, retry_s, expire_s),
            position=resume,
            registrations=previous,
        )
        self._keeper = keeper
        self._sink: Sink | None = None
        self._content: bytearray | None = None
        self.state = self._with_position(FeedState())

    @property
    def place(self) -> str:
        """The notification's URL without user, password, query and fragment."""
        return shown_url(self._url)

    @property
    def position(self) -> FeedPosition | None:
        """Where what is held stands."""
        return self._client.position

    def request_now(self) -> None:
        """The feed is asked at once."""
        self._pacer.request_now()

    async def run(self) -> None:
        """Until cancelled. Raises only what `deliver` raises."""
        await self._pacer.run()

    async def attempt(self) -> None:
        """One round: delivers what it gave, or the error, or that the feed has nothing new.

        A round that is under way is waited for first (`gatewayd sync`).
        """
        await self._pacer.attempt()

    async def _attempt(self) -> None:
        after, asked_at = self._client.position, asyncio.get_running_loop().time()
        try:
            outcome = await self._read()
            self._witness(outcome, after, asked_at)
            self._note(outcome)
            delivery = await self._delivery_of(outcome, after)
        finally:
            await self._end_sink()
        await self._deliver(delivery)

    def _witness(self, outcome: Outcome, after: FeedPosition | None, asked_at: float) -> None:
        """A notification that was not there at the last question came out since."""
        last_asked_at, self._asked_at = self._asked_at, None if isinstance(outcome, Refused) else asked_at
        position, stale_after = self._client.position, self._client.stale_after
        if self._time is None or isinstance(outcome, Refused) or position is None or stale_after is None:
            return
        since_s = None
        if last_asked_at is not None and after is not None and position.issued_at > after.issued_at:
            since_s = asyncio.get_running_loop().time() - last_asked_at
        self._time.witness(position.issued_at, stale_after - position.issued_at, since_s)

    def _moment(self) -> float:
        return self._clock() if self._time is None else self._time.feed_moment()

    def _note(self, outcome: Outcome) -> None:
        """The state after an attempt."""
        next_at = self._pacer.plan(self._client.wait_s())
        state = replace(self.state, next_attempt_at=next_at, failures=self._client.failures)
        if isinstance(outcome, Refused):
            self.state = replace(state, error=FeedFailed(self.name, self.place, outcome.error))
            return
        self.state = self._with_position(replace(state, checked_at=self._clock(), error=None))
        if isinstance(outcome, SnapshotRead):
            self.state = replace(self.state, rejected=outcome.rejected)
        elif isinstance(outcome, DeltaRead):
            self.state = replace(self.state, rejected=Counter(self.state.rejected) + Counter(outcome.rejected))

    async def _delivery_of(self, outcome: Outcome, after: FeedPosition | None) -> Delivery:
        if isinstance(outcome, Refused):
            assert self.state.error is not None
            return self.state.error
        if isinstance(outcome, SnapshotRead):
            return await self._reading_of(outcome)
        if isinstance(outcome, Unchanged):
            if not outcome.is_reissued:
                return SourceConfirmed(self.name, self.state.checked_at)
            outcome = DeltaRead(outcome.position, (), (), self._client.registrations, {}, ())
        assert after is not None
        return self._delta_of(outcome, after)

    async def _reading_of(self, read: SnapshotRead) -> FeedReading:
        if read.kept:
            await self._end_sink()
        position = read.position
        sink, self._sink = self._sink, None
        return FeedReading(
            name=self.name,
            registrations=read.registrations,
            rejected=read.rejected,
            rejections=read.rejections,
            read_at=self.state.checked_at,
            validator=HttpValidator(position.etag, position.last_modified),
            origin=self.place,
            position=position,
            reason=read.reason,
            count=len(read.registrations) - read.kept + sum(read.rejected.values()),
            kept=read.kept,
            kept_file=None if sink is None else await sink.commit(),
        )

    def _delta_of(self, read: DeltaRead, after: FeedPosition) -> SourceDelta:
        return SourceDelta(
            name=self.name,
            upserts=read.upserts,
            withdrawals=read.withdrawals,
            registrations=read.registrations,
            rejected=read.rejected,
            rejections=read.rejections,
            read_at=self.state.checked_at,
            origin=self.place,
            position=read.position,
            after=after,
            content=None if self._content is None else bytes(self._content),
        )

    def _with_position(self, state: FeedState) -> FeedState:
        position, stale_after = self._client.position, self._client.stale_after
        if position is None or stale_after is None:
            return state
        return replace(
            state,
            session=position.session,
            serial=position.serial,
            issued_at=position.issued_at,
            stale_after=stale_after,
            snapshot_reason=self._client.snapshot_reason,
        )

    # -- reading -------------------------------------------------------------------------------------------

    async def _read(self) -> Outcome:
        client = self._client
        client.begin()
        self._content = bytearray()
        try:
            client.use_keys(await asyncio.to_thread(read_keys, self._key_files))
        except KeysUnusable as error:
            client.on_failure(error)
        while (request := client.next_request()) is not None:
            await self._ask(request)
        if client.outcome is None:
            raise RuntimeError("the feed has neither a request nor an outcome")
        return client.outcome

    async def _ask(self, request: FeedRequest) -> None:
        """One GET, its body fed to the client."""
        try:
            async with await self._route.get(URL(request.url, encoded=True), request.headers) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                self._client.on_response(response.status, headers, self._moment())
                if self._client.is_reading:
                    await self._read_body(request, response)
                if not response.content.is_eof():
                    response.close()
        except FAILURES as error:
            self._client.on_failure(TransferFailed(str(request), describe_failure(error)))

    async def _read_body(self, request: FeedRequest, response: aiohttp.ClientResponse) -> None:
        """The loop turns after every slice; whatever of the body is not wanted any more is not read."""
        client = self._client
        if request.kind == "snapshot" and self._keeper is not None:
            self._sink = await self._keeper.open(self.name)
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            await self._keep(request, chunk)
            await run_in_slices(client.on_chunk(chunk))
            if not client.is_reading:
                return
        await run_in_slices(client.on_end(self._moment()))

    async def _keep(self, request: FeedRequest, chunk: bytes) -> None:
        """A snapshot goes to its sink, deltas are held."""
        if self._sink is not None:
            await self._sink.write(chunk)
        if request.kind == "delta" and self._content is not None:
            self._content += chunk
            if len(self._content) > MAX_HELD_CONTENT_BYTES:
                self._content = None

    async def _end_sink(self) -> None:
        """Nothing of a snapshot that did not come to its end is kept."""
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.abort()


def kept_position(position: FeedPosition) -> Position:
    """As the store keeps it."""
    return Position(
        position.session,
        position.serial,
        position.issued_at,
        position.etag,
        position.last_modified,
        resume=msgspec.json.encode(position),
    )


def resumed_position(kept: Position | None) -> FeedPosition | None:
    """What the store kept; None where it is of no use, and the snapshot is to be taken."""
    if kept is None:
        return None
    try:
        position = msgspec.json.decode(kept.resume, type=FeedPosition)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return position if (position.session, position.serial) == (kept.session, kept.serial) else None
