from __future__ import annotations

import pytest

from gatewayd.errors import AnswerUnexpected, FeedRefused, FileTooLarge, SizeMismatch
from gatewayd.feed.notification import MAX_BYTES, DeltaRef
from gatewayd.sources.client_plan import FeedRequest, check_head, validators_of

NOTIFICATION = FeedRequest("notification", "https://registry.example/notification.jws", {})
DELTA = FeedRequest("delta", "https://registry.example/2.gz", {}, DeltaRef(2, "2.gz", "a" * 64, 100), "s", 2)


@pytest.mark.parametrize(
    ("request_", "headers"),
    [
        (NOTIFICATION, {}),
        (NOTIFICATION, {"content-type": "application/jose", "content-length": str(MAX_BYTES)}),
        (NOTIFICATION, {"content-length": "²", "content-encoding": " Identity"}),
        (NOTIFICATION, {"content-length": "9" * 19}),
        (DELTA, {"content-length": "100", "content-encoding": "x-gzip"}),
    ],
)
def test_a_head_that_can_be_right(request_: FeedRequest, headers: dict[str, str]) -> None:
    check_head(request_, 200, headers)


@pytest.mark.parametrize(
    ("request_", "status", "headers", "error"),
    [
        (NOTIFICATION, 404, {}, AnswerUnexpected),
        (NOTIFICATION, 206, {}, AnswerUnexpected),
        (DELTA, 200, {"content-type": "Text/HTML; charset=utf-8"}, AnswerUnexpected),
        (NOTIFICATION, 200, {"content-encoding": "gzip"}, AnswerUnexpected),
        (DELTA, 200, {"content-encoding": "br"}, AnswerUnexpected),
        (NOTIFICATION, 200, {"content-length": str(MAX_BYTES + 1)}, FileTooLarge),
        (DELTA, 200, {"content-length": "99"}, SizeMismatch),
    ],
)
def test_a_head_that_is_wrong(
    request_: FeedRequest, status: int, headers: dict[str, str], error: type[FeedRefused]
) -> None:
    with pytest.raises(error, match=str(request_)):
        check_head(request_, status, headers)


def test_validators_are_kept_unless_they_are_too_long() -> None:
    assert validators_of({"etag": '"1"', "last-modified": "yesterday"}) == ('"1"', "yesterday")
    assert validators_of({"etag": "x" * 257}) == (None, None)
