"""A real daemon in the lab's gateway: its configuration as a mapping, its commands, and what the wire says."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from gatewayd.demo.gateway import DemoGateway
from gatewayd.kernel.claim import RUNTIME_DIRECTORY
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.packets import parse_flow
from gatewayd.lab.tap import Tap, Tokens
from gatewayd.model import Flow
from gatewayd.model.flow import ConnectionEvent
from gatewayd.model.mask import parse_set_name
from tests.support.events import flush_connections
from tests.support.warm import can_be_warm, run_warm, starter

DEADLINE_S = 30.0
TABLE = "gatewayd"


def holds(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> bool:
    """Whether the condition comes true before the deadline; it is asked again and again."""
    deadline = time.monotonic() + deadline_s
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


class LabDaemon(DemoGateway):
    """`configure` and `write_registry`, then `start` and `wait_ready`."""

    def __init__(
        self, lab: Lab, directory: Path, *, port: int = 9480, group: int = 9480, warm: bool = False
    ) -> None:
        """`warm`: begun by `tests.support.warm` where that can be."""
        super().__init__(lab.gateway, directory)
        self._warm = warm
        self.lab = lab
        self._base: dict[str, Any] = {
            "http": {"listen": f"127.0.0.1:{port}", "socket": str(self.socket_path)},
            "kernel": {"nflog_group": group, "near_miss_group": group + 10_000},
            "state_dir": str(directory),
            "log": {"level": "info", "format": "console"},
        }

    def configure(
        self, mode: str = "reject", *, sources: Sequence[str | dict[str, Any]] = ("national",), **sections: Any
    ) -> None:
        """A source is its file's name, or a mapping. `policy`, `kernel`, … add to or replace keys of a section."""
        listed = self.sources_of(*sources)
        whole: dict[str, Any] = {
            # Registries come and go here as a test needs it; the guard has tests of its own.
            "registry": {
                "sources": listed,
                "local": None,
                "shrink_guard": {"max_removed": 1_000_000, "protected": {"embassy": "100%", "bank": "100%"}},
            },
            "policy": {"mode": mode, "drain": "2s", "scope": ["ipsec", "wireguard", "openvpn", "pptp"]},
        } | {name: dict(section) for name, section in self._base.items() if isinstance(section, dict)}
        whole["state_dir"] = self._base["state_dir"]
        for name, section in sections.items():
            whole[name] = {**whole.get(name, {}), **section}
        self._replace(self.config_path, yaml.safe_dump(whole).encode())

    def sources_of(self, *sources: str | dict[str, Any]) -> list[dict[str, Any]]:
        """As the configuration has them."""
        return [
            {"name": each, "url": f"file:{self.directory}/{each}.ndjson", "allow_unsigned": True}
            if isinstance(each, str)
            else each
            for each in sources
        ]

    def write_registry(self, name: str, records: bytes | Iterable[Any]) -> None:
        """A source's file, swapped in whole."""
        lines = (
            records
            if isinstance(records, bytes)
            else b"".join(msgspec.json.encode(each) + b"\n" for each in records)
        )
        self._replace(self.directory / f"{name}.ndjson", lines)

    def write_file(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        self._replace(path, content)
        return path

    def start(
        self, *, wrapper: Sequence[str] = (), env: Mapping[str, str] | None = None, output: int | None = None
    ) -> None:
        """`output`: of its log, in place of the file."""
        with self.log_path.open("ab") if output is None else os.fdopen(output, "wb", closefd=False) as log:
            environment = os.environ | dict(env or {})
            run = ("run", "--config", str(self.config_path))
            if self._warm and not wrapper and can_be_warm(environment):
                inside = self.lab.gateway.descriptor
                self._process = starter().start(inside, run, environment, stdout=log, stderr=log)
                return
            self._process = self.lab.gateway.popen(
                [*wrapper, *_command(*run)],
                stdout=log,
                stderr=log,
                env=environment | {"PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop_for_good(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def cli(self, *arguments: str, wrapper: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """A gatewayd command, run in the gateway."""
        if self._warm and not wrapper:
            return run_warm(self.lab.gateway.descriptor, arguments)
        return self.lab.gateway.run([*wrapper, *_command(*arguments)], check=False)

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that asks this daemon."""
        return self.cli(*arguments, "--socket", str(self.socket_path))

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_log(self, text: str, times: int = 1) -> None:
        assert holds(lambda: self.log_text().count(text) >= times), (
            f"{text!r} is not in the log:\n{self.log_text()}"
        )

    def wait_mode(self, mode: str) -> None:
        self.wait(lambda: self.status()["mode"] == mode and self.status()["ready"], f"mode {mode}")

    def wait_decision(self, flow: Flow, decision: str) -> None:
        self.wait(lambda: self.explain(flow).get("decision") == decision, decision)

    def wait_in_kernel(self, flow: Flow) -> None:
        self.wait(lambda: self.explain(flow).get("in_kernel") is True, "in the kernel")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gatewayd", *arguments]


@contextmanager
def daemon_in(lab: Lab, directory: Path, *, warm: bool = False) -> Iterator[LabDaemon]:
    """A daemon of a gateway as good as new; whatever it leaves goes afterwards."""
    daemon = LabDaemon(lab, directory, warm=warm)
    try:
        yield daemon
    finally:
        daemon.stop_for_good()
        clean(lab)
        forget_locks(lab)


def forget_locks(lab: Lab) -> None:
    """A daemon that was killed leaves the file of its lock behind, and the namespace goes."""
    with lab.gateway.entered():
        namespace = os.stat("/proc/thread-self/ns/net").st_ino
    for path in Path(RUNTIME_DIRECTORY).glob(f"*-{namespace}.lock"):
        path.unlink(missing_ok=True)


def clean(lab: Lab) -> None:
    """No rules, no tracked connections."""
    lab.gateway.run(["nft", "flush", "ruleset"])
    flush_connections(lab.gateway)


# -- the kernel --------------------------------------------------------------------------------------------------


def generation(lab: Lab) -> int:
    """Goes up by one with every transaction of any program."""
    with lab.gateway.entered():
        tables = KernelTables.open(TABLE)
    try:
        return asyncio.run(tables.read_generation())
    finally:
        tables.close()


def elements(lab: Lab) -> dict[str, frozenset[bytes]]:
    """Keys of every set of ours that makes a flow registered."""

    async def read() -> dict[str, frozenset[bytes]]:
        found = {}
        for each in (await tables.read_table()).sets:
            parsed = parse_set_name(each.name) if each.regular else None
            if parsed is not None and not parsed[0].is_near:
                keys: set[bytes] = set()
                async for piece in tables.read_elements(each.name):
                    keys.update(piece)
                found[each.name] = frozenset(keys)
        return found

    with lab.gateway.entered():
        tables = KernelTables.open(TABLE)
    try:
        return asyncio.run(read())
    finally:
        tables.close()


def set_handles(lab: Lab) -> dict[str, str]:
    """The same handle is the same set, never emptied or made anew."""
    listing = lab.gateway.run(["nft", "-a", "-t", "list", "ruleset"], check=False).stdout
    return dict(re.findall(r"^\tset (c[46]_\w+) \{ # handle (\d+)", listing, re.MULTILINE))


def connections(lab: Lab) -> list[ConnectionEvent]:
    """All that the gateway tracks."""

    async def read() -> list[ConnectionEvent]:
        return [event async for batch in conntrack.dump(mark=0, mask=0) for event in batch]

    conntrack = Conntrack()
    with lab.gateway.entered():
        conntrack.open()
    try:
        return asyncio.run(read())
    finally:
        conntrack.close()


def mark_of(lab: Lab, flow: Flow) -> int | None:
    """The ct mark of a flow; None if it is not tracked."""
    return next((event.mark for event in connections(lab) if event.flow == flow), None)


# -- the wire ----------------------------------------------------------------------------------------------------


def seen_at_far_end(
    lab: Lab, flow: Flow, *, start: Side = "customers", turn_back: bool = False, deadline_s: float = DEADLINE_S
) -> bytes | None:
    """The packet of the flow as it arrived, None if it did not in time.

    `turn_back`: it is expected where it came from, by the same interface.
    """
    near, far = (lab.inside, lab.outside) if start == "customers" else (lab.outside, lab.inside)
    tokens = Tokens()
    with Tap(near) as near_tap, Tap(near if turn_back else far) as far_tap:
        near_tap.send(flow, tokens.payload(1))
        deadline = time.monotonic() + deadline_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([far_tap], [], [], left_s)[0]:
                break
            for packet in far_tap.packets():
                seen = parse_flow(packet)
                if tokens.number_in(packet) == 1 and seen is not None and seen.source == flow.source:
                    return packet
    return None


def dscp_of(packet: bytes | None) -> int | None:
    """RFC 2474: the upper six bits of the traffic class."""
    if packet is None:
        return None
    word = packet[1] if packet[0] >> 4 == 4 else int.from_bytes(packet[:2], "big") >> 4 & 0xFF
    return word >> 2


def decode(text: str) -> Any:
    return msgspec.json.decode(text)
