"""What a registry sends: notification, keys, snapshot, delta, gzip, records, CSV; and the files kept of it."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gatewayd.errors import (
    FeedRefused,
    KeyInvalid,
    OverridesInvalid,
    RecordRejected,
    SourceTooLarge,
    SourceUnusable,
)
from gatewayd.feed.canonical import Damaged
from gatewayd.feed.files import PIECE_BYTES, DeltaReader, FileReading, GzipDamaged, Inflater, Pending, net_changes
from gatewayd.feed.notification import SnapshotRef, load_signing_key, load_verifying_keys, open_notification
from gatewayd.feed.reading import CsvReader, NdjsonReader, ReadLimits, format_of
from gatewayd.feed.record import FIELDS, REASONS, RecordParser, registration_of
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry.guard_record import decode_record, encode_record
from gatewayd.sources.client import FeedClient
from gatewayd.sources.files import read_overrides
from gatewayd.sources.last_good import (
    ChunkReader,
    Head,
    Reached,
    decode_head,
    encode_changes,
    encode_chunk,
    encode_head,
    seal,
    unseal,
)
from gatewayd.sources.override_file import parse_overrides
from gatewayd.sources.update import FeedPosition
from tests.fuzz.target import NAME, NUMBER, Target, fault_of_message
from tests.support.feeds import (
    KEY,
    KEYS,
    SESSIONS,
    URL,
    Answer,
    Publisher,
    attempt,
    fields_of,
    line_of,
    serve,
    sha256,
    upsert,
    withdraw,
)

LIMITS = ReadLimits(max_bytes=300_000, max_records=50)
PREVIOUS = {id: registration_of(fields_of(id)) for id in ("a", "b", "c")}
FULL = fields_of(
    "PK-1", services=["ipsec", "udp/51820"], peers=["198.51.100.7/32"], registrant="R-1",
    subscriber="hmac-sha256:" + "ab" * 32, valid_from="2024-11-01T00:00:00Z",
    valid_until="2030-01-01T00:00:00+05:00", provisional=True,
)  # fmt: skip
IDENTITY = fields_of("PK-2", name=NAME, msisdn=f"+{NUMBER}")
PROVIDER: dict[str, object] = {
    "id": "VPN-1", "category": "provider", "status": "active", "endpoints": ["198.51.100.0/24"],
    "services": ["ipsec"],
}  # fmt: skip
WORDS = (
    b"hmac-sha256:", b'"clients"', b'"endpoints"', b'"registration"', b'"op":"upsert"', b'"withdraw"', b"/0",
    b"/32", b"::ffff:1.2.3.4/128", b"udp/1-65535", b"2024-11-01T00:00:00Z", b"9999-12-31T23:59:60Z",
    b"+" + NUMBER.encode(),     b'"msisdn":', b'"name":"' + NAME.encode() + b'"', b"\\ud800", b"\\u0000",
)  # fmt: skip


def record(raw: bytes) -> None:
    registration = RecordParser().parse(raw)
    assert registration.clients or registration.subscriber or registration.endpoints
    # What is kept of it is read as the same.
    assert ChunkReader().read_chunk(encode_chunk([registration])) == [registration]


def ndjson(raw: bytes) -> None:
    _read(NdjsonReader("lab", LIMITS, PREVIOUS), raw)


def csv(raw: bytes) -> None:
    _read(CsvReader("lab", LIMITS, PREVIOUS), raw)


def _read(reader: NdjsonReader, raw: bytes) -> None:
    """In pieces of a size that the first byte says."""
    size = 1 + (raw[0] if raw else 0)
    for at in range(0, len(raw), size):
        reader.feed(raw[at : at + size])
    reader.finish()
    _check(reader)
    assert len(reader.registrations) - reader.retained + reader.rejected.total() == reader.records
    format_of("file:x", None, raw[:200])


def _check(reader: NdjsonReader) -> None:
    assert reader.rejected.keys() <= set(REASONS)
    for each in reader.rejections:
        fault = fault_of_message(str(each))
        assert fault is None, fault
        # An id of digits may be an id; what is said of a value never has any.
        assert NUMBER not in each.field + each.detail, "a number in a rejection"


def delta(raw: bytes) -> None:
    changes: Pending = {}
    reader = DeltaReader("lab", 2, LIMITS, PREVIOUS, changes, is_exact=True)
    reader.feed(raw)
    reader.finish()
    _check(reader)
    _, net = run_slices(net_changes(PREVIOUS, changes))
    assert set(net.withdrawals) <= PREVIOUS.keys()


def inflate(raw: bytes) -> None:
    inflater = Inflater(bool(raw) and bool(raw[0] & 1))
    for start in range(1, len(raw), 50):
        assert all(len(piece) <= PIECE_BYTES for piece in inflater.feed(raw[start : start + 50]))
    assert len(inflater.finish()) <= 1
    inflater.is_whole()


def file(raw: bytes) -> None:
    """Its size and hash are as the notification states: what a registry signed that has gone mad."""
    changes: Pending = {}
    reader = (
        DeltaReader("lab", 2, LIMITS, PREVIOUS, changes, is_exact=True)
        if raw[:1] == b"d"
        else NdjsonReader("lab", LIMITS, PREVIOUS)
    )
    body = raw[1:]
    reading = FileReading("snapshot", SnapshotRef("x", sha256(body), len(body), 3), reader, LIMITS)
    run_slices(reading.feed(body))
    reading.finish()
    _check(reader)


def notification(raw: bytes) -> None:
    open_notification(raw, KEYS)


def payload(raw: bytes) -> None:
    """Signed by a key that is trusted."""
    found = open_notification(KEY.sign(raw), KEYS)
    assert found.serial >= 1
    assert found.snapshot.size >= 0


def keys(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    private = json.loads(KEY.private_text())["d"]
    loads: tuple[Callable[[str], object], ...] = (load_signing_key, lambda one: load_verifying_keys([one]))
    for load in loads:
        said = ""
        try:
            load(text)
        except KeyInvalid as error:
            said = str(error)
        assert private not in said, "a private key in a message"
        fault = fault_of_message(said)
        assert fault is None, fault


def feed(raw: bytes) -> None:
    """A client that holds a feed, and a server that answers anything: what is in force changes whole or not at all.

    The input is the answers: a byte for the kind, two for the size, the bytes of the body.
    """
    publisher = Publisher()
    publisher.publish(upsert("a"), upsert("b"))
    client = FeedClient("national", URL, KEYS)
    attempt(client, serve(publisher))
    publisher.publish(upsert("c"))
    publisher.publish(withdraw("a"))
    truth, answers = publisher.registrations(), _answers(raw, publisher)
    for _ in range(3):
        held, position = client.registrations, client.position
        outcome, asked = attempt(client, lambda request: next(answers)(request))
        assert len(asked) < 200
        if isinstance(outcome, FeedRefused):
            assert client.registrations is held
            assert client.position is position
            fault = fault_of_message(str(outcome))
            assert fault is None, fault
        elif client.position is not position and outcome.position is not None:
            assert client.registrations == truth or outcome.registrations is None


def _answers(raw: bytes, publisher: Publisher) -> Iterator[Any]:
    honest = serve(publisher)
    at = 0
    while at + 3 <= len(raw):
        kind, size = raw[at] % 8, int.from_bytes(raw[at + 1 : at + 3], "big")
        body = raw[at + 3 : at + 3 + size]
        at += 3 + size
        text = body.decode("latin-1")
        if kind == 0:
            yield lambda request, body=body: Answer(200, {}, body)
        elif kind == 1:
            yield lambda request, text=text: Answer(302, {"location": text}, b"")
        elif kind == 2:
            yield lambda request, text=text: Answer(200, {"content-length": text, "etag": text}, b"")
        elif kind == 3:
            yield lambda request, size=size: Answer(size % 600, {}, b"")
        elif kind == 4:
            yield lambda request: Answer(body=None)
        elif kind == 5:
            yield lambda request, body=body: _spoiled(honest(request), body)
        elif kind == 6:
            yield lambda request, body=body: Answer(200, {"content-type": "text/html"}, KEY.sign(body))
        else:
            yield honest
    while True:
        yield honest


def _spoiled(answer: Answer, change: bytes) -> Answer:
    """The honest answer with some bytes of it changed."""
    made = bytearray(answer.body or b"")
    for at in range(0, len(change) - 2, 3):
        if made:
            made[int.from_bytes(change[at : at + 2], "big") % len(made)] ^= change[at + 2]
    return Answer(answer.status, answer.headers, bytes(made))


def overrides(raw: bytes) -> None:
    file = parse_overrides(raw.decode("utf-8", "replace"), "x.yaml", "x.yaml")
    assert len({pin.id for pin in file.pins}) == len(file.pins)


def override_files(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "x.yaml").write_bytes(raw)
        reading = read_overrides(Path(directory))
    assert len(reading.files) == (not reading.faults)
    for fault in reading.faults:
        why = fault_of_message(str(fault))
        assert why is None, why


def guard(raw: bytes) -> None:
    """With a right hash where the first byte is odd: another version of gatewayd wrote it."""
    decode_record(_hashed(raw))


def _hashed(raw: bytes) -> bytes:
    if not raw or not raw[0] & 1:
        return raw[1:]
    return sha256(raw[1:]).encode() + b"\n" + raw[1:]


def last_good_head(raw: bytes) -> None:
    """Sealed: another version of gatewayd wrote it."""
    decode_head(seal("head", 0, "", raw))


def last_good_chunk(raw: bytes) -> None:
    reader = ChunkReader()
    if raw[:1] == b"d":
        reader.read_delta(raw[1:])
    else:
        reader.read_chunk(raw[1:])


PAYLOAD_WORDS = (
    b'"deltas":',
    b'"snapshot":',
    b'"sha256":',
    b'"session":',
    b'"issued_at":',
    b"https://",
    b"../",
    b"1e308",
)


def _payloads() -> Sequence[bytes]:
    publisher = Publisher()
    publisher.publish(upsert("a"))
    publisher.publish(withdraw("a"))
    raw = publisher.files["notification.jws"]
    return [KEYS[KEY.kid].verify(raw)]


def _jws() -> Sequence[bytes]:
    publisher = Publisher()
    publisher.publish(upsert("a"))
    return [publisher.files["notification.jws"], b"<html>", b"\xef\xbb\xbf<html>"]


def _csv_seeds() -> Sequence[bytes]:
    header = (",".join(FIELDS) + "\n").encode()
    rows = b"".join(b"%s,bank,active,203.0.113.0/28,,,,,,,,\n" % id.encode() for id in PREVIOUS)
    full = b'PK-9,bank,active,"203.0.113.0/28 2001:db8:12::/48",,198.51.100.7/32,"ipsec udp/51820",,,,,\n'
    return [header + rows, header + full, (header + rows).replace(b",", b";"), b"\xef\xbb\xbf" + header + rows]


def _ndjson_seeds() -> Sequence[bytes]:
    return [b"".join(line_of(fields_of(id)) for id in PREVIOUS), b"".join(map(line_of, (FULL, IDENTITY, PROVIDER)))]


def _records() -> Sequence[bytes]:
    return [line_of(each)[:-1] for each in (FULL, IDENTITY, PROVIDER)]


def _delta_seeds() -> Sequence[bytes]:
    return [b"".join(map(line_of, (upsert("d"), withdraw("a"), upsert("b", "203.0.113.64/28"))))]


def _packed() -> Sequence[bytes]:
    return [
        *(b"s" + gzip.compress(raw, mtime=0) for raw in _ndjson_seeds()),
        *(b"d" + gzip.compress(raw, mtime=0) for raw in _delta_seeds()),
        b"s" + gzip.compress(bytes(2_000_000), 9, mtime=0), *(b"s" + raw for raw in _ndjson_seeds()),
    ]  # fmt: skip


def _feed_seeds() -> Sequence[bytes]:
    honest = b"\7\0\0"
    wrong = b"\5\0\3\0\x20\x01"
    return [
        honest,
        wrong + honest,
        b"\1\0\3../" + honest,
        b"\3\1\x90" * 4,
        honest + b"\0\0\2{}",
        honest * 2 + wrong,
    ]


OVERRIDES = b"""\
pins:
  - {id: LOCAL-1, category: bank, clients: [203.0.113.0/28], services: [ipsec], comment: "phone", until: null}
filters:
  - {id: PK-1, comment: compromised, until: 2030-01-01T00:00:00Z}
  - {prefix: 198.51.100.0/24, comment: hijacked}
assertions:
  - {comment: head office, from: 203.0.113.1, to: 198.51.100.7, service: udp/500}
"""
YAML_WORDS = (
    b"\n  ", b": ", b"- ", b"---\n", b"<<: ", b"&a ", b"*a", b"!!binary ", b"\\U", b"%YAML ", b"pins", b"filters",
    b"until", b"comment", b"\xed\xa0\x80", b"\xc2\x85", b"!!python/object:os.system ", b"? ", b"|\n", b">-\n",
)  # fmt: skip


def _guard_seeds() -> Sequence[bytes]:
    record = encode_record(decode_record(None))
    return [b"\1" + record.partition(b"\n")[2], b"\0" + record]


def _heads() -> Sequence[bytes]:
    reached = Reached(FeedPosition(SESSIONS[0], 5), 5.0)
    return [unseal("head", 0, "", encode_head(Head(1, "token", reached, reached, {"bad_id": 2}, 1, 3, 500)))]


def _chunks() -> Sequence[bytes]:
    some = [registration_of(fields) for fields in (FULL, fields_of("a"), PROVIDER)]
    deltas = encode_changes(Changes(tuple(some), ("b",)), Reached(FeedPosition(SESSIONS[0], 5), 5.0))
    return [b"s" + encode_chunk(some), *(b"d" + each for each in deltas)]


TARGETS = (
    Target("registry.record", record, (RecordRejected,), _records, WORDS),
    Target("registry.ndjson", ndjson, (SourceTooLarge, SourceUnusable), _ndjson_seeds, WORDS, cost=2),
    Target("registry.csv", csv, (SourceTooLarge, SourceUnusable), _csv_seeds, (*WORDS, b'""', b";", b"\r"), cost=2),
    Target("registry.delta", delta, (FeedRefused, SourceTooLarge, SourceUnusable), _delta_seeds, WORDS),
    Target("registry.inflate", inflate, (GzipDamaged,), _packed, cost=2),
    Target("registry.file", file, (FeedRefused,), _packed, cost=3),
    Target("registry.notification", notification, (FeedRefused,), _jws, (b"eyJ", b"."), cost=3),
    Target("registry.payload", payload, (FeedRefused,), _payloads, PAYLOAD_WORDS, cost=5),
    Target("registry.keys", keys, (KeyInvalid,), lambda: [KEY.private_text().encode(), KEY.public_text().encode()],
           (b'"kty"', b'"OKP"', b'"keys"', b'"x"', b'"d"')),
    Target("registry.feed", feed, (), _feed_seeds, (b"\7\0\0", b"\5\0\3", b"\0\0\1", b"\4\0\0"), cost=40),
    Target("registry.overrides", overrides, (OverridesInvalid,), lambda: [OVERRIDES], YAML_WORDS, cost=15),
    Target("registry.override_files", override_files, (), lambda: [OVERRIDES], YAML_WORDS, cost=20),
    Target("registry.guard", guard, (Damaged,), _guard_seeds, (b'"serial":', b'"decision":', b'"recent":{')),
    Target("registry.last_good_head", last_good_head, (Damaged,), _heads),
    Target("registry.last_good_chunk", last_good_chunk, (Damaged,), _chunks, cost=0.5),
)  # fmt: skip
