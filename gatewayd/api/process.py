"""The process in the status: how late its loop runs, and the connections of its API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from gatewayd.model.metric import counter, gauge

_LAG: Final = gauge(
    "loop_lag_seconds",
    "How late the event loop ran: last, and worst since start.",
    "last `> 0.5` for 5 min",
    label="kind",
)


class LoopView(msgspec.Struct, frozen=True):
    """How late the event loop ran."""

    lag_last_s: Annotated[float, _LAG.of("last")] = 0.0
    lag_max_s: Annotated[float, _LAG.of("max")] = 0.0


_CLOSED: Final = counter("api_connections_closed", "Connections of the API that the daemon closed or refused.",
    "rises: a client holds connections; [operations.md](operations.md#the-api-under-attack)",
    label="reason")  # fmt: skip


@dataclass(slots=True)
class ListenerView:
    """A listener of the API. `evicted`: made room for another at a bound. `refused`: came at a bound while all
    others were being answered. `paused`: times that there was no file for a connection."""

    name: Literal["tcp", "unix"]
    is_listening: Annotated[bool, gauge("api_listening", "1 while the listener takes connections.",
        "`== 0` for 5 min: another program has the port")] = False  # fmt: skip
    connections: Annotated[int, gauge("api_connections", "Open connections.")] = 0
    accepted: Annotated[int, counter("api_connections_accepted", "Connections accepted.")] = 0
    timed_out: Annotated[int, _CLOSED.of(meaning="10 s without a whole request, or 60 s without its answer")] = 0
    evicted: Annotated[int, _CLOSED.of(meaning="had waited longest when another came at the bound")] = 0
    refused: Annotated[int, _CLOSED.of(meaning="came at the bound when all others were being answered")] = 0
    stalled: Annotated[int, _CLOSED.of(meaning="a stream of events whose client took nothing for 30 s")] = 0
    malformed: Annotated[int, _CLOSED.of(meaning="sent bytes that are no HTTP request")] = 0
    busy: Annotated[
        int, counter("api_requests_refused", "Requests refused with 503, as too many waited.", "rises")
    ] = 0
    paused: Annotated[int, counter("api_accept_failures",
        "Times that no file was left for a connection.", "rises: which process has them?")] = 0  # fmt: skip
    streams: Annotated[int, gauge("api_streams", "Open streams of events.",
        "at 16 for 5 min: no further one is served")] = 0  # fmt: skip
    streams_refused: Annotated[int, counter("api_streams_refused",
        "Streams of events refused with 503, as 16 were open.", "rises")] = 0  # fmt: skip
    events_missed: Annotated[int, counter("api_stream_events_missed",
        "Events that a reader missed: it was too slow, or away too long. The stream says so.")] = 0  # fmt: skip
