from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import (
    AnswerUnexpected,
    BadSignature,
    CountMismatch,
    FeedRefused,
    FileDamaged,
    FileTooLarge,
    ForeignOrigin,
    HashMismatch,
    IssuedAtWentBackwards,
    IssuedInFuture,
    NotificationMalformed,
    NotificationStale,
    SerialReused,
    SerialWentBackwards,
    SizeMismatch,
    SnapshotUnusable,
    TransferFailed,
    UnknownKey,
)
from gatewayd.feed.files import LayeredRegistrations
from gatewayd.feed.notification import MAX_BYTES, generate_key, load_verifying_keys
from gatewayd.model import Registration
from gatewayd.model.moment import Moment
from gatewayd.model.registration import SLICE, run_slices
from gatewayd.sources.client import MAX_REDIRECTS, FeedClient
from gatewayd.sources.client_plan import MAX_CHAIN_FAILURES, FeedIntervals, FeedLimits, FeedRequest
from gatewayd.sources.update import FeedPosition, SnapshotReason, SourceUpdate
from tests.support.feeds import (
    KEYS,
    NOW,
    ORIGIN,
    SESSIONS,
    URL,
    Answer,
    Fields,
    Publisher,
    Serve,
    attempt,
    fields_of,
    is_delta,
    is_reissued,
    is_snapshot,
    is_unchanged,
    line_of,
    serve,
    upsert,
    withdraw,
)


def client_of(**options: Any) -> FeedClient:
    return FeedClient("national", URL, KEYS, **options)


def published(*ids: str) -> Publisher:
    publisher = Publisher()
    publisher.publish(*(upsert(id) for id in ids or ("a", "b", "c")))
    return publisher


def joined(publisher: Publisher, **options: Any) -> FeedClient:
    """A client that holds what is published."""
    client = client_of(**options)
    outcome, _ = attempt(client, serve(publisher))
    assert is_snapshot(outcome), outcome
    return client


def refusal(client: FeedClient, answers: Serve, now: float = NOW) -> FeedRefused:
    """Why an attempt was refused; what is held must not have changed by it."""
    position, held = client.position, client.registrations
    outcome, _ = attempt(client, answers, now)
    assert isinstance(outcome, FeedRefused), outcome
    assert client.position is position
    assert client.registrations is held
    return outcome


def fallback(client: FeedClient, publisher: Publisher, answers: Serve | None = None) -> SnapshotReason:
    """Why the snapshot was taken; afterwards the client holds what is published."""
    outcome, _ = attempt(client, answers or serve(publisher))
    assert is_snapshot(outcome), outcome
    assert client.registrations == publisher.registrations()
    assert client.snapshot_reason == outcome.reason
    return outcome.reason


# -- the usual way -------------------------------------------------------------------------------------------


def test_the_first_time_the_snapshot_is_taken() -> None:
    publisher = published()
    client = client_of()
    assert (client.position, client.stale_after, dict(client.registrations)) == (None, None, {})
    outcome, asked = attempt(client, serve(publisher))
    assert asked == ["notification", "snapshot"]
    assert is_snapshot(outcome)
    assert outcome.registrations == publisher.registrations()
    assert (outcome.reason, outcome.rejected, outcome.rejections) == ("first_time", {}, ())
    assert (outcome.position.session, outcome.position.serial) == (SESSIONS[0], 1)
    assert outcome.position == client.position
    assert client.notification == publisher.files["notification.jws"]
    assert client.stale_after == publisher.issued_at + 604800


def test_what_did_not_change_is_not_fetched() -> None:
    publisher = published()
    client = joined(publisher)
    outcome, asked = attempt(client, serve(publisher))
    assert asked == ["notification"]
    assert outcome == SourceUpdate("national", NOW, position=client.position)


def test_the_notification_that_is_held_confirms_it_also_from_a_server_that_knows_no_conditions() -> None:
    publisher = published()
    client = joined(publisher)
    body = publisher.files["notification.jws"]
    outcome, asked = attempt(client, serve(publisher, notification=Answer(200, {"etag": '"new"'}, body)), NOW + 1)
    assert asked == ["notification"]
    assert client.position is not None
    assert client.position.etag == '"new"'
    assert outcome == SourceUpdate("national", NOW + 1, position=client.position)


def test_without_an_etag_the_date_is_asked_for() -> None:
    publisher = published()
    seen: list[Mapping[str, str]] = []

    def answer(request: FeedRequest) -> Answer:
        if request.kind == "notification":
            seen.append(request.headers)
            if "if-modified-since" in request.headers:
                return Answer(304)
            return Answer(200, {"last-modified": "now"}, publisher.files["notification.jws"])
        return serve(publisher)(request)

    client = client_of()
    attempt(client, answer)
    outcome, _ = attempt(client, answer)
    assert is_unchanged(outcome)
    assert seen[1]["if-modified-since"] == "now"


def test_a_validator_too_long_to_be_one_is_not_sent_back() -> None:
    publisher = published()
    client = client_of()
    body = publisher.files["notification.jws"]
    attempt(client, serve(publisher, notification=Answer(200, {"etag": "x" * 300}, body)))
    assert client.position is not None
    assert client.position.etag is None


def test_a_notification_that_was_signed_anew_counts_as_heard_from() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.edit(issued_at=NOW - 5)
    outcome, asked = attempt(client, serve(publisher))
    assert asked == ["notification"]
    assert is_reissued(outcome)
    assert outcome.position.issued_at == NOW - 5


def test_a_delta_is_one_change() -> None:
    publisher = published("a", "b", "c", "d")
    client = joined(publisher)
    before = client.registrations
    publisher.publish(upsert("e"), withdraw("a"), upsert("b", "203.0.113.16/28"), upsert("c"))
    outcome, asked = attempt(client, serve(publisher))
    assert asked == ["notification", "delta 2"]
    assert is_delta(outcome)
    assert [each.id for each in outcome.changes.upserts] == ["e", "b"]
    assert outcome.changes.withdrawals == ("a",)
    assert outcome.registrations == client.registrations == publisher.registrations()
    assert outcome.position.serial == 2
    assert sorted(before) == ["a", "b", "c", "d"]


def test_several_deltas_are_applied_in_order_and_delivered_as_one_change() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish(upsert("d"), withdraw("a"))
    publisher.publish(upsert("a", "203.0.113.32/28"), withdraw("d"))
    publisher.publish(withdraw("b"), upsert("b"))
    publisher.edit(deltas=tuple(reversed(publisher.deltas)))
    outcome, asked = attempt(client, serve(publisher))
    assert asked == ["notification", "delta 2", "delta 3", "delta 4"]
    assert is_delta(outcome)
    assert [each.id for each in outcome.changes.upserts] == ["a"]
    assert outcome.changes.withdrawals == ()
    assert client.registrations == publisher.registrations()


def test_a_delta_that_changes_nothing_moves_the_serial() -> None:
    publisher = published()
    client = joined(publisher)
    held = client.registrations
    publisher.publish()
    outcome, _ = attempt(client, serve(publisher))
    assert is_delta(outcome)
    assert (outcome.changes.upserts, outcome.changes.withdrawals, outcome.position.serial) == ((), (), 2)
    assert outcome.registrations is held


def test_what_is_equal_keeps_its_object() -> None:
    publisher = published("a", "b")
    client = joined(publisher)
    a = client.registrations["a"]
    publisher.publish(upsert("b", "203.0.113.16/28"))
    attempt(client, serve(publisher))
    publisher.begin_session(SESSIONS[1])
    publisher.publish()
    fallback(client, publisher)
    assert client.registrations["a"] is a


def test_a_position_from_disk_goes_on_with_deltas() -> None:
    publisher = published()
    first = joined(publisher)
    position = msgspec.json.decode(msgspec.json.encode(first.position), type=FeedPosition)
    assert position == first.position
    publisher.publish(upsert("d"))
    again = client_of(position=position, registrations=dict(first.registrations))
    outcome, _ = attempt(again, serve(publisher))
    assert is_delta(outcome)
    assert again.registrations == publisher.registrations()


def test_a_position_without_registrations_is_worth_nothing() -> None:
    publisher = published()
    position = joined(publisher).position
    assert fallback(client_of(position=position), publisher) == "first_time"


def test_urls_may_be_absolute_within_the_origin() -> None:
    publisher = published()
    snapshot = publisher.notification.snapshot
    for url in (
        f"{ORIGIN}/feed/{snapshot.url}",
        f"/feed/{snapshot.url}",
        f"https://registry.example:443/feed/{snapshot.url}#x",
    ):
        publisher.edit(snapshot=msgspec.structs.replace(snapshot, url=url))
        client = client_of()

        def answer(request: FeedRequest) -> Answer:
            return serve(publisher)(without_port(request))

        outcome, _ = attempt(client, answer)
        assert is_snapshot(outcome)


def without_port(request: FeedRequest) -> FeedRequest:
    assert "#" not in request.url
    return FeedRequest(request.kind, request.url.replace(":443", ""), request.headers, request.ref)


def test_files_may_be_labelled_gzip_by_the_server() -> None:
    publisher = published()
    raw = publisher.files[publisher.notification.snapshot.url]
    for encoding in ("gzip", "x-gzip", "Identity"):
        client = client_of()
        answer = Answer(200, {"content-encoding": encoding, "content-type": "application/gzip"}, raw)
        outcome, _ = attempt(client, serve(publisher, snapshot=answer))
        assert is_snapshot(outcome)


# -- the notification misbehaves -----------------------------------------------------------------------------


def test_wrong_key() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.key = generate_key("national-1")
    publisher.publish(upsert("d"))
    assert isinstance(refusal(client, serve(publisher)), BadSignature)


def test_unknown_kid_and_rotated_key() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.key = generate_key("national-2")
    publisher.publish(upsert("d"))
    assert isinstance(refusal(client, serve(publisher)), UnknownKey)
    client.use_keys({**KEYS, **load_verifying_keys([publisher.key.public_text()])})
    assert is_delta(attempt(client, serve(publisher))[0])


def test_after_a_change_of_keys_what_is_held_must_be_confirmed_by_them() -> None:
    publisher = published()
    client = joined(publisher)
    client.use_keys(KEYS)
    assert is_unchanged(attempt(client, serve(publisher))[0])
    client.use_keys(load_verifying_keys([generate_key("national-2").public_text()]))
    assert isinstance(refusal(client, serve(publisher)), UnknownKey)
    client_of().use_keys({})


def test_expired() -> None:
    publisher = published()
    error = refusal(client_of(), serve(publisher), now=publisher.issued_at + 604801)
    assert isinstance(error, NotificationStale)
    assert (error.age_s, error.expire_s) == (604801, 604800)


def test_expired_while_the_server_says_304() -> None:
    publisher = published()
    client = joined(publisher)
    assert isinstance(refusal(client, serve(publisher), now=NOW + 604800), NotificationStale)


def test_expiry_is_the_operators_where_the_notification_says_nothing_and_has_a_least() -> None:
    publisher = Publisher(intervals=(0, 0, 0))
    publisher.publish(upsert("a"))
    client = client_of(intervals=FeedIntervals(expire_s=500))
    assert isinstance(refusal(client, serve(publisher)), NotificationStale)
    publisher.intervals = (0, 0, 1)
    publisher.publish()
    assert isinstance(refusal(client, serve(publisher), publisher.issued_at + 61), NotificationStale)
    assert is_snapshot(attempt(client, serve(publisher), publisher.issued_at + 60)[0])


def test_future_issued_at() -> None:
    publisher = published()
    error = refusal(client_of(), serve(publisher), now=publisher.issued_at - 301)
    assert isinstance(error, IssuedInFuture)
    assert error.ahead_s == 301
    assert is_snapshot(attempt(client_of(), serve(publisher), publisher.issued_at - 300)[0])


def test_an_issue_ahead_of_a_doubted_clock_is_taken_and_none_is_stale_by_it() -> None:
    """The clock is in 2020, or years ahead: nobody knows how late it is, and what is signed is read."""
    publisher = published()
    behind = Moment(publisher.issued_at - 6 * 365 * 86400, inf)
    assert is_snapshot(attempt(client_of(), serve(publisher), behind)[0])
    ahead = Moment(publisher.issued_at - 60, publisher.issued_at + 6 * 365 * 86400)
    client = joined(publisher)
    assert is_unchanged(attempt(client, serve(publisher), ahead)[0])
    certain = Moment(publisher.issued_at + 604801, publisher.issued_at + 6 * 365 * 86400)
    assert isinstance(refusal(client, serve(publisher), now=certain), NotificationStale)
    known = Moment(0.0, publisher.issued_at - 301)
    assert isinstance(refusal(client_of(), serve(publisher), now=known), IssuedInFuture)


def test_serial_backwards() -> None:
    publisher = published()
    publisher.publish(upsert("d"))
    client = joined(publisher)
    publisher.edit(serial=1, issued_at=NOW, deltas=())
    error = refusal(client, serve(publisher))
    assert isinstance(error, SerialWentBackwards)
    assert (error.held, error.served) == (2, 1)


def test_issued_at_backwards() -> None:
    publisher = published()
    client = joined(publisher)
    held = publisher.issued_at
    publisher.publish(upsert("d"))
    for changes in ({}, {"serial": 1, "deltas": ()}, {"session": SESSIONS[1]}):
        publisher.edit(issued_at=held - 0.5, **changes)
        error = refusal(client, serve(publisher))
        assert isinstance(error, IssuedAtWentBackwards)
        assert error.held - error.served == 0.5


def test_same_serial_other_content() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.records["d"] = fields_of("d")
    publisher.issue(b"".join(map(line_of, publisher.records.values())), 4)
    error = refusal(client, serve(publisher))
    assert isinstance(error, SerialReused)
    assert error.serial == 1
    publisher.edit(issued_at=publisher.issued_at + 1)
    assert fallback(client, publisher) == "serial_reused"


def test_session_change() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.begin_session(SESSIONS[1])
    publisher.publish(upsert("d"))
    held = client.position
    assert held is not None
    issued_at = publisher.issued_at
    publisher.edit(issued_at=held.issued_at)
    assert isinstance(refusal(client, serve(publisher)), IssuedAtWentBackwards)
    publisher.edit(issued_at=issued_at)
    assert fallback(client, publisher) == "new_session"
    assert client.position is not None
    assert client.position.session == SESSIONS[1]


@pytest.mark.parametrize("url", ["https://registry.example@evil.example/s.gz", "https://[/s.gz"])
def test_cross_origin_url(url: str) -> None:
    publisher = published()
    publisher.edit(snapshot=msgspec.structs.replace(publisher.notification.snapshot, url=url))
    error = refusal(client_of(), serve(publisher))
    assert isinstance(error, ForeignOrigin)
    assert "@" not in error.place


def test_cross_origin_url_of_a_delta() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish(upsert("d"))
    publisher.publish(upsert("e"))
    first, second = publisher.deltas
    for deltas in (
        (first, msgspec.structs.replace(second, url="https://evil.example/3.gz")),
        (msgspec.structs.replace(first, url="https://evil.example/2.gz"), second),
    ):
        publisher.edit(deltas=deltas)
        assert isinstance(refusal(client, serve(publisher)), ForeignOrigin)


def test_a_notification_or_snapshot_beyond_the_limits_is_not_fetched() -> None:
    publisher = published()
    for limits in (FeedLimits(max_bytes=10), FeedLimits(max_records=2)):
        client = client_of(limits=limits)
        position = client.position
        outcome, asked = attempt(client, serve(publisher))
        assert isinstance(outcome, FeedRefused)
        assert isinstance(outcome, FileTooLarge)
        assert asked == ["notification"]
        assert client.position is position
    for headers in ({"content-length": str(MAX_BYTES + 1)}, {}):
        answer = Answer(200, headers, b"A" * (MAX_BYTES + 1))
        assert isinstance(refusal(client_of(), serve(publisher, notification=answer)), FileTooLarge)


# -- answers misbehave ---------------------------------------------------------------------------------------

NOTIFICATION_AND_SNAPSHOT = pytest.mark.parametrize("kind", ["notification", "snapshot"])


@NOTIFICATION_AND_SNAPSHOT
@pytest.mark.parametrize("status", [404, 410, 403, 204, 206, 300, 304, 301, 500, 503])
def test_404_5xx_and_others(kind: str, status: int) -> None:
    error = refusal(client_of(), serve(published(), **{kind: Answer(status)}))
    assert isinstance(error, AnswerUnexpected)
    assert error.status == status
    assert str(error) == f"{kind}: HTTP status {status}"


@NOTIFICATION_AND_SNAPSHOT
def test_html_captive_portal(kind: str) -> None:
    publisher = published()
    client = joined(publisher)
    publisher.begin_session(SESSIONS[1])
    publisher.publish()
    for content_type in ("text/html; charset=utf-8", "Application/XHTML+xml"):
        answer = Answer(200, {"content-type": content_type}, b"<html>log in</html>")
        error = refusal(client, serve(publisher, **{kind: answer}))
        assert isinstance(error, AnswerUnexpected)
        assert "login page" in error.why


def test_html_captive_portal_under_another_name() -> None:
    answer = Answer(200, {"content-type": "text/plain"}, b"<html>log in</html>")
    assert isinstance(refusal(client_of(), serve(published(), notification=answer)), NotificationMalformed)
    assert isinstance(refusal(client_of(), serve(published(), snapshot=answer)), SizeMismatch)


def test_wrong_content_type_is_no_fault_where_the_signature_is_right() -> None:
    publisher = published()
    body = publisher.files["notification.jws"]
    answer = Answer(200, {"content-type": "text/csv"}, body)
    assert is_snapshot(attempt(client_of(), serve(publisher, notification=answer))[0])


@pytest.mark.parametrize(
    ("kind", "encoding"), [("notification", "gzip"), ("notification", "br"), ("snapshot", "br")]
)
def test_wrong_encoding(kind: str, encoding: str) -> None:
    answer = Answer(200, {"content-encoding": encoding}, b"x")
    error = refusal(client_of(), serve(published(), **{kind: answer}))
    assert isinstance(error, AnswerUnexpected)
    assert "encoding" in error.why


def test_redirect_within_the_origin() -> None:
    publisher = published()

    def answer(request: FeedRequest) -> Answer:
        if request.url == URL:
            return Answer(302, {"location": "/v2/notification.jws"})
        if "/v2/" in request.url:
            return serve(publisher)(
                FeedRequest(request.kind, request.url.replace("/v2/", "/feed/"), request.headers, request.ref)
            )
        raise AssertionError(request.url)  # relative URLs are relative to where the notification was found

    outcome, asked = attempt(client_of(), answer)
    assert is_snapshot(outcome)
    assert asked == ["notification", "notification", "snapshot"]


@NOTIFICATION_AND_SNAPSHOT
@pytest.mark.parametrize(
    "location", ["https://evil.example/x", "http://registry.example/x", "https://[", "a b", ""]
)
def test_redirect_off_origin(kind: str, location: str) -> None:
    answer = Answer(301, {"location": location})
    assert isinstance(refusal(client_of(), serve(published(), **{kind: answer})), ForeignOrigin)


def test_redirect_for_ever() -> None:
    client = client_of()
    outcome, asked = attempt(client, serve(published(), notification=Answer(307, {"location": "/again"})))
    assert isinstance(outcome, FeedRefused)
    assert isinstance(outcome, AnswerUnexpected)
    assert len(asked) == MAX_REDIRECTS + 1


@NOTIFICATION_AND_SNAPSHOT
def test_cut_body_and_no_answer(kind: str) -> None:
    publisher = published()
    path = "notification.jws" if kind == "notification" else publisher.notification.snapshot.url
    raw = publisher.files[path]
    client = client_of()
    for answer in (Answer(body=None), Answer(body=raw[:20], is_cut=True)):
        assert isinstance(refusal(client, serve(publisher, **{kind: answer})), TransferFailed)
    error = refusal(client, serve(publisher, **{kind: Answer(body=raw[:-5])}))
    assert isinstance(error, BadSignature | NotificationMalformed | SizeMismatch)
    assert client.failures == 3


# -- the snapshot misbehaves ---------------------------------------------------------------------------------


def snapshot_of(raw: bytes, count: int = 3, **changes: Any) -> Publisher:
    """A publisher whose snapshot is these bytes, as served."""
    publisher = published()
    publisher.issue_file(raw, count)
    snapshot = msgspec.structs.replace(publisher.notification.snapshot, **changes)
    publisher.edit(snapshot=snapshot)
    return publisher


LINES = b"".join(line_of(fields_of(id)) for id in "abc")
WHOLE = gzip.compress(LINES)


@pytest.mark.parametrize(
    ("publisher", "error"),
    [
        (snapshot_of(WHOLE, sha256="0" * 64), HashMismatch),
        (snapshot_of(WHOLE, size=len(WHOLE) + 1), SizeMismatch),
        (snapshot_of(WHOLE, size=len(WHOLE) - 1), SizeMismatch),
        (snapshot_of(WHOLE, count=4), CountMismatch),
        (snapshot_of(WHOLE, count=2), CountMismatch),
        (snapshot_of(WHOLE[:-4]), FileDamaged),
        (snapshot_of(WHOLE[:30] + b"\0" + WHOLE[31:]), FileDamaged),
        (snapshot_of(LINES), FileDamaged),
        (snapshot_of(gzip.compress(LINES[:-5])), FileDamaged),
        (snapshot_of(gzip.compress(LINES + bytes(100)), 4), FileDamaged),
        (snapshot_of(gzip.compress(b""), 0), None),
        (snapshot_of(gzip.compress(b"x\ny\n"), 2), SnapshotUnusable),
    ],
    ids=[
        "hash mismatch", "size mismatch, shorter", "size mismatch, longer", "count mismatch, fewer",
        "count mismatch, more", "truncated gzip", "damaged gzip", "no gzip", "cut within a line",
        "NUL bytes at the end", "empty snapshot of a registry that never had one", "nothing usable",
    ],
)  # fmt: skip
def test_a_bad_snapshot(publisher: Publisher, error: type[FeedRefused] | None) -> None:
    if error is None:
        assert is_snapshot(attempt(client_of(), serve(publisher))[0])
        return
    caught = refusal(client_of(), serve(publisher))
    assert type(caught) is error, caught
    in_pieces, _ = attempt(client_of(), serve(publisher), chunk_bytes=7)
    assert isinstance(in_pieces, FeedRefused)
    assert type(in_pieces) is error
    without_length = Answer(200, {}, publisher.files[publisher.notification.snapshot.url])
    assert type(refusal(client_of(), serve(publisher, snapshot=without_length))) is error


def test_empty_snapshot_of_a_registry_that_had_one() -> None:
    client = joined(published())
    publisher = snapshot_of(gzip.compress(b""), 0)
    publisher.edit(session=SESSIONS[1], issued_at=NOW)
    error = refusal(client, serve(publisher))
    assert isinstance(error, SnapshotUnusable)
    assert "3 registrations are held" in error.why


def test_gzip_bomb_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    client = client_of(limits=FeedLimits(max_bytes=100_000))
    error = refusal(client, serve(snapshot_of(bomb)))
    assert isinstance(error, FileTooLarge)
    assert "100000 bytes" in str(error)


def test_more_records_than_the_limit_whatever_the_notification_states() -> None:
    for content in (LINES, LINES[:-1]):
        client = client_of(limits=FeedLimits(max_records=2))
        error = refusal(client, serve(snapshot_of(gzip.compress(content), count=2)))
        assert isinstance(error, FileTooLarge)
        assert "2 records" in str(error)


def test_bad_records_are_rejected_one_by_one() -> None:
    lines = [
        line_of(fields_of("a")),
        line_of(fields_of("b", cnic="35202-1234567-1")),
        line_of(fields_of("a", "203.0.113.16/28")),
        b'{"id": "c", "pad": "' + b"x" * 10_000_000 + b'"}\n',
        b"\0\0\0\n",
        b'{"id": "\xff"}\n',
        line_of(fields_of("d")),
    ]
    client = client_of()
    outcome, _ = attempt(client, serve(snapshot_of(gzip.compress(b"".join(lines)), 7)), chunk_bytes=100_000)
    assert is_snapshot(outcome)
    assert list(outcome.registrations) == ["a", "d"]
    assert outcome.rejected == {
        "identity_field": 1, "duplicate_id": 1, "line_too_long": 1, "nul_byte": 1, "not_utf8": 1,
    }  # fmt: skip
    assert [(each.line, each.id) for each in outcome.rejections] == [
        (2, "b"), (3, "a"), (4, None), (5, None), (6, None),
    ]  # fmt: skip
    assert "35202" not in str(outcome.rejections)
    assert not outcome.position.is_exact


# -- deltas misbehave ----------------------------------------------------------------------------------------


def listed(publisher: Publisher, **changes: Any) -> None:
    """The last delta is listed with other fields."""
    publisher.deltas[-1] = msgspec.structs.replace(publisher.deltas[-1], **changes)
    publisher.edit(deltas=tuple(publisher.deltas))


def lag(publisher: Publisher) -> None:
    publisher.max_deltas = 1
    publisher.publish(upsert("e"))


def skip(publisher: Publisher) -> None:
    publisher.publish(upsert("e"))
    publisher.edit(deltas=tuple(publisher.deltas[:-1]))


def mutate(publisher: Publisher) -> None:
    publisher.publish(upsert("e"))
    publisher.deltas[0] = msgspec.structs.replace(publisher.deltas[0], sha256="0" * 64)
    publisher.edit(deltas=tuple(publisher.deltas))


def serve_delta(publisher: Publisher, raw: bytes) -> None:
    publisher.deltas.pop()
    publisher.put_delta(raw)
    publisher.edit(deltas=tuple(publisher.deltas))


def lose(publisher: Publisher) -> None:
    del publisher.files[publisher.deltas[-1].url]


def tamper(publisher: Publisher) -> None:
    url = publisher.deltas[-1].url
    publisher.files[url] = publisher.files[url][:-1] + b"\xff"


def plain(lines: bytes) -> Callable[[Publisher], None]:
    return lambda publisher: serve_delta(publisher, gzip.compress(lines))


MISBEHAVIOUR: dict[str, tuple[SnapshotReason, Callable[[Publisher], None]]] = {
    "lagging too far": ("serial_gap", lag),
    "no deltas": ("serial_gap", lambda publisher: publisher.edit(deltas=())),
    "missing delta, not listed": ("delta_missing", skip),
    "missing delta, 404": ("delta_missing", lose),
    "applied delta listed anew with another hash": ("delta_mutated", mutate),
    "delta hash mismatch": ("delta_digest", tamper),
    "delta stated longer": ("delta_digest", lambda publisher: listed(publisher, size=10_000)),
    "delta stated shorter": ("delta_digest", lambda publisher: listed(publisher, size=10)),
    "delta no gzip": ("delta_damaged", lambda publisher: serve_delta(publisher, line_of(upsert("d")))),
    "delta cut": ("delta_damaged", lambda each: serve_delta(each, gzip.compress(line_of(upsert("d")))[:-6])),
    "delta gzip bomb": ("delta_damaged", plain(bytes(3_000_000))),
    "too many operations": ("delta_damaged", plain(line_of(upsert("d")) * 101)),
    "withdrawal of an unknown id": ("delta_conflict", plain(line_of(withdraw("x")) + b"junk\n")),
    "withdrawal twice": ("delta_conflict", plain(line_of(withdraw("a")) * 2)),
    "not JSON": ("delta_malformed", plain(b"junk\n" + line_of(withdraw("x")))),
    "cut within a line": ("delta_malformed", plain(line_of(upsert("d")) + b'{"op":"withdr')),
    "NUL bytes": ("delta_malformed", plain(bytes(100))),
    "not UTF-8": ("delta_malformed", plain(b'{"op":"withdraw","id":"\xff"}\n')),
    "10 MB line": ("delta_malformed", plain(b'{"op":"withdraw","id":"' + b"x" * 1_000_000 + b'"}\n')),
    "deep nesting": ("delta_malformed", plain(b"[" * 20_000 + b"\n")),
    "unknown operation": ("delta_malformed", plain(line_of({"op": "replace", "id": "a"}))),
    "unknown field": ("delta_malformed", plain(line_of(withdraw("a") | {"why": "x"}))),
    "upsert without registration": ("delta_malformed", plain(line_of({"op": "upsert"}))),
    "upsert with an id": ("delta_malformed", plain(line_of(upsert("d") | {"id": "d"}))),
    "withdrawal without id": ("delta_malformed", plain(line_of({"op": "withdraw"}))),
    "withdrawal with a registration": ("delta_malformed", plain(line_of(upsert("d") | withdraw("d")))),
    "withdrawal of what is no id": ("delta_malformed", plain(line_of(withdraw("a b")))),
}  # fmt: skip


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_what_is_wrong_with_a_delta_leads_to_the_snapshot(name: str) -> None:
    reason, misbehave = MISBEHAVIOUR[name]
    publisher = published()
    publisher.publish(upsert("b", "203.0.113.48/28"))
    client = joined(publisher, limits=FeedLimits(max_bytes=1_500_000, max_records=100))
    publisher.publish(upsert("d"), withdraw("a"))
    misbehave(publisher)
    assert fallback(client, publisher) == reason
    assert is_unchanged(attempt(client, serve(publisher))[0])


def test_every_reason_is_described_and_tested() -> None:
    tested = {reason for reason, _ in MISBEHAVIOUR.values()}
    others = {"first_time", "new_session", "serial_reused", "too_many_deltas", "delta_failed"}
    assert tested | others == set(get_args(SnapshotReason))


@pytest.mark.parametrize("limits", [FeedLimits(max_deltas=2), FeedLimits(max_bytes=260)])
def test_too_many_deltas(limits: FeedLimits) -> None:
    publisher = published("a")
    client = joined(publisher, limits=limits)
    for number in range(3):
        publisher.publish(upsert("a", f"203.0.113.{number * 16}/28"))
    assert fallback(client, publisher) == "too_many_deltas"


def test_a_chain_applies_as_a_whole_or_not_at_all() -> None:
    publisher = published()
    client = joined(publisher)
    held = dict(client.registrations)
    publisher.publish(upsert("d"), withdraw("a"))
    publisher.publish(withdraw("b"))
    lose(publisher)
    error = refusal(client, serve(publisher, snapshot=Answer(503)))
    assert isinstance(error, AnswerUnexpected)
    assert dict(client.registrations) == held
    assert fallback(client, publisher) == "delta_missing"


def test_when_the_network_fails_within_a_chain_deltas_are_tried_again_and_then_the_snapshot() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish(upsert("d"))
    for answer in (Answer(body=None), Answer(503), Answer(200, {"content-type": "text/html"}, b"<html>"))[
        :MAX_CHAIN_FAILURES
    ]:
        refusal(client, serve(publisher, delta=answer))
    outcome, asked = attempt(client, serve(publisher, delta=Answer(503)))
    assert asked == ["notification", "snapshot"]
    assert is_snapshot(outcome)
    assert outcome.reason == "delta_failed"
    publisher.publish(upsert("e"))
    assert is_delta(attempt(client, serve(publisher))[0])


def test_a_rejected_upsert_leaves_the_old_registration_in_force() -> None:
    publisher = published()
    client = joined(publisher)
    old = client.registrations["a"]
    lines = [
        upsert("a", "203.0.113.1/28"),
        {"op": "upsert", "registration": ["not", "an", "object"]},
        {"op": "upsert", "registration": fields_of("n", phone="0300")},
        upsert("d"),
    ]
    publisher.publish_lines(b"".join(map(line_of, lines)))
    publisher.publish_lines(line_of(upsert("b", "bad")))
    outcome, asked = attempt(client, serve(publisher))
    assert asked[1:] == ["delta 2", "delta 3"]
    assert is_delta(outcome)
    assert [each.id for each in outcome.changes.upserts] == ["d"]
    assert client.registrations["a"] is old
    assert outcome.rejected == {
        "prefix_host_bits": 1, "not_object": 1, "identity_field": 1, "prefix_syntax": 1,
    }  # fmt: skip
    assert [(each.line, each.id) for each in outcome.rejections] == [(1, "a"), (2, None), (3, "n"), (1, "b")]


def test_what_had_to_be_rejected_may_be_withdrawn() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish_lines(line_of(upsert("n", phone="0300")) + line_of(withdraw("n")))
    assert is_delta(attempt(client, serve(publisher))[0])
    publisher.publish_lines(line_of(withdraw("n")) + b" \n" + line_of(withdraw("c")).rstrip())
    outcome, _ = attempt(client, serve(publisher))
    assert is_delta(outcome)
    assert outcome.changes.withdrawals == ("c",)


# -- waits ---------------------------------------------------------------------------------------------------


def test_waits_are_the_notifications_within_bounds_and_back_off_after_failures() -> None:
    publisher = Publisher(intervals=(300, 20, 0))
    publisher.publish(upsert("a"))
    client = client_of(intervals=FeedIntervals(refresh_s=120, retry_s=15))
    assert client.wait_s() == 120
    refusal(client, serve(publisher, notification=Answer(500)))
    assert client.wait_s() == 15
    attempt(client, serve(publisher))
    assert client.wait_s() == 300
    waits = []
    for _ in range(6):
        refusal(client, serve(publisher, notification=Answer(500)))
        waits.append(client.wait_s())
    assert waits == [20, 40, 80, 160, 300, 300]


@pytest.mark.parametrize(
    ("stated", "refresh_s", "expected"),
    [(0, 60, 60), (1, 60, 10), (1, 5, 5), (10**7, 60, 86400), (60, 10**6, 60), (0, 10**6, 86400)],
)
def test_a_refresh_is_neither_too_short_nor_too_long(stated: int, refresh_s: float, expected: float) -> None:
    publisher = Publisher(intervals=(stated, 0, 0))
    publisher.publish(upsert("a"))
    client = client_of(intervals=FeedIntervals(refresh_s=refresh_s))
    attempt(client, serve(publisher))
    assert client.wait_s() == expected
    refusal(client, serve(publisher, notification=Answer(500)))
    assert client.wait_s() == min(10, max(expected, 10))


# -- use of the machine --------------------------------------------------------------------------------------


def test_an_answer_without_a_request_is_our_own_mistake() -> None:
    with pytest.raises(RuntimeError):
        client_of().on_response(200, {}, NOW)


def test_what_comes_after_the_end_is_nothing() -> None:
    client = joined(published())
    client.on_failure(TransferFailed("snapshot", "the connection was lost after the last byte"))
    run_slices(client.on_chunk(b"x"))
    run_slices(client.on_end(NOW))
    assert is_snapshot(client.outcome)


def test_a_new_attempt_drops_what_was_under_way() -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish(upsert("d"))
    client.begin()
    assert client.next_request() is not None
    client.on_response(200, {}, NOW)
    run_slices(client.on_chunk(b"half a not"))
    assert is_delta(attempt(client, serve(publisher))[0])


# -- what is held --------------------------------------------------------------------------------------------

ids = st.sampled_from([f"r{number}" for number in range(6)])
registrations_ = st.builds(lambda id, n: Registration(id, f"c{n}", "active", ()), ids, st.integers(0, 2))


@given(
    st.lists(registrations_), st.lists(st.dictionaries(ids, st.none() | st.integers(0, 2), max_size=4), max_size=5)
)
def test_held_registrations_are_as_a_dictionary_would_be(
    base: list[Registration], steps: list[dict[str, int | None]]
) -> None:
    oracle = {each.id: each for each in base}
    held = LayeredRegistrations.of(dict(oracle))
    for step in steps:
        changes = {id: None if n is None else Registration(id, f"c{n}", "active", ()) for id, n in step.items()}
        earlier, copy = held, dict(held)
        held = held.changed(changes)
        for id, registration in changes.items():
            if registration is None:
                oracle.pop(id, None)
            else:
                oracle[id] = registration
        assert dict(earlier) == copy
        for view in (held, run_slices(held.flatten())):
            assert dict(view) == oracle
            assert len(view) == len(oracle)
            assert all((f"r{number}" in view) == (f"r{number}" in oracle) for number in range(7))
    assert LayeredRegistrations.of(held) is held


def test_many_changes_are_flattened() -> None:
    publisher = published()
    client = joined(publisher)
    lines = b"".join(line_of(upsert(f"x{number}")) for number in range(SLICE + 1))
    publisher.publish_lines(lines)
    outcome, _ = attempt(client, serve(publisher), chunk_bytes=100_000)
    assert is_delta(outcome)
    assert len(outcome.registrations) == len(list(outcome.registrations)) == SLICE + 4
    assert isinstance(client.registrations, LayeredRegistrations)
    assert not client.registrations.is_deep


# -- anything ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_any_chunking_gives_the_same(sizes: list[int]) -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish(upsert("d"), withdraw("a"))
    publisher.publish_lines(line_of(upsert("e")) + line_of(upsert("x", "bad")))
    client.begin()
    while (request := client.next_request()) is not None:
        answer = serve(publisher)(request)
        assert answer.body is not None
        client.on_response(answer.status, answer.headers, NOW)
        start = turn = 0
        while start < len(answer.body):
            size = sizes[turn % len(sizes)]
            run_slices(client.on_chunk(answer.body[start : start + size]))
            start, turn = start + size, turn + 1
        run_slices(client.on_end(NOW))
    outcome = client.outcome
    assert is_delta(outcome)
    assert sorted(outcome.registrations) == ["b", "c", "d", "e"]
    assert [str(each) for each in outcome.rejections] == [
        "2: x: prefix_syntax: clients: a prefix: not an IPv4 or IPv6 address"
    ]


@given(st.data())
def test_mutated_files_change_nothing_or_give_the_registrys_content(data: st.DataObject) -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish(upsert("d"), withdraw("a"))
    path = data.draw(st.sampled_from(sorted(publisher.files)))
    raw = publisher.files[path]
    place = data.draw(st.integers(0, len(raw) - 1))
    rest = data.draw(st.binary(max_size=3) | st.just(raw[place + 1 :]))
    publisher.files[path] = raw[:place] + rest
    outcome, _ = attempt(client, serve(publisher))
    if isinstance(outcome, FeedRefused):
        assert sorted(client.registrations) == ["a", "b", "c"]
    else:
        assert client.registrations == publisher.registrations()


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_arbitrary_signed_content_never_raises(snapshot: bytes, delta: bytes) -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish_lines(line_of(upsert("d")) + delta)
    attempt(client, serve(publisher))
    publisher.begin_session(SESSIONS[1])
    publisher.publish()
    publisher.issue(snapshot, snapshot.count(b"\n"))
    outcome, _ = attempt(client, serve(publisher))
    assert client.registrations
    assert is_snapshot(outcome) or isinstance(outcome, FeedRefused)


lines_of_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["op", "id", "registration", "upsert", "clients", "name"]), inner)
    ),
    max_leaves=6,
)


@given(st.lists(lines_of_json | st.sampled_from([upsert("d"), withdraw("a"), withdraw("x")]), max_size=4))
def test_any_json_in_a_delta_is_applied_or_leads_to_the_snapshot(lines: list[object]) -> None:
    publisher = published()
    client = joined(publisher)
    publisher.publish_lines(b"".join(map(line_of, lines)))
    outcome, _ = attempt(client, serve(publisher))
    assert is_delta(outcome) or is_snapshot(outcome)


def turns() -> st.SearchStrategy[list[tuple[str, object]]]:
    """Histories: publishes of random operations, restarts of the registry, attempts of clients, trouble."""
    some_ids = st.sampled_from([f"r{number}" for number in range(8)])
    operation = st.tuples(some_ids, st.none() | st.integers(0, 3))
    return st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.lists(operation, max_size=5)),
            st.tuples(st.just("sync"), st.integers(0, 2)),
            st.tuples(st.just("restart"), st.integers(0, 2)),
            st.tuples(st.just("trouble"), st.integers(0, 2)),
            st.tuples(st.just("lose"), st.none()),
            st.tuples(st.just("new_session"), st.none()),
        ),
        max_size=25,
    )


@settings(max_examples=150, deadline=None)
@given(turns(), st.integers(1, 4))
def test_whatever_the_history_a_client_ends_with_what_the_registry_has(
    history: list[tuple[str, object]], max_deltas: int
) -> None:
    publisher = Publisher(max_deltas=max_deltas)
    publisher.publish(upsert("keep"))
    clients = [client_of(limits=FeedLimits(max_deltas=3)) for _ in range(3)]
    shadows: list[dict[str, Registration]] = [{}, {}, {}]
    sessions = iter(SESSIONS[1:] * 4)

    def sync(number: int, answers: Serve) -> None:
        outcome, _ = attempt(clients[number], answers, chunk_bytes=70)
        shadow = shadows[number]
        if is_snapshot(outcome):
            shadows[number] = dict(outcome.registrations)
        elif is_delta(outcome):
            for id in outcome.changes.withdrawals:
                del shadow[id]
            shadow.update({each.id: each for each in outcome.changes.upserts})

    for what, argument in history:
        if what == "publish":
            assert isinstance(argument, list)
            operations: dict[str, Fields] = {}
            for id, n in argument:
                operations[id] = withdraw(id) if n is None else upsert(id, f"203.0.113.{n * 16}/28")
            known = publisher.records
            publisher.publish(*(each for id, each in operations.items() if each["op"] == "upsert" or id in known))
        elif what == "new_session":
            publisher.begin_session(next(sessions))
            publisher.publish()
        elif what == "lose":
            for delta in publisher.deltas:
                publisher.files.pop(delta.url, None)
        else:
            number = argument
            assert isinstance(number, int)
            if what == "restart":
                before = clients[number]
                clients[number] = client_of(position=before.position, registrations=dict(before.registrations))
            else:
                sync(number, serve(publisher, delta=Answer(502)) if what == "trouble" else serve(publisher))
    for number, client in enumerate(clients):
        sync(number, serve(publisher))
        assert client.registrations == shadows[number] == publisher.registrations()
        assert is_unchanged(attempt(client, serve(publisher))[0])
