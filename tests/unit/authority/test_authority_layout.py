from __future__ import annotations

import pytest

from gatewayd.authority.layout import history_within, is_data_path, path_of, read_served
from gatewayd.feed.notification import DeltaRef, Notification, SnapshotRef, generate_key, sign_notification

SESSION = "0b0f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69"


def test_paths_are_below_session_and_serial() -> None:
    path = path_of(SESSION, 7, "delta")
    assert path == f"{SESSION}/7/delta.ndjson.gz"
    assert is_data_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "notification.jws",
        f"{SESSION}/7/.snapshot.ndjson.gz.tmp",
        f"{SESSION}/07/snapshot.ndjson.gz",
        f"{SESSION}/7/../7/snapshot.ndjson.gz",
        f"../{SESSION}/7/snapshot.ndjson.gz",
        f"{SESSION.upper()}/7/snapshot.ndjson.gz",
        f"{SESSION}/7/snapshot.ndjson.gz\n",
    ],
)
def test_nothing_else_is_a_path_of_ours(path: str) -> None:
    assert not is_data_path(path)


@pytest.mark.parametrize(
    ("sizes", "limit", "most", "kept"),
    [
        ([], 100, 10, 0),
        ([40, 40, 19, 1], 100, 10, 3),
        ([100], 100, 10, 0),
        ([99], 100, 10, 1),
        ([1, 1, 1], 100, 2, 2),
        ([1], 100, 0, 0),
    ],
)
def test_deltas_are_offered_while_they_are_together_smaller_than_the_snapshot(
    sizes: list[int], limit: int, most: int, kept: int
) -> None:
    assert history_within(sizes, limit, most) == kept


def test_what_is_served_is_read_whoever_signed_it() -> None:
    notification = Notification(
        SESSION, 2, 1.0, 60, 10, 60, SnapshotRef("s", "a" * 64, 1, 1), (DeltaRef(2, "d", "b" * 64, 1),)
    )
    served = read_served(sign_notification(notification, generate_key("k")))
    assert served is not None
    assert (served.session, served.serial, served.paths()) == (SESSION, 2, ("s", "d"))


@pytest.mark.parametrize("raw", [b"", b"a.b", b"a.e30.c", b"<html>", b"a.\xff\xff.c"])
def test_what_is_no_notification_is_none(raw: bytes) -> None:
    assert read_served(raw) is None
