"""`/v1/events`: the events of the daemon, as long as the client reads.

A stream holds a connection for days, so there are few of them, and a client that takes nothing loses its own. It
reads from the common ring, at its own place: a slow client costs a place in the ring and no memory of its own.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import hdrs, web

from gatewayd.api.event_stream import COMMENT, Start, encode_batch, encode_gap, encode_opening, read_start
from gatewayd.api.middleware import reply
from gatewayd.api.process import ListenerView
from gatewayd.api.queries import read_parameters
from gatewayd.log.ring import Batch, Position
from gatewayd.log.tap import EventTap, Wakeup

MAX_STREAMS: Final = 16
"""Of one listener."""
HEARTBEAT_S: Final = 15.0
"""Without an event, a comment says that the stream is alive; a proxy ends a silent one after 60 s."""
STALL_S: Final = 30.0
"""A client that takes nothing for so long is let go; with its last id it comes back."""
BATCH: Final = 64
"""Events between two turns of the loop."""
_LOOK_S: Final = 1.0
"""How often the end of the connection is looked for."""
_HEADERS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events back until its buffer is full
}


class EventStreams:
    """The streams of one listener. `stats` are its."""

    def __init__(
        self,
        tap: EventTap,
        stats: ListenerView,
        *,
        max_streams: int = MAX_STREAMS,
        heartbeat_s: float = HEARTBEAT_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._tap = tap
        self._stats = stats
        self._max_streams = max_streams
        self._heartbeat_s = heartbeat_s
        self._stall_s = stall_s
        self._is_closing = False
        self._wakeups: set[Wakeup] = set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Until the client goes, takes nothing for too long, or the daemon ends."""
        parameters = read_parameters(request.query.items(), ("since", "follow"))
        start = read_start(parameters, request.headers.get("Last-Event-ID"))
        if len(self._wakeups) >= self._max_streams:
            self._stats.streams_refused += 1
            busy = reply(request, {"error": f"{self._max_streams} streams are open, which is the bound"}, 503)
            busy.headers[hdrs.RETRY_AFTER] = "5"
            return busy
        response = web.StreamResponse(headers=_HEADERS)
        with self._tap.reading() as wakeup:
            self._wakeups.add(wakeup)
            self._stats.streams = len(self._wakeups)
            try:
                async with asyncio.timeout(self._stall_s):
                    await response.prepare(request)
                await self._send(request, response, start, wakeup)
            except TimeoutError:
                self._stats.stalled += 1
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass  # the client is gone
            finally:
                self._wakeups.discard(wakeup)
                self._stats.streams = len(self._wakeups)
        return response

    async def close(self, _: web.Application) -> None:
        """The daemon ends: so do the streams, at once."""
        self._is_closing = True
        for wakeup in self._wakeups:
            wakeup.ring()

    async def _send(self, request: web.Request, response: web.StreamResponse, start: Start, wakeup: Wakeup) -> None:
        opening, position = self._open(start)
        await self._write(response, encode_opening() + opening)
        loop = asyncio.get_running_loop()
        written_at = loop.time()
        while not self._is_closing and request.transport is not None:
            batch = self._tap.after(position, BATCH)
            if batch.loss is not None or batch.entries:
                self._stats.events_missed += batch.missed or 0
                await self._write(response, encode_batch(batch))
                position, written_at = _end_of(batch), loop.time()
                await asyncio.sleep(0)
                continue
            position = batch.after
            if not start.follows:
                break
            if loop.time() - written_at >= self._heartbeat_s:
                await self._write(response, COMMENT)
                written_at = loop.time()
            await wakeup.wait(min(_LOOK_S, self._heartbeat_s))
        if request.transport is not None:
            await self._write(response, b"", is_last=True)

    def _open(self, start: Start) -> tuple[bytes, Position | None]:
        """What a reader by time is told first, and where it begins."""
        if start.at_s is None:
            return b"", start.position
        position, loss = self._tap.position_of(start.at_s)
        return b"" if loss is None else encode_gap(position, loss, None), position

    async def _write(self, response: web.StreamResponse, content: bytes, *, is_last: bool = False) -> None:
        """Waits where the client reads more slowly. Raises TimeoutError, ConnectionError."""
        async with asyncio.timeout(self._stall_s):
            await (response.write_eof() if is_last else response.write(content))


def _end_of(batch: Batch) -> Position:
    return batch.entries[-1].position if batch.entries else batch.after
