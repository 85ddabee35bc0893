"""The client of a signed feed as a state machine: answers and `now` in, requests and outcomes out.

    begin(now) ─► next_request ─► on_response ─► on_chunk … ─► on_end ─► next_request … ─► outcome
                                      └────── on_failure ──────────────────────────────────┘

One attempt asks for the notification and, where it says so, for deltas or the snapshot; `outcome` is its
result, and nothing before it may be used. Modelled on RRDP (RFC 8182 §3.4) as Routinator does it: what is
wrong with a delta leads to the snapshot, with a named reason; what is wrong with the notification or the
snapshot leaves the position and the registrations as they are. Against that which a signature alone does not
see: serial and `issued_at` never go backwards, a session changes only forwards in time, a notification that
ran out or comes from the future is refused, and a frozen one (304 for ever) is noticed.

When the network fails in the middle of a chain, the next attempt goes on with deltas; only after
MAX_CHAIN_FAILURES does it take the snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from gatewayd.errors import AnswerUnexpected, CountMismatch, FeedRefused, FileTooLarge, SnapshotUnusable
from gatewayd.feed.files import DeltaReader, FileReading, LayeredRegistrations, Pending, net_changes
from gatewayd.feed.notification import (
    MAX_BYTES,
    DeltaRef,
    Notification,
    SnapshotRef,
    VerifyingKey,
    open_notification,
)
from gatewayd.feed.reading import MAX_REJECTIONS_LISTED, NdjsonReader, ReadLimits, Rejection
from gatewayd.model import Registration
from gatewayd.model.registration import Changes, Slices
from gatewayd.sources.client_plan import (
    FALLBACKS,
    FeedIntervals,
    FeedLimits,
    FeedRequest,
    FileKind,
    check_age,
    check_head,
    check_not_ahead,
    check_snapshot_size,
    plan,
    resolve,
    validators_of,
)
from gatewayd.sources.update import FeedPosition, SnapshotReason, SourceUpdate

MAX_REDIRECTS: Final = 5

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONDITIONS: Final = frozenset({"if-none-match", "if-modified-since"})
_GONE: Final = frozenset({404, 410})

Outcome = SourceUpdate | FeedRefused
"""Of an attempt. The shell adds the time for people."""


class FeedClient:
    """One feed. `source` names it in the readers' errors; `url` is the notification's.

    `position` and `registrations`: what an earlier run had; both or neither. `position` moves only with an outcome
    that is no refusal. `notification`: the bytes of the one last verified. Owned by one task.
    """

    def __init__(
        self,
        source: str,
        url: str,
        keys: Mapping[str, VerifyingKey],
        *,
        limits: FeedLimits | None = None,
        intervals: FeedIntervals | None = None,
        position: FeedPosition | None = None,
        registrations: Mapping[str, Registration] | None = None,
        allows_endpoints: bool = True,
    ) -> None:
        self._allows_endpoints = allows_endpoints
        self.position = position if registrations is not None else None
        self.outcome: Outcome | None = None
        self.failures = 0
        self.snapshot_reason: SnapshotReason | None = None
        self.notification = b""
        self._source = source
        self._url = url
        self._keys = dict(keys)
        self._limits = limits or FeedLimits()
        self._intervals = intervals or FeedIntervals()
        self._registrations = LayeredRegistrations.of(registrations or {})
        self._chain_failures = 0
        self._reset()

    def _reset(self) -> None:
        self._pending: FeedRequest | None = None
        self._request: FeedRequest | None = None
        self._redirects = 0
        self._validators: tuple[str | None, str | None] = (None, None)
        self._base_url = self._url
        self._buffer: bytearray | None = None
        self._file: FileReading | None = None
        self._target: Notification | None = None
        self._reset_chain()

    def _reset_chain(self) -> None:
        self._chain: list[DeltaRef] = []
        self._net: Pending = {}
        self._is_exact = self.position is None or self.position.is_exact
        self._rejected: Counter[str] = Counter()
        self._rejections: list[Rejection] = []

    # -- what the shell asks -------------------------------------------------------------------------------

    @property
    def registrations(self) -> Mapping[str, Registration]:
        """What the source has: a mapping that never changes."""
        return self._registrations

    @property
    def is_reading(self) -> bool:
        """Whether the rest of the body of the answer is wanted; else the answer is to be closed."""
        return self._buffer is not None or self._file is not None

    @property
    def stale_after(self) -> float | None:
        """Unix seconds after which the registrations are stale; None without any."""
        if self.position is None:
            return None
        return self.position.issued_at + self._intervals.holds_s(self.position.expire)

    def wait_s(self) -> float:
        """How long to wait before the next attempt, without jitter: `refresh`, or a back-off from `retry`."""
        if self.position is None:
            return self._intervals.wait_s(self.failures)
        return self._intervals.wait_s(self.failures, self.position.refresh, self.position.retry)

    def use_keys(self, keys: Mapping[str, VerifyingKey]) -> None:
        """Keys changed: the notification is asked for anew, so that it is verified with these."""
        if self._keys != keys:
            self._keys = dict(keys)
            if self.position is not None:
                self.position = msgspec.structs.replace(self.position, etag=None, last_modified=None)

    # -- one attempt ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new attempt; whatever was under way is dropped."""
        self._reset()
        self.outcome = None
        headers = {"accept": "application/jose, */*;q=0.5", "accept-encoding": "identity"}
        if self.position is not None and self.position.etag is not None:
            headers["if-none-match"] = self.position.etag
        elif self.position is not None and self.position.last_modified is not None:
            headers["if-modified-since"] = self.position.last_modified
        self._pending = FeedRequest("notification", self._url, headers)

    def next_request(self) -> FeedRequest | None:
        """What to ask for now; None: the attempt is over and `outcome` is there."""
        self._request, self._pending = self._pending, None
        return self._request

    def on_response(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """The head of the answer; the names of `headers` in lower case. Look at `is_reading` next."""
        try:
            self._take_head(self._asked(), status, headers, now)
        except FeedRefused as error:
            self._fail(error)

    def on_chunk(self, raw: bytes) -> Slices[None]:
        """The next bytes of the body, as served; to be run to its end. Look at `is_reading` next."""
        try:
            if self._file is not None:
                yield from self._file.feed(raw)
            elif self._buffer is not None:
                self._buffer += raw
                if len(self._buffer) > MAX_BYTES:
                    raise FileTooLarge("notification", MAX_BYTES, "bytes")
        except FeedRefused as error:
            self._fail(error)

    def on_end(self, now: float) -> Slices[None]:
        """The body is whole, as far as HTTP can tell; to be run to its end."""
        try:
            if self._file is not None:
                file, self._file = self._file, None
                file.finish()
                if isinstance(file.reader, DeltaReader):
                    yield from self._end_delta(file.reader, now)
                else:
                    self._end_snapshot(file.reader, now)
            elif self._buffer is not None:
                raw, self._buffer = bytes(self._buffer), None
                self._end_notification(raw, now)
        except FeedRefused as error:
            self._fail(error)

    def on_failure(self, error: FeedRefused) -> None:
        """The request came to nothing; no matter if the attempt is over."""
        if self.outcome is None:
            self._fail(error)

    # -- heads ---------------------------------------------------------------------------------------------

    def _asked(self) -> FeedRequest:
        if self._request is None:
            raise RuntimeError("an answer without a request")
        return self._request

    def _take_head(self, request: FeedRequest, status: int, headers: Mapping[str, str], now: float) -> None:
        if status in _REDIRECTS and "location" in headers:
            self._follow(request, headers["location"])
            return
        if status == 304 and self.position is not None and not _CONDITIONS.isdisjoint(request.headers):
            check_age(self.position.issued_at, self._intervals.holds_s(self.position.expire), now)
            self._succeed(SourceUpdate(self._source, now, position=self.position))
            return
        if status in _GONE and request.kind == "delta":
            self._take_snapshot("delta_missing")
            return
        check_head(request, status, headers)
        if request.ref is None:
            self._base_url = request.url
            self._validators = validators_of(headers)
            self._buffer = bytearray()
        else:
            self._file = self._open_file(str(request), request.ref)

    def _follow(self, request: FeedRequest, location: str) -> None:
        self._redirects += 1
        if self._redirects > MAX_REDIRECTS:
            raise AnswerUnexpected(str(request), 300, f"redirected more than {MAX_REDIRECTS} times")
        url = self._resolve(str(request), request.url, location)
        self._pending = FeedRequest(
            request.kind, url, request.headers, request.ref, request.session, request.serial
        )

    def _open_file(self, what: str, ref: SnapshotRef | DeltaRef) -> FileReading:
        limits = ReadLimits(self._limits.max_bytes, self._limits.max_records)
        reader: NdjsonReader
        if isinstance(ref, DeltaRef):
            reader = DeltaReader(
                self._source,
                ref.serial,
                limits,
                self._registrations,
                self._net,
                is_exact=self._is_exact,
                allows_endpoints=self._allows_endpoints,
            )
        else:
            allows = self._allows_endpoints
            reader = NdjsonReader(self._source, limits, self._registrations, allows_endpoints=allows)
        return FileReading(what, ref, reader, limits)

    # -- the notification ----------------------------------------------------------------------------------

    def _end_notification(self, raw: bytes, now: float) -> None:
        new, current = open_notification(raw, self._keys), self.position
        check_not_ahead(new.issued_at, now, self._limits)
        check_age(new.issued_at, self._intervals.holds_s(new.expire), now)
        check_snapshot_size(new, self._limits)
        way = plan(current, new, self._limits, self._chain_failures)
        self._resolve("snapshot", self._base_url, new.snapshot.url)
        self.notification = raw
        self._target = new
        if way.reason is not None:
            self._take_snapshot(way.reason)
        elif way.chain:
            self._chain = list(reversed(way.chain))
            self._next_delta()
        else:
            assert current is not None
            position = self._reached(new, is_exact=current.is_exact)
            if position.issued_at == current.issued_at:
                self._succeed(SourceUpdate(self._source, now, position=position))
            else:
                self._succeed(self._delta_to(position, Changes((), ()), now))

    def _resolve(self, what: str, base: str, reference: str) -> str:
        return resolve(what, self._url, base, reference)

    def _reached(self, to: Notification, *, is_exact: bool) -> FeedPosition:
        etag, last_modified = self._validators
        return FeedPosition(
            session=to.session,
            serial=to.serial,
            issued_at=to.issued_at,
            snapshot_sha256=to.snapshot.sha256,
            delta_hashes=tuple((delta.serial, delta.sha256) for delta in to.deltas),
            refresh=to.refresh,
            retry=to.retry,
            expire=to.expire,
            is_exact=is_exact,
            etag=etag,
            last_modified=last_modified,
        )

    # -- files ---------------------------------------------------------------------------------------------

    def _ask_for(self, kind: FileKind, ref: SnapshotRef | DeltaRef, serial: int) -> None:
        assert self._target is not None
        url = self._resolve(f"{kind} {serial}", self._base_url, ref.url)
        headers = {"accept": "*/*", "accept-encoding": "identity"}
        self._redirects = 0
        self._pending = FeedRequest(kind, url, headers, ref, self._target.session, serial)

    def _take_snapshot(self, reason: SnapshotReason) -> None:
        assert self._target is not None
        self._reset_chain()
        self._file = None
        self.snapshot_reason = reason
        self._ask_for("snapshot", self._target.snapshot, self._target.serial)

    def _end_snapshot(self, reader: NdjsonReader, now: float) -> None:
        target, reason = self._target, self.snapshot_reason
        assert target is not None
        assert reason is not None
        if reader.records != target.snapshot.count:
            raise CountMismatch(target.snapshot.count, reader.records)
        if not reader.registrations:
            if reader.rejections:
                raise SnapshotUnusable(
                    "snapshot", f"none of its {reader.records} records is usable; line {reader.rejections[0]}"
                )
            if self._registrations:
                raise SnapshotUnusable(
                    "snapshot", f"is empty, and {len(self._registrations)} registrations are held"
                )
        position = self._reached(target, is_exact=not reader.rejected)
        self._registrations = LayeredRegistrations.of(reader.registrations)
        update = SourceUpdate(
            self._source,
            now,
            registrations=reader.registrations,
            position=position,
            rejected=dict(reader.rejected),
            rejections=tuple(reader.rejections),
            retained=reader.retained,
            reason=reason,
        )
        self._succeed(update)

    def _next_delta(self) -> None:
        delta = self._chain[-1]
        self._ask_for("delta", delta, delta.serial)

    def _end_delta(self, reader: DeltaReader, now: float) -> Slices[None]:
        self._chain.pop()
        self._is_exact = reader.is_exact
        self._rejected.update(reader.rejected)
        room = MAX_REJECTIONS_LISTED - len(self._rejections)
        self._rejections += reader.rejections[:room]
        if self._chain:
            self._next_delta()
            return
        target, registrations = self._target, self._registrations
        assert target is not None
        net, changes = yield from net_changes(registrations, self._net)
        registrations = registrations.changed(net) if net else registrations
        if registrations.is_deep:
            registrations = yield from registrations.flatten()
        self._registrations = registrations
        self._succeed(self._delta_to(self._reached(target, is_exact=self._is_exact), changes, now))

    def _delta_to(self, position: FeedPosition, changes: Changes, now: float) -> SourceUpdate:
        return SourceUpdate(
            self._source,
            now,
            registrations=self._registrations,
            changes=changes,
            position=position,
            before=self.position,
            rejected=dict(self._rejected),
            rejections=tuple(self._rejections),
        )

    # -- ends ----------------------------------------------------------------------------------------------

    def _succeed(self, outcome: SourceUpdate) -> None:
        self._reset()
        self.position = outcome.position
        self.outcome = outcome
        self.failures = 0
        self._chain_failures = 0

    def _fail(self, error: FeedRefused) -> None:
        """A delta with wrong content leads to the snapshot; anything else ends the attempt."""
        is_delta = self._request is not None and self._request.kind == "delta"
        fallback = FALLBACKS.get(type(error)) if is_delta else None
        if fallback is not None:
            self._take_snapshot(fallback)
            return
        self._reset()
        self.failures += 1
        self._chain_failures += is_delta
        self.outcome = error
