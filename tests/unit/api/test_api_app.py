# ruff: noqa: ASYNC240 - a test may touch its own small files
from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import uvloop

from gatewayd.api.app import ApiServer
from gatewayd.api.middleware import MAX_BODY_BYTES
from gatewayd.api.near_misses import NearMissLineView
from gatewayd.api.plan import PlanRequest
from gatewayd.api.process import ListenerView
from gatewayd.api.queries import MAX_ENTRIES
from gatewayd.errors import MissingPrerequisite, ReplyMissing, SessionsNotKept, SourceUnreadable
from gatewayd.model import Flow, parse_address, parse_prefix
from gatewayd.model.msisdn import subscriber_digest
from tests.support.fake_queries import BANK, HOME, MOBILE, NOW, PEPPER, SHARED, FakeQueries, serving

EXPLAIN = "/v1/explain?src=203.0.113.5&dst=198.51.100.7&service=udp/51820"


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """Asks the server on TCP, or with `unix` on its socket."""

    def __init__(self, server: ApiServer, path: Path) -> None:
        self.port = server.port
        self.path = path

    async def ask(
        self, target: str, *, method: str = "GET", unix: bool = False, body: bytes | None = None, **headers: str
    ) -> Answer:
        connector = aiohttp.UnixConnector(str(self.path)) if unix else aiohttp.TCPConnector()
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", connector=connector) as session,
            session.request(method, target, headers=headers, data=body and BytesIO(body)) as answer,
        ):
            return Answer(answer.status, await answer.text(), dict(answer.headers))


NEAR_MISS = NearMissLineView(
    "BANK-1", "bank", "suspended", "it is suspended", "registry", "gre", "198.51.100.0/24", 1, None, None
)


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "api.sock"


@pytest.fixture
async def client(queries: FakeQueries, socket_path: Path) -> AsyncGenerator[Client, None]:
    async with serving(queries, socket_path) as server:
        yield Client(server, socket_path)


async def test_health_is_ok_or_says_why_not(client: Client, queries: FakeQueries) -> None:
    assert (await client.ask("/healthz"))[:2] == (200, '{"status":"ok"}')
    queries.dead = "the reconciler has made no progress for 60 s"
    answer = await client.ask("/healthz")
    assert answer.status == 503
    assert answer.json == {"status": "failing", "reason": "the reconciler has made no progress for 60 s"}


async def test_readiness_lists_every_reason(client: Client, queries: FakeQueries) -> None:
    assert (await client.ask("/readyz"))[:2] == (200, '{"ready":true}')
    queries.reasons = ("a", "b")
    assert (await client.ask("/readyz"))[:2] == (503, '{"ready":false,"reasons":["a","b"]}')


async def test_metrics_come_in_the_format_that_is_asked_for(client: Client) -> None:
    plain = await client.ask("/metrics")
    assert "gatewayd_ready 1.0\n" in plain.text
    assert "process_resident_memory_bytes" in plain.text
    assert "version=0.0.4" in str(plain.headers)
    strict = await client.ask("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert strict.text.endswith("# EOF\n")
    assert "application/openmetrics-text" in str(strict.headers)


async def test_status_is_compact_unless_it_shall_be_pretty(client: Client) -> None:
    compact, pretty = await client.ask("/v1/status"), await client.ask("/v1/status?pretty")
    assert compact.json == pretty.json
    assert compact.json["registrations"]["by_category"] == {"embassy": 22, "bank": 31000}
    assert "\n" not in compact.text
    assert pretty.text.startswith('{\n  "version": "0.1.0",\n')


async def test_explain_says_what_the_design_promises(client: Client, queries: FakeQueries) -> None:
    answer = await client.ask(f"{EXPLAIN}&sport=40000")
    assert answer.status == 200
    assert answer.json.items() >= {
        "decision": "registered", "effect": "pass", "registrations": [BANK.id], "in_kernel": True,
        "reason": "registered by PK-2024-000123 (bank): source in 203.0.113.0/28, "
        "destination in peer 198.51.100.7/32, service udp/51820",
    }.items()  # fmt: skip
    flow = Flow(17, parse_address("203.0.113.5"), parse_address("198.51.100.7"), 40000, 51820)
    assert queries.asked == [flow]


async def test_the_source_port_has_two_names(client: Client, queries: FakeQueries) -> None:
    for name in ("sport", "source_port"):
        await client.ask(f"{EXPLAIN}&{name}=40000")
    assert queries.asked[0] == queries.asked[1]


async def test_explain_says_through_which_binding_a_flow_passes(client: Client, queries: FakeQueries) -> None:
    queries.bind()
    answer = await client.ask("/v1/explain?src=10.1.2.3&dst=198.51.100.7&service=udp/51820")
    assert answer.json["registrations"] == [MOBILE.id]
    assert answer.json["bindings"] == [
        {
            "prefix": "10.1.2.3/32", "ports": None, "nas": "bng-1", "since": "2024-11-04T01:00:00Z",
            "confirmed": "2024-11-04T02:59:48Z", "age_s": 12.0, "restored": False,
        }
    ]  # fmt: skip
    assert (await client.ask(EXPLAIN)).json["bindings"] == []


async def test_explain_takes_a_protocol_without_ports(client: Client) -> None:
    answer = await client.ask("/v1/explain?src=192.0.2.1&dst=198.51.100.7&service=esp")
    assert answer.json["decision"] == "unregistered"
    assert answer.json["effect"] == "observe"


@pytest.mark.parametrize(
    ("target", "parameter", "why"),
    [
        ("/v1/explain?src=203.0.113.5&dst=198.51.100.7", "service", "missing"),
        ("/v1/explain?src=a&dst=198.51.100.7&service=esp", "src", "not an IPv4 or IPv6 address"),
        ("/v1/explain?src=203.0.113.5&dst=2001:db8::1&service=esp", "dst", "both be IPv4 or both be IPv6"),
        ("/v1/explain?src=1.2.3.4&dst=1.2.3.5&service=ipsec", "service", "udp/500, udp/4500, esp, ah"),
        (f"{EXPLAIN}&sport=x", "sport", "not a number"),
        (f"{EXPLAIN}&source_port=65536", "source_port", "not from 1 to 65535"),
        (f"{EXPLAIN}&source_port=1&sport=1", "source_port", "sport is given too"),
        ("/v1/explain?src=1.2.3.4&dst=1.2.3.5&service=esp&source_port=1", "source_port", "esp has no ports"),
        ("/v1/bindings?address=10.1.2", "address", "not an IPv4 or IPv6 address"),
        ("/v1/bindings?address=10.1.2.3/24", "address", "host bits"),
        ("/v1/bindings?limit=0", "limit", "not from 1 to 1000"),
        ("/v1/bindings?subscriber=d2", "subscriber", "unknown, expected registration"),
        (f"{EXPLAIN}&src=1.2.3.4", "src", "given twice"),
        ("/v1/registrations?limit=1001", "limit", "not from 1 to 1000"),
        ("/v1/registrations?status=gone", "status", "active, suspended, revoked"),
        ("/v1/registrations?catgory=bank", "catgory", "unknown, expected category"),
        ("/v1/registrations/a?limit=1", "limit", "unknown"),
        ("/v1/flows?offset=-1", "offset", "not a number"),
        ("/v1/status?a=b", "a", "unknown"),
    ],
)
async def test_a_bad_parameter_is_named(client: Client, target: str, parameter: str, why: str) -> None:
    answer = await client.ask(target)
    assert answer.status == 400
    assert answer.json["parameter"] == parameter
    assert why in answer.json["error"]


async def test_registrations_are_filtered_and_paged(client: Client, queries: FakeQueries) -> None:
    first = await client.ask("/v1/registrations?limit=1")
    assert (first.json["total"], len(first.json["items"])) == (2, 1)
    found = await client.ask("/v1/registrations?category=freelancer&status=suspended&q=000200&offset=0")
    assert [item["id"] for item in found.json["items"]] == ["PK-2024-000200"]
    assert queries.asked == [
        (None, None, None, 0, 1),
        ("freelancer", "suspended", "000200", 0, 100),
    ]


async def test_one_registration_is_found_by_its_id(client: Client) -> None:
    answer = await client.ask(f"/v1/registrations/{BANK.id}")
    assert answer.json["clients"] == ["203.0.113.0/28", "2001:db8:12::/48"]
    unknown = await client.ask("/v1/registrations/PK-0")
    assert (unknown.status, unknown.json) == (404, {"error": "no registration has the id 'PK-0'"})


async def test_flows_are_those_of_one_registration_if_it_is_named(client: Client) -> None:
    assert (await client.ask("/v1/flows")).json["total"] == 2
    assert (await client.ask(f"/v1/flows?registration={BANK.id}")).json["items"][0]["sport"] == 40000
    assert (await client.ask("/v1/flows?registration=PK-0")).json == {"total": 0, "offset": 0, "items": []}


async def test_unregistered_flows_are_on_the_unix_socket_alone(client: Client) -> None:
    answer = await client.ask("/v1/flows/unregistered", unix=True)
    assert (answer.json["total"], answer.json["items"][0]["src"]) == (1, "203.0.113.9")
    assert (await client.ask("/v1/flows/unregistered")).status == 404


async def test_unregistered_flows_that_are_not_kept_are_not_an_empty_list(
    client: Client, queries: FakeQueries
) -> None:
    queries.keeps_flows = False
    answer = await client.ask("/v1/flows/unregistered", unix=True)
    assert answer.status == 404
    assert "watch.unregistered" in answer.json["error"]


# -- bindings --------------------------------------------------------------------------------------------------


def entry(**fields: Any) -> dict[str, object]:
    """A session that is told, with fields in place of its own; `...` takes one away."""
    whole: dict[str, object] = {
        "nas": "bng-1", "session": "8a01", "number": "03001234567", "addresses": ["10.1.2.3"],
    }  # fmt: skip
    return {name: value for name, value in (whole | fields).items() if value is not ...}


async def test_bindings_are_listed_and_nobody_is_named(client: Client, queries: FakeQueries) -> None:
    answer = await client.ask("/v1/bindings")
    assert (answer.status, answer.json["total"], answer.json["offset"]) == (200, 2, 0)
    assert answer.json["items"][1] == {
        "prefix": "192.0.2.77/32", "ports": [1024, 2047], "registrations": [MOBILE.id],
        "since": "2024-11-03T02:00:00Z", "confirmed": "2024-11-04T02:00:00Z", "age_s": 3600.0, "nas": "cgn-2",
        "session": "s-77", "restored": True, "in_kernel": True, "also_of": [],
    }  # fmt: skip
    assert "d2d2" not in answer.text
    assert "sha256" not in answer.text


async def test_bindings_are_selected_and_paged(client: Client, queries: FakeQueries) -> None:
    found = await client.ask("/v1/bindings?address=192.0.2.77&offset=0&limit=5", unix=True)
    assert [item["session"] for item in found.json["items"]] == [SHARED.session]
    assert (await client.ask(f"/v1/bindings?registration={MOBILE.id}&offset=1&limit=1")).json["total"] == 2
    assert (await client.ask("/v1/bindings?registration=PK-0")).json == {"total": 0, "offset": 0, "items": []}
    assert queries.asked[0] == (None, parse_prefix("192.0.2.77/32"), 0, 5)


async def test_without_the_section_there_are_no_bindings_and_it_says_so(
    client: Client, queries: FakeQueries
) -> None:
    queries.has_subscribers = False
    said = {"error": "the configuration has no section `subscribers`, so there are no bindings"}
    assert (await client.ask("/v1/bindings"))[:2] == (404, json.dumps(said, separators=(",", ":")))
    body = json.dumps(entry()).encode()
    answer = await client.ask("/v1/bindings", method="PUT", unix=True, body=body)
    assert (answer.status, answer.json) == (409, said)
    answer = await client.ask("/v1/bindings?nas=a&session=b", method="DELETE", unix=True)
    assert (answer.status, answer.json) == (409, said)


async def put(client: Client, body: object) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.ask("/v1/bindings", method="PUT", unix=True, body=raw)


async def test_one_session_or_a_list_of_them_is_taken(client: Client, queries: FakeQueries) -> None:
    answer = await put(client, entry())
    assert (answer.status, answer.json) == (200, {"sessions": 1, "passed_over": {}})
    answer = await put(client, [entry(session=f"s{n}", at=NOW - n) for n in range(MAX_ENTRIES)])
    assert (answer.status, answer.json["sessions"]) == (200, 1000)
    assert (await put(client, [])).json["sessions"] == 0
    assert len(queries.told) == 1001
    event = queries.told[0]
    assert (event.kind, event.nas, event.session, event.at_s) == ("interim", "bng-1", "8a01", NOW)
    assert event.is_snapshot


async def test_a_number_in_ten_spellings_is_one_digest(client: Client, queries: FakeQueries) -> None:
    spellings = [
        "+923001234567", "+92 300 1234567", "00923001234567", "0092-300-1234567", "+92 (0)300 1234567",
        "03001234567", "0300.123.4567", "923001234567", "(0300) 1234567", "٠٣٠٠١٢٣٤٥٦٧",
    ]  # fmt: skip
    answer = await put(client, [entry(number=number) for number in spellings])
    assert answer.json["sessions"] == 10
    assert {event.subscriber for event in queries.told} == {subscriber_digest("923001234567", PEPPER)}


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (entry(addresses=["0.0.0.0"]), "addresses", "address_unspecified"),
        (entry(addresses=["255.255.255.254"]), "addresses", "address_hint"),
        (entry(addresses=["224.0.0.1"]), "addresses", "address_multicast"),
        (entry(addresses=["2001:db8::/32"]), "addresses", "prefix_too_short"),
        (entry(addresses=["10.1.2.3/24"]), "addresses", "prefix_host_bits"),
        (entry(ports="2047-1024"), "ports", "bad_ports"),
        (entry(at=NOW + 301), "at", "at_in_future"),
        (entry(imsi="1"), "imsi", "unknown_field"),
        (entry(subscriber=f"hmac-sha256:{'0' * 64}"), "subscriber", "both"),
        (entry(number=...), "subscriber", "missing"),
        (entry(nas="bng\0"), "nas", "not_printable"),
        (entry(session="\0"), "session", "not_printable"),
        (entry(number="0300\0" + "1234567"), "number", "number_not_a_number"),
        (b"", "", "not_json"),
        (b"{", "", "not_json"),
        (b"\xff\xfe", "", "not_json"),
        (b"\0", "", "not_json"),
        (b"[" * 100_000, "", "not_json"),
        (b"7", "", "not_an_object"),
        (b"null", "", "not_an_object"),
        ([entry()] * (MAX_ENTRIES + 1), "", "too_many_entries"),
    ],
)
async def test_a_bad_entry_is_told_by_field_and_reason(
    client: Client, queries: FakeQueries, body: object, field: str, reason: str
) -> None:
    answer = await put(client, body)
    assert answer.status == 400
    assert (answer.json["field"], answer.json["reason"]) == (field, reason)
    assert "1234567" not in answer.text
    assert queries.told == []


async def test_a_list_with_one_bad_entry_is_not_taken(client: Client, queries: FakeQueries) -> None:
    answer = await put(client, [entry(), entry(addresses=["127.0.0.1"]), entry()])
    assert (answer.status, answer.json["reason"]) == (400, "address_loopback")
    assert queries.told == []


async def test_a_body_that_is_too_large_is_refused(client: Client, queries: FakeQueries) -> None:
    answer = await put(client, b" " * (MAX_BODY_BYTES + 1))
    assert (answer.status, answer.json) == (413, {"error": f"the body has more than {MAX_BODY_BYTES} bytes"})
    assert queries.told == []


async def test_what_is_not_on_disk_in_time_is_503(client: Client, queries: FakeQueries) -> None:
    queries.failure = SessionsNotKept("nothing was taken: the journal has no room")
    said = (503, {"error": "nothing was taken: the journal has no room"})
    answer = await put(client, entry())
    assert (answer.status, answer.json) == said
    answer = await client.ask("/v1/bindings?nas=a&session=b", method="DELETE", unix=True)
    assert (answer.status, answer.json) == said


async def test_a_session_is_ended_by_query_or_body(client: Client, queries: FakeQueries) -> None:
    target = f"/v1/bindings?nas={HOME.nas}&session={HOME.session}"
    answer = await client.ask(target, method="DELETE", unix=True)
    assert (answer.status, answer.json) == (200, {"sessions": 1})
    body = json.dumps({"nas": "bng-9", "session": "x" * 253, "at": NOW - 5}).encode()
    answer = await client.ask("/v1/bindings", method="DELETE", unix=True, body=body)
    assert (answer.status, answer.json) == (200, {"sessions": 0})
    assert (await client.ask(f"/v1/bindings?nas=a&session={'x' * 253}", method="DELETE", unix=True)).status == 200
    assert [(event.kind, event.nas, event.at_s) for event in queries.told] == [
        ("stop", "bng-1", NOW), ("stop", "bng-9", NOW - 5), ("stop", "a", NOW),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "body", "field", "reason"),
    [
        ("", b"", "nas", "missing"),
        ("?nas=a", b"", "session", "missing"),
        ("", b'{"nas":"a"}', "session", "missing"),
        ("", b'{"nas":"a","session":"\\u0000"}', "session", "not_printable"),
        ("", b'{"nas":"a","session":"b","number":"03001234567"}', "", "unknown_field"),
        ("", b'{"nas":"a","session":"b","at":9e12}', "at", "bad_time"),
        ("", b'{"nas":"a","session":"b","at":9e11}', "at", "at_in_future"),
        ("", b'["a","b"]', "", "not_an_object"),
        ("", b"nas=a&session=b", "", "not_json"),
    ],
)
async def test_an_end_of_nothing_is_told_by_field_and_reason(
    client: Client, queries: FakeQueries, query: str, body: bytes, field: str, reason: str
) -> None:
    answer = await client.ask(f"/v1/bindings{query}", method="DELETE", unix=True, body=body)
    assert answer.status == 400
    assert (answer.json["field"], answer.json["reason"]) == (field, reason)
    assert queries.told == []


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("?nas=a&session=b&force=1", "force"), ("?nas=a&nas=b", "nas"), (f"?nas={'a' * 254}", "nas")],
)
async def test_a_bad_parameter_of_an_end_is_named(client: Client, query: str, parameter: str) -> None:
    answer = await client.ask(f"/v1/bindings{query}", method="DELETE", unix=True)
    assert (answer.status, answer.json["parameter"]) == (400, parameter)


async def test_an_end_is_in_the_query_or_in_the_body(client: Client, queries: FakeQueries) -> None:
    body = b'{"nas":"a","session":"b"}'
    answer = await client.ask("/v1/bindings?nas=a&session=b", method="DELETE", unix=True, body=body)
    assert (answer.status, answer.json["parameter"]) == (400, "nas")
    assert queries.told == []


async def test_bindings_are_changed_on_the_unix_socket_alone(client: Client, queries: FakeQueries) -> None:
    body = json.dumps(entry()).encode()
    for method in ("PUT", "DELETE", "POST", "PATCH"):
        answer = await client.ask("/v1/bindings", method=method, body=body)
        assert (answer.status, "GET, HEAD" in answer.text) == (405, True)
    assert (await client.ask("/v1/bindings", method="POST", unix=True, body=body)).status == 405
    assert queries.told == []


@pytest.mark.parametrize("unix", [False, True])
async def test_an_unknown_path_is_json_too(client: Client, unix: bool) -> None:
    answer = await client.ask("/v2/status", unix=unix)
    assert (answer.status, answer.json) == (404, {"error": "there is no /v2/status"})


async def test_a_wrong_method_is_told_the_right_one(client: Client) -> None:
    answer = await client.ask("/v1/status", method="DELETE")
    assert answer.status == 405
    assert answer.json == {"error": "DELETE is not allowed here, expected GET, HEAD"}
    assert "'Allow': 'GET, HEAD'" in str(answer.headers)


async def test_the_unix_socket_reads_as_the_port_does(client: Client) -> None:
    assert (await client.ask("/v1/status", unix=True)).json == (await client.ask("/v1/status")).json


async def test_sync_is_on_the_unix_socket_alone(client: Client) -> None:
    answer = await client.ask("/v1/sync", method="POST", unix=True)
    assert (answer.status, answer.json) == (200, {"registrations": 31022, "errors": {}})
    assert (await client.ask("/v1/sync", method="POST")).status == 404


async def test_accept_releases_what_is_held_and_is_on_the_unix_socket_alone(
    client: Client, queries: FakeQueries
) -> None:
    assert (await client.ask("/v1/accept?serial=17", method="POST")).status == 404
    assert queries.held_serial == 17
    answer = await client.ask("/v1/accept?serial=17", method="POST", unix=True)
    assert (answer.status, answer.json) == (200, {"serial": 17, "released": {"national": 1204}})
    assert queries.asked == [(17, f"uid {os.getuid()}")]


async def test_a_plan_is_on_the_unix_socket_alone_and_says_what_it_cannot(
    client: Client, queries: FakeQueries
) -> None:
    assert (await client.ask("/v1/plan", method="POST")).status == 404
    answer = await client.ask("/v1/plan", method="POST", unix=True)
    assert (answer.status, answer.json["policy"]) == (200, "observe stays")
    assert queries.asked == [PlanRequest()]
    queries.failure = ReplyMissing("dump connections", "no answer")
    answer = await client.ask("/v1/plan", method="POST", unix=True)
    assert (answer.status, answer.json) == (503, {"error": "dump connections: no answer"})


async def test_what_breaks_an_assertion_can_be_forced_by_name(client: Client, queries: FakeQueries) -> None:
    for path in ("/v1/accept?serial=17&force=1", "/v1/reload?force=1", "/v1/reload?force=0"):
        assert (await client.ask(path, method="POST", unix=True)).status == 200
    uid = f"uid {os.getuid()}"
    assert queries.asked == [(17, uid, "forced"), (uid, "forced"), uid]


async def test_an_acknowledgement_is_on_the_unix_socket_alone(client: Client, queries: FakeQueries) -> None:
    queries.near_miss_lines = [NEAR_MISS]
    assert (await client.ask("/v1/near-misses")).json["items"][0]["id"] == "BANK-1"
    path = "/v1/near-misses/acknowledge?id=BANK-1"
    assert (await client.ask(path, method="POST")).status == 404
    assert queries.acknowledged == []
    assert (await client.ask(path, method="POST", unix=True)).json == {"id": "BANK-1", "lines": 1}
    answer = await client.ask("/v1/near-misses/acknowledge", method="POST", unix=True)
    assert (answer.status, answer.json["parameter"]) == (400, "id")


async def test_accept_of_what_is_not_held_is_a_conflict_and_says_what_is(client: Client) -> None:
    answer = await client.ask("/v1/accept?serial=16", method="POST", unix=True)
    assert (answer.status, answer.json) == (409, {"error": "serial 16 is not held; serial 17 is"})


@pytest.mark.parametrize(
    ("query", "parameter", "why"),
    [
        ("", "serial", "missing, expected for example serial=17"),
        ("?serial=", "serial", "missing"),
        ("?serial=-1", "serial", "'-1' is not the serial of a reading"),
        ("?serial=1e3", "serial", "not the serial"),
        ("?serial=%C2%B2", "serial", "not the serial"),
        (f"?serial={'1' * 20}", "serial", "not the serial"),
        ("?serial=1&serial=2", "serial", "given twice"),
        ("?serial=1&force=yes", "force", "'yes' is neither 0 nor 1"),
        ("?serial=1&by=me", "by", "unknown, expected serial, force"),
    ],
)
async def test_accept_needs_one_serial(
    client: Client, queries: FakeQueries, query: str, parameter: str, why: str
) -> None:
    answer = await client.ask(f"/v1/accept{query}", method="POST", unix=True)
    assert (answer.status, answer.json["parameter"]) == (400, parameter)
    assert why in answer.json["error"]
    assert queries.asked == []


async def test_accept_cannot_be_asked_for_with_get(client: Client) -> None:
    assert (await client.ask("/v1/accept?serial=17", unix=True)).status == 405


async def test_no_route_of_the_port_writes(client: Client) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for target in ("/healthz", "/v1/status", "/v1/sync", "/v1/accept", "/v1/registrations/a", "/v1/flows"):
            assert (await client.ask(target, method=method)).status in (404, 405)


async def test_a_sync_that_fails_says_why(client: Client, queries: FakeQueries) -> None:
    queries.failure = SourceUnreadable("national", "HTTP status 503")
    answer = await client.ask("/v1/sync", method="POST", unix=True)
    assert (answer.status, answer.json) == (503, {"error": "source national: HTTP status 503"})


async def test_a_fault_of_ours_goes_to_the_log_and_not_to_the_client(
    client: Client, queries: FakeQueries, caplog: pytest.LogCaptureFixture
) -> None:
    queries.failure = RuntimeError("the inside")
    answer = await client.ask("/v1/status?pretty")
    assert (answer.status, answer.json) == (500, {"error": "gatewayd failed to answer; its log says why"})
    assert [(record.message, bool(record.exc_info)) for record in caplog.records] == [("api.request_failed", True)]
    assert vars(caplog.records[0])["fields"] == {"method": "GET", "path": "/v1/status"}, "a query may name a person"


async def test_a_reload_is_for_the_socket_and_says_who_asked(client: Client, queries: FakeQueries) -> None:
    assert (await client.ask("/v1/reload", method="POST")).status == 404
    answer = await client.ask("/v1/reload", method="POST", unix=True)
    assert (answer.status, answer.json) == (200, {"reloaded": True, "mode": "observe"})
    assert queries.asked == [f"uid {os.getuid()}"]


async def test_the_socket_is_for_owner_and_group(client: Client, socket_path: Path) -> None:
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o660


async def test_a_stop_removes_the_socket_and_frees_the_port(queries: FakeQueries, socket_path: Path) -> None:
    async with serving(queries, socket_path) as server:
        port = server.port
    assert not socket_path.exists()
    again = ApiServer(queries, "127.0.0.1", port, str(socket_path))
    await again.start()
    await again.stop()
    await again.stop()


async def test_a_stop_leaves_the_socket_of_a_successor(queries: FakeQueries, socket_path: Path) -> None:
    async with serving(queries, socket_path):
        socket_path.rename(socket_path.with_suffix(".old"))
        socket_path.write_text("another's")
    assert socket_path.read_text() == "another's"


async def test_a_stale_socket_is_replaced(queries: FakeQueries, socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path))
    async with serving(queries, socket_path) as server:
        assert (await Client(server, socket_path).ask("/healthz", unix=True)).status == 200


async def test_a_socket_that_is_answered_is_left_alone(
    client: Client, queries: FakeQueries, socket_path: Path
) -> None:
    with pytest.raises(MissingPrerequisite, match=r"another gatewayd\) answers on .*api\.sock"):
        await ApiServer(queries, "127.0.0.1", 0, str(socket_path)).start()
    assert (await client.ask("/healthz", unix=True)).status == 200


async def test_a_socket_whose_owner_is_too_busy_to_answer_is_left_alone(
    queries: FakeQueries, socket_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(socket_path))
        busy.listen(0)
        waiting.connect(str(socket_path))
        with pytest.raises(MissingPrerequisite, match="answers on"):
            await ApiServer(queries, "127.0.0.1", 0, str(socket_path)).start()
        assert socket_path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(queries: FakeQueries, socket_path: Path) -> None:
    socket_path.write_text("precious")
    with pytest.raises(MissingPrerequisite, match="exists and is not a socket"):
        await ApiServer(queries, "127.0.0.1", 0, str(socket_path)).start()
    assert socket_path.read_text() == "precious"


async def test_a_missing_directory_is_named(queries: FakeQueries, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    with pytest.raises(MissingPrerequisite, match=r"the directory .*/run of the socket .* does not exist"):
        await ApiServer(queries, "127.0.0.1", 0, str(path)).start()


async def test_a_path_too_long_for_a_socket_is_refused_clearly(queries: FakeQueries, tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match=r"cannot listen on .*too long"):
        await ApiServer(queries, "127.0.0.1", 0, str(tmp_path / ("a" * 120))).start()


async def test_a_port_that_another_has_is_waited_for_and_the_socket_answers_meanwhile(
    queries: FakeQueries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.api.app.PORT_RETRY_S", 0.01)
    tcp, unix = ListenerView("tcp"), ListenerView("unix")
    path = tmp_path / "other.sock"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = ApiServer(queries, "127.0.0.1", port, str(path), listeners=(tcp, unix))
        await server.start()
        client = Client(server, path)
        assert (await client.ask("/healthz", unix=True)).status == 200
        assert (tcp.is_listening, unix.is_listening) == (False, True)
    while not tcp.is_listening:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert (await client.ask("/healthz")).status == 200
    await server.stop()
    assert (tcp.is_listening, unix.is_listening) == (False, False)


async def test_an_address_that_no_interface_has_yet_is_bound_and_the_log_says_so(
    queries: FakeQueries, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = ApiServer(queries, "2001:db8::1", 0, str(socket_path))
    await server.start()
    await server.stop()
    assert "daemon.address_absent" in caplog.text


async def test_an_address_that_cannot_be_bound_is_refused_clearly(queries: FakeQueries, socket_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match=r"cannot listen on \[fe80::1\]:9480: "):
        await ApiServer(queries, "fe80::1", 9480, str(socket_path)).start()


async def test_a_start_that_is_cut_short_leaves_nothing(
    queries: FakeQueries, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: Any) -> None:
        raise OSError("no more")

    monkeypatch.setattr("aiohttp.web.AppRunner.setup", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no more"):
        await ApiServer(queries, "127.0.0.1", 0, str(socket_path)).start()
    assert not socket_path.exists()
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_serves_under_uvloop(queries: FakeQueries, socket_path: Path) -> None:
    async def ask() -> tuple[int, int]:
        async with serving(queries, socket_path) as server:
            client = Client(server, socket_path)
            return (await client.ask("/healthz")).status, (await client.ask("/healthz", unix=True)).status

    assert uvloop.run(ask()) == (200, 200)
    assert not socket_path.exists()


async def test_a_client_that_goes_within_its_body_is_no_fault_of_ours(
    client: Client, queries: FakeQueries, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was killed, say; it filled the log with tracebacks."""
    _, writer = await asyncio.open_unix_connection(socket_path)
    writer.write(b"PUT /v1/bindings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n[")
    await writer.drain()
    assert (await client.ask("/healthz")).status == 200
    writer.close()
    await writer.wait_closed()
    assert (await client.ask("/healthz")).status == 200
    assert [record.message for record in caplog.records if record.exc_info] == []
