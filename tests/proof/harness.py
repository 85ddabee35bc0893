"""A fault as a value, the world in which it is made, and the row that comes of it.

    def make(world):            # with @contextmanager
        world.daemon.end(signal.SIGKILL)      the damage
        world.daemon.start()
        yield                                 traffic goes on; the harness waits until all is repaired
        world.hears("daemon.ready")           the operator was told

A fault that `lasts` is there until the block ends: traffic flows meanwhile, and the time of the repair begins then.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gatewayd.demo.cast import BANK, EMBASSY, FREELANCER, SOFTWARE_HOUSE
from gatewayd.errors import DaemonNotReachable
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import probe
from gatewayd.log.events import EVENTS
from gatewayd.model import parse_prefix
from tests.proof.traffic import BOUNDED_DEADLINE_S, RegisteredTraffic, Traffic
from tests.soak import subscribers
from tests.soak.sight import Sight, is_as_wanted, sight_of
from tests.soak.subscribers import Cgnat
from tests.soak.world import HOST, ROUTED, Record, Registry, registry_of, stranger
from tests.support.bad_registry import BadRegistry
from tests.support.hurried_lab import SmallDisk
from tests.support.lab_daemon import LabDaemon, clean, forget_locks, holds
from tests.support.name_server import NameServer
from tests.support.wrong_clock import WrongClock

RECORDS: Final = (BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER, HOST, *subscribers.RECORDS)
"""All flows of the registered traffic are registered by these."""
SETTLE_PACKETS: Final = 100
REPAIR_DEADLINE_S: Final = 180.0
_DECLARED: Final = {each.name for each in EVENTS}


@dataclass(frozen=True, slots=True)
class Row:
    """`sent`: packets and handshakes of registered flows. `repaired_s`: from the damage, or from its end where it
    lasts, until ready, in sync, and a stranger's flow refused. `told`: by which the operator knows."""

    name: str
    why: str
    sent: int
    lost: int
    refused: int
    repaired_s: float
    told: tuple[str, ...]
    bounded: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """A loss is one that no design can avoid, and the row says why."""
        return bool(self.bounded) or not (self.lost or self.refused)


@dataclass(frozen=True, slots=True)
class Fault:
    """`name`: as in the table, in words. `why`: a sentence, what happens then. `prepare`: before the daemon starts,
    until it has ended: servers, and keys of the configuration. `bounded`: why no design can avoid a loss, and what
    bounds it; `max_share`: of all packets, that may be missing then."""

    name: str
    why: str
    make: Callable[[World], AbstractContextManager[None]]
    prepare: Callable[[World], AbstractContextManager[None]] = lambda _: nullcontext()
    lasts: bool = False
    bounded: str = ""
    max_share: float = 0.0


def planted_loss(*rules: str) -> Fault:
    """For tests of the harness: another program's table cuts what the rules say, until it is deleted."""

    @contextmanager
    def make(world: World) -> Iterator[None]:
        world.lab.gateway.nft(planted_table(*rules))
        yield
        world.lab.gateway.run(["nft", "delete table inet planted"])
        world.learns("by the test", is_told=True)

    return Fault("planted", "Some flows are cut for a moment.", make, lasts=True)


def planted_table(*rules: str) -> str:
    lines = "\n".join(rules)
    return f"table inet planted {{\nchain forward {{\ntype filter hook forward priority -300\n{lines}\n}}\n}}\n"


class ProofDaemon(LabDaemon):
    """Its state has a directory of its own, and its log is JSON. `wrapper` and `environment` of each start."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        super().__init__(lab, directory)
        self.state_dir = directory / "state"
        self.state_dir.mkdir()
        self._base["state_dir"] = str(self.state_dir)
        self._base["log"] = {"level": "info", "format": "json"}
        self.wrapper: tuple[str, ...] = ()
        self.environment: dict[str, str] = {}

    def move_state(self, state_dir: Path) -> None:
        """For what is configured from now on."""
        self.state_dir = state_dir
        self._base["state_dir"] = str(state_dir)

    def start(self, **options: Any) -> None:
        super().start(**{"wrapper": self.wrapper, "env": self.environment} | options)


class World:
    """`constant`: registrations of the traffic. A fault may add others, and put these in another form. `sections`:
    of the configuration, besides the usual ones; `policy`: keys of that section which no fault takes away.
    `registry`: what shall be in the kernel.

    `mark` says when the damage was done, where that is later than its block's beginning.
    """

    def __init__(self, lab: Lab, directory: Path, sight: Sight, records: tuple[Record, ...] = RECORDS) -> None:
        self.lab, self.directory, self.sight = lab, directory, sight
        self.daemon = ProofDaemon(lab, directory)
        self.cgnat = Cgnat(self.daemon, random.Random(1))
        self.constant = self.records = records
        self.registry: Registry = registry_of([], [])
        self.sections: dict[str, Mapping[str, Any]] = {}
        self.policy: Mapping[str, Any] = {}
        self.sources: tuple[str | dict[str, Any], ...] = ("national",)
        # What `prepare` of a fault has made for its `make`.
        self.feed: BadRegistry
        self.disk: SmallDisk
        self.clock: WrongClock
        self.names: NameServer
        self._told: list[str] = []
        self._marked_s = 0.0
        self._log_begins = 0

    # -- its life ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A daemon that rejects, with all of the registry and of accounting in the kernel."""
        self.write(*self.records)
        self.configure()
        self.daemon.start()
        self.daemon.wait_ready()
        self.cgnat.start()
        assert holds(self.is_repaired), self.daemon.log_text()[-3000:]

    def end(self) -> None:
        self.daemon.stop_for_good()
        forget_locks(self.lab)

    def configure(self, mode: str = "reject", **sections: Any) -> None:
        """Anew, with these sections for good. `daemon.reload` is the caller's."""
        self.sections |= sections
        whole = {"subscribers": self.cgnat.section, **self.sections}
        whole["policy"] = {**self.policy, **whole.get("policy", {})}
        self.daemon.configure(mode, sources=self.sources, **whole)

    def write(self, *records: Record) -> None:
        """What the registry says from now on, and shall be in the kernel."""
        self.records = records
        self.daemon.write_registry("national", records)
        self.expect()

    def expect(self) -> None:
        """The kernel shall have `records`, and what accounting has told last."""
        self.registry = registry_of(list(self.records), self.cgnat.bound_registrations())

    # -- the damage ----------------------------------------------------------------------------------------

    def mark(self) -> None:
        """The damage is done, or undone where it lasts, now."""
        self._marked_s = time.monotonic()

    def is_ready(self) -> bool:
        try:
            return bool(self.daemon.status()["ready"])
        except DaemonNotReachable:
            return False

    def is_repaired(self) -> bool:
        """Ready, in sync, the kernel has what it should have, and a stranger's flow is refused."""
        try:
            status = self.daemon.status()
        except DaemonNotReachable:
            return False
        kernel = status["kernel"]
        if not status["ready"] or kernel["pending"] or kernel["surplus"]:
            return False
        if not is_as_wanted(self.sight.contents(), self.registry.keys):
            return False
        return probe(self.lab, [stranger()], deadline_s=1.0) == ["rejected"]

    def wait_repaired(self) -> float:
        """Seconds since the mark."""
        assert holds(self.is_repaired, REPAIR_DEADLINE_S), f"not repaired\n{self.daemon.log_text()[-3000:]}"
        return time.monotonic() - self._marked_s

    # -- what the operator is told -------------------------------------------------------------------------

    def events(self) -> list[dict[str, Any]]:
        """Of the log since the damage began."""
        lines = self.daemon.log_text()[self._log_begins :].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def hears(self, event: str, **fields: Any) -> None:
        """The log has it, or will have it, with these fields. Raises AssertionError."""
        assert event in _DECLARED, f"{event} is not declared"

        def is_there() -> bool:
            found = [each for each in self.events() if each["event"] == event]
            return any(fields.items() <= each.items() for each in found)

        self._note(event, holds(is_there, REPAIR_DEADLINE_S))

    def sees(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """`gatewayd status` shows it, or will; `what`: the field's path, as it goes into the table."""

        def is_there() -> bool:
            try:
                return condition(self.daemon.status())
            except DaemonNotReachable:
                return False

        self._note(f"status: {what}", holds(is_there))

    def reads(self, reason: str) -> None:
        """`/readyz` has this reason, or will."""

        def is_there() -> bool:
            try:
                return any(reason in each for each in self.daemon.get("/readyz").get("reasons", ()))
            except DaemonNotReachable:
                return False

        self._note(f"readyz: {reason}", holds(is_there))

    def learns(self, what: str, *, is_told: bool) -> None:
        """By another way, such as a command that is refused, or the exit status."""
        self._note(what, is_told)

    def _note(self, what: str, is_told: bool) -> None:
        assert is_told, f"the operator is not told: {what}\n{self.daemon.log_text()[self._log_begins :][-3000:]}"
        if what not in self._told:
            self._told.append(what)

    def begin_row(self) -> None:
        self._told.clear()
        self._log_begins = len(self.daemon.log_text())
        self.mark()

    @property
    def told(self) -> tuple[str, ...]:
        return tuple(self._told)


def run_fault(world: World, fault: Fault, traffic: Traffic) -> Row:
    """The row. Raises AssertionError where nothing is repaired, or the operator is not told."""
    with fault.prepare(world):
        try:
            world.begin()
            with traffic.flows():
                traffic.wait_arrivals(SETTLE_PACKETS)
                repaired_s = _damage(world, fault, traffic)
                traffic.wait_arrivals(SETTLE_PACKETS)
                assert probe(world.lab, [stranger()]) == ["rejected"]
        finally:
            world.end()
    account = traffic.account()
    assert world.told, f"{fault.name}: the operator is told nothing"
    assert "Traceback" not in world.daemon.log_text(), world.daemon.log_text()
    if fault.bounded:
        missing = account.lost + account.refused
        assert missing <= fault.max_share * account.sent, f"{missing} of {account.sent}: {account.notes}"
    return Row(
        fault.name, fault.why, account.sent, account.lost, account.refused, round(repaired_s, 2), world.told,
        fault.bounded, account.notes,
    )  # fmt: skip


def _damage(world: World, fault: Fault, traffic: Traffic) -> float:
    """Seconds until it was repaired."""
    world.begin_row()
    with ExitStack() as block:
        block.enter_context(fault.make(world))
        if fault.lasts:
            traffic.wait_sent(SETTLE_PACKETS)
            world.mark()
        else:
            # Packets come after it: the time of a repair has none of theirs in it.
            repaired_s = world.wait_repaired()
            traffic.wait_sent(SETTLE_PACKETS)
    if fault.lasts:
        repaired_s = world.wait_repaired()
    return repaired_s


@contextmanager
def proof_lab() -> Iterator[tuple[Lab, Sight]]:
    """One for all rows."""
    with Lab(map(parse_prefix, ROUTED)) as lab, sight_of(lab) as sight:
        for name in ("udp", "gre"):
            # A lasting flow is asked for once a second or less, on a busy machine.
            lab.gateway.sysctl(f"net.netfilter.nf_conntrack_{name}_timeout", "600")
        yield lab, sight


def row_of(lab: Lab, sight: Sight, directory: Path, fault: Fault) -> Row:
    """Of a gateway as good as new, under the registered traffic. `directory` is empty."""
    clean(lab)
    traffic = RegisteredTraffic(lab, BOUNDED_DEADLINE_S) if fault.bounded else RegisteredTraffic(lab)
    try:
        return run_fault(World(lab, directory, sight), fault, traffic)
    finally:
        clean(lab)
