"""What came of asking a source, where it is a feed and where it is none."""

from __future__ import annotations

from gatewayd.sources.update import FeedPosition, SourceUpdate


def test_a_source_that_is_no_feed_stands_at_the_second_of_its_reading() -> None:
    reached = SourceUpdate("file", 1234.9, registrations={}).reached
    assert (reached.session, reached.serial, reached.issued_at_s) == ("", 1234, None)


def test_a_feed_stands_where_its_notification_says() -> None:
    position = FeedPosition("session", 7, issued_at=900.0)
    assert SourceUpdate("national", 1234.9, registrations={}, position=position).reached is position
    assert position.issued_at_s == 900.0
