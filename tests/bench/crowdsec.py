"""crowdsec-firewall-bouncer beside a stand-in for the local API of CrowdSec, which hands it N decisions.

It asks once for all (`/v1/decisions/stream?startup=true`) and then, every ten seconds, for what has changed.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.bench.clock import Ran, Stopwatch, peak_mb
from tests.bench.counting import NFPROTO_IPV4, count_elements

PROGRAM = "crowdsec-firewall-bouncer"
TABLE, SET = "crowdsec", "crowdsec-blacklists"
_LOOK_EVERY_S = 0.01
_PATIENCE_S = 600.0
_NOTHING_NEW = b'{"new":null,"deleted":null}'
_CONFIG = """\
mode: nftables
pid_dir: {directory}
update_frequency: 10s
daemonize: false
log_mode: stdout
log_level: info
api_url: {url}
api_key: bench
disable_ipv6: true
deny_action: DROP
deny_log: false
supported_decisions_types: [ban]
blacklists_ipv4: {set_name}
blacklists_ipv6: crowdsec6-blacklists
nftables:
  ipv4: {{enabled: true, set-only: false, table: {table}, chain: crowdsec-chain}}
  ipv6: {{enabled: false, set-only: true, table: crowdsec6, chain: crowdsec6-chain}}
prometheus: {{enabled: false, listen_addr: 127.0.0.1, listen_port: 60601}}
"""


def fill(addresses: Sequence[str], scratch: Path) -> Ran:
    """From the start of the process, which reads its settings and asks at once, until all are in its set. Raises
    RuntimeError when it ends before."""
    config, log = scratch / "bouncer.yaml", scratch / "bouncer.log"
    with _api(encode_decisions(addresses)) as url, log.open("wb") as words:
        config.write_text(_CONFIG.format(directory=scratch, url=url, table=TABLE, set_name=SET))
        watch = Stopwatch()
        bouncer = subprocess.Popen([PROGRAM, "-c", str(config)], stdout=words, stderr=subprocess.STDOUT)
        try:
            return Ran(_wait_until_full(bouncer, len(addresses), watch, log), peak_mb(bouncer.pid))
        finally:
            bouncer.kill()
            bouncer.wait()


def _wait_until_full(bouncer: subprocess.Popen[bytes], count: int, watch: Stopwatch, log: Path) -> float:
    took_s = 0.0
    while count_elements(TABLE, SET, NFPROTO_IPV4) != count:
        time.sleep(_LOOK_EVERY_S)
        took_s += watch.lap()
        if bouncer.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
            raise RuntimeError(f"{PROGRAM} exits {bouncer.returncode}: {last[0][:200]}")
        if took_s > _PATIENCE_S:
            raise RuntimeError(f"{count_elements(TABLE, SET, NFPROTO_IPV4)} elements after {took_s:.0f} s")
    return took_s + watch.lap()


def encode_decisions(addresses: Sequence[str]) -> bytes:
    alike = {"origin": "lists", "type": "ban", "scope": "Ip", "duration": "4h0m0s", "scenario": "bench"}
    new = [{"id": number, "value": address, **alike} for number, address in enumerate(addresses, 1)]
    return json.dumps({"new": new, "deleted": None}, separators=(",", ":")).encode()


@contextmanager
def _api(decisions: bytes) -> Iterator[str]:
    """On loopback of the present network namespace, in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(decisions, theirs), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/"
    finally:
        server.terminate()
        server.join()


def _serve(decisions: bytes, told: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = decisions if "startup=true" in self.path else _NOTHING_NEW
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.send(server.server_address[1])
        server.serve_forever()
