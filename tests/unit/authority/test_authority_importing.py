from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.authority.database import Applied, RegistryDatabase
from gatewayd.authority.importing import FileImport, ImportReport, with_status, written_record
from gatewayd.authority.readers import Hashing
from gatewayd.errors import PepperUnusable, RecordRejected, SourceUnreadable, SourceUnusable

CONFIG = Path(__file__).parents[3] / "config"
HEADER = "id,category,status,clients\n"
A, B, BAD = (
    "a,bank,active,203.0.113.0/28\n",
    "b,bank,active,203.0.113.16/28\n",
    "c,bank,active,203.0.113.1/28\n",
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[RegistryDatabase]:
    with RegistryDatabase(tmp_path / "r.db") as database:
        yield database


def store(
    database: RegistryDatabase, content: str | bytes, replace: bool = False, hashing: Hashing | None = None
) -> ImportReport:
    path = database.path.with_name("lab.csv")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return FileImport(path, hashing=hashing).store(database, at_s=0.0, actor="me", replace=replace)


def test_the_two_example_files_are_the_same_registry(database: RegistryDatabase) -> None:
    first = FileImport(CONFIG / "registry.example.csv").store(database, at_s=0.0, actor="me")
    second = FileImport(CONFIG / "registry.example.ndjson").store(database, at_s=0.0, actor="me", replace=True)
    assert first.applied.added == first.records == second.applied.unchanged
    assert (first.format, second.format) == ("csv", "ndjson")
    assert not second.applied.has_changes
    assert not first.rejected


def test_what_is_rejected_is_listed_and_the_rest_is_stored(database: RegistryDatabase) -> None:
    report = store(database, HEADER + A + BAD + B)
    assert report.applied == Applied(2, 0, 0, 0)
    assert report.rejected == {"prefix_host_bits": 1}
    assert str(report.rejections[0]).startswith("3: c: prefix_host_bits: clients: 203.0.113.1/28")
    assert report.held is None


def test_replacing_withdraws_what_the_file_does_not_have(database: RegistryDatabase) -> None:
    store(database, HEADER + A + B)
    report = store(database, HEADER + B, replace=True)
    assert (report.applied, report.held) == (Applied(0, 0, 1, 1), None)


@pytest.mark.parametrize(("content", "why"), [(HEADER + BAD, "1 rejected"), (HEADER, "no registration")])
def test_a_file_that_may_not_be_all_withdraws_nothing(database: RegistryDatabase, content: str, why: str) -> None:
    store(database, HEADER + A + B)
    report = store(database, content, replace=True)
    assert report.applied.withdrawn == 0
    assert why in str(report.held)
    assert database.count() == 2


def test_gzip_is_read_too(database: RegistryDatabase) -> None:
    assert store(database, gzip.compress((HEADER + A).encode())).applied.added == 1


WHOLE = gzip.compress((HEADER + A + B).encode())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\x1f", "line 1: column id is missing"),
        (WHOLE[:-5], "cut short"),
        (WHOLE[:20] + bytes(30), "not gzip, or damaged"),
        ((HEADER + A + "b,bank").encode(), "cut off"),
    ],
)
def test_a_file_that_is_unusable_stores_nothing(database: RegistryDatabase, content: bytes, why: str) -> None:
    with pytest.raises(SourceUnusable, match=why):
        store(database, content)
    assert database.count() == 0


def test_a_file_that_is_not_there_is_said_to_be_so(database: RegistryDatabase) -> None:
    with pytest.raises(SourceUnreadable, match="No such file"):
        FileImport(database.path.with_name("none")).store(database, at_s=0.0, actor="me")


def test_a_number_is_nowhere_in_the_database(database: RegistryDatabase, tmp_path: Path) -> None:
    content = "id,category,status,mobile\na,freelancer,active,0300-1234567\nb,freelancer,active,300-1234567\n"
    report = store(database, content, hashing=Hashing(b"a pepper for tests", "92"))
    assert report.rejected == {"bad_mobile": 1}
    assert json.loads(str(database.record_of("a")))["subscriber"].startswith("hmac-sha256:")
    written = b"".join(path.read_bytes() for path in tmp_path.glob("r.db*"))
    for seen in (written, repr(report).encode(), repr(database.history()).encode()):
        assert b"1234567" not in seen
    with pytest.raises(PepperUnusable, match="--pepper-file"):
        store(database, content)


def test_progress_is_told(database: RegistryDatabase) -> None:
    told: list[tuple[str, int, int]] = []
    path = CONFIG / "registry.example.csv"
    FileImport(path, progress=lambda *step: told.append(step)).store(database, at_s=0.0, actor="me")
    size = path.stat().st_size
    assert told == [("reading", size, size), ("storing", 0, 0)]


def test_one_record_may_stand_on_several_lines() -> None:
    text = json.dumps({"id": "a", "category": "bank", "status": "active", "clients": ["203.0.113.9"]}, indent=2)
    assert written_record(text.encode()) == (
        "a",
        '{"id":"a","category":"bank","status":"active","clients":["203.0.113.9/32"]}',
    )


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"", "not_json"), (b"{", "not_json"), (b'{"id":"a"}', "missing_field"), (b"\xff", "not_utf8")],
)
def test_one_record_that_is_wrong_is_rejected(raw: bytes, code: str) -> None:
    with pytest.raises(RecordRejected) as refusal:
        written_record(raw)
    assert refusal.value.code == code


def test_a_status_is_all_that_changes() -> None:
    _, record = written_record(b'{"id":"a","category":"bank","status":"active","clients":["203.0.113.9"]}')
    assert with_status(record, "revoked") == record.replace("active", "revoked")
