from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import SourceFailed, SourceTooLarge, SourceUnusable
from gatewayd.feed import reading
from gatewayd.feed.reading import (
    CsvReader,
    Format,
    NdjsonReader,
    ReadLimits,
    RecordReader,
    Rejection,
    format_of,
    reader_for,
)

HEADER = b"id,category,status,clients,subscriber,peers,services,valid_from,valid_until\n"
CONFIG = Path(__file__).parents[3] / "config"


def line_of(id: str, client: str = "203.0.113.0/28", **changes: Any) -> bytes:
    fields = {"id": id, "category": "bank", "status": "active", "clients": [client], **changes}
    return json.dumps(fields).encode()


def read(reader: RecordReader, *chunks: bytes) -> RecordReader:
    fresh = [registration for chunk in chunks for registration in reader.feed(chunk)]
    fresh += reader.finish()
    assert fresh == list(reader.registrations.values())
    return reader


def ndjson(*chunks: bytes, limits: ReadLimits | None = None) -> RecordReader:
    return read(NdjsonReader("lab", limits), *chunks)


def csv(*chunks: bytes, limits: ReadLimits | None = None) -> RecordReader:
    return read(CsvReader("lab", limits), *chunks)


def summary(reader: RecordReader) -> tuple[list[str], list[Rejection], dict[str, int], int]:
    return list(reader.registrations), reader.rejections, dict(reader.rejected), reader.records


def test_lines_become_registrations_and_wrong_ones_are_listed_with_their_place() -> None:
    reader = ndjson(line_of("a") + b"\n\n  \r\n", line_of("b", "203.0.113.1/28") + b"\r\n" + line_of("c"))
    assert list(reader.registrations) == ["a", "c"]
    assert [(r.line, r.id, r.code, r.field) for r in reader.rejections] == [(4, "b", "prefix_host_bits", "clients")]
    assert reader.rejected == {"prefix_host_bits": 1}
    assert reader.records == 3
    assert str(reader.rejections[0]).startswith("4: b: prefix_host_bits: clients: 203.0.113.1/28: ")


def test_a_rejection_without_id_and_field_has_dashes_in_their_place() -> None:
    reader = ndjson(b"x\n")
    assert str(reader.rejections[0]) == "1: -: not_json: -: the line is not one JSON object"


def test_a_byte_order_mark_is_tolerated_on_the_first_line_only() -> None:
    reader = ndjson(b"\xef\xbb", b"\xbf" + line_of("a") + b"\n\xef\xbb\xbf" + line_of("b") + b"\n")
    assert list(reader.registrations) == ["a"]
    assert reader.rejected == {"not_json": 1}


def test_the_earlier_of_two_records_with_one_id_is_used() -> None:
    reader = ndjson(line_of("a") + b"\n" + line_of("a", "203.0.113.16/28") + b"\n")
    assert str(reader.registrations["a"].clients[0]) == "203.0.113.0/28"
    assert [(r.line, r.id, r.code) for r in reader.rejections] == [(2, "a", "duplicate_id")]


@pytest.mark.parametrize("size", [1, 1000, 70_000, 200_000])
def test_an_overlong_line_is_rejected_without_being_kept(size: int) -> None:
    reader = NdjsonReader("lab")
    content = line_of("a") + b"\n" + b"x" * 65_537 + b"y" * size + b"\n" + line_of("b") + b"\n"
    for start in range(0, len(content), 4096):
        reader.feed(content[start : start + 4096])
        assert len(reader._tail) <= 65_536 + 4096
    reader.finish()
    assert list(reader.registrations) == ["a", "b"]
    assert [(r.line, r.code) for r in reader.rejections] == [(2, "line_too_long")]


def test_an_overlong_line_at_the_end_is_rejected_too() -> None:
    assert ndjson(b"x" * 65_537).rejected == {"line_too_long": 1}
    assert ndjson(b"x" * 65_537 + b"\n").rejected == {"line_too_long": 1}


def test_too_many_bytes_refuse_the_source() -> None:
    with pytest.raises(SourceTooLarge, match="more than 10 bytes"):
        ndjson(b" " * 5, b" " * 6, limits=ReadLimits(max_bytes=10))


def test_too_many_records_refuse_the_source() -> None:
    with pytest.raises(SourceTooLarge, match="more than 2 records"):
        ndjson(b"x\n\nx\nx\n", limits=ReadLimits(max_records=2))


def test_rejections_beyond_the_first_thousand_are_only_counted() -> None:
    reader = ndjson(b"x\n" * 1500)
    assert len(reader.rejections) == reading.MAX_REJECTIONS_LISTED
    assert reader.rejected == {"not_json": 1500}


@pytest.mark.parametrize("end", [1, 20, -1])
def test_a_file_cut_within_its_last_line_is_refused_as_a_whole(end: int) -> None:
    with pytest.raises(SourceUnusable, match="line 2: the file seems cut off"):
        ndjson(line_of("a") + b"\n" + line_of("b")[:end])


def test_a_last_line_without_newline_that_is_whole_but_wrong_is_one_rejection() -> None:
    assert ndjson(line_of("a") + b"\n" + line_of("b", status="x")).rejected == {"bad_status": 1}


def test_what_is_equal_keeps_the_object_of_the_earlier_reading() -> None:
    earlier = ndjson(line_of("a") + b"\n" + line_of("b") + b"\n").registrations
    reader = NdjsonReader("lab", previous=earlier)
    reader.feed(line_of("a") + b"\n" + line_of("b", "203.0.113.16/28") + b"\n")
    assert reader.registrations["a"] is earlier["a"]
    assert reader.registrations["b"] != earlier["b"]


def lines(*records: bytes) -> bytes:
    return b"".join(record + b"\n" for record in records)


def test_a_record_that_was_usable_and_is_not_now_stays_as_it_was() -> None:
    before = ndjson(lines(line_of("a"), line_of("b"))).registrations
    now = lines(line_of("a", "203.0.113.1/28"), line_of("c", "oops"))
    after = read(NdjsonReader("lab", previous=before), now)
    assert after.registrations == {"a": before["a"]}
    assert after.registrations["a"] is before["a"]
    assert (after.retained, dict(after.rejected)) == (1, {"prefix_host_bits": 1, "prefix_syntax": 1})


def test_a_usable_record_of_the_same_id_further_down_is_used_instead() -> None:
    before = ndjson(lines(line_of("a"))).registrations
    now = lines(line_of("a", "oops"), line_of("a", "198.51.100.0/28"))
    after = read(NdjsonReader("lab", previous=before), now)
    assert [str(each) for each in after.registrations["a"].clients] == ["198.51.100.0/28"]
    assert after.retained == 0


def test_csv_rows_become_the_same_registrations_as_ndjson_lines() -> None:
    from_csv = csv(
        HEADER + b"a,bank,active,203.0.113.0/28 2001:db8::/48,,198.51.100.7;198.51.100.8,ipsec; esp,"
        b"2024-11-01T00:00:00Z,\n"
        b"\r\n"
        b'b , bank,active,"203.0.113.16/28\n 203.0.113.32/28",hmac-sha256:' + b"ab" * 32 + b",,,,\r\n"
    )
    from_ndjson = ndjson(
        line_of(
            "a",
            clients=["203.0.113.0/28", "2001:db8::/48"],
            peers=["198.51.100.7", "198.51.100.8"],
            services=["ipsec", "esp"],
            valid_from="2024-11-01T00:00:00Z",
        )
        + b"\n"
        + line_of("b", clients=["203.0.113.16/28", "203.0.113.32/28"], subscriber="hmac-sha256:" + "ab" * 32)
    )
    assert from_csv.registrations == from_ndjson.registrations
    assert not from_csv.rejections


def provider(id: str, *endpoints: str) -> bytes:
    return line_of(id, clients=[], services=["ipsec"], endpoints=endpoints)


def test_csv_has_columns_for_the_company_provisional_records_and_endpoints() -> None:
    header = b"id,category,status,services,valid_until,registrant,provisional,endpoints,clients\n"
    rows = (
        b"a,bank,active,,2030-01-01T00:00:00Z,co-17,TRUE,,203.0.113.0/28\n"
        b'b,bank,active,ipsec,,co-9,false,"198.51.100.0/24; 2001:db8:7::/48",\n'
        b"c,bank,active,,2030-01-01T00:00:00Z,,yes,,203.0.113.0/28\n"
    )
    found = csv(header + rows)
    assert (
        found.registrations
        == ndjson(
            line_of("a", registrant="co-17", provisional=True, valid_until="2030-01-01T00:00:00Z")
            + b"\n"
            + line_of(
                "b",
                clients=[],
                services=["ipsec"],
                registrant="co-9",
                endpoints=["198.51.100.0/24", "2001:db8:7::/48"],
            )
        ).registrations
    )
    assert [str(each) for each in found.rejections] == ["4: c: bad_type: provisional: must be true or false"]


@pytest.mark.parametrize("kind", ["ndjson", "csv"])
def test_a_source_that_may_not_bring_endpoints_keeps_none_of_an_earlier_reading(kind: Format) -> None:
    earlier = ndjson(provider("p", "198.51.100.0/24") + b"\n" + line_of("c")).registrations
    content = provider("p", "198.51.100.0/24") + b"\n" + provider("c", "198.51.100.0/24")
    if kind == "csv":
        content = b"id,category,status,services,endpoints\n" + b"".join(
            b"%s,bank,active,ipsec,198.51.100.0/24\n" % id for id in (b"p", b"c")
        )
    found = read(reader_for(kind, "s", None, earlier, allows_endpoints=False), content + b"\n")
    assert found.rejected == {"endpoints_not_allowed": 2}
    assert found.registrations == {"c": earlier["c"]}  # what it says of clients no more is no withdrawal
    assert found.retained == 1


def test_csv_columns_come_in_any_order_and_may_be_absent() -> None:
    reader = csv(b"\xef\xbb\xbf\n Clients ,STATUS,category,id\n203.0.113.0/28,active,bank,a")
    assert list(reader.registrations) == ["a"]
    assert not reader.rejections


def test_csv_rows_that_are_wrong_are_rejected_at_the_line_they_begin_on() -> None:
    reader = csv(
        b"id,category,status,clients\n"
        b"a,bank,active\n"
        b"b,bank,active,203.0.113.0/28,extra\n"
        b'"c\nd",bank,active,203.0.113.0/28\n'
        b"e,bank,active,203.0.113.1/28\n"
        b"f,bank,act\xffive,203.0.113.0/28\n"
        b"g,bank,active,203.0.113.0/28\0\n"
        b"h,bank,acti\rve,203.0.113.0/28\n"
        b"i,bank,active,203.0.113.0/28\n"
        b"i,bank,active,203.0.113.0/28\n" + b"x" * 65_537 + b"\nj,bank,active,203.0.113.0/28\n"
    )
    assert [(r.line, r.id, r.code) for r in reader.rejections] == [
        (2, None, "bad_columns"),
        (3, None, "bad_columns"),
        (4, None, "bad_id"),
        (6, "e", "prefix_host_bits"),
        (7, None, "not_utf8"),
        (8, None, "nul_byte"),
        (9, None, "bad_columns"),
        (11, "i", "duplicate_id"),
        (12, None, "line_too_long"),
    ]
    assert list(reader.registrations) == ["i", "j"]


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"id,category,status,colour\n", "column 4, colour, is unknown"),
        (b"id:category:status\n", r"column 1, \(not a word\), is unknown"),
        (b"id,category,status,father_name\n", "column father_name carries a person's identity"),
        (b"id,category,status,id\n", "column id stands twice"),
        (b"id,category\n", "column status is missing"),
        (b"id,cat\xffegory\n", "line 1: header: the row is not UTF-8"),
        (b"x" * 65_537 + b"\n", "header is too long"),
        (b'"id,category\n', "line 1: a quote opens here"),
    ],
)
def test_a_csv_header_that_is_not_ours_refuses_the_source(header: bytes, why: str) -> None:
    with pytest.raises(SourceUnusable, match=why):
        csv(header)


@pytest.mark.parametrize("rest", [b"", b"x\n" * 40_000, b"y" * 65_537, b"y" * 65_537 + b"\n", b'z""z\n'])
def test_a_quote_that_is_never_closed_refuses_the_source(rest: bytes) -> None:
    with pytest.raises(SourceUnusable, match="line 3: a quote opens here"):
        csv(b"id,category,status,clients\n\n" + b'a,bank,active,"203.0.113.0/28\n' + rest)


def test_a_csv_file_cut_within_its_last_row_is_refused_as_a_whole() -> None:
    with pytest.raises(SourceUnusable, match="seems cut off"):
        csv(b"id,category,status,clients\na,bank,active,203.0.113.0/28\nb,bank,act")


@pytest.mark.parametrize(
    "cell",
    [b'"203.0.113.0/28"', b'"203.0.113.0/28\n\n\n"', b'"203.0.113.0/28 ""\n"', b'203.0.113.0/28"', b'20"3'],
)
def test_quotes_end_rows_where_pythons_csv_ends_them(cell: bytes) -> None:
    content = b"id,category,status,clients\na,bank,active," + cell + b"\nb,bank,active,203.0.113.0/28\n"
    assert "b" in csv(content).registrations


def test_empty_sources_have_no_records() -> None:
    for reader in (ndjson(), ndjson(b"\n"), csv(), csv(b" \r\n"), csv(HEADER)):
        assert summary(reader) == ([], [], {}, 0)


@pytest.mark.parametrize("name", ["registry.example.ndjson", "registry.example.csv"])
def test_the_example_files_are_read_without_a_rejection(name: str) -> None:
    content = (CONFIG / name).read_bytes()
    reader = read(reader_for(format_of(name, None, content), name), content)
    assert not reader.rejections
    assert len(reader.registrations) >= 12


def test_the_two_example_files_are_the_same_registry() -> None:
    one, two = (CONFIG / f"registry.example.{suffix}" for suffix in ("ndjson", "csv"))
    assert ndjson(one.read_bytes()).registrations == csv(two.read_bytes()).registrations


@pytest.mark.parametrize(
    ("location", "content_type", "head", "format"),
    [
        ("/etc/lab.csv", None, b"id,category", "csv"),
        ("/etc/lab.CSV", None, b"", "csv"),
        ("/etc/lab.csv", None, b'\xef\xbb\xbf {"id"', "ndjson"),
        ("/etc/lab.csv", None, b"[1]", "ndjson"),
        ("/etc/lab", None, b"id,category", "ndjson"),
        ("https://r/export", "text/csv; charset=utf-8", b"id,", "csv"),
        ("https://r/export.csv", "application/x-ndjson", b"", "ndjson"),
        ("https://r/export.csv", "text/plain", b"id,", "csv"),
    ],
)
def test_the_format_is_found_out(location: str, content_type: str | None, head: bytes, format: str) -> None:
    assert format_of(location, content_type, head) == format


def outcome(make: Callable[[], RecordReader], chunks: list[bytes]) -> object:
    reader = make()
    try:
        for chunk in chunks:
            reader.feed(chunk)
        reader.finish()
    except SourceFailed as error:
        return type(error), str(error)
    return summary(reader)


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(place % (len(content) + 1) for place in places)})
    return [content[low:high] for low, high in pairwise(edges)]


PIECES = st.sampled_from(
    [
        line_of("a"), line_of("b"), line_of("b", "203.0.113.1/28"), b"\n", b"\r\n", b"\xef\xbb\xbf", b'"',
        b",",
        b'"\n', b"x" * 65_530, b"123456", b"\0", b"\xff", HEADER, b"a,bank,active,203.0.113.0/28,,,,,\n",
        b'b,bank,active,"203.0.113.0/28\n203.0.113.16/28",,,,,\n', b"{}",
    ]
)  # fmt: skip
CONTENT = st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=12).map(b"".join))
LIMITS = ReadLimits(max_bytes=200_000, max_records=8)


@given(CONTENT, st.lists(st.integers(0, 1 << 20), max_size=8))
def test_where_ndjson_is_cut_into_chunks_does_not_matter(content: bytes, places: list[int]) -> None:
    def make() -> RecordReader:
        return NdjsonReader("lab", LIMITS)

    assert outcome(make, cut(content, places)) == outcome(make, [content])


@given(st.booleans(), CONTENT, st.lists(st.integers(0, 1 << 20), max_size=8))
def test_where_csv_is_cut_into_chunks_does_not_matter(has_header: bool, content: bytes, places: list[int]) -> None:
    def make() -> RecordReader:
        return CsvReader("lab", LIMITS)

    content = HEADER + content if has_header else content
    assert outcome(make, cut(content, places)) == outcome(make, [content])
