"""What came of asking a source, where it is a feed and where it is none."""

from __future__ import annotations

from gatewayd.feed.reading import Rejection
from gatewayd.model import Registration
from gatewayd.model.registration import Changes, RejectedRecord
from gatewayd.sources.update import LARGE, FeedPosition, SourceUpdate


def test_a_source_that_is_no_feed_stands_at_the_second_of_its_reading() -> None:
    reached = SourceUpdate("file", 1234.9, registrations={}).reached
    assert (reached.session, reached.serial, reached.issued_at_s) == ("", 1234, None)


def test_a_feed_stands_where_its_notification_says() -> None:
    position = FeedPosition("session", 7, issued_at=900.0)
    assert SourceUpdate("national", 1234.9, registrations={}, position=position).reached is position
    assert position.issued_at_s == 900.0


def test_only_a_long_source_that_was_read_whole_is_large() -> None:
    many = {str(number): Registration(str(number), "bank", "active", ()) for number in range(LARGE + 1)}
    few = dict(list(many.items())[1:])
    assert SourceUpdate("national", 1.0, registrations=many).is_large
    assert not SourceUpdate("national", 1.0, registrations=few).is_large
    assert not SourceUpdate("national", 1.0, registrations=many, changes=Changes((), ())).is_large
    assert not SourceUpdate("national", 1.0).is_large


def test_of_rejected_records_the_place_and_the_reason_go_on() -> None:
    rejections = (Rejection(3, "B", "bad_time", "valid_until", "it says 2025-13-01"),)
    whole = SourceUpdate("a", 9.5, registrations={}, rejections=rejections)
    assert whole.rejected_records() == (RejectedRecord(9, 3, "B", "bad_time", "valid_until"),)
    position = FeedPosition("s", 7)
    delta = SourceUpdate(
        "a", 9.5, registrations={}, changes=Changes((), ()), position=position, rejections=rejections
    )
    assert delta.rejected_records() == (RejectedRecord(7, 3, "B", "bad_time", "valid_until", is_delta=True),)
