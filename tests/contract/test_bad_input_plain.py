"""Plain sources, a URL or a file, that send the bad inputs that have a name: nothing that was in force is lost.

As `test_bad_input_feed`, for NDJSON and CSV without a signature. What only a signed feed can do wrong is not here.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from gatewayd.feed.record import FIELDS
from gatewayd.settings.model import SourceSettings
from tests.support.bad_input import BOMB, LONG_LINE_BYTES, MAX_BYTES, VICTIM, check_complete, published_register
from tests.support.bad_input import NAMES as ALL_NAMES
from tests.support.bad_registry import Special, bad_registry
from tests.support.fed_gateway import SOURCE, FedGateway, HostClock, Place, fed_gateway
from tests.support.feeds import Fields, fields_of, line_of

Form = Literal["ndjson", "csv"]
Register = dict[str, Fields]

ONLY_SIGNED = {
    "hash mismatch", "wrong key", "expired `issued_at`", "future `issued_at`", "serial backwards", "session change",
    "missing delta", "delta that withdraws an unknown id",
}  # fmt: skip
ELSEWHERE = {"slow body"}
"""It takes the time limits of HTTP: tests/unit/registry/test_registry_fetch.py."""


def ndjson(register: Register) -> bytes:
    return b"".join(map(line_of, register.values()))


def row_of(fields: Fields) -> bytes:
    cells = [fields.get(name, "") for name in FIELDS]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([" ".join(map(str, each)) if isinstance(each, list) else each for each in cells])
    return text.getvalue().encode()


def as_csv(register: Register) -> bytes:
    return (",".join(FIELDS) + "\n").encode() + b"".join(map(row_of, register.values()))


@dataclass(frozen=True)
class PlainInput:
    """`content`: what the source holds then, made of the register. `special`: how a server answers. The rest is as
    in BadInput."""

    name: str
    content: Callable[[Register], bytes] = ndjson
    special: Special | None = None
    error: str = ""
    variant: str = ""
    rejected: str = ""
    is_held: bool = False
    store_error: str = ""
    disk: Literal["good", "full", "read-only"] = "good"
    form: Form = "ndjson"

    def __str__(self) -> str:
        return f"{self.name} ({self.variant})" if self.variant else self.name


def damaged(damage: Callable[[bytes], bytes], form: Form = "ndjson") -> Callable[[Register], bytes]:
    """One record of many has come to harm."""

    def content(register: Register) -> bytes:
        one, all_of = (line_of, ndjson) if form == "ndjson" else (row_of, as_csv)
        line = one(register[VICTIM])
        return all_of(register).replace(line, damage(line))

    return content


def halved(register: Register) -> bytes:
    left = [id for id in register if not id.startswith("DEMO-")][::2]
    return ndjson({id: register[id] for id in left})


def doubled(register: Register) -> bytes:
    others = {id: dict(fields, clients=["39.47.0.0/24"]) for id, fields in register.items()}
    return ndjson(register) + ndjson(others)


def grown(register: Register) -> bytes:
    return ndjson({**register, "NEXT": fields_of("NEXT", "39.36.2.9/32", category="bpo")})


def identified(line: bytes) -> bytes:
    return json.dumps({**json.loads(line), "cnic": "42101-1234567-1"}).encode() + b"\n"


def portal(_: Register) -> bytes:
    return b"<!DOCTYPE html><html><body>Please log in to continue</body></html>"


NO_TEXT_OF_OURS = {"HTML captive portal instead of JSON", "truncated gzip", "gzip bomb"}
"""gzip and markup are HTTP's to know: in a file they are lines that say nothing."""
OVERLONG = b"x" * LONG_LINE_BYTES
CONTENTS = (
    PlainInput("HTML captive portal instead of JSON", portal, error="the server sends markup"),
    PlainInput("truncated gzip", lambda all: gzip.compress(ndjson(all))[:-9], error="its gzip has no end"),
    PlainInput("gzip bomb", lambda _: BOMB, error=f"more than {MAX_BYTES} bytes"),
    PlainInput("duplicate ids", doubled, rejected="duplicate_id"),
    PlainInput("an empty snapshot", lambda _: b"", error="is empty and had"),
    PlainInput("a snapshot of half the size", halved, is_held=True),
    PlainInput("a record with identity fields", damaged(identified), rejected="identity_field"),
    PlainInput(
        "10 MB line", damaged(lambda line: line[:-2] + b', "x": "' + OVERLONG + b'"}\n'), rejected="line_too_long"
    ),
    PlainInput(
        "10 MB line",
        damaged(lambda row: row[:-1] + OVERLONG + b"\n", "csv"),
        variant="of CSV",
        rejected="line_too_long",
        form="csv",
    ),
    PlainInput("NUL bytes", damaged(lambda line: line.replace(b"free", b"fr\0ee")), rejected="nul_byte"),
    PlainInput(
        "NUL bytes",
        damaged(lambda row: row.replace(b"free", b"fr\0ee"), "csv"),
        variant="in CSV",
        rejected="nul_byte",
        form="csv",
    ),
    PlainInput(
        "wrong encoding", damaged(lambda line: line.replace(b"freelancer", b"ind\xe9pendant")), rejected="not_utf8"
    ),
    PlainInput(
        "wrong encoding",
        damaged(lambda row: row.replace(b"freelancer", b"ind\xe9pendant"), "csv"),
        variant="of CSV",
        rejected="not_utf8",
        form="csv",
    ),
    PlainInput(
        "wrong encoding", lambda all: ndjson(all).decode().encode("utf-16"), variant="UTF-16", error="cut off"
    ),
    PlainInput("disk full", grown, disk="full", store_error="database or disk is full"),
    PlainInput("directory not writable", grown, disk="read-only", store_error="Read-only file system"),
)
"""What any source may hold."""
OF_FILES = [
    replace(case, error="its last line is not whole") if case.name in NO_TEXT_OF_OURS else case for case in CONTENTS
]

ANSWERS = (
    PlainInput("404", special=Special(404, b"<html>gone</html>", "text/html"), error="HTTP status 404"),
    PlainInput("5xx", special=Special(503, b"busy"), error="HTTP status 503"),
    PlainInput("connection cut mid-body", special=Special(manner="cut"), error="the body was cut short"),
    PlainInput("wrong content type", special=Special(media_type="text/html"), error="a page for people"),
    PlainInput(
        "truncated gzip",
        special=Special(200, gzip.compress(b"{}")[:-9], headers={"Content-Encoding": "gzip"}),
        error="gzip has no end",
        variant="by Content-Encoding",
    ),
    PlainInput(
        "wrong encoding",
        special=Special(headers={"Content-Encoding": "br"}),
        error="a content encoding that was not asked for",
        variant="Content-Encoding",
    ),
)
"""What only a server may say."""


def test_every_bad_input_that_a_plain_source_can_send_is_tried() -> None:
    check_complete((case.name for case in (*CONTENTS, *ANSWERS)), set(ALL_NAMES) - ONLY_SIGNED - ELSEWHERE)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock = HostClock()
    with bad_registry(published_register(clock()), clock) as registry:
        yield Place(tmp_path / "state", registry, clock)


@pytest.mark.parametrize("case", [*CONTENTS, *ANSWERS], ids=str)
async def test_a_url_loses_nothing_in_force(case: PlainInput, place: Place) -> None:
    name = f"plain.{case.form}"
    source = SourceSettings(
        SOURCE,
        place.registry.url.replace("notification.jws", name),
        allow_unsigned=True,
        max_bytes=MAX_BYTES,
    )

    def put(content: bytes) -> None:
        place.registry.publisher.files[name] = content

    await check(case, place, source, put)


@pytest.mark.parametrize("case", OF_FILES, ids=str)
async def test_a_file_loses_nothing_in_force(case: PlainInput, place: Place, tmp_path: Path) -> None:
    path = tmp_path / f"plain.{case.form}"
    source = SourceSettings(SOURCE, f"file:{path}", allow_unsigned=True, max_bytes=MAX_BYTES)

    def put(content: bytes) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(path)

    await check(case, place, source, put)


async def check(case: PlainInput, place: Place, source: SourceSettings, put: Callable[[bytes], None]) -> None:
    """Good, bad, killed and started again, still bad, and good again."""
    register = place.registry.publisher.records
    good = as_csv if case.form == "csv" else ndjson
    put(good(register))
    async with fed_gateway(place, source) as it:
        await it.attempt()
        before = it.in_force()
        assert set(before) == set(register)
        put(case.content(register))
        if case.special is not None:
            place.registry.special["plain"] = case.special
        if case.disk == "full":
            place.disk.fill()
        elif case.disk == "read-only":
            place.disk.make_read_only()
        it.clock.advance(1.0)
        await it.attempt()
        check_said(it, case)
        it.check_in_force(before)
    async with fed_gateway(place, source) as it:
        await it.in_sync()
        assert it.facts.restored_at is not None
        it.check_in_force(before)
        await it.attempt()
        it.check_in_force(before)
        place.disk.mend()
        place.registry.special.clear()
        it.clock.advance(61.0)
        extra = fields_of("EXTRA", "39.36.2.10/32", category="bpo")
        put(good({**register, "EXTRA": extra}))
        await it.attempt()
        it.check_in_force(before)
        assert it.facts.error is None
        assert "EXTRA" in it.in_force()
        assert it.controller.holds() == ()
        assert it.controller.store_error(SOURCE) is None
        assert (await it.store.load(SOURCE)).registrations == it.in_force()


def check_said(it: FedGateway, case: PlainInput) -> None:
    assert case.error in (it.facts.error or "")
    assert bool(it.facts.error) == bool(case.error)
    if case.rejected:
        assert it.facts.rejected[case.rejected] > 0
    assert bool(it.controller.holds()) == case.is_held
    assert (it.controller.store_error(SOURCE) or "").endswith(case.store_error)
    assert bool(it.controller.store_error(SOURCE)) == bool(case.store_error)
