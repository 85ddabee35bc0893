"""The daemon of the demo: a real `gatewayd run` in the lab's gateway, its files, and questions to its API; and the
NAS that tells it by RADIUS accounting which subscriber has which address."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self
from urllib.parse import urlencode

import msgspec
from pyrad.packet import AccountingRequest, AcctPacket

from gatewayd.errors import DaemonNotReachable, MissingPrerequisite
from gatewayd.lab.lab import INSIDE, Lab
from gatewayd.lab.namespace import Namespace
from gatewayd.lab.world import DEMO_PEPPER
from gatewayd.model import Flow, Service, format_address, parse_address
from gatewayd.model.service import PROTOCOLS_WITH_PORTS

PATIENCE_S = 120.0
_PAUSE_S = 0.02

SERVER: Final = (INSIDE.gateway_addresses[4], 1813)
NAS_NAME: Final = "bng-karachi-1"
SECRET: Final = b"the demo's secret, known to all"
START, STOP, INTERIM = 1, 2, 3
"""Acct-Status-Type (RFC 2866 §5.1)."""

_FRAMED_IP_ADDRESS, _CALLING_STATION_ID, _NAS_IDENTIFIER = 8, 31, 32
_ACCT_STATUS_TYPE, _ACCT_SESSION_ID = 40, 44
_REPEAT_S, _REPEATS = 1.0, 20

CONFIG = """\
registry:
  sources:
    - {{name: national, url: "{url}", keys: ["{key}"]}}
  local: null
policy:
  mode: {mode}
  drain: 2s
  scope: [ipsec, wireguard, openvpn, pptp, l2tp, udp/51900-51999]
  interfaces: {{inside: [inside0], outside: [outside0]}}
subscribers: {subscribers}
http: {{listen: "127.0.0.1:9480", socket: "{directory}/api.sock"}}
state_dir: "{directory}"
log: {{level: info, format: console}}
"""


class Child(Protocol):
    """A process of ours, as subprocess.Popen has them."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's Unix socket, which is reached from any network namespace."""

    def __init__(self, path: Path) -> None:
        super().__init__("gatewayd", timeout=30.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class DemoGateway:
    """Writes its configuration into `directory`; starts, reloads and ends the daemon."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self._namespace = namespace
        self.directory = directory
        self.log_path = directory / "gatewayd.log"
        self.config_path = directory / "gatewayd.yaml"
        self.socket_path = directory / "api.sock"
        self._process: Child | None = None

    def write_config(self, mode: str, *, url: str, key: Path, subscribers: dict[str, Any] | None = None) -> None:
        """The configuration file, in place of the last one. `url`: of a feed that is signed with `key`."""
        # JSON is YAML.
        section = msgspec.json.encode(subscribers).decode()
        text = CONFIG.format(directory=self.directory, mode=mode, url=url, key=key, subscribers=section)
        self._replace(self.config_path, text.encode())

    def start(self) -> None:
        """Without the caller's proxies: they are not to be had in the lab."""
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        with self.log_path.open("ab") as output:
            self._process = self._namespace.popen(
                [sys.executable, "-m", "gatewayd", "run", "--config", str(self.config_path)],
                stdout=output,
                stderr=output,
                env=environment | {"PYTHONUNBUFFERED": "1"},
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_S)

    def reload(self) -> None:
        """SIGHUP: read the configuration again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON of an answer, whatever its status. Raises DaemonNotReachable."""
        return self._ask("GET", path, parameters)

    def sync(self) -> Any:
        """Have the registry read now; answered when it is in the kernel. Raises DaemonNotReachable."""
        return self._ask("POST", "/v1/sync", {})

    def accept(self, serial: int) -> Any:
        """Release removals that the guard holds. Raises DaemonNotReachable."""
        return self._ask("POST", "/v1/accept", {"serial": str(serial)})

    def _ask(self, method: str, path: str, parameters: Mapping[str, str]) -> Any:
        connection = _UnixConnection(self.socket_path)
        try:
            connection.request(method, f"{path}?{urlencode(parameters)}" if parameters else path)
            return msgspec.json.decode(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            raise DaemonNotReachable(str(self.socket_path), str(error)) from None
        finally:
            connection.close()

    def explain(self, flow: Flow) -> Any:
        ports = flow.protocol in PROTOCOLS_WITH_PORTS
        service = (
            Service(flow.protocol, flow.destination_port, flow.destination_port)
            if ports
            else Service(flow.protocol)
        )
        return self.get(
            "/v1/explain",
            src=format_address(flow.source),
            dst=format_address(flow.destination),
            service=str(service),
        )

    def status(self) -> Any:
        return self.get("/v1/status")

    def source(self) -> Any:
        """The first of the sources, as status shows it."""
        return self.status()["sources"][0]

    def wait_in_sync(self) -> float:
        """Seconds until nothing is left to write to the kernel."""
        return self.wait(
            lambda: not (kernel := self.status()["kernel"])["pending"] and not kernel["surplus"], "the kernel"
        )

    def wait_ready(self) -> float:
        """Seconds until the kernel has all. Raises MissingPrerequisite with the daemon's last words if it ends."""
        return self.wait(lambda: bool(self.status().get("ready")), "the daemon is ready")

    def wait(self, condition: Callable[[], bool], what: str) -> float:
        """Seconds until the condition holds, the daemon being asked again and again."""
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE_S:
            if self._process is not None and self._process.poll() is not None:
                raise MissingPrerequisite(f"the daemon ended: {self.last_words()}", f"see {self.log_path}")
            try:
                if condition():
                    return time.monotonic() - started
            except DaemonNotReachable:
                pass
            time.sleep(_PAUSE_S)
        raise MissingPrerequisite(f"waited {PATIENCE_S:g} s in vain: {what}", f"see {self.log_path}")

    def last_words(self) -> str:
        """The last line of the daemon's log."""
        text = self.log_path.read_text(errors="replace").strip() if self.log_path.exists() else ""
        return text.splitlines()[-1] if text else "it said nothing"

    @staticmethod
    def _replace(path: Path, raw: bytes) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(raw)
        fresh.replace(path)


def write_subscribers(directory: Path) -> dict[str, Any]:
    """The section `subscribers` of the demo's configuration; its files go to `directory`."""
    for name, content in (("pepper", DEMO_PEPPER), ("radius.secret", SECRET)):
        path = directory / name
        path.touch(0o600)
        path.write_bytes(content + b"\n")
    client = {"address": f"{INSIDE.end_addresses[4]}/32", "secret_file": str(directory / "radius.secret")}
    return {
        "pepper_file": str(directory / "pepper"),
        "radius": {"listen": [f"{SERVER[0]}:{SERVER[1]}"], "clients": [client]},
    }


class DemoNas:
    """On the customers' side of the lab. Each call returns once it is answered; seconds from sending to the answer.

    Raises TimeoutError for a daemon that does not answer.
    """

    def __init__(self, lab: Lab) -> None:
        self._identifiers = itertools.cycle(range(256))
        with lab.customers.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(_REPEAT_S)
        self._socket.connect(SERVER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def tell(self, status: int, session: str, number: str, address: str) -> float:
        """`number`: E.164 digits. `address`: IPv4."""
        packet = AcctPacket(code=AccountingRequest, id=next(self._identifiers), secret=SECRET)
        packet[_ACCT_STATUS_TYPE] = [status.to_bytes(4, "big")]
        packet[_ACCT_SESSION_ID] = [session.encode()]
        packet[_CALLING_STATION_ID] = [f"+{number}".encode()]
        packet[_NAS_IDENTIFIER] = [NAS_NAME.encode()]
        packet[_FRAMED_IP_ADDRESS] = [parse_address(address)]
        raw = packet.RequestPacket()
        began = time.monotonic()
        for _ in range(_REPEATS):
            self._socket.send(raw)
            try:
                while not packet.VerifyReply(AcctPacket(packet=self._socket.recv(4096), secret=SECRET)):
                    pass
            except (TimeoutError, ConnectionRefusedError):
                continue
            return time.monotonic() - began
        raise TimeoutError(f"the daemon did not answer accounting in {_REPEATS * _REPEAT_S:g} s")
