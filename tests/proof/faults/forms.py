"""Registrations that change form all the time, while other faults happen: what is registered before and after
passes.

Each form covers all flows of the registered traffic. Prefixes are split and merged, services and peers widened and
narrowed. A record takes another id, category, source or end. An address becomes a subscriber's for a while.
Blocks of ports grow and shrink, and a provider's endpoints are cut in two.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from gatewayd.demo.cast import BANK, EMBASSY, FREELANCER, SOFTWARE_HOUSE
from gatewayd.errors import DaemonNotReachable
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of
from gatewayd.lab.world import mobile_number, subscriber_of
from gatewayd.model import Flow
from tests.proof.faults import host, kernel, network
from tests.proof.harness import Fault, World
from tests.soak.world import HOST, Record
from tests.support.lab_daemon import holds
from tests.support.nas import Nas

DAMAGES: Final = 6
"""Times that the fault is made, each at another moment of the changes."""
MET: Final = ("SIGKILL", "nft flush ruleset", "table deleted", "chain flushed: forward", "conntrack -F")
"""Faults that cost nothing by themselves, and are quickly made."""
DEADLINE_S: Final = 120.0
ENDPOINT_PPS: Final = 100.0
_PAUSE_S: Final = 0.02
_NUMBER: Final = 50
PROVIDER: Final[Record] = {
    "id": "PROOF-PROVIDER",
    "category": "provider",
    "status": "active",
    "endpoints": ["192.0.2.0/24", "2001:db8:aa::/48"],
    "services": ["wireguard"],
}
_ANY_FAR_END: Final = ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/32"]

FORMS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "DEMO-SOFTWARE-HOUSE": (
        {"clients": ["39.32.64.8/30", "39.32.64.12/30", "2400:adc0:100::/56"]},
        {"clients": ["39.32.64.0/28", "2400:adc0:100::/57", "2400:adc0:100:80::/57"]},
        {"clients": ["39.32.64.8/29", "39.32.64.10/32", "2400:adc0:100::/40"]},
        {"services": []},
        {"services": ["udp/51820", "openvpn", "pptp", "ipsec"]},
        {"peers": _ANY_FAR_END},
        {"category": "bank"},
        {"registrant": "AC-1", "valid_until": "2099-01-01T00:00:00Z"},
    ),
    "DEMO-BANK": (
        {"services": ["udp/500", "udp/4500", "esp", "ah"]},
        {"services": ["ipsec", "udp/51820"]},
        {"services": []},
        {"peers": ["198.51.100.0/24", "2001:db8:7::/48"]},
        {"peers": []},
        {"clients": ["39.32.0.0/29", "39.32.0.8/29", "2400:adc0:12::/48"]},
        {"clients": ["39.32.0.0/27"], "category": "embassy"},
    ),
    "DEMO-EMBASSY": (
        {"clients": ["39.33.7.0/28", "39.33.7.16/28", "2400:adc1:7::/49", "2400:adc1:7:8000::/49"]},
        {"clients": ["39.33.7.0/27", "2400:adc1::/36"]},
        {"peers": _ANY_FAR_END},
        {"services": ["ipsec", "openvpn", "udp/51820"]},
        {"provisional": True, "valid_until": "2098-01-01T00:00:00Z"},
    ),
    "SOAK-HOST": (
        {"clients": ["39.36.0.0/31"]},
        {"clients": ["39.36.0.0/24"], "services": ["ipsec", "udp/1701", "wireguard"]},
        {"peers": _ANY_FAR_END},
    ),
    "PROOF-PROVIDER": (
        {"endpoints": ["192.0.2.0/25", "192.0.2.128/25", "2001:db8:aa::/49", "2001:db8:aa:8000::/49"]},
        {"services": ["ipsec", "wireguard"]},
        {"category": "bank"},
    ),
}


def endpoint_flows() -> list[Flow]:
    """Of customers that are not registered, to the provider; each another one."""
    flows = []
    for number in range(30_000):
        flows.append(flow_of(f"39.47.0.{number % 250}", f"192.0.2.{number % 254 + 1}", "udp/51820", 2000 + number))
        flows.append(
            flow_of("2400:adc1:aaaa::1", f"2001:db8:aa:{number % 60_000:x}::1", "udp/51820", 2000 + number)
        )
    return flows


class Forms:
    """Changes one thing after another, each once the daemon has the last in the kernel, or is away."""

    def __init__(self, world: World, seed: int) -> None:
        self.changes = 0
        self._world = world
        self._chance = random.Random(seed)
        self._base: dict[str, Record] = {each["id"]: each for each in (*world.constant, PROVIDER)}
        self._national, self._desk = dict(self._base), {each["id"]: each for each in (HOST, FREELANCER)}
        self._sessions = 0
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="forms", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, changes: int) -> None:
        """Until so many more were made. Raises what ended the thread."""
        wanted = self.changes + changes
        holds(lambda: self.changes >= wanted or self._failure is not None, DEADLINE_S)
        assert self._failure is None, self._failure
        assert self.changes >= wanted, "the registrations change no more"

    def stop(self) -> None:
        """With all of them in their first form."""
        self._stopping.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        moves: list[Callable[[], None]] = [self._rename, self._move, self._bind, self._grow_blocks]
        try:
            while not self._stopping.is_set():
                steps = [*moves]
                steps += [partial(self._change, id, form) for id, forms in FORMS.items() for form in forms]
                self._chance.shuffle(steps)
                for step in steps:
                    if self._stopping.is_set():
                        break
                    step()
            self._national = dict(self._base)
            self._publish()
        except BaseException as failure:
            self._failure = failure

    # -- changes -------------------------------------------------------------------------------------------

    def _change(self, id: str, form: dict[str, Any]) -> None:
        """From the form that it has, to the first with these in place."""
        self._put(self._base[id] | form)

    def _rename(self) -> None:
        """In one reading: one id goes, and another comes with the same in it."""
        for each in (BANK, EMBASSY):
            other = self._national.pop(each["id"]) | {"id": f"{each['id']}-2"}
            self._put(other)
            del self._national[other["id"]]
            self._put(each)

    def _move(self) -> None:
        """From one source to the other, and back; the next one has it before the last one lets it go."""
        for each in (SOFTWARE_HOUSE, HOST):
            id = each["id"]
            self._desk[id] = self._base[id]
            self._publish()
            former = self._national.pop(id)
            self._publish()
            self._put(former)

    def _bind(self) -> None:
        """The host's address is a subscriber's for a while."""
        id, both = HOST["id"], HOST | {"subscriber": subscriber_of(_NUMBER)}
        self._desk.pop(id, None)
        self._sessions += 1
        words = f"forms-{self._sessions}", f"+{mobile_number(_NUMBER)}", "39.36.0.1"
        with Nas(self._world.lab.gateway, "bng-1") as nas:
            self._put(both)
            nas.start(*words)
            self._put(both | {"clients": []})
            self._put(both)
            nas.stop(*words)
        self._put(HOST)

    def _put(self, record: Record) -> None:
        self._national[record["id"]] = record
        self._publish()

    def _grow_blocks(self) -> None:
        self._world.cgnat.change()
        self.changes += 1

    def _publish(self) -> None:
        """To the source that takes over first."""
        daemon = self._world.daemon
        daemon.write_registry("desk", self._desk.values())
        self._sync()
        daemon.write_registry("national", self._national.values())
        self._sync()
        self.changes += 1

    def _sync(self) -> None:
        """Both have been read, and are in the kernel."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                self._world.daemon.sync()
            except DaemonNotReachable:
                time.sleep(_PAUSE_S)
            else:
                return
        raise AssertionError("the daemon does not come back")


@contextmanager
def changing(world: World) -> Iterator[Forms]:
    """Registrations change form within it, and have their first form at its end. Flows to the provider's endpoints
    lose nothing meanwhile."""
    forms = Forms(world, random.randrange(1_000_000))
    with Stream(world.lab, endpoint_flows(), rate_pps=ENDPOINT_PPS) as stream:
        forms.start()
        try:
            yield forms
        finally:
            forms.stop()
    report = stream.report()
    assert report.lost == (), (
        f"{len(report.lost)} of {report.sent} packets to endpoints, {len(report.rejected)} refused"
    )


def while_forms_change(fault: Fault, damages: int = DAMAGES) -> Fault:
    """The fault made again and again at other moments."""

    @contextmanager
    def prepare(world: World) -> Iterator[None]:
        world.records = (*world.constant, PROVIDER)
        world.sources = tuple(
            {"name": name, "url": f"file:{world.directory}/{name}.ndjson", "allow_unsigned": True}
            | {"allow_endpoints": True}
            for name in ("national", "desk")
        )
        world.daemon.write_registry("desk", [HOST, FREELANCER])
        with network.named_interfaces(world), fault.prepare(world):
            yield

    @contextmanager
    def make(world: World) -> Iterator[None]:
        with changing(world) as forms:
            forms.wait(3)
            for _ in range(damages):
                with fault.make(world):
                    forms.wait(2)
        world.expect()
        world.mark()
        yield
        world.hears("registry.applied")

    return Fault(
        f"{fault.name}, while registrations change form", f"{damages} times, between any two forms.", make, prepare
    )


@contextmanager
def nothing(_: World) -> Iterator[None]:
    """The changes alone."""
    yield


ALONE: Final = while_forms_change(Fault("registrations change form", "", nothing), 30)
"""Long enough for every form."""
FAULTS: Final = (
    Fault(
        "registrations change form",
        "Prefixes, services, peers, ids, categories, sources, subscribers, port blocks, endpoints: all the time.",
        ALONE.make,
        ALONE.prepare,
    ),
    *(while_forms_change(each) for each in (*host.FAULTS, *kernel.FAULTS) if each.name in MET),
    *(while_forms_change(each, 1) for each in network.FAULTS if not each.bounded),
)
