"""Numbered datagrams inside tunnels, in both directions, each one accounted for.

One thread carries all tunnels: sockets that were made in a namespace stay there. A number is sent once; a datagram
that comes twice, or that no tunnel sent, is no arrival. What a socket refuses to send counts as sent and lost.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import Final, Literal

from gatewayd.lab.namespace import Namespace
from tests.support.background import Background

Way = Literal["out", "in"]
"""From the customer to the far end, and back."""
WAYS: Final[tuple[Way, Way]] = ("out", "in")
PORT: Final = 7777
RATE_PPS: Final = 20.0
"""Of each tunnel, in each direction."""
GRACE_S: Final = 15.0
"""For what is under way; a TCP below may have to repeat it, after pauses that double."""
MIN_SIZE: Final = 24
_HEADER: Final = Struct(">8sQ")
_BUFFER_BYTES: Final = 4 << 20
_IP_FREEBIND: Final = 15
"""include/uapi/linux/in.h."""
_MAX_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Score:
    """Of one tunnel, both directions together. `lost`: numbers, by direction."""

    sent: int
    lost: tuple[tuple[Way, int], ...]


class _Lane:
    """One direction of one tunnel."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, destination: tuple[str, int]) -> None:
        self.sender, self.receiver, self.destination = sender, receiver, destination
        self.token = os.urandom(8)
        self.sent = 0
        self.is_on = False
        self.arrived: set[int] = set()
        self.interval_s = 1 / RATE_PPS
        self.due_s = 0.0
        self.size = MIN_SIZE

    def send(self) -> None:
        """A number, whether the socket takes it or not."""
        payload = _HEADER.pack(self.token, self.sent).ljust(self.size, b"\0")
        self.sent += 1
        with suppress(OSError):
            self.sender.sendto(payload, self.destination)

    def take(self) -> None:
        with suppress(OSError):
            while True:
                payload = self.receiver.recv(4096)
                if len(payload) >= MIN_SIZE:
                    token, number = _HEADER.unpack_from(payload)
                    if token == self.token and number < self.sent:
                        self.arrived.add(number)


class Numbered(Background):
    """`add` the ends of each tunnel, `start` its stream in one direction or both; `score` what became of it.

    Use `with`: the thread and the sockets end with it.
    """

    def __init__(self) -> None:
        super().__init__("numbered")
        self._lanes: dict[tuple[str, Way], _Lane] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()

    def add(self, name: str, near: Namespace, far: Namespace, addresses: tuple[str, str]) -> None:
        """`addresses`: inside the tunnel, at the customer and at the far end; they may come to be later."""
        ends = [_bound(namespace, address) for namespace, address in zip((near, far), addresses, strict=True)]
        with self._lock:
            for way, (first, last) in zip(WAYS, ((0, 1), (1, 0)), strict=True):
                lane = _Lane(ends[first], ends[last], (addresses[last], PORT))
                self._lanes[name, way] = lane
                self._selector.register(lane.receiver, selectors.EVENT_READ, lane)

    def start(self, name: str, *ways: Way, rate_pps: float = RATE_PPS, size: int = MIN_SIZE) -> None:
        """Send from now on; no way = both."""
        with self._lock:
            for way in ways or WAYS:
                lane = self._lanes[name, way]
                lane.interval_s, lane.size = 1 / rate_pps, size
                lane.due_s, lane.is_on = time.monotonic(), True

    def stop(self, name: str, *ways: Way) -> None:
        with self._lock:
            for way in ways or WAYS:
                self._lanes[name, way].is_on = False

    def once(self, name: str, way: Way) -> None:
        """Send one datagram."""
        with self._lock:
            self._lanes[name, way].send()

    def any_of(self, name: str, way: Way, first: int) -> bool:
        """Whether a number from `first` on has arrived."""
        with self._lock:
            return any(number >= first for number in self._lanes[name, way].arrived)

    def marks(self) -> dict[tuple[str, Way], int]:
        """The next number of each tunnel and direction: `score` counts from there."""
        with self._lock:
            return {key: lane.sent for key, lane in self._lanes.items()}

    def sent(self, name: str, way: Way) -> int:
        return self._lanes[name, way].sent

    def arrived(self, name: str, way: Way) -> int:
        return len(self._lanes[name, way].arrived)

    def score(
        self,
        name: str,
        since: Mapping[tuple[str, Way], int] | None = None,
        until: Mapping[tuple[str, Way], int] | None = None,
        *,
        grace_s: float = GRACE_S,
    ) -> Score:
        """Of the numbers from `since` up to those that are sent by now. Waits for what is under way, and no longer
        than `grace_s`."""
        end = until or self.marks()
        deadline = time.monotonic() + grace_s
        while (lost := tuple(self._missing(name, since or {}, end))) and time.monotonic() < deadline:
            time.sleep(0.01)
        sent = sum(end[name, way] - (since or {}).get((name, way), 0) for way in WAYS)
        return Score(sent, lost)

    def _missing(
        self, name: str, since: Mapping[tuple[str, Way], int], end: Mapping[tuple[str, Way], int]
    ) -> Iterator[tuple[Way, int]]:
        with self._lock:
            for way in WAYS:
                arrived = self._lanes[name, way].arrived
                for number in range(since.get((name, way), 0), end[name, way]):
                    if number not in arrived:
                        yield way, number

    def _run(self) -> None:
        while not self._stopping.is_set():
            now = time.monotonic()
            pause_s = _MAX_PAUSE_S
            with self._lock:
                for lane in self._lanes.values():
                    while lane.is_on and lane.due_s <= now:
                        lane.send()
                        lane.due_s += lane.interval_s
                    if lane.is_on:
                        pause_s = min(pause_s, lane.due_s - now)
            found = self._selector.select(max(pause_s, 0.0)) if self._lanes else ()
            if not found:
                self._stopping.wait(0.0 if self._lanes else _MAX_PAUSE_S)
            with self._lock:
                for key, _ in found:
                    key.data.take()

    def _close(self) -> None:
        self._selector.close()
        for lane in self._lanes.values():
            lane.receiver.close()


def _bound(namespace: Namespace, address: str) -> socket.socket:
    with namespace.entered():
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    # The address comes with the tunnel: a program that is slow to begin is no error here.
    made.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
    made.bind((address, PORT))
    return made
