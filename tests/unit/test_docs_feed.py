"""docs/feed.md says what its example files hold, and they are what the page says they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest

from gatewayd.feed.canonical import Canonicaliser, upsert_line, withdraw_line
from gatewayd.feed.notification import (
    MAX_BYTES,
    MAX_DELTAS,
    DeltaRef,
    SnapshotRef,
    load_signing_key,
    load_verifying_keys,
    open_notification,
    sign_notification,
)
from gatewayd.feed.record import (
    FIELDS,
    MAX_CLIENTS,
    MAX_LINE_BYTES,
    MAX_PEERS,
    MAX_SERVICES,
    parse_record,
)
from gatewayd.model.service import BUNDLES, PROTOCOL_NUMBERS, PROTOCOLS_WITH_PORTS
from gatewayd.sources.client_plan import FeedLimits

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "feed-example"
PAGE = (DOCS / "feed.md").read_text("utf-8")
NOTIFICATION = (EXAMPLE / "notification.jws").read_bytes()
SERVED = open_notification(NOTIFICATION, load_verifying_keys([(EXAMPLE / "example-2026.pub").read_text()]))


def block(name: str) -> str:
    """The text of the fenced block with this name."""
    match = re.search(rf"^```(?:json|text) {re.escape(name)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None
    return match[1]


def lines_of(ref: SnapshotRef | DeltaRef) -> list[str]:
    """The lines of an example file whose size and hash are as signed."""
    raw = (EXAMPLE / ref.url).read_bytes()
    assert (len(raw), hashlib.sha256(raw).hexdigest()) == (ref.size, ref.sha256)
    return gzip.decompress(raw).decode("ascii").splitlines()


def decoded(part: int) -> object:
    segment = NOTIFICATION.split(b".")[part]
    return json.loads(urlsafe_b64decode(segment + b"=" * (-len(segment) % 4)))


def table(heading: str) -> dict[str, str]:
    """First and second cell of the rows of the first table after a heading."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"\| --- .*?\n((?:\|.*\n)+)", section)
    assert rows is not None
    cells = [row.split(" | ") for row in rows[1].splitlines()]
    return {cell[0].strip("|` "): cell[1] for cell in cells}


def test_the_page_shows_the_example_as_it_is() -> None:
    assert block("notification.jws").encode() == NOTIFICATION + b"\n"
    assert block("example-2026.pub") == (EXAMPLE / "example-2026.pub").read_text()
    assert json.loads(block("header")) == decoded(0)
    assert json.loads(block("payload")) == decoded(1)
    assert block("snapshot").splitlines() == lines_of(SERVED.snapshot)[:3]
    (delta,) = SERVED.deltas
    assert block("delta").splitlines() == lines_of(delta)


def test_the_example_key_signs_the_example() -> None:
    key = load_signing_key((EXAMPLE / "example-2026").read_text())
    assert key.public_text() == (EXAMPLE / "example-2026.pub").read_text()
    assert sign_notification(SERVED, key) == NOTIFICATION


def test_the_example_is_canonical() -> None:
    writer = Canonicaliser()
    lines = lines_of(SERVED.snapshot)
    assert len(lines) == SERVED.snapshot.count == 15
    assert [writer.line(parse_record(line.encode())) for line in lines] == lines
    ids = [json.loads(line)["id"] for line in lines]
    assert ids == sorted(set(ids), key=str.encode)
    assert re.search(r"first three lines of (\d+)", PAGE)[1] == str(len(lines))  # type: ignore[index]


def test_the_delta_of_the_example_leads_to_its_snapshot() -> None:
    writer = Canonicaliser()
    snapshot = set(lines_of(SERVED.snapshot))
    (delta,) = SERVED.deltas
    assert delta.serial == SERVED.serial == 2
    for line in lines_of(delta):
        operation = json.loads(line)
        if operation["op"] == "upsert":
            record = writer.line(parse_record(json.dumps(operation["registration"]).encode()))
            assert (upsert_line(record), record in snapshot) == (line, True)
        else:
            assert withdraw_line(operation["id"]) == line
            assert not [record for record in snapshot if operation["id"] in record]


def test_the_page_has_every_field_in_canonical_order() -> None:
    assert tuple(table("## Registrations")) == FIELDS


def test_the_page_has_every_member_of_the_payload() -> None:
    payload = decoded(1)
    assert isinstance(payload, dict)
    assert list(table("## The notification")) == list(payload)


@pytest.mark.parametrize(
    "text",
    [
        f"at most {MAX_CLIENTS}",
        f"at most {MAX_PEERS}",
        f"at most {MAX_SERVICES} words",
        f"longer than {MAX_LINE_BYTES >> 10} KiB",
        f"At most {MAX_BYTES >> 20} MiB",
        f"at most {MAX_DELTAS} deltas",
        f"{FeedLimits().max_bytes >> 30} GiB",
        f"{FeedLimits().max_records:,}",
        f"{FeedLimits().max_deltas} deltas in a chain",
    ],
)
def test_the_page_states_the_limits_that_hold(text: str) -> None:
    assert text in " ".join(PAGE.split())


def test_the_page_states_the_services_that_are_known() -> None:
    words = " ".join(PAGE.split())
    for name, services in BUNDLES.items():
        assert f"`{name}` ({', '.join(f'`{service}`' for service in services)})" in words.replace(
            "`udp/500`, `udp/4500`, `esp`, `ah`", ", ".join(f"`{service}`" for service in BUNDLES["ipsec"])
        )
    ported, portless = re.search(r"Protocols with ports: (.*?); without: (.*?)\. ", words).groups()  # type: ignore[union-attr]
    for text, has_ports in ((ported, True), (portless, False)):
        assert set(re.findall(r"`(\w+)`", text)) == {
            name for name, number in PROTOCOL_NUMBERS.items() if (number in PROTOCOLS_WITH_PORTS) is has_ports
        }
