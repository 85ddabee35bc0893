"""Whether a notification may be used, and the way from what is held to what it states."""

from __future__ import annotations

from math import inf
from typing import Final

import pytest
from msgspec.structs import replace

from gatewayd.errors import (
    FeedRefused,
    FileTooLarge,
    ForeignOrigin,
    IssuedAtWentBackwards,
    IssuedInFuture,
    NotificationStale,
    SerialReused,
    SerialWentBackwards,
)
from gatewayd.feed.notification import DeltaRef, Notification, SnapshotRef
from gatewayd.model.moment import Moment
from gatewayd.sources.client_plan import (
    MAX_CHAIN_FAILURES,
    FeedLimits,
    Plan,
    check_age,
    check_not_ahead,
    check_snapshot_size,
    plan,
    resolve,
)
from gatewayd.sources.update import FeedPosition, SnapshotReason

ISSUED_AT: Final = 1_000_000.0
HOME: Final = "https://registry.example/feed/notification.jws"


def sha(name: str) -> str:
    return (name * 64)[:64]


def delta(serial: int, *, size: int = 100, sha256: str = "d") -> DeltaRef:
    return DeltaRef(serial, f"{serial}.gz", sha(sha256), size)


def notification(serial: int, *deltas: DeltaRef, session: str = "s", later_s: float = 60.0) -> Notification:
    return Notification(
        session=session,
        serial=serial,
        issued_at=ISSUED_AT + later_s,
        snapshot=SnapshotRef(f"{serial}-snapshot.gz", sha(f"{serial}"), 1000, 10),
        deltas=deltas,
        refresh=60,
        retry=10,
        expire=3600,
    )


HELD: Final = FeedPosition("s", 7, ISSUED_AT, snapshot_sha256=sha("7"), delta_hashes=((6, sha("d")), (7, sha("d"))))
LIMITS: Final = FeedLimits(max_bytes=250, max_deltas=3)


def test_without_a_position_the_snapshot_is_taken() -> None:
    assert plan(None, notification(7), LIMITS, 0) == Plan("first_time")


@pytest.mark.parametrize("serials", [(8,), (8, 9)])
def test_deltas_lead_on_in_the_order_of_their_serials(serials: tuple[int, ...]) -> None:
    wanted = tuple(delta(serial) for serial in serials)
    new = notification(serials[-1], *reversed(wanted), delta(7), delta(6))
    assert plan(HELD, new, LIMITS, 0) == Plan(chain=wanted)


def test_where_nothing_is_new_there_is_nothing_to_do() -> None:
    assert plan(HELD, notification(7, delta(7), later_s=0), LIMITS, 0) == Plan()
    assert plan(HELD, notification(7, delta(7)), LIMITS, 0) == Plan()  # signed anew


@pytest.mark.parametrize(
    ("reason", "new", "chain_failures"),
    [
        ("new_session", notification(1, session="t"), 0),
        ("serial_reused", replace(notification(7), snapshot=SnapshotRef("x", sha("x"), 1000, 10)), 0),
        ("serial_gap", notification(8), 0),
        ("serial_gap", notification(10, delta(9), delta(10)), 0),
        ("delta_missing", notification(9, delta(8)), 0),
        ("delta_missing", notification(10, delta(8), delta(10)), 0),
        ("delta_mutated", notification(8, delta(7, sha256="e"), delta(8)), 0),
        ("too_many_deltas", notification(11, *map(delta, range(8, 12))), 0),
        ("too_many_deltas", notification(10, *map(delta, range(8, 11))), 0),  # of 300 bytes
        ("delta_failed", notification(8, delta(8)), MAX_CHAIN_FAILURES),
    ],
)
def test_the_snapshot_is_taken_where_deltas_do_not_lead_on(
    reason: SnapshotReason, new: Notification, chain_failures: int
) -> None:
    assert plan(HELD, new, LIMITS, chain_failures) == Plan(reason)


def test_a_chain_that_failed_is_tried_again_before_the_snapshot() -> None:
    new = notification(8, delta(8))
    assert plan(HELD, new, LIMITS, MAX_CHAIN_FAILURES - 1) == Plan(chain=(delta(8),))


@pytest.mark.parametrize(
    ("error", "new"),
    [
        (SerialWentBackwards, notification(6)),
        (IssuedAtWentBackwards, notification(8, delta(8), later_s=-0.5)),
        (IssuedAtWentBackwards, notification(1, session="t", later_s=0)),
        (SerialReused, replace(notification(7, later_s=0), snapshot=SnapshotRef("x", sha("x"), 1000, 10))),
    ],
)
def test_a_notification_that_goes_back_is_refused(error: type[FeedRefused], new: Notification) -> None:
    with pytest.raises(error):
        plan(HELD, new, LIMITS, 0)


# -- checks before the way -----------------------------------------------------------------------------------


def test_a_notification_is_stale_once_that_is_certain() -> None:
    check_age(ISSUED_AT, 3600.0, ISSUED_AT + 3600)
    with pytest.raises(NotificationStale) as caught:
        check_age(ISSUED_AT, 3600.0, ISSUED_AT + 3601)
    assert (caught.value.age_s, caught.value.expire_s) == (3601.0, 3600.0)
    check_age(ISSUED_AT, 3600.0, Moment(ISSUED_AT + 3600, ISSUED_AT + 7200))


def test_a_notification_is_ahead_once_that_is_certain() -> None:
    check_not_ahead(ISSUED_AT, ISSUED_AT - 300, FeedLimits())
    with pytest.raises(IssuedInFuture) as caught:
        check_not_ahead(ISSUED_AT, ISSUED_AT - 301, FeedLimits())
    assert caught.value.ahead_s == 301.0
    check_not_ahead(ISSUED_AT, Moment(ISSUED_AT - 301, inf), FeedLimits())


@pytest.mark.parametrize("limits", [FeedLimits(max_bytes=999), FeedLimits(max_records=9)])
def test_a_snapshot_beyond_a_limit_is_not_asked_for(limits: FeedLimits) -> None:
    check_snapshot_size(notification(7), FeedLimits(max_bytes=1000, max_records=10))
    with pytest.raises(FileTooLarge):
        check_snapshot_size(notification(7), limits)


# -- URLs (RFC 3986 §5, RFC 6454 §4) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("s.gz", "https://registry.example/v2/s.gz"),
        ("../s.gz#part", "https://registry.example/s.gz"),
        ("/feed/s.gz", "https://registry.example/feed/s.gz"),
        ("//registry.example/s.gz", "https://registry.example/s.gz"),
        ("https://registry.example:443/s.gz", "https://registry.example:443/s.gz"),
        ("https://REGISTRY.example/s.gz", "https://REGISTRY.example/s.gz"),
    ],
)
def test_a_reference_is_relative_to_where_the_notification_was_found(reference: str, url: str) -> None:
    assert resolve("snapshot", HOME, "https://registry.example/v2/notification.jws", reference) == url


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("http://registry.example/feed/s.gz", "http://registry.example"),
        ("https://registry.example:8443/s.gz", "https://registry.example:8443"),
        ("https://evil.example/s.gz", "https://evil.example"),
        ("//evil.example/s.gz", "https://evil.example"),
        ("https://registry.example@evil.example/s.gz", "https://evil.example"),
        ("https://registry.example.evil.example/s.gz", "https://registry.example.evil.example"),
        ("file:/etc/passwd", "file://"),
        ("https://[/s.gz", "(no URL)"),
        ("https://registry.example:99999/s.gz", "(no URL)"),
        ("a b", "(no URL)"),
        ("", "(no URL)"),
    ],
)
def test_a_reference_that_leaves_the_origin_is_refused_and_shown_without_credentials(
    reference: str, place: str
) -> None:
    with pytest.raises(ForeignOrigin) as caught:
        resolve("snapshot", HOME, HOME, reference)
    assert caught.value.place == place
