from __future__ import annotations

import json
from typing import Any

import pytest

from gatewayd.authority.readers import Hashing, ImportReader, import_reader
from gatewayd.errors import PepperUnusable, SourceUnusable
from gatewayd.feed.reading import Format
from gatewayd.model.msisdn import subscriber_digest

PEPPER = b"a pepper for tests alone"
HASHING = Hashing(PEPPER, "92")
DIGEST = f"hmac-sha256:{subscriber_digest('923001234567', PEPPER).hex()}"
OTHER = "hmac-sha256:" + "ab" * 32


def read(format: Format, content: bytes, hashing: Hashing | None = HASHING) -> tuple[dict[str, str], ImportReader]:
    reader = import_reader(format, "lab", hashing)
    written = dict(reader.write([*reader.feed(content), *reader.finish()]))
    assert list(written) == list(reader.registrations)
    return written, reader


def line_of(id: object, **fields: Any) -> bytes:
    return json.dumps({"id": id, "category": "freelancer", "status": "active", **fields}).encode() + b"\n"


def rejections(reader: ImportReader) -> list[tuple[int, str | None, str, str]]:
    return [(r.line, r.id, r.code, r.field) for r in reader.rejections]


def assert_tells_nothing(written: dict[str, str], reader: ImportReader) -> None:
    seen = repr((written, reader.rejections, reader.registrations, reader.rejected, vars(reader)))
    for digits in ("3001234567", "300 1234567", "1234567"):
        assert digits not in seen


def test_a_number_of_an_ndjson_line_becomes_a_digest() -> None:
    written, reader = read(
        "ndjson",
        line_of("a", mobile="0300-1234567") + line_of("b", mobile="+92 300 1234567", subscriber=None)
        + line_of("c", mobile=None, clients=["203.0.113.0/28"]) + line_of("d", subscriber=OTHER),
    )  # fmt: skip
    assert not reader.rejections
    assert json.loads(written["a"])["subscriber"] == json.loads(written["b"])["subscriber"] == DIGEST
    assert "subscriber" not in json.loads(written["c"])
    assert json.loads(written["d"])["subscriber"] == OTHER
    assert_tells_nothing(written, reader)


def test_a_number_that_cannot_be_used_is_rejected_and_not_repeated() -> None:
    written, reader = read(
        "ndjson",
        line_of("a", mobile="3001234567") + line_of("b", mobile=3001234567)
        + line_of("PK-03001234567", mobile="0300 1234567") + line_of("d", mobile="0300 1234567", subscriber=OTHER)
        + line_of(7, mobile="0300 1234567") + line_of("f", Mobile="0300 1234567")
        + b'{"mobile": "0300 1234567"\n' + b'["mobile", "0300 1234567"]\n'
        + line_of("i", clients=[{"mobile": "0300 1234567"}]) + line_of("j", mobile="x"),
    )  # fmt: skip
    assert rejections(reader) == [
        (1, "a", "bad_mobile", "mobile"),
        (2, "b", "bad_type", "mobile"),
        (3, None, "identity_field", "id"),
        (4, "d", "bad_subscriber", "subscriber"),
        (5, None, "bad_type", "id"),
        (6, "f", "identity_field", "Mobile"),
        (7, None, "not_json", ""),
        (8, None, "not_object", ""),
        (9, "i", "bad_type", "clients"),
        (10, "j", "bad_mobile", "mobile"),
    ]
    assert reader.records == 10
    assert not written
    assert_tells_nothing(written, reader)


def test_a_column_of_numbers_becomes_one_of_digests() -> None:
    written, reader = read(
        "csv",
        b'id,Mobile,category,status,clients\n'
        b'a,0300-1234567,freelancer,active,\n'
        b'b,,bank,active,"203.0.113.0/28\n 203.0.113.16/28"\n'
        b'c,3001234567,freelancer,active,\n'
        b'd,freelancer,active,\n'
        b'03001234567,0300 1234567,freelancer,active,\n'
        b'no id,0300 1234567,freelancer,active,\n'
        b'no id,1234567,freelancer,active,\n'
        b'g,0300 1234567,freel\xffncer,active,\n',
    )  # fmt: skip
    assert json.loads(written["a"])["subscriber"] == DIGEST
    assert json.loads(written["b"])["clients"] == ["203.0.113.0/28", "203.0.113.16/28"]
    assert rejections(reader) == [
        (5, "c", "bad_mobile", "mobile"),
        (6, None, "bad_columns", ""),
        (7, None, "identity_field", "id"),
        (8, None, "bad_id", "id"),
        (9, None, "bad_mobile", "mobile"),
        (10, None, "not_utf8", ""),
    ]
    assert_tells_nothing(written, reader)


def test_a_column_of_numbers_may_stand_beside_one_of_digests() -> None:
    written, reader = read(
        "csv",
        b"subscriber,mobile,id,category,status\n"
        + f"{OTHER},,a,freelancer,active\n,0300 1234567,b,freelancer,active\n".encode()
        + f"{OTHER},0300 1234567,c,freelancer,active\n".encode(),
    )
    assert json.loads(written["a"])["subscriber"] == OTHER
    assert json.loads(written["b"])["subscriber"] == DIGEST
    assert rejections(reader) == [(4, "c", "bad_subscriber", "subscriber")]


@pytest.mark.parametrize(
    ("format", "content"),
    [("csv", b"id,category,status,mobile\n"), ("ndjson", line_of("a", mobile="0300 1234567"))],
)
def test_numbers_without_a_pepper_are_an_error_that_names_the_option(format: Format, content: bytes) -> None:
    with pytest.raises(
        PepperUnusable, match=r"^lab holds mobile numbers \(`mobile`\); give --pepper-file"
    ) as error:
        read(format, content, None)
    assert "1234567" not in str(error.value)


def test_a_file_without_numbers_needs_no_pepper() -> None:
    csv = b"id,category,status,clients\na,bank,active,203.0.113.0/28\n"
    assert (
        read("csv", csv, None)[0]
        == read("ndjson", line_of("a", category="bank", clients=["203.0.113.0/28"]), None)[0]
    )
    assert list(read("ndjson", line_of("a", mobile=None, clients=["203.0.113.0/28"]), None)[0]) == ["a"]


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"id,category,status,mobile,mobile\n", "column mobile stands twice"),
        (b"id,id,category,status,mobile\n", "column id stands twice"),
        (b"id,category,status,mobile,phone\n", "column phone carries a person's identity"),
        (b"id,cat\xffegory,mobile\n", "the row is not UTF-8"),
        (b"id,category,mobile\n", "column status is missing"),
    ],
)
def test_a_header_that_is_wrong_is_still_the_readers_to_refuse(header: bytes, why: str) -> None:
    with pytest.raises(SourceUnusable, match=why):
        read("csv", header)


def test_times_that_cannot_be_written_are_rejected_with_their_line() -> None:
    clients = ["203.0.113.0/28"]
    written, reader = read(
        "ndjson",
        line_of("a", clients=clients, valid_until="9999-12-31T23:59:60Z")
        + line_of("b", clients=clients, valid_from="0001-01-01T00:00:00+01:00")
        + line_of("c", clients=clients, valid_from="0001-01-01T00:00:00Z", valid_until="9999-12-31T23:59:59Z"),
    )
    assert rejections(reader) == [(1, "a", "bad_time", "valid_until"), (2, "b", "bad_time", "valid_from")]
    assert list(written) == ["c"]


def test_an_id_is_kept_to_find_duplicates_and_the_registration_is_not() -> None:
    reader = import_reader("ndjson", "lab")
    one = line_of("a", clients=["203.0.113.0/28"])
    assert len(list(reader.write(reader.feed(one)))) == 1
    assert reader.registrations["a"].clients == ()
    assert not list(reader.write(reader.feed(one)))
    assert rejections(reader) == [(2, "a", "duplicate_id", "id")]


def test_the_pepper_is_not_shown() -> None:
    assert repr(HASHING) == "Hashing(…)"


CHANGED = {
    "9.23E+11": "with an exponent",
    "9,23001E+11": "with an exponent",
    "+9.23001234567e11": "with an exponent",
    "9E11": "with an exponent",
    "923001234567.0": "a decimal number",
    "923001234567,00": "a decimal number",
    "923001234567.": "a decimal number",
    " 923001234567.0 ": "a decimal number",
    "923001000000": "ends with six zeros",
    "3001234567": "a spreadsheet drops a 0 at the beginning",
    "92300123456": "has 11 digits, and a mobile number that begins with 923 has 12",
    "+92 300 12345678": "has 13 digits",
    "0300123456": "has 11 digits",
    "9231234567": "has 10 digits",
    "'03001234567": "not a mobile number",
    '="03001234567"': "not a mobile number",
    "#######": "not a mobile number",
    "#REF!": "not a mobile number",
}


@pytest.mark.parametrize(("number", "why"), CHANGED.items(), ids=CHANGED.keys())
@pytest.mark.parametrize("format", ["csv", "ndjson"])
def test_a_number_that_a_spreadsheet_has_changed_is_refused_by_name(format: Format, number: str, why: str) -> None:
    cell = '"' + number.replace('"', '""') + '"'
    content = f"id,category,status,mobile\na,freelancer,active,{cell}\n".encode()
    written, reader = read(format, content if format == "csv" else line_of("a", mobile=number))
    assert not written
    assert rejections(reader) == [(2 if format == "csv" else 1, "a", "bad_mobile", "mobile")]
    assert why in reader.rejections[0].detail
    assert number.strip() not in str(reader.rejections[0])


@pytest.mark.parametrize(
    ("number", "country_code"),
    [("+923001000000", "92"), ("0300.1000000", "92"), ("0300 100 00 00", None), ("+4479460000", "92"),
     ("+44 7700 900000", None)],
)  # fmt: skip
def test_a_number_that_was_a_text_all_the_time_is_taken(number: str, country_code: str | None) -> None:
    _, reader = read("ndjson", line_of("a", mobile=number), Hashing(PEPPER, country_code or "92"))
    assert not reader.rejections


def test_numbers_stand_in_a_file_of_any_dialect() -> None:
    rows = ("sep=;", "id;mobile;category;status;;", "a;0300-1234567;freelancer;active;;", ";;;;;", "")
    written, reader = read("csv", b"\xff\xfe" + "\r\n".join(rows).encode("utf-16-le"))
    assert not reader.rejections
    assert json.loads(written["a"])["subscriber"] == DIGEST
    assert_tells_nothing(written, reader)
