"""A gateway with everything turned on, with persons and secrets put in wherever a stranger or a clerk may.

`Plantation` plants; `outputs` asks the daemon for all that it says. `tests.support.leaks` has the forms.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from gatewayd.api.app import make_control_app
from gatewayd.api.process import ListenerView
from gatewayd.demo.cast import BANK, EMBASSY, FAR, SOFTWARE_HOUSE, registration
from gatewayd.lab.namespace import Namespace
from gatewayd.model.msisdn import subscriber_digest
from tests.support.background import serving
from tests.support.fake_queries import FakeQueries
from tests.support.lab_daemon import LabDaemon
from tests.support.leaks import Planted, planted_number, planted_secret, planted_text, spellings
from tests.support.nas import INTERIM, START, Nas, write_secrets
from tests.support.radius import accounting_request, attribute, integer, text, vendor

NUMBER: Final = "923459876541"
"""Of a registered subscriber."""
STRANGERS: Final = "923217654983"
NAME: Final = "Zulfiqarzada"
IDENTITY: Final = "42201-7654321-9"
EMAIL: Final = "zara.iqtidar@persons.example"
PEPPER: Final = b"pepper-7Qm2xVb9Lk4tRw8sYd3fGh6j"
SECRET: Final = b"shared-Jd83kfQpz0Xv5bNw"
PASSWORD: Final = "pass-Wq7TzL2mKx9R"
TOKEN: Final = "token-Hv4Yc8Ns1Pd6"
DIGEST: Final = subscriber_digest(NUMBER, PEPPER)

PERSONS: Final = (
    planted_number(NUMBER),
    planted_number(STRANGERS, "number of a stranger"),
    planted_number(IDENTITY.replace("-", ""), "identity number"),
    planted_text("name", NAME),
    planted_text("e-mail", EMAIL),
)
SECRETS: Final = (
    planted_secret("pepper", PEPPER),
    planted_secret("RADIUS secret", SECRET),
    planted_secret("password of a URL", PASSWORD.encode()),
    planted_secret("token of a URL", TOKEN.encode()),
)
KEYED: Final = planted_secret("keyed digest", DIGEST, has_digests=False)
"""Stands in the registry and in the session's row on disk, and nowhere that a person reads."""
ALL: Final[tuple[Planted, ...]] = (*PERSONS, *SECRETS)

SPELLINGS: Final = (*spellings(NUMBER), spellings(STRANGERS)[3], IDENTITY, EMAIL)
TOLD: Final = tuple(each for each in SPELLINGS if not each.isdigit() or each.startswith("0"))
"""Of which the text itself says that it may be a person's: an id of digits alone is one of a registry."""
OPAQUE: Final = ("id", "category", "registrant")
"""Fields of a record that are shown as they are. An id may be any word, and so a name."""
COUNTS: Final = frozenset({"offset", "limit", "since", "until", "serial", "sport", "ending", "top"})
"""Parameters that are numbers, and are answered with them."""
HOME: Final = "39.41.0.7"
SUBSCRIBER: Final = registration(
    "PK-CODER", "freelancer", [], subscriber=f"hmac-sha256:{DIGEST.hex()}", services=["wireguard"]
)


def feed_lines() -> bytes:
    """Good records, and records with a person in each place that a record has."""
    good = [BANK, SOFTWARE_HOUSE, EMBASSY, SUBSCRIBER]
    bad: list[dict[str, Any]] = []
    for number, each in enumerate(SPELLINGS):
        one = registration(f"BAD-{number}", "bank", [f"39.34.{number}.0/28"])
        bad.append({**one, "name": NAME, "contact": {NAME: each}})
        for name in ("msisdn", "name", "cnic", "email", "contact", "Full_Name", each):
            bad.append({**one, name: each})
        for name in ("id", "category", "status", "registrant", "subscriber", "valid_from", "valid_until"):
            if (each in TOLD and each != IDENTITY) or name not in OPAQUE:
                bad.append({**one, name: each})
        for name in ("clients", "peers", "services", "endpoints"):
            bad += [{**one, name: [each]}, {**one, name: each}]
        bad.append({**one, "clients": {each: each}})
    lines = [msgspec.json.encode(each) for each in (*good, *bad)]
    for each in SPELLINGS:
        raw = each.encode()
        lines += [
            raw,
            b'{"id": "%s' % raw,
            b'{"id": "X", "name": "%s %s", }' % (NAME.encode(), raw),
            b'"%s"' % raw,
            b"\xff" + raw,
        ]
    return b"\n".join(lines) + b"\n"


def csv_lines() -> bytes:
    rows = ["id,category,status,clients,services,registrant", "CSV-GOOD,bank,active,39.35.99.0/28,ipsec,ACME"]
    rows += [f"CSV-{n},bank,active,{each},{each},{each}" for n, each in enumerate(SPELLINGS)]
    rows += [f"{each},bank,active,39.35.{n}.0/28,ipsec," for n, each in enumerate(TOLD) if each != IDENTITY]
    rows += [f"CSV-S{n},{each},{each},39.35.{n}.0/28,ipsec," for n, each in enumerate(TOLD)]
    rows += [f"CSV-R{n},bank,active,39.35.{n}.0/28,ipsec,{each}" for n, each in enumerate(TOLD)]
    rows += [f"CSV-L{n},bank,active,39.36.{n}.0/28,,,,{each}" for n, each in enumerate(SPELLINGS)]
    return "\n".join(rows).encode() + b"\n"


def override_file(each: str) -> bytes:
    """A local file with a person in one of its places, and not a word of YAML more than a clerk would write."""
    return f"""\
pins:
  - {{id: PIN-1, category: bank, clients: ["{each}"], comment: "for the branch"}}
  - {{id: "{each}", category: bank, clients: [39.32.9.0/28], comment: "for the branch"}}
  - {{id: PIN-3, category: bank, clients: [39.32.9.0/28], subscriber: "{each}", registrant: "{each}", comment: c}}
  - {{id: PIN-4, category: bank, clients: [39.32.9.0/28], msisdn: "{each}", name: {NAME}, "{each}": 1, comment: c}}
  - {{id: PIN-5, category: "{each}", status: "{each}", clients: [39.32.9.0/28], services: ["{each}"], comment: c}}
  - {{id: PIN-6, category: bank, clients: [39.32.9.0/28], comment: "call {each}", until: "{each}"}}
filters:
  - {{prefix: "{each}", comment: c}}
must_pass:
  - {{name: "{each}", source: "{each}", destination: "{each}", service: esp, comment: c}}
""".encode()


def sessions_file() -> bytes:
    rows = ["nas,session,number,addresses"]
    rows += [f"bng-9,f{n},{each},39.41.7.{n}" for n, each in enumerate(SPELLINGS)]
    rows += [f"bng-9,{each},{spellings(NUMBER)[0]},39.41.8.{n}" for n, each in enumerate(spellings(NUMBER))]
    rows += [f"bng-9,g{n},{spellings(NUMBER)[0]},{each}" for n, each in enumerate(SPELLINGS)]
    return "\n".join(rows).encode() + b"\n"


# -- a web server that repeats what it should not have ------------------------------------------------------------


KINDS_OF_GOSSIP: Final = 6


class _Gossip(BaseHTTPRequestHandler):
    """Each answer in its turn has a person in another place; the good one first and last."""

    def do_GET(self) -> None:
        server: GossipServer = self.server  # type: ignore[assignment]
        number = server.asked
        server.asked += 1
        each = SPELLINGS[number // KINDS_OF_GOSSIP % len(SPELLINGS)]
        match number % KINDS_OF_GOSSIP:
            case 0:
                self._say(200, {"ETag": f'"{each}{number}"'}, csv_lines())
            case 1:
                self._say(503, {"Retry-After": each, "ETag": f'"{each}"'}, each.encode(), reason=each)
            case 2:
                here = f"http://127.0.0.1:{server.server_port}"
                self._say(302, {"Location": f"{here if number % 2 else 'http://other.example'}/{quote(each)}"}, b"")
            case 3:
                self.wfile.write(f"HTTP/1.1 {each} {each}\r\n{each}\r\n\r\n".encode())
            case 4:
                self._say(200, {}, f"{each},category,status,clients\nA,bank,active,39.35.1.0/28\n".encode())
            case _:
                self._say(200, {}, csv_lines() + f'"CSV-Q,{each}\n'.encode())

    def _say(self, status: int, headers: dict[str, str], body: bytes, *, reason: str | None = None) -> None:
        self.send_response(status, reason)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class GossipServer(HTTPServer):
    asked = 0


@contextmanager
def gossip(namespace: Namespace) -> Iterator[GossipServer]:
    with namespace.entered():
        server = GossipServer(("127.0.0.1", 0), _Gossip)
    with serving(server):
        yield server


# -- the gateway --------------------------------------------------------------------------------------------------


@dataclass
class Plantation:
    """A daemon in the lab, configured with all that it can be."""

    daemon: LabDaemon
    server: GossipServer

    def configure(self, mode: str = "observe") -> None:
        daemon, directory = self.daemon, self.daemon.directory
        daemon.write_registry("national", feed_lines())
        local = directory / "local.d"
        local.mkdir(exist_ok=True)
        (local / "good.yaml").write_text(
            "pins: [{id: PIN-0, category: bank, clients: [39.32.8.0/28], comment: c}]\n"
        )
        daemon.write_file("sessions.csv", sessions_file())
        subscribers: dict[str, Any] = write_secrets(directory, pepper=PEPPER, secret=SECRET) | {
            "sessions_file": str(directory / "sessions.csv"),
            "profile": {"country_code": "92", "identity": "calling-station-id"},
            "nas": [{"name": "bng-2", "profile": {"identity": "user-name", "session_ids": "digest"}}],
        }
        # The server's answers come by `sync` alone.
        url = f"http://127.0.0.1:{self.server.server_port}/list.csv?key={TOKEN}"
        sources = daemon.sources_of("national", {"name": "branch", "url": url, "allow_unsigned": True})
        # The guard is on: what it holds is on disk.
        registry = {"sources": sources, "local": str(local), "retry": "1d", "refresh": "7d", "shrink_guard": {}}
        sections: dict[str, dict[str, Any]] = {
            "registry": registry,
            "subscribers": subscribers,
            "watch": {"unregistered": "flows", "shadow_limit": True},
            "policy": {"interfaces": {"inside": ["inside0"], "outside": ["outside0"]}},
            "log": {"level": "debug", "format": "json"},
        }
        daemon.configure(mode, sources=(), **sections)

    def tell_by_radius(self) -> None:
        """Numbers in each attribute; from a client, from one with another secret, and as no packet at all."""
        with Nas(self.daemon.lab.gateway, secret=SECRET) as nas:
            for n, each in enumerate(spellings(NUMBER)):
                nas.start(f"s{n}", each, HOME)
                nas.tell(START, f"t{n}", NAME, f"39.41.2.{n}")
            for n, each in enumerate(SPELLINGS):
                extra = b"".join(text(type_, each) for type_ in (1, 18, 25, 30, 44, 50, 77, 87, 89))
                extra += attribute(79, each.encode()) + vendor(10415, text(1, each)) + vendor(6527, text(121, each))
                nas.exchange(nas.encode(START, f"u{n}", f"+{NUMBER}", f"39.41.3.{n}", extra=extra))
                nas.exchange(_named("bng-2", n, text(1, each), text(44, each)))
                nas.send(_named(each, n, secret=b"another"))
                nas.send(b"\x04\x01\x00\x20" + each.encode())
            for n, each in enumerate(spellings(NUMBER)):
                # What is refused as it has the number in it, and what repeats the number in another place.
                nas.exchange(nas.encode(INTERIM, each, each, f"39.41.4.{n}"))
                nas.exchange(_named(each, n, text(1, f"{NAME}@isp.example")))
            nas.exchange(nas.request(integer(40, 99), text(31, f"+{NUMBER}")))

    def tell_by_api(self) -> list[tuple[str, bytes]]:
        """Bindings and commands of an operator, with a person in each field. The answers."""
        answers = []
        bodies: list[object] = []
        for each in SPELLINGS:
            good = {"nas": "aaa-1", "session": "a1", "number": f"+{NUMBER}", "addresses": ["39.41.5.1"]}
            bodies.append([good])
            for name in (*good, "subscriber", "ports", "at", "interim", each):
                if name not in ("nas", "session") or each in spellings(NUMBER):
                    bodies.append([{**good, name: each}])
                bodies += [[{**good, name: [each]}], [{**good, name: {each: each}}]]
            bodies += [each, {each: each}, [each]]
        raw = [json.dumps(each).encode() for each in bodies] + [each.encode() for each in SPELLINGS]
        for body in raw:
            answers.append(self.ask("PUT", "/v1/bindings", body))
            answers.append(self.ask("POST", "/v1/plan", body))
            answers.append(self.ask("DELETE", "/v1/bindings", body))
        for path, parameters in (
            ("/v1/mode", ("mode", "canary", "confirm", "for", "force", "comment")),
            ("/v1/accept", ("serial", "force")),
            ("/v1/reload", ("force",)),
            ("/v1/near-misses/acknowledge", ("id", "until")),
            ("/v1/sync", ("x",)),
            ("/v1/trial/ack", ("x",)),
        ):
            for name in parameters:
                for each in words_for(name):
                    answers.append(self.ask("POST", f"{path}?{urlencode({name: each})}"))
                    answers.append(self.ask("POST", f"{path}?{urlencode({each: each})}"))
        return answers

    def ask(self, method: str, target: str, body: bytes | None = None, *, port: bool = False) -> tuple[str, bytes]:
        """The whole answer, its headers too."""
        sent = body or b""
        raw = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
        raw += b"Content-Length: %d\r\n\r\n" % len(sent) + sent
        return f"{method} {target.partition('?')[0]}", self.say(raw, port=port)

    def say(self, raw: bytes, *, port: bool = False) -> bytes:
        """Bytes to a listener of the API, and what comes back."""
        with self.daemon.lab.gateway.entered():
            family = socket.AF_INET if port else socket.AF_UNIX
            connection = socket.socket(family, socket.SOCK_STREAM)
        with connection, suppress(ConnectionError):
            connection.settimeout(60)
            connection.connect(("127.0.0.1", 9480) if port else str(self.daemon.socket_path))
            connection.sendall(raw)
            whole = b""
            while not _is_whole(whole, is_head=raw.startswith(b"HEAD")) and (piece := connection.recv(1 << 16)):
                whole += piece
            return whole
        return b""


def _is_whole(answer: bytes, *, is_head: bool) -> bool:
    """Whether its body is there, as far as its header says how long it is."""
    head, ended, body = answer.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\nContent-Length: ([0-9]+)", head)
    return bool(ended) and (is_head or (found is not None and len(body) >= int(found[1])))


def words_for(parameter: str) -> tuple[str, ...]:
    """Persons that a parameter is asked with."""
    return tuple(each for each in TOLD if not each.isdigit()) if parameter in COUNTS else SPELLINGS


def _named(nas: str, number: int, *more: bytes, secret: bytes = SECRET) -> bytes:
    """Of a NAS whose name is the text."""
    return accounting_request(
        text(32, nas), integer(40, START), text(31, f"+{NUMBER}"), text(44, f"n{number}"),
        attribute(8, bytes((39, 41, 6, number))), *more, secret=secret, identifier=number,
    )  # fmt: skip


# -- what comes out -----------------------------------------------------------------------------------------------

PARAMETERS: Final = (
    "q", "id", "src", "dst", "service", "sport", "in", "out", "registration", "registrant", "address", "category",
    "status", "since", "until", "source", "offset", "limit", "ending", "canary", "top", "follow", "all",
)  # fmt: skip


def read_paths() -> list[str]:
    """Of all that can be asked, by the app itself."""
    app = make_control_app(FakeQueries(), ListenerView("unix"))
    found = {each.resource.canonical for each in app.router.routes() if each.resource and each.method == "GET"}
    return [*sorted(found - {"/v1/events"}), "/v1/events?follow=no"]


def answers_of(planted: Plantation) -> Iterator[tuple[str, bytes]]:
    """Each path of both listeners: as it is, and asked with a person in each parameter, name and part of the path.
    Of the spellings each has its turn."""
    turns = itertools.cycle(SPELLINGS)
    for is_port in (False, True):
        where = "port" if is_port else "socket"
        for path in [*read_paths(), *(("/", "/v1/overview", "/page/app.js") if is_port else ())]:
            plain, _, rest = path.replace("{id}", "PK-CODER").partition("?")
            asked = {plain: f"{plain}?{rest}", f"{plain} pretty": f"{plain}?pretty&{rest}"}
            for each in itertools.islice(turns, 2):
                below = path if "{id}" in path else f"{plain}/{{id}}"
                asked[f"{path} as a part of the path"] = below.replace("{id}", quote(each))
                asked[f"{path} as a name"] = f"{plain}?{urlencode({each: '1'})}"
            for name in PARAMETERS:
                each = next(word for word in turns if word in words_for(name))
                asked[f"{path} as {name}"] = f"{plain}?{urlencode({name: each})}"
            for label, target in asked.items():
                yield f"{where} GET {label}", planted.ask("GET", target, port=is_port)[1]
        for each in SPELLINGS:
            for label, raw in _odd_requests(each).items():
                yield f"{where} {label}", planted.say(raw.encode(), port=is_port)


def _odd_requests(each: str) -> dict[str, str]:
    word = each.replace(" ", "")
    local, end = "Host: localhost", "Connection: close\r\n\r\n"
    explain = urlencode({"src": each, "dst": FAR, "service": "esp"})
    return {
        "explain from": f"GET /v1/explain?{explain} HTTP/1.1\r\n{local}\r\n{end}",
        "search for": f"GET /v1/registrations?{urlencode({'q': each})} HTTP/1.1\r\n{local}\r\n{end}",
        "a registration": f"GET /v1/registrations/{quote(each)} HTTP/1.1\r\n{local}\r\n{end}",
        "box of the page": f"GET /?{urlencode({'q': each})} HTTP/1.1\r\n{local}\r\n{end}",
        "a path": f"GET /{quote(each)} HTTP/1.1\r\n{local}\r\n{end}",
        "a host": f"GET /healthz HTTP/1.1\r\nHost: {word}\r\n{end}",
        "a method": f"{word} /healthz HTTP/1.1\r\n{local}\r\n{end}",
        "a version": f"GET /healthz HTTP/{word}\r\n{local}\r\n{end}",
        "a header": f"GET /healthz HTTP/1.1\r\n{local}\r\n{each}\r\n{end}",
        "an id of an event": f"GET /v1/events?follow=no HTTP/1.1\r\n{local}\r\nLast-Event-ID: {each}\r\n{end}",
        "a length": f"POST /v1/status HTTP/1.1\r\n{local}\r\nContent-Length: {word}\r\n{end}",
        "no request": f"{each}\r\n\r\n",
    }


def commands_of(daemon: LabDaemon) -> Iterator[tuple[str, Sequence[str]]]:
    """Each command that says something of the daemon, as text and as JSON."""
    asking = [
        ("status",), ("registrations",), ("registrations", "PK-CODER"), ("registrations", "--rejected"),
        ("registrations", "--by", "registrant"), ("flows",), ("flows", "--unregistered"), ("bindings",), ("held",),
        ("changes",), ("impact",), ("impact", "near-misses"), ("report",), ("events",), ("trial",), ("sync",),
        ("explain", HOME, FAR, "udp/51820"), ("reload",),
    ]  # fmt: skip
    for words in asking:
        for json_too in ((), ("--json",)):
            yield " ".join((*words, *json_too)), (*words, *json_too, "--socket", str(daemon.socket_path))
    config = ("--config", str(daemon.config_path))
    for words in (("check",), ("check", "--json"), ("plan",), ("plan", "--json"), ("plan", "--rules"), ("doctor",)):
        yield " ".join(words), (*words, *config)


def files_of(directory: Path, *, inputs: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """All that the daemon has written; `inputs` are the test's own."""
    for path in sorted(directory.rglob("*")):
        relative = str(path.relative_to(directory))
        if path.is_file() and relative.partition("/")[0] not in inputs:
            yield f"file {relative}", path.name.encode() + b"\n" + path.read_bytes()


def kernel_of(daemon: LabDaemon) -> Iterator[tuple[str, bytes]]:
    yield "nft list ruleset", daemon.lab.gateway.run(["nft", "-a", "list", "ruleset"]).stdout.encode()
    yield "conntrack", daemon.lab.gateway.run(["conntrack", "-L"], check=False).stdout.encode()


def process_of(pid: int) -> Iterator[tuple[str, bytes]]:
    for name in ("cmdline", "environ", "comm", "status", "maps"):
        yield f"/proc {name}", Path(f"/proc/{pid}/{name}").read_bytes()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            yield f"/proc comm of a thread {thread}", Path(f"/proc/{pid}/task/{thread}/comm").read_bytes()


def memory_of(pid: int) -> Iterator[bytes]:
    """Each writable region that is the process's own, as root may read it."""
    regions = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        if rights.startswith("rw"):
            low, _, high = span.partition("-")
            regions.append((int(low, 16), int(high, 16)))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for first, last in regions:
            with suppress(OSError, OverflowError):
                memory.seek(first)
                yield memory.read(last - first)
