from __future__ import annotations

import pytest

from gatewayd.log.event import Event


@pytest.mark.parametrize(
    ("fields", "required", "optional"),
    [
        ("", set(), set()),
        ("source", {"source"}, set()),
        ("error?", set(), {"error"}),
        ("source error? line  code?", {"source", "line"}, {"error", "code"}),
    ],
)
def test_a_field_with_a_question_mark_may_be_left_out_and_every_other_is_required(
    fields: str, required: set[str], optional: set[str]
) -> None:
    event = Event("feed.read", "info", fields, "It was read.")
    assert (event.required, event.optional) == (required, optional)


def test_an_event_is_followed_only_where_its_declaration_says_so() -> None:
    assert not Event("feed.read", "info", "", "It was read.").followed
    assert Event("feed.read", "info", "", "It was read.", followed=True).followed
