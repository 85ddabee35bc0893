"""A real daemon that is stopped, killed, reloaded, misled and starved; registered packets that must not notice."""

from __future__ import annotations

import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, ELSEWHERE, EMBASSY, FAR, FREELANCER, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import announced_prefixes, encode_ndjson, generate_records
from gatewayd.model import Flow
from gatewayd.watch.source import EventSource, PacketLog
from tests.support.background import serving
from tests.support.lab_daemon import LabDaemon, decode, elements, generation, holds, mark_of, set_handles

pytestmark = pytest.mark.kernel

CAST = [BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER]
HOUSE = "39.32.64.10"
RATE_PPS = 400.0
_ports = count(20000)


def registered() -> list[Flow]:
    """New flows that the cast has registered."""
    return [
        flow_of(HOUSE, ELSEWHERE, "udp/51820", next(_ports)),
        flow_of("39.32.0.5", FAR, "udp/4500", next(_ports)),
        flow_of("39.32.0.6", FAR, "esp"),
        flow_of("39.32.64.12", ELSEWHERE, "gre"),
        flow_of("2400:adc0:100::10", "2001:db8:99::1", "udp/51820", next(_ports)),
    ]


def stranger() -> Flow:
    return flow_of(STRANGER, ELSEWHERE, "udp/51820", next(_ports))


def start(daemon: LabDaemon, mode: str = "reject", **sections: Any) -> Lab:
    daemon.write_registry("national", CAST)
    daemon.configure(mode, **sections)
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


@contextmanager
def undisturbed(lab: Lab) -> Iterator[Stream]:
    """Registered flows, of which not one packet is lost until the block ends."""
    flows = registered()
    with Stream(lab, flows, rate_pps=RATE_PPS) as stream:
        assert stream.wait_for_arrivals(50, 20)
        yield stream
        assert stream.wait_for_arrivals(50, 20)
    report = stream.report()
    assert report.lost == (), f"{len(report.lost)} of {report.sent} packets on {len(flows)} registered flows"


# -- stop, kill, restart -------------------------------------------------------------------------------------------


def test_sigterm_leaves_the_kernel_as_it_is(daemon: LabDaemon) -> None:
    lab = start(daemon)
    before = lab.gateway.run(["nft", "-a", "list", "table", "inet", "gatewayd"]).stdout
    with undisturbed(lab) as stream:
        assert daemon.end(signal.SIGTERM) == 0
        assert stream.wait_for_arrivals(50)
        assert probe(lab, registered()) == ["passed"] * 5
        assert probe(lab, [stranger()]) == ["rejected"]
        after = lab.gateway.run(["nft", "-a", "list", "table", "inet", "gatewayd"]).stdout
        assert _without_counts(after) == _without_counts(before)
        assert not daemon.socket_path.exists()
    assert "Traceback" not in daemon.log_text()


def _without_counts(listing: str) -> list[str]:
    """Nor what the rules count by themselves, in sets whose elements expire."""
    listing = re.sub(r"\t\telements = \{[^}]*expires[^}]*\}\n", "", listing)
    return [line for line in listing.splitlines() if "packets" not in line]


def test_sigkill_at_any_moment_loses_nothing_and_the_restart_converges(daemon: LabDaemon) -> None:
    """While it starts, loads a registry that has changed, reloads, and idles."""
    randomness = random.Random(20240607)
    many = [dict(SOFTWARE_HOUSE, id=f"M-{n}", clients=[f"39.44.{n >> 8}.{n & 255}/32"]) for n in range(4000)]
    daemon.write_registry("national", CAST + many)
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    lab = daemon.lab
    handles, content = set_handles(lab), elements(lab)
    moments = []
    with undisturbed(lab) as stream:
        for number in range(10):
            deed = ("start", "load", "reload", "idle")[number % 4]
            if deed != "start":
                daemon.wait_ready()
            if deed == "load":
                some = randomness.sample(many, 3000)
                daemon.write_registry("national", CAST + some)
            elif deed == "reload":
                daemon.configure(randomness.choice(["reject", "limit", "mark"]))
                daemon.reload()
            moments.append(randomness.randrange(1, 200 if deed == "start" else 40))
            assert stream.wait_for_arrivals(moments[-1], 30)
            daemon.end(signal.SIGKILL)
            assert stream.wait_for_arrivals(5)
            daemon.write_registry("national", CAST + many)
            daemon.configure("reject")
            daemon.start()
        daemon.wait_ready()
        daemon.wait(lambda: daemon.status()["kernel"]["surplus"] == 0, "no surplus")
    assert set_handles(lab) == handles
    assert elements(lab) == content
    assert daemon.status()["kernel"]["not_in_kernel"] == 0
    assert probe(lab, registered()) == ["passed"] * 5
    assert probe(lab, [stranger()]) == ["rejected"]
    assert "Traceback" not in daemon.log_text()


def test_a_flushed_ruleset_is_put_back_and_loses_nothing(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        lab.gateway.run(["nft", "flush", "ruleset"])
        daemon.wait(lambda: daemon.status()["kernel"]["repairs"] > 0, "the repair")
        daemon.wait_ready()
        assert probe(lab, [stranger()]) == ["rejected"]


def test_a_daemon_that_was_away_while_the_registry_changed_catches_up(daemon: LabDaemon) -> None:
    lab = start(daemon, "reject", policy={"drain": "1s"})
    leaves = flow_of("39.34.55.123", ELSEWHERE, "udp/1194", next(_ports))
    leaver = dict(FREELANCER, services=["openvpn"])
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY, leaver])
    daemon.wait_in_kernel(leaves)
    with undisturbed(lab), Stream(lab, [leaves], rate_pps=100) as stream:
        assert stream.wait_for_arrivals(10)
        daemon.end(signal.SIGKILL)
        daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY])
        daemon.start()
        daemon.wait_ready()
        # Nobody remembers that it was withdrawn; the survey of live flows finds it.
        assert holds(lambda: not stream.wait_for_arrivals(1, 0.5))


# -- reload --------------------------------------------------------------------------------------------------------


def test_a_broken_configuration_is_refused_with_its_place_and_the_old_one_stays(daemon: LabDaemon) -> None:
    lab = start(daemon)
    good = daemon.config_path.read_bytes()
    before = generation(lab)
    with undisturbed(lab):
        for broken, told in (
            (good + b"policy: {mode: reject}\n", "policy"),
            (b"policy: {mode: reject, drains: 3s}\n", ":1:24: policy.drains"),
            (b"registry: [\n", ":2:1: "),
            (b"\xff\n", ":1:1: (file): the byte 0xff"),
            (b"", ":1:1: registry"),
        ):
            daemon.write_file("gatewayd.yaml", broken)
            daemon.reload()
            assert holds(partial(_is_refused, daemon, told)), daemon.log_text()
        daemon.config_path.unlink()
        daemon.reload()
        daemon.wait_log("cannot be read")
    assert (generation(lab), daemon.status()["mode"], daemon.status()["ready"]) == (before, "reject", True)
    daemon.write_file("gatewayd.yaml", good)
    daemon.reload()
    daemon.wait_log("reload.done")


def _is_refused(daemon: LabDaemon, told: str) -> bool:
    """Whether the log has a line that refuses the configuration, with its place and what is wrong."""
    lines = [line for line in daemon.log_text().splitlines() if "reload.refused" in line]
    return any(f"{daemon.config_path}:" in line and told in line for line in lines)


def test_a_new_mode_judges_strangers_anew_and_touches_no_registered_flow(daemon: LabDaemon) -> None:
    lab = start(daemon, "observe")
    flow = stranger()
    handles = set_handles(lab)
    with undisturbed(lab):
        assert probe(lab, [flow]) == ["passed"]
        epochs = [daemon.status()["epoch"]]
        for mode, outcome in (
            ("reject", "rejected"),
            ("observe", "passed"),
            ("mark", "passed"),
            ("reject", "rejected"),
        ):
            daemon.configure(mode)
            daemon.reload()
            daemon.wait_mode(mode)
            assert probe(lab, [flow]) == [outcome]
            epochs.append(daemon.status()["epoch"])
    assert epochs == [epochs[0] + n for n in range(5)]
    assert set_handles(lab) == handles


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("kernel.table", {"kernel": {"table": "other"}}),
        ("kernel.ct_mark_mask", {"kernel": {"ct_mark_mask": "0x00ff0000"}}),
        ("http.listen", {"http": {"listen": "127.0.0.1:9999"}}),
    ],
)
def test_what_needs_a_restart_is_refused_whole(daemon: LabDaemon, key: str, change: dict[str, Any]) -> None:
    lab = start(daemon)
    before = generation(lab)
    daemon.configure("observe", **change)
    daemon.reload()
    daemon.wait_log("reload.needs_restart")
    assert key in daemon.log_text()
    assert (daemon.status()["mode"], generation(lab)) == ("reject", before)


def test_sources_come_and_go_with_a_reload(daemon: LabDaemon) -> None:
    lab = start(daemon)
    late = flow_of("39.36.1.7", ELSEWHERE, "udp/51820", next(_ports))
    latecomer = dict(SOFTWARE_HOUSE, id="DESK-1", clients=["39.36.1.0/24"])
    with undisturbed(lab):
        # Its file is not there: nothing is held up, and the daemon is not ready until it is.
        daemon.configure("reject", sources=["national", "desk"])
        daemon.reload()
        daemon.wait_log("reload.done")
        assert holds(lambda: "desk" in str(daemon.get("/readyz").get("reasons")))
        moved = flow_of("39.36.2.7", ELSEWHERE, "udp/51820", next(_ports))
        daemon.write_registry("national", [*CAST, dict(SOFTWARE_HOUSE, id="NEW", clients=["39.36.2.0/24"])])
        daemon.wait_in_kernel(moved)
        assert probe(lab, [moved, late]) == ["passed", "rejected"]
        daemon.write_registry("desk", [latecomer])
        daemon.wait_ready()
        assert probe(lab, [late]) == ["passed"]
        daemon.configure("reject", sources=["national"])
        daemon.reload()
        daemon.wait_decision(late, "unregistered")
        again = flow_of("39.36.1.8", ELSEWHERE, "udp/51820", next(_ports))
        assert holds(lambda: probe(lab, [again]) == ["rejected"])


def test_a_source_is_replaced_by_another_without_a_gap(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        daemon.configure("reject", sources=["copy"])
        daemon.reload()
        daemon.wait_log("reload.done")
        assert probe(lab, registered()) == ["passed"] * 5
        daemon.write_registry("copy", CAST)
        daemon.wait_ready()
        assert [each["name"] for each in daemon.status()["sources"]] == ["copy"]


def test_reloads_while_the_registry_changes_end_in_what_was_last_asked_for(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab) as stream:
        for number in range(12):
            extra = [dict(SOFTWARE_HOUSE, id=f"X-{n}", clients=[f"39.45.{number}.{n}/32"]) for n in range(200)]
            daemon.write_registry("national", CAST + extra)
            daemon.write_registry("desk", extra[:10])
            daemon.configure(
                ("reject", "mark")[number % 2], sources=["national", "desk"] if number % 3 else ["national"]
            )
            daemon.reload()
            assert stream.wait_for_arrivals(10)
        daemon.write_registry("national", CAST)
        daemon.configure("reject")
        daemon.reload()
        daemon.wait_mode("reject")
        daemon.wait(lambda: daemon.status()["registrations"]["total"] == len(CAST), "the registry")
    assert daemon.is_running()
    assert "Traceback" not in daemon.log_text()


# -- sources that fail ---------------------------------------------------------------------------------------------


def _missing(daemon: LabDaemon) -> None:
    (daemon.directory / "national.ndjson").unlink()


@pytest.mark.parametrize(
    ("deed", "named"),
    [
        (lambda d: d.write_registry("national", random.Random(7).randbytes(5000) + b"\n"), "none of its"),
        (lambda d: d.write_registry("national", encode_ndjson(CAST)[:-40]), "cut off"),
        (lambda d: d.write_registry("national", b""), "is empty"),
        (lambda d: d.write_registry("national", b"<html><body>maintenance</body></html>\n"), "none of its"),
        (_missing, "No such file"),
    ],
    ids=["garbage", "half-written", "empty", "page", "missing"],
)
def test_a_registry_that_cannot_be_used_changes_nothing_in_force(daemon: LabDaemon, deed: Any, named: str) -> None:
    lab = start(daemon)
    before = elements(lab)
    with undisturbed(lab):
        deed(daemon)
        daemon.wait(lambda: daemon.status()["sources"][0]["state"] == "failing", "the failure")
        assert named in daemon.status()["sources"][0]["last_error"]
        assert daemon.get("/readyz") == {"ready": True}
        assert probe(lab, registered()) == ["passed"] * 5
        # The next good file is taken up.
        daemon.write_registry("national", CAST)
        daemon.wait(lambda: daemon.status()["sources"][0]["state"] == "ok", "the recovery")
    assert elements(lab) == before


def test_a_bad_record_costs_itself_alone(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        good = encode_ndjson(CAST)
        identity = encode_ndjson([dict(EMBASSY, id="WITH-NAME", name="Jane Doe")])
        daemon.write_registry("national", good + b'{"id": "HALF", "categ\n' + identity)
        daemon.wait(lambda: daemon.status()["sources"][0]["rejected"] == 2, "the rejections")
        assert daemon.status()["registrations"]["total"] == len(CAST)
    assert "Jane Doe" not in daemon.log_text() + str(daemon.status())


def test_a_csv_with_a_bad_row_keeps_the_good_ones(daemon: LabDaemon) -> None:
    lab = daemon.lab
    rows = [
        "id,category,status,clients,services",
        "DEMO-SOFTWARE-HOUSE,software_house,active,39.32.64.8/29,wireguard",
        "BAD,bank,active,39.99.0.1/24,wireguard",
    ]
    path = daemon.write_file("national.csv", "\n".join(rows).encode() + b"\n")
    daemon.configure(sources=[{"name": "national", "url": f"file:{path}", "allow_unsigned": True}])
    daemon.start()
    daemon.wait_ready()
    assert daemon.status()["sources"][0]["rejected"] == 1
    flow = flow_of(HOUSE, ELSEWHERE, "udp/51820", next(_ports))
    with Stream(lab, [flow], rate_pps=RATE_PPS) as stream:
        daemon.write_file("national.csv", ("\n".join([*rows, "WORSE,,,,"])).encode() + b"\n")
        daemon.wait(lambda: daemon.status()["sources"][0]["rejected"] == 2, "the second rejection")
        assert stream.wait_for_arrivals(50)
    assert stream.report().lost == ()


class _Feed(BaseHTTPRequestHandler):
    """Answers as `server.behaviour` says; `server.answered` remembers the statuses."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        if server.behaviour == "error":
            self._answer(500, b"out of order")
        elif server.behaviour == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(server.content)))
            self.end_headers()
            self.wfile.write(server.content[: len(server.content) // 2])
            server.answered.append(0)
            self.close_connection = True
        elif self.headers.get("If-None-Match") == server.etag:
            self._answer(304, b"")
        else:
            self._answer(200, server.content)

    def _answer(self, status: int, body: bytes) -> None:
        server: Any = self.server
        server.answered.append(status)
        self.send_response(status)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def feed_in(lab: Lab, content: bytes) -> Iterator[Any]:
    with lab.gateway.entered():
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Feed)
    server.content, server.etag, server.behaviour, server.answered = content, '"1"', "ok", []
    with serving(server):
        yield server


def test_a_web_server_that_fails_in_every_way_takes_nothing_away(daemon: LabDaemon) -> None:
    lab = daemon.lab
    with feed_in(lab, encode_ndjson(CAST)) as feed:
        url = f"http://127.0.0.1:{feed.server_address[1]}/feed.ndjson?token=hunter2"
        daemon.configure(sources=[{"name": "web", "url": url, "allow_unsigned": True}])
        daemon.start()
        daemon.wait_ready()
        before = elements(lab)
        with undisturbed(lab):
            assert daemon.ask("sync").returncode == 0
            for behaviour, word in (("error", "500"), ("cut", "")):
                feed.behaviour = behaviour
                done = daemon.ask("sync")
                assert done.returncode == 1
                assert word in done.stdout
                assert daemon.status()["sources"][0]["state"] == "failing"
                assert daemon.get("/readyz") == {"ready": True}
            feed.behaviour, feed.etag = "ok", '"2"'
            feed.content = encode_ndjson([*CAST, dict(EMBASSY, id="E-2", clients=["39.33.8.0/27"])])
            assert daemon.ask("sync").returncode == 0
            assert daemon.status()["registrations"]["total"] == len(CAST) + 1
            server_gone = daemon.status()["sources"][0]
            assert server_gone["state"] == "ok"
        assert feed.answered[:4] == [200, 304, 500, 0]
        assert all(keys <= elements(lab)[name] for name, keys in before.items())
    told = daemon.log_text() + str(daemon.status()) + daemon.ask("status").stdout
    assert "hunter" not in told


# -- starting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_configuration", [True, False], ids=["same", "other-sockets"])
def test_a_second_daemon_refuses_to_start_and_the_first_does_not_notice(
    daemon: LabDaemon, tmp_path: Path, same_configuration: bool
) -> None:
    lab = start(daemon)
    if same_configuration:
        second = daemon
    else:
        (tmp_path / "second").mkdir()
        second = LabDaemon(lab, tmp_path / "second", port=9481, group=9481)
        second.write_registry("national", [BANK])
        second.configure()
    before = generation(lab)
    with undisturbed(lab):
        refused = second.cli("run", "--config", str(second.config_path))
    assert refused.returncode == 2
    assert "another gatewayd keeps table inet gatewayd" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (daemon.is_running(), daemon.status()["ready"], generation(lab)) == (True, True, before)


NO_CAPABILITIES = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all")
NO_NFT = (
    "unshare", "-m", "sh", "-c",
    'for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft /bin/nft; do '
    '[ ! -e "$nft" ] || mount --bind /dev/null "$nft"; done; exec "$@"', "sh",
)  # fmt: skip


@pytest.mark.parametrize(
    ("wrapper", "told"),
    [(NO_CAPABILITIES, "CAP_NET_ADMIN"), (NO_NFT, "install the package nftables")],
    ids=["no-capability", "no-nft"],
)
def test_what_is_missing_is_one_sentence_with_what_to_do(
    daemon: LabDaemon,
    wrapper: tuple[str, str, str, str, str, str, str] | tuple[str, str, str, str, str, str],
    told: str,
) -> None:
    daemon.write_registry("national", CAST)
    daemon.configure()
    before = generation(daemon.lab)
    for command in ("run", "plan"):
        refused = daemon.cli(command, "--config", str(daemon.config_path), wrapper=wrapper)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert refused.stderr.startswith("gatewayd: ")
        assert told in refused.stderr
    assert generation(daemon.lab) == before


def test_a_taken_nflog_group_is_one_sentence_with_what_to_do(daemon: LabDaemon) -> None:
    daemon.write_registry("national", CAST)
    daemon.configure()
    log = PacketLog("nflog", 9480, len)
    holder = EventSource(logs=(log,), mark=0, mask=0, on_connections=len, on_lost=lambda _: None)
    with daemon.lab.gateway.entered():
        holder.open()
    try:
        refused = daemon.cli("run", "--config", str(daemon.config_path))
    finally:
        holder.close()
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "NFLOG group 9480 is in use" in refused.stderr


def test_a_configuration_with_faults_does_not_start(daemon: LabDaemon) -> None:
    daemon.write_file("gatewayd.yaml", b"registry: {sources: []}\npolicy: {mode: block}\n")
    refused = daemon.cli("run", "--config", str(daemon.config_path))
    assert refused.returncode == 2
    assert f"{daemon.config_path}:2:16: policy.mode" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_large_registry_loads_while_health_and_explain_answer(daemon: LabDaemon) -> None:
    lab = start(daemon)
    records = generate_records(announced_prefixes(4), announced_prefixes(6), random.Random(1), 100_000)
    large = encode_ndjson(records)
    answers = {"/healthz": 0, "explain": 0}
    flow = registered()[0]
    with undisturbed(lab):
        daemon.end(signal.SIGKILL)
        daemon.write_registry("national", encode_ndjson(CAST) + large)
        shutil.rmtree(daemon.directory / "registry")  # the last good: without it the source is waited for
        daemon.start()

        def ask() -> bool:
            ready = bool(daemon.get("/readyz").get("ready"))
            assert daemon.get("/healthz") == {"status": "ok"}
            answers["/healthz"] += not ready
            explained = daemon.explain(flow)
            if "error" in explained:
                assert not ready
                assert "is being" in explained["error"]
            else:
                assert explained["decision"] == "registered"
                assert explained["in_kernel"] or not ready
            answers["explain"] += not ready
            return ready

        daemon.wait(ask, "ready")
        assert probe(lab, [stranger()]) == ["rejected"]
    assert min(answers.values()) > 3
    assert daemon.status()["registrations"]["total"] == 100_000 + len(CAST)


def test_a_daemon_whose_registry_is_gone_starts_with_the_last_good(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        daemon.end()
        (daemon.directory / "national.ndjson").unlink()
        daemon.start()
        daemon.wait_ready()
        daemon.wait(lambda: daemon.status()["sources"][0]["state"] == "failing", "the failure")
        status = daemon.status()
        assert status["ready"]
        assert status["mode"] == "reject"
        assert status["sources"][0]["restored_at"] is not None
        assert probe(lab, [stranger()]) == ["rejected"]


def test_a_reload_takes_the_policy_off_although_no_source_has_been_read_since_the_start(daemon: LabDaemon) -> None:
    lab = start(daemon)
    flow = stranger()
    with undisturbed(lab):
        assert probe(lab, [flow]) == ["rejected"]
        daemon.end()
        (daemon.directory / "national.ndjson").unlink()
        shutil.rmtree(daemon.directory / "registry")
        daemon.start()
        daemon.wait(lambda: "has not been read" in str(daemon.get("/readyz")), "the source cannot be read")
        assert probe(lab, [flow]) == ["rejected"]
        daemon.configure("observe")
        daemon.reload()
        daemon.wait_log("reconcile.disarmed was=reject")
        assert probe(lab, [flow, *registered()]) == ["passed"] * 6
        status = daemon.status()
        assert (status["ready"], status["armed"], status["mode"]) == (False, False, "observe")


# -- plan, teardown ------------------------------------------------------------------------------------------------


def plan(daemon: LabDaemon, *options: str) -> str:
    done = daemon.cli("plan", "--config", str(daemon.config_path), *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_plan_says_what_would_change_and_touches_nothing(daemon: LabDaemon) -> None:
    lab = daemon.lab
    daemon.write_registry("national", CAST)
    daemon.configure("reject")
    before = generation(lab)
    first = decode(plan(daemon, "--json"))
    assert first["creates_table"]
    assert sum(size for name, size in first["added"].items() if not name.endswith("_near")) == 13
    assert "reject with" in plan(daemon, "--rules")
    assert generation(lab) == before
    daemon.start()
    daemon.wait_ready()
    assert sum(map(len, elements(lab).values())) == 13
    before = generation(lab)
    assert "Nothing would change." in plan(daemon)
    daemon.end()
    assert "Nothing would change." in plan(daemon)
    daemon.write_registry(
        "national", [BANK, EMBASSY, FREELANCER, dict(EMBASSY, id="E-2", clients=["39.33.8.0/27"])]
    )
    changed = decode(plan(daemon, "--json"))
    assert changed["added"] == {"c4_27": 1, "c4_24_near": 1}
    assert sum(changed["removed"].values()) + len(changed["deleted_sets"]) > 0
    daemon.configure("observe")
    assert "would be replaced" in plan(daemon)
    (daemon.directory / "national.ndjson").unlink()
    failed = daemon.cli("plan", "--config", str(daemon.config_path))
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert generation(lab) == before


def test_teardown_waits_for_the_daemon_to_be_stopped_and_then_removes_everything(daemon: LabDaemon) -> None:
    lab = start(daemon, "mark")
    seen = [registered()[0], stranger()]
    assert probe(lab, seen) == ["passed"] * 2
    with undisturbed(lab) as stream:
        refused = daemon.cli("teardown", "--yes", "--config", str(daemon.config_path))
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "stop it first" in refused.stderr
        assert daemon.status()["ready"]
        daemon.end()
        done = daemon.cli("teardown", "--yes", "--config", str(daemon.config_path))
        assert done.returncode == 0
        assert "table inet gatewayd is removed" in done.stdout
        assert stream.wait_for_arrivals(20)
        assert probe(lab, [stranger()]) == ["passed"]
        again = daemon.cli("teardown", "--yes", "--config", str(daemon.config_path))
        assert (again.returncode, "there was no table" in again.stdout) == (0, True)
    assert lab.gateway.run(["nft", "list", "ruleset"]).stdout == ""
    assert [mark_of(lab, each) for each in seen] == [0, 0]
    daemon.start()
    daemon.wait_ready()
    assert probe(lab, [registered()[0], stranger()]) == ["passed"] * 2


def test_teardown_leaves_the_tables_of_others(daemon: LabDaemon) -> None:
    lab = start(daemon)
    lab.gateway.run(["nft", "add", "table", "inet", "theirs"])
    daemon.end()
    assert daemon.cli("teardown", "--yes", "--config", str(daemon.config_path)).returncode == 0
    assert lab.gateway.run(["nft", "list", "ruleset"]).stdout == "table inet theirs {\n}\n"


# -- the service manager -------------------------------------------------------------------------------------------


class Manager:
    """What systemd hears."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.heard: list[dict[str, str]] = []

    def hear(self, until: Callable[[dict[str, str]], bool], deadline_s: float = 30.0) -> dict[str, str]:
        """Take in messages up to the first that is waited for."""
        deadline = time.monotonic() + deadline_s
        while (left_s := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left_s)[0]:
                lines = self.socket.recv(4096).decode().splitlines()
                message = dict(line.partition("=")[::2] for line in lines)
                self.heard.append(message)
                if until(message):
                    return message
        raise AssertionError(f"waited in vain after {self.heard[-5:]}")

    def close(self) -> None:
        self.socket.close()


def test_the_service_manager_hears_what_is_true_when_it_is_true(daemon: LabDaemon, tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify.sock")
    daemon.write_registry("national", CAST)
    daemon.configure(sources=["national", "desk"])
    daemon.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify.sock"), "WATCHDOG_USEC": "600000"})
    # A source is not there: it lives, and is not ready, whatever it is told. After 20 s the start is over.
    for _ in range(2):
        manager.hear(lambda message: "WATCHDOG" in message)
    daemon.reload()
    daemon.wait_log("reload.done")
    manager.hear(lambda message: "WATCHDOG" in message)
    for message in manager.heard:
        assert "READY" not in message or message["STATUS"].startswith("not ready: source desk")
    assert daemon.get("/readyz")["ready"] is False
    daemon.write_registry("desk", [])
    daemon.write_registry("desk", [dict(EMBASSY, id="E-2", clients=["39.33.8.0/27"])])
    manager.hear(lambda message: message.get("STATUS", "").endswith("in the kernel"))
    assert daemon.get("/readyz") == {"ready": True}
    manager.heard.clear()
    daemon.reload()
    told = manager.hear(lambda message: "RELOADING" in message)
    assert int(told["MONOTONIC_USEC"]) > 0
    manager.hear(lambda message: "READY" in message)
    daemon.write_file("gatewayd.yaml", b"nonsense: true\n")
    daemon.reload()
    manager.hear(lambda message: "RELOADING" in message)
    manager.hear(lambda message: "READY" in message)
    assert daemon.end() == 0
    manager.hear(lambda message: "STOPPING" in message)
    manager.close()


def test_the_command_reload_works_before_the_daemon_is_ready_and_says_what_was_refused(daemon: LabDaemon) -> None:
    start(daemon, "reject")
    daemon.end(signal.SIGKILL)
    daemon.configure("reject", sources=["national", "missing"])
    daemon.start()
    daemon.wait(lambda: "missing" in str(daemon.get("/readyz").get("reasons")), "a source to be missing")
    daemon.configure("observe", sources=["national", "missing"])
    done = daemon.ask("reload")
    assert (done.returncode, "done" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "mode in force  observe" in done.stdout
    assert daemon.status()["ready"] is False
    daemon.configure("observe", sources=["national", "missing"], kernel={"table": "other"})
    refused = daemon.ask("reload")
    assert (refused.returncode, "kernel.table" in refused.stdout) == (1, True)
    daemon.write_file("gatewayd.yaml", b"nonsense: true\n")
    refused = daemon.ask("reload")
    assert (refused.returncode, "gatewayd.yaml:1:1: nonsense" in refused.stdout) == (1, True)
    daemon.wait_log('was="reject, found in the kernel" by="uid 0"')
    daemon.end()
    assert daemon.ask("reload").returncode == 3


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gatewayd", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("gatewayd, version ")
