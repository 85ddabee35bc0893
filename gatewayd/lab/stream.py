"""Numbered packets at a steady rate through the gateway, each one accounted for."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.tap import Tap, Tokens
from gatewayd.lab.traffic import arrivals, returns
from gatewayd.model import Flow, reverse_flow
from gatewayd.model.service import SCTP, TCP

DEFAULT_RATE_PPS = 200.0
RATE_PPS = 400.0
SETTLE_PACKETS = 100
"""Of the demo's streams; so many packets, a quarter of a second, after what could have hurt them."""
_MAX_WAIT_S = 0.05
_LOOK_EVERY_S = 0.002
_PACKETS_AT_ONCE = 64
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class StreamReport:
    """`lost`: numbers of the packets that did not arrive; number n is of flow n modulo the number of flows.
    `rejected`: those of them that the gateway refused. `max_gap_s`: between two arrivals."""

    sent: int
    arrived: int
    answered: int
    lost: tuple[int, ...]
    rejected: tuple[int, ...]
    max_gap_s: float


class Stream:
    """Sends from its own thread until `stop`, or the end of `with`; then `report` is final.

    `rate_pps`: packets a second over all flows, which take turns; a late sender catches up, so the count
    holds. `start="internet"`: the far end initiates. `answered`: the other side answers each packet. `seen_as`:
    the flows as the other side sees them, where the gateway translates addresses. Raises ValueError for flows that
    are not single packets (TCP, SCTP).
    """

    def __init__(
        self,
        lab: Lab,
        flows: Sequence[Flow],
        *,
        rate_pps: float = DEFAULT_RATE_PPS,
        start: Side = "customers",
        answered: bool = False,
        seen_as: Sequence[Flow] | None = None,
    ) -> None:
        if not flows or any(flow.protocol in (TCP, SCTP) for flow in flows):
            raise ValueError("a stream is of at least one flow, and of single packets")
        self._flows = tuple(flows)
        self._seen_as = self._flows if seen_as is None else tuple(seen_as)
        self._interval_s = 1 / rate_pps
        self._is_answered = answered
        self._near, self._far = (lab.inside, lab.outside) if start == "customers" else (lab.outside, lab.inside)
        self._tokens = Tokens()
        self._sent = 0
        self._arrived: set[int] = set()
        self._answered: set[int] = set()
        self._rejected: set[int] = set()
        self._last_arrival_s: float | None = None
        self._max_gap_s = 0.0
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    @property
    def sent(self) -> int:
        return self._sent

    @property
    def arrived(self) -> int:
        return len(self._arrived)

    def wait_for_arrivals(self, count: int, deadline_s: float = 5.0) -> bool:
        """Whether `count` more packets arrive from now on, within `deadline_s`."""
        # Looked at again and again, not waited for on a condition: Ctrl-C within Condition.wait can leave its lock
        # released, and the `with` around it then raises RuntimeError in the place of KeyboardInterrupt.
        wanted, deadline = len(self._arrived) + count, time.monotonic() + deadline_s
        while len(self._arrived) < wanted and self._failure is None and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        return len(self._arrived) >= wanted

    def stop(self) -> StreamReport:
        """Stop sending, wait for what is under way (2 s at the most), and report. Again gives the same
        report.

        Raises what ended the thread, if anything did: EventsLost, OSError.
        """
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.report()

    def report(self) -> StreamReport:
        """As of now; while running, what is under way counts as lost."""
        with self._counting:
            lost = tuple(number for number in range(self._sent) if number not in self._arrived)
            return StreamReport(
                sent=self._sent,
                arrived=len(self._arrived),
                answered=len(self._answered),
                lost=lost,
                rejected=tuple(sorted(self._rejected - self._arrived)),
                max_gap_s=self._max_gap_s,
            )

    def _run(self) -> None:
        try:
            with Tap(self._near) as near_tap, Tap(self._far) as far_tap:
                self._send_until_stopped(near_tap, far_tap)
                deadline = time.monotonic() + _GRACE_S
                while self._is_waiting() and time.monotonic() < deadline:
                    self._look(near_tap, far_tap, _MAX_WAIT_S)
        except BaseException as failure:
            self._failure = failure

    def _send_until_stopped(self, near_tap: Tap, far_tap: Tap) -> None:
        due_s = time.monotonic()
        while not self._stopping.is_set():
            for _ in range(_PACKETS_AT_ONCE):
                if due_s > time.monotonic():
                    break
                near_tap.send(self._flows[self._sent % len(self._flows)], self._tokens.payload(self._sent))
                self._sent += 1
                due_s += self._interval_s
            self._look(near_tap, far_tap, min(max(due_s - time.monotonic(), 0.0), _MAX_WAIT_S))

    def _is_waiting(self) -> bool:
        if len(self._arrived) + len(self._rejected - self._arrived) < self._sent:
            return True
        return self._is_answered and len(self._answered) < len(self._arrived)

    def _look(self, near_tap: Tap, far_tap: Tap, timeout_s: float) -> None:
        if not select.select([near_tap, far_tap], [], [], timeout_s)[0]:
            return
        with self._counting:
            for number, flow in arrivals(far_tap, self._tokens, self._seen_as):
                self._note_arrival(number)
                if self._is_answered:
                    far_tap.send(reverse_flow(flow), self._tokens.payload(number))
            for number, is_refused in returns(near_tap, self._tokens):
                (self._rejected if is_refused else self._answered).add(number)

    def _note_arrival(self, number: int) -> None:
        now = time.monotonic()
        if self._last_arrival_s is not None:
            self._max_gap_s = max(self._max_gap_s, now - self._last_arrival_s)
        self._last_arrival_s = now
        self._arrived.add(number)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._stopping.set()
            self._thread.join()
