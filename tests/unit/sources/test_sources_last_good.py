"""The last good as rows: what was encoded comes back, and nothing else passes for it."""

from __future__ import annotations

from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import LastGoodDamaged
from gatewayd.feed.canonical import Damaged, Newer
from gatewayd.model import Extension, Registration, parse_prefix, parse_services
from gatewayd.model.registration import Changes
from gatewayd.sources import last_good
from gatewayd.sources.last_good import (
    CHUNK,
    ChunkReader,
    Head,
    Reached,
    Restored,
    decode_head,
    encode_changes,
    encode_chunk,
    encode_head,
    seal,
    unseal,
)
from gatewayd.sources.update import FeedPosition
from tests.support.strategies import registrations

REACHED = Reached(FeedPosition("6b9a7f0e-0000-4000-8000-000000000001", 7, 1000.5, etag='"7"'), 5000.0)
HEAD = Head(1, "ab12", REACHED, REACHED, {"not_json": 2}, 3, 3000, 90_000, 1, 400)


def registration(id: str) -> Registration:
    return Registration(
        id,
        "bank",
        "active",
        (parse_prefix("203.0.113.0/28"), parse_prefix("2001:db8::/48")),
        b"\x07" * 32,
        (parse_prefix("198.51.100.0/24"),),
        parse_services(["ipsec", "udp/51820"]),
        -inf,
        2e9,
    )


@given(st.lists(registrations(), max_size=5))
def test_registrations_come_back_as_they_were(some: list[Registration]) -> None:
    assert ChunkReader().read_chunk(encode_chunk(some)) == some


def test_equal_parts_of_registrations_are_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ChunkReader()
    first, again = reader.read_chunk(encode_chunk([registration("a"), registration("b")]))
    ended = msgspec.structs.replace(registration("c"), valid_until_s=3e9)
    (other,) = reader.read_chunk(encode_chunk([ended]))
    assert other == ended
    for each in (again, other):
        assert (each.services, each.peers) == (first.services, first.peers)
        assert each.services is first.services
        assert each.peers is first.peers
        assert each.category is first.category
    monkeypatch.setattr(last_good, "MAX_SHARED", 1)
    assert reader.read_chunk(encode_chunk([registration("d")])) == [registration("d")]
    suspended = msgspec.structs.replace(registration("e"), status="suspended")
    assert reader.read_chunk(encode_chunk([suspended])) == [suspended]


def provider(id: str) -> Registration:
    extension = Extension("co-9", endpoints=(parse_prefix("198.51.100.0/24"),))
    return Registration(id, "provider", "active", (), services=parse_services(["ipsec"]), extension=extension)


def of_company(id: str, registrant: str = "co-17") -> Registration:
    return msgspec.structs.replace(registration(id), extension=Extension(registrant, is_provisional=True))


def test_what_few_registrations_have_comes_back_and_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, some = ChunkReader(), [registration("a"), of_company("b"), provider("c"), of_company("d")]
    found = reader.read_chunk(encode_chunk(some))
    assert found == some
    assert found[1].extension is found[3].extension is not None
    (again,) = reader.read_chunk(encode_chunk([of_company("e")]))
    assert again.extension is found[1].extension
    monkeypatch.setattr(last_good, "MAX_SHARED", 1)
    assert reader.read_chunk(encode_chunk([of_company("f", "co-18")])) == [of_company("f", "co-18")]


def test_a_chunk_of_the_version_before_is_read() -> None:
    some = [registration("a"), registration("b")]
    columns = msgspec.msgpack.decode(encode_chunk(some))
    assert len(columns) == 5
    assert ChunkReader().read_chunk(msgspec.msgpack.encode(columns)) == some


def test_endpoints_are_left_out_where_the_source_may_not_bring_them() -> None:
    reader = ChunkReader()
    reader.read_chunk(encode_chunk([of_company("b")]))
    assert not reader.has_endpoints
    both = {each.id: each for each in reader.read_chunk(encode_chunk([registration("a"), provider("c")]))}
    assert reader.has_endpoints
    restored = Restored(both, REACHED.position, 5000.0, has_endpoints=True)
    assert restored.is_feed
    assert restored.without_endpoints().registrations == {"a": registration("a")}
    assert restored.without_endpoints().position == REACHED.position
    plain = Restored(both, FeedPosition("", 7, 1000.5))
    assert plain.without_endpoints() is plain
    assert not plain.is_feed
    assert not Restored({}).is_feed


@pytest.mark.parametrize(
    ("upserts", "withdrawals", "rows"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (CHUNK, CHUNK, 1), (CHUNK + 1, 1, 2), (1, 2 * CHUNK + 1, 3)],
)
def test_a_change_is_rows_of_a_bounded_size_and_the_last_says_where_it_leads(
    upserts: int, withdrawals: int, rows: int
) -> None:
    changes = Changes(
        tuple(registration(f"u{number}") for number in range(upserts)),
        tuple(f"w{number}" for number in range(withdrawals)),
    )
    reader = ChunkReader()
    read = [reader.read_delta(content) for content in encode_changes(changes, REACHED)]
    assert [row.reached for row, _ in read] == ([None] * (rows - 1) + [REACHED] if rows else [])
    assert [each for _, part in read for each in part] == list(changes.upserts)
    assert [id for row, _ in read for id in row.withdrawals] == list(changes.withdrawals)


def test_a_head_comes_back_as_it_was() -> None:
    assert decode_head(encode_head(HEAD)) == HEAD


@pytest.mark.parametrize(
    ("chunk_bytes", "delta_bytes", "is_outweighed"),
    [(10, 1 << 20, False), (10, (1 << 20) + 1, True), (1 << 21, (1 << 20) + 1, False), (1 << 21, 1 << 22, True)],
)
def test_deltas_outweigh_what_they_lead_on_from(chunk_bytes: int, delta_bytes: int, is_outweighed: bool) -> None:
    head = msgspec.structs.replace(HEAD, chunk_bytes=chunk_bytes, delta_bytes=delta_bytes)
    assert head.is_outweighed == is_outweighed


def test_every_cut_and_every_flipped_bit_of_a_row_is_noticed() -> None:
    row = seal("chunk", 4, "ab12", b"content")
    assert unseal("chunk", 4, "ab12", row) == b"content"
    for end in range(len(row)):
        with pytest.raises(Damaged, match="the hash of chunk 4 is wrong"):
            unseal("chunk", 4, "ab12", row[:end])
    for place in range(len(row)):
        flipped = bytearray(row)
        flipped[place] ^= 0x01
        with pytest.raises(Damaged):
            unseal("chunk", 4, "ab12", bytes(flipped))


@pytest.mark.parametrize(
    "row",
    [
        seal("delta", 4, "ab12", b"content"),
        seal("chunk", 5, "ab12", b"content"),
        seal("chunk", 4, "ab13", b"content"),
        "text",
        None,
        4,
    ],
)
def test_a_row_of_another_place_file_or_kind_is_damaged(row: object) -> None:
    with pytest.raises(Damaged):
        unseal("chunk", 4, "ab12", row)


def test_a_head_of_a_later_version_is_newer_and_not_damaged() -> None:
    with pytest.raises(Newer, match=r"a newer gatewayd wrote it \(format 2, and 1 is read\)"):
        decode_head(seal("head", 0, "", b"\x81\xa6format\x02"))


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x81\xa6format\x01", msgspec.msgpack.encode([1])])
def test_what_another_version_wrote_is_damaged(content: bytes) -> None:
    with pytest.raises(Damaged, match="of another format"):
        decode_head(seal("head", 0, "", content))
    reader = ChunkReader()
    for read in (reader.read_chunk, reader.read_delta):
        with pytest.raises(Damaged, match="of another format"):
            read(content)


def test_what_was_lost_is_known() -> None:
    damage = LastGoodDamaged("lab", "lab.sqlite3", "why")
    assert Restored({}).is_lost
    assert Restored({}, REACHED.position, damage=damage).is_lost
    assert not Restored({}, REACHED.position).is_lost


@pytest.mark.parametrize(("column", "value"), [(1, [9]), (1, [0, 0]), (3, [[b""]])], ids=["kind", "rows", "prefix"])
def test_a_chunk_whose_columns_do_not_fit_is_damaged(column: int, value: object) -> None:
    columns = list(msgspec.msgpack.decode(encode_chunk([registration("a")])))
    columns[column] = value
    with pytest.raises(Damaged, match="do not fit"):
        ChunkReader().read_chunk(msgspec.msgpack.encode(columns))
