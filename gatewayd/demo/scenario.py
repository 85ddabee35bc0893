"""The demo, act by act, and the lab after the play. Every act ends in promises that are checked on real packets."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from msgspec import structs

from gatewayd.demo import cast
from gatewayd.demo.acts import RegistryActs, Stage, SubscriberActs
from gatewayd.demo.gateway import DemoGateway, DemoNas, write_subscribers
from gatewayd.demo.registry import DemoRegistry
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import RATE_PPS, SETTLE_PACKETS, Stream
from gatewayd.lab.traffic import Outcome, flow_of, probe
from gatewayd.lab.world import announced_prefixes, generate_records
from gatewayd.model import Flow, format_address, parse_prefix
from gatewayd.model.prefix import Prefix
from gatewayd.model.service import BUNDLES

SAMPLE = 300
"""Registrations of the national registry that are tried with a packet each."""
_SEED = 20240101

API = ("127.0.0.1", 9480)
KEPT_PORT = 39999
KEPT_RATE_PPS = 40.0
TO_REVOKE = cast.FREELANCER["id"]


class Scenario:
    """Runs against a lab and a directory of its own; everything it starts ends with the lab."""

    def __init__(self, stage: Stage, lab: Lab, directory: Path, registrations: int) -> None:
        self._stage = stage
        self._lab = lab
        self._count = registrations
        self._ports = count(40000)
        self._records: list[Any] = []
        self._router = lab.gateway
        self.gateway = DemoGateway(lab.gateway, directory)
        self.registry = DemoRegistry(lab, directory)
        self._subscribers = write_subscribers(directory)

    def play(self) -> None:
        """All acts."""
        self.fill()
        self.observe()
        self.reject()
        self.sample()
        acts = RegistryActs(self._stage, self._lab, self.gateway, self.registry, self._ports)
        acts.come_and_go()
        acts.lose_faith(self._whole())
        acts.go_away()
        with DemoNas(self._lab) as nas:
            subscriber = SubscriberActs(self._stage, self._lab, self.gateway, nas, self._ports)
            subscriber.come()
            subscriber.move()
            self.restart(subscriber.flow())
            subscriber.go()
        self.tamper()
        self.account()

    # -- acts ----------------------------------------------------------------------------------------------

    def fill(self) -> None:
        self._stage.act(f"A registry of {self._count:,} registrations, and the daemon starts in mode observe")
        with self._stage.working("filling the registry over the prefixes announced in Pakistan"):
            randomness = random.Random(_SEED)
            records = generate_records(announced_prefixes(4), announced_prefixes(6), randomness, self._count)
            self._records = list(records)
            self.registry.replace_all(self._whole())
            report = self.registry.publish()
            self.registry.serve()
        notification = report.notification
        self._stage.say(
            f"signed, published and served at {self.registry.url}: serial {notification.serial}, "
            f"{notification.snapshot.count:,} registrations, {notification.snapshot.size:,} bytes"
        )
        self._configure("observe")
        with self._stage.working("starting gatewayd"):
            self.gateway.start()
            took_s = self.gateway.wait_ready()
        status = self.gateway.status()
        kernel = status["kernel"]
        self._stage.say(
            f"ready after {took_s:.1f} s: {kernel['elements_desired']:,} elements in {kernel['sets']} sets"
        )
        self._stage.promise(
            "READY means loaded and read back from the kernel",
            status["ready"] and kernel["not_in_kernel"] == 0,
            f"{status['registrations']['effective']:,} effective registrations, 0 missing in the kernel",
        )

    def observe(self) -> None:
        self._stage.act("Mode observe blocks nothing")
        lines, outcomes = self._probe_lines()
        self._show(lines, outcomes, {"registered": "passed", "unregistered": "passed", "out_of_scope": "passed"})
        unregistered = sum(line.expected == "unregistered" for line in lines)
        self.gateway.wait(lambda: bool(self.gateway.status()["unregistered"]), "aggregates of unregistered traffic")
        seen = self.gateway.status()["unregistered"]
        prefixes = ", ".join(each["prefix"] for each in seen[:4])
        self._stage.promise("unregistered flows are seen, as aggregates only", bool(seen), prefixes)
        self._stage.say(f"{unregistered} of the flows above would not pass in mode reject")

    def reject(self) -> None:
        self._stage.act("Mode reject: registered flows pass, the rest in scope is refused, all else is not touched")
        self._configure("reject")
        self.gateway.reload()
        self.gateway.wait(
            lambda: self.gateway.status()["mode"] == "reject" and self.gateway.status()["ready"], "reject"
        )
        lines, outcomes = self._probe_lines()
        self._show(lines, outcomes, {"registered": "passed", "unregistered": "rejected", "out_of_scope": "passed"})

    def sample(self) -> None:
        self._stage.act(f"A packet for each of {SAMPLE} registrations drawn from the registry")
        randomness = random.Random(_SEED + 1)
        usable = [each for each in self._records if each.status == "active" and each.clients]
        flows = [self._flow_of(each) for each in randomness.sample(usable, min(SAMPLE, len(usable)))]
        explained = [self.gateway.explain(flow) for flow in flows]
        registered = [number for number, each in enumerate(explained) if each["decision"] == "registered"]
        with self._stage.working("sending"):
            outcomes = probe(self._lab, flows)
        wrong = [
            number
            for number, each in enumerate(explained)
            if outcomes[number]
            != {"registered": "passed", "unregistered": "rejected", "out_of_scope": "passed"}[each["decision"]]
        ]
        detail = f"{len(registered)} registered, {len(flows) - len(registered)} not (window over, out of scope)"
        if wrong:
            detail = f"{explained[wrong[0]]['reason']}: {outcomes[wrong[0]]}"
        self._stage.promise("the kernel does what explain says, for every one of them", not wrong, detail)

    def restart(self, subscriber: Flow) -> None:
        """`subscriber`: a flow of a registered subscriber from his present address."""
        self._stage.act("The daemon is stopped, killed, and started again under traffic")
        flows = [*cast.registered_flows(next(self._ports)), subscriber]
        with Stream(self._lab, flows, rate_pps=RATE_PPS, answered=True) as stream:
            stream.wait_for_arrivals(SETTLE_PACKETS)
            before = self._handles()
            self._stage.promise("SIGTERM: it ends orderly", self.gateway.end() == 0)
            stream.wait_for_arrivals(SETTLE_PACKETS)
            port = next(self._ports)
            fresh = [*cast.registered_flows(port), structs.replace(subscriber, source_port=port)]
            self._stage.promise(
                "without a daemon, new registered flows pass", set(probe(self._lab, fresh)) == {"passed"}
            )
            self.gateway.start()
            self.gateway.wait_ready()
            stream.wait_for_arrivals(SETTLE_PACKETS)
            self.gateway.end(signal.SIGKILL)
            stream.wait_for_arrivals(SETTLE_PACKETS)
            self.gateway.start()
            took_s = self.gateway.wait_ready()
            stream.wait_for_arrivals(SETTLE_PACKETS)
            self._stage.promise(
                "after SIGKILL the restart adopts the sets that are there",
                self._handles() == before,
                f"ready after {took_s:.1f} s",
            )
            report = stream.stop()
        self._stage.promise(
            "no registered packet is lost over stop, start, kill and start",
            not report.lost and report.sent > 0,
            f"{report.sent:,} sent on {len(flows)} flows, {len(report.lost)} lost",
        )

    def tamper(self) -> None:
        self._stage.act("Somebody flushes the whole ruleset")
        flows = cast.registered_flows(next(self._ports))
        stranger = flow_of(cast.STRANGER, cast.ELSEWHERE, "udp/51820", next(self._ports))
        with Stream(self._lab, flows, rate_pps=RATE_PPS) as stream:
            stream.wait_for_arrivals(SETTLE_PACKETS)
            repairs = self.gateway.status()["kernel"]["repairs"]
            self._router.run(["nft", "flush", "ruleset"])
            began = time.monotonic()
            self.gateway.wait(
                lambda: (
                    self.gateway.status()["kernel"]["repairs"] > repairs
                    and bool(self.gateway.status().get("ready"))
                ),
                "the repair",
            )
            took_ms = (time.monotonic() - began) * 1000
            stream.wait_for_arrivals(SETTLE_PACKETS)
            report = stream.stop()
        self._stage.promise("the table is back, filled and verified", True, f"{took_ms:.0f} ms after the flush")
        self._stage.promise("no registered packet was lost meanwhile", not report.lost, f"{report.sent:,} sent")
        self._stage.promise("and strangers are refused again", probe(self._lab, [stranger]) == ["rejected"])

    def account(self) -> None:
        self._stage.act("What was seen")
        self.gateway.wait(lambda: self.gateway.get("/v1/flows")["total"] > 0, "live flows")
        # They went with the table, and are read once a second.
        self.gateway.wait(lambda: bool(self.gateway.status()["counters"]), "counters")
        flows = self.gateway.get("/v1/flows", limit="1000")
        bank = self.gateway.get("/v1/registrations/DEMO-BANK")
        status = self.gateway.status()
        self._stage.say(
            f"{flows['total']} registered flows are alive; "
            f"{bank['flows']} flows of DEMO-BANK, last seen {bank['last_seen_at']}"
        )
        counters = status["counters"]
        for name in ("registered_flows", "registered_packets", "unregistered_flows", "rejected_packets"):
            self._stage.say(f"{name}: {counters[name]['packets']:,}")
        self._stage.promise("flows are attributed to their registration", bank["flows"] > 0)
        self._stage.promise(
            "every event was taken in", status["watch"]["overruns"] == 0 and status["watch"]["malformed"] == 0
        )

    # -- parts ---------------------------------------------------------------------------------------------

    def _whole(self) -> list[Any]:
        """All that the registry holds at first; the cast at its end."""
        return [*self._records, *cast.CAST]

    def _configure(self, mode: str) -> None:
        self.gateway.write_config(
            mode, url=self.registry.url, key=self.registry.public_key_path, subscribers=self._subscribers
        )

    def _probe_lines(self) -> tuple[list[cast.Line], list[Outcome]]:
        lines = cast.lines(next(self._ports))
        outcomes: dict[int, Outcome] = {}
        with self._stage.working("sending a packet of each flow"):
            for start in ("customers", "internet"):
                numbers = [number for number, line in enumerate(lines) if line.start == start]
                outcomes |= zip(
                    numbers, probe(self._lab, [lines[n].flow for n in numbers], start=start), strict=True
                )
        return lines, [outcomes[number] for number in range(len(lines))]

    def _show(self, lines: Sequence[cast.Line], outcomes: Sequence[Outcome], promised: dict[str, Outcome]) -> None:
        explained = [self.gateway.explain(line.flow) for line in lines]
        wrong = frozenset(
            number
            for number, line in enumerate(lines)
            if outcomes[number] != promised[line.expected] or explained[number]["decision"] != line.expected
        )
        rows = [
            (line.who, line.what, format_address(line.flow.source), outcome, each["effect"], each["reason"])
            for line, outcome, each in zip(lines, outcomes, explained, strict=True)
        ]
        self._stage.table(("who", "what", "from", "packet", "effect", "explain says"), rows, wrong)
        self._stage.promise(f"all {len(lines)} flows went as promised, and explain says the same", not wrong)

    def _flow_of(self, record: Any) -> Flow:
        """A flow that the record should make pass, while it is effective."""
        client = parse_prefix(record.clients[0])
        peers = [peer for peer in map(parse_prefix, record.peers) if peer.family == client.family]
        elsewhere = cast.ELSEWHERE if client.family == 4 else cast.ELSEWHERE_IPV6
        far = _last_address(peers[0]) if peers else elsewhere
        word = record.services[0] if record.services else "udp/51820"
        if word in BUNDLES:
            word = str(next(service for service in reversed(BUNDLES[word]) if service.protocol != 6))
        if word.startswith("tcp"):
            word = "udp/51820"
        return flow_of(_last_address(client), far, word, next(self._ports))

    def _handles(self) -> str:
        """The kernel's handles of the sets: the same handle is the same set, never emptied or made anew."""
        return self._router.run(["sh", "-c", "nft -a list ruleset -t | grep -E '^\tset ' | sort"]).stdout


def _last_address(prefix: Prefix) -> str:
    width = len(prefix.packed) * 8
    last = int.from_bytes(prefix.packed, "big") | ((1 << (width - prefix.length)) - 1)
    return format_address(last.to_bytes(width // 8, "big"))


def keep_running(
    lab: Lab, gateway: DemoGateway, registry: DemoRegistry, stage: Stage, listening: socket.socket
) -> None:
    """Until Ctrl-C. `listening`: bound to an address of this host, for the gateway's API."""
    stage.act("It keeps running, with some traffic; Ctrl-C ends it")
    flows = [line.flow for line in cast.lines(KEPT_PORT) if cast.is_streamable(line)]
    with Stream(lab, flows, rate_pps=KEPT_RATE_PPS, answered=True):
        try:
            asyncio.run(_relay(lab, gateway, registry, stage, listening))
        except KeyboardInterrupt:
            stage.say("ending")


async def _relay(
    lab: Lab, gateway: DemoGateway, registry: DemoRegistry, stage: Stage, listening: socket.socket
) -> None:
    """Carry connections to this host on to the gateway's loopback: the API listens in its namespace."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with lab.gateway.entered():
            inner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        inner.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(inner, API)
            far_reader, far_writer = await asyncio.open_connection(sock=inner)
        except OSError:
            inner.close()
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    carried: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio before 3.12 logs a traceback for one of its own that is cancelled.
        task = asyncio.create_task(carry(reader, writer))
        carried.add(task)
        task.add_done_callback(carried.discard)

    server = await asyncio.start_server(accept, sock=listening)
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    for path in ("/", "/v1/status?pretty", "/metrics", "/readyz", "/v1/flows?pretty", "/v1/registrations?pretty"):
        stage.say(f"http://{host}:{port}{path}")
    stage.say(f"gatewayd status --socket {gateway.socket_path}")
    stage.say(f"nsenter --net={lab.gateway.path} nft list table inet gatewayd")
    stage.say(f"log: {gateway.log_path}")
    stage.say("to change the registry:")
    stage.say(f"cd {registry.directory}")
    stage.say(f"gatewayd registry revoke {TO_REVOKE}")
    stage.say(f"gatewayd registry publish --key {registry.private_key_path.name}")
    stage.say(f"gatewayd sync --socket {gateway.socket_path.name}")
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while raw := await reader.read(1 << 16):
            writer.write(raw)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
