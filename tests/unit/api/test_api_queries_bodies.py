from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.api.queries import MAX_ENTRIES, ParameterRejected, read_end, read_entries
from gatewayd.errors import SessionEntryInvalid


@pytest.mark.parametrize(
    ("body", "entries"),
    [(b"{}", [{}]), (b"[]", []), (b'[{"nas":"a"},7]', [{"nas": "a"}, 7]), (b"null", [None]), (b" 7 ", [7])],
)
def test_one_entry_or_a_list_is_read(body: bytes, entries: list[object]) -> None:
    assert list(read_entries(body)) == entries


def test_a_list_has_a_bound() -> None:
    assert len(read_entries(json.dumps([{}] * MAX_ENTRIES).encode())) == MAX_ENTRIES
    with pytest.raises(SessionEntryInvalid) as caught:
        read_entries(json.dumps([{}] * (MAX_ENTRIES + 1)).encode())
    assert (caught.value.code, str(caught.value)) == ("too_many_entries", "1001 entries, at most 1000 are taken")


@pytest.mark.parametrize("body", [b"", b"{", b"\0", b"\xff", b"[" * 100_000, b'{"a":1}{"a":1}', b"'a'"])
def test_what_is_no_json_is_said_so_and_not_repeated(body: bytes) -> None:
    for read in (read_entries, lambda raw: read_end(raw or b"{", ())):
        with pytest.raises(SessionEntryInvalid) as caught:
            read(body)
        assert (caught.value.code, str(caught.value)) == ("not_json", "the body is not JSON")


def test_an_end_is_in_the_body_or_in_the_query() -> None:
    pairs = [("nas", "a"), ("session", "b"), ("at", "5"), ("pretty", "")]
    assert read_end(b"", pairs) == {"nas": "a", "session": "b", "at": "5"}
    assert read_end(b'{"nas":"a","session":"b"}', [("pretty", "")]) == {"nas": "a", "session": "b"}
    with pytest.raises(ParameterRejected):
        read_end(b'{"nas":"a","session":"b"}', pairs)


@pytest.mark.parametrize(
    ("body", "code"), [(b"[]", "not_an_object"), (b"null", "not_an_object"), (b'{"number":"1"}', "unknown_field")]
)
def test_an_end_of_another_form_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(SessionEntryInvalid) as caught:
        read_end(body, ())
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    for read in (read_entries, lambda raw: read_end(raw, ())):
        with suppress(SessionEntryInvalid):
            read(body)
