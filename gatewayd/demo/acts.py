"""The stage that the demo is printed on, and its acts about the registry and about a subscriber, always under
registered traffic."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatewayd.authority.publishing import PublishReport
from gatewayd.demo import cast
from gatewayd.demo.gateway import INTERIM, NAS_NAME, START, STOP, DemoGateway, DemoNas
from gatewayd.demo.registry import DemoRegistry
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import RATE_PPS, SETTLE_PACKETS, Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow

LEFT_OF_IT = 10
"""The registry shrinks to one part in so many."""
_SESSION, _NEXT_SESSION = "0042-demo", "0043-demo"
_HOME, _AWAY = cast.MOBILE_ADDRESSES


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that was to be so, and whether it was."""

    text: str
    kept: bool
    detail: str


class Stage:
    """Prints to a console; keeps the promises for the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._act = 0
        self.promises: list[Promise] = []

    def act(self, title: str) -> None:
        self._act += 1
        self._console.print()
        self._console.print(Text(f"{self._act}. {title}", style="bold"))

    def say(self, text: str) -> None:
        self._console.print(Text("   " + text))

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner on a terminal; elsewhere the line alone."""
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self._console.print(Text(f"   … {text}"))
            yield

    def promise(self, text: str, kept: bool, detail: str = "") -> None:
        """Print and keep one."""
        self.promises.append(Promise(text, kept, detail))
        sign = Text("   ✓ ", style="bold green") if kept else Text("   ✗ ", style="bold red")
        self._console.print(sign + Text(text) + Text(f"  {detail}" if detail else "", style="dim"))

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], bad: frozenset[int] = frozenset()
    ) -> None:
        """`bad`: numbers of the rows that are not as promised."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("")
        for number, column in enumerate(columns):
            # The last column gives way where the terminal is narrow.
            width = max(len(column), *(len(row[number]) for row in rows)) if number < len(columns) - 1 else None
            table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=width)
        for number, row in enumerate(rows):
            style = "bold red" if number in bad else ""
            table.add_row("  ✗" if number in bad else "   ", *(Text(cell, style=style) for cell in row))
        self._console.print(table)

    def summary(self) -> bool:
        """Whether every promise was kept."""
        broken = [promise for promise in self.promises if not promise.kept]
        self._console.print()
        if broken:
            self._console.print(
                Text(f"{len(broken)} of {len(self.promises)} promises were broken:", style="bold red")
            )
            for promise in broken:
                self._console.print(Text(f"   ✗ {promise.text}  {promise.detail}"))
        else:
            self._console.print(Text(f"All {len(self.promises)} promises were kept.", style="bold green"))
        return not broken


class RegistryActs:
    """`ports`: source ports that no flow has had. The registry is published and served, the mode is reject."""

    def __init__(
        self, stage: Stage, lab: Lab, gateway: DemoGateway, registry: DemoRegistry, ports: Iterator[int]
    ) -> None:
        self._stage = stage
        self._lab = lab
        self._gateway = gateway
        self._registry = registry
        self._ports = ports

    def come_and_go(self) -> None:
        self._stage.act("A registration comes and goes while its traffic flows")
        latecomer = self._latecomer()
        with Stream(self._lab, [latecomer], rate_pps=RATE_PPS) as stream:
            self._stage.promise(
                "before it is registered, the flow is refused",
                not stream.wait_for_arrivals(1, 0.5),
                self._reason(latecomer),
            )
            self._registry.upsert(cast.LATECOMER)
            report = self._registry.publish()
            began = time.monotonic()
            self._gateway.sync()
            passes = stream.wait_for_arrivals(1)
            took_ms = (time.monotonic() - began) * 1000
            self._stage.promise(
                "registered, published, read: it passes",
                passes,
                f"{_published(report)}; {took_ms:.0f} ms from there to the first packet that passed",
            )
            self._stage.say(self._reason(latecomer))
            self._registry.revoke(cast.LATECOMER["id"])
            report = self._registry.publish()
            self._gateway.sync()
            self._gateway.wait(
                lambda: self._gateway.explain(latecomer)["decision"] == "unregistered", "the revocation"
            )
            self._stage.promise(
                "revoked: the live flow is drained, not cut at once",
                stream.wait_for_arrivals(SETTLE_PACKETS),
                f"{_published(report)}; drain: 2s",
            )
            self._stage.promise(
                "a new flow of it is refused meanwhile", probe(self._lab, [self._latecomer()]) == ["rejected"]
            )
            began = time.monotonic()
            while stream.wait_for_arrivals(1, 0.5) and time.monotonic() - began < 10:
                pass
            self._stage.promise("after the drain the old flow is refused too", not stream.wait_for_arrivals(1, 0.5))
        done = ", ".join(self._registry.audit(cast.LATECOMER["id"]))
        self._stage.say(f"the registry's audit of {cast.LATECOMER['id']}: {done}")

    def lose_faith(self, records: Sequence[Any]) -> None:
        """`records`: the whole registry, which it has again at the end."""
        self._stage.act("A registry that is forged, or loses most of itself, is not believed")
        with Stream(self._lab, cast.registered_flows(next(self._ports)), rate_pps=RATE_PPS) as stream:
            stream.wait_for_arrivals(SETTLE_PACKETS)
            serial = self._gateway.source()["serial"]
            with self._registry.forged():
                error = self._gateway.sync()["errors"].get("national")
            self._stage.promise(
                "what another key has signed is refused",
                error is not None and self._gateway.source()["serial"] == serial,
                error or "it was read",
            )
            self._shrink_and_mend(records)
            stream.wait_for_arrivals(SETTLE_PACKETS)
            self._close_a_branch()
            stream.wait_for_arrivals(SETTLE_PACKETS)
            report = stream.stop()
        self._stage.promise(
            "no registered packet is lost over all that",
            not report.lost and report.sent > 0,
            f"{report.sent:,} sent, {len(report.lost)} lost",
        )

    def _shrink_and_mend(self, records: Sequence[Any]) -> None:
        transactions = self._gateway.status()["kernel"]["transactions"]
        with self._stage.working("somebody imports a file that is cut short, and publishes"):
            self._registry.replace_all(records[: max(1, len(records) // LEFT_OF_IT)])
            report = self._registry.publish()
            self._gateway.sync()
        held = self._gateway.source()["held"]
        fresh = cast.registered_flows(next(self._ports))
        left = f"serial {report.notification.serial} has {report.notification.snapshot.count:,} registrations"
        self._stage.promise(
            "the removals are held, and the gateway stays ready",
            held is not None and self._is_ready(),
            left if held is None else f"{left}; {held['count']:,} held: {held['reason']}",
        )
        self._stage.promise(
            "new flows of those it has lost pass, too",
            set(probe(self._lab, fresh)) == {"passed"},
            f"{len(fresh)} flows",
        )
        with self._stage.working("the registry imports the whole file, and publishes"):
            self._registry.replace_all(records)
            report = self._registry.publish()
            self._gateway.sync()
        self._stage.promise(
            "the registry has them again: nothing is held, and no element was touched",
            self._gateway.source()["held"] is None
            and self._gateway.status()["kernel"]["transactions"] == transactions,
            f"serial {report.notification.serial} has {report.notification.snapshot.count:,}",
        )

    def _close_a_branch(self) -> None:
        """Of a protected category, so that even one removal is held."""
        self._registry.revoke(cast.BRANCH["id"])
        self._registry.publish()
        self._gateway.sync()
        held = self._gateway.source()["held"]
        still = probe(self._lab, [self._branch()])
        serial = held["serial"] if held is not None else 0
        self._gateway.accept(serial)
        closed = self._branch()
        self._gateway.wait(lambda: self._gateway.explain(closed)["decision"] == "unregistered", "the closure")
        self._gateway.wait_in_sync()
        self._stage.promise(
            f"a bank's branch that does close is held too, until `gatewayd accept {serial}`",
            held is not None and still == ["passed"] and probe(self._lab, [closed]) == ["rejected"],
            self._reason(closed),
        )

    def go_away(self) -> None:
        self._stage.act("The registry cannot be reached, and the daemon is started again")
        with Stream(self._lab, cast.registered_flows(next(self._ports)), rate_pps=RATE_PPS) as stream:
            stream.wait_for_arrivals(SETTLE_PACKETS)
            self._registry.stop_serving()
            self._gateway.end()
            self._gateway.start()
            took_s = self._gateway.wait_ready()
            self._gateway.wait(lambda: bool(self._gateway.source()["last_error"]), "the attempt to reach it")
            source = self._gateway.source()
            fresh = cast.registered_flows(next(self._ports))
            self._stage.promise(
                "it is ready by the last good reading on its disk, and new registered flows pass",
                source["restored_at"] is not None and set(probe(self._lab, fresh)) == {"passed"},
                f"after {took_s:.1f} s, with {source['registrations']:,} registrations",
            )
            self._registry.upsert(cast.LATECOMER)
            report = self._registry.publish()
            self._registry.serve()
            self._gateway.sync()
            self._stage.promise(
                "when the registry is back, what it has published meanwhile takes effect",
                probe(self._lab, [self._latecomer()]) == ["passed"],
                _published(report),
            )
            sent = stream.stop()
        self._stage.promise(
            "no registered packet was lost without a registry",
            not sent.lost and sent.sent > 0,
            f"{sent.sent:,} sent, {len(sent.lost)} lost",
        )

    # -- parts ---------------------------------------------------------------------------------------------

    def _latecomer(self) -> Flow:
        """Another flow each time."""
        return flow_of("39.35.200.17", cast.ELSEWHERE, "udp/51820", next(self._ports))

    def _branch(self) -> Flow:
        return flow_of("39.32.1.5", cast.FAR, "udp/4500", next(self._ports))

    def _is_ready(self) -> bool:
        return bool(self._gateway.status().get("ready"))

    def _reason(self, flow: Flow) -> str:
        reason: str = self._gateway.explain(flow)["reason"]
        return reason


def _published(report: PublishReport) -> str:
    """In words, as far as it is a delta that a gateway reads."""
    notification = report.notification
    size_bytes = next((each.size for each in notification.deltas if each.serial == notification.serial), None)
    count = report.upserts + report.withdrawals
    what = f"a delta of {count} record{'' if count == 1 else 's'}, {size_bytes} bytes"
    return f"serial {notification.serial}: {'a snapshot' if size_bytes is None else what}"


class SubscriberActs:
    """`ports`: source ports that no flow has had. The mode is reject."""

    def __init__(self, stage: Stage, lab: Lab, gateway: DemoGateway, nas: DemoNas, ports: Iterator[int]) -> None:
        self._stage = stage
        self._lab = lab
        self._gateway = gateway
        self._nas = nas
        self._ports = ports

    def flow(self, address: str = _AWAY) -> Flow:
        """One that has not been seen."""
        return flow_of(address, cast.ELSEWHERE, "udp/51820", next(self._ports))

    def come(self) -> None:
        self._stage.act("A freelancer registered by mobile number goes online")
        flow = self.flow(_HOME)
        with Stream(self._lab, [flow], rate_pps=RATE_PPS) as stream:
            self._stage.promise(
                "before anybody says whose address it is, the flow is refused",
                not stream.wait_for_arrivals(1, 0.5),
                self._reason(flow),
            )
            began = time.monotonic()
            answered_s = self._nas.tell(START, _SESSION, cast.MOBILE_NUMBER, _HOME)
            passes = stream.wait_for_arrivals(1)
            took_ms = (time.monotonic() - began) * 1000
        self._stage.promise(
            f"{NAS_NAME} sends Accounting-Start: it passes, the flow that was refused before too",
            passes,
            f"{took_ms:.1f} ms to the first packet; answered, and on disk, after {answered_s * 1000:.1f} ms",
        )
        self._stage.say(self._reason(flow))

    def move(self) -> None:
        self._stage.act("The freelancer gets another address, and a stranger the one he had")
        old, new = self.flow(_HOME), self.flow(_AWAY)
        with Stream(self._lab, [old], rate_pps=RATE_PPS) as stream:
            stream.wait_for_arrivals(SETTLE_PACKETS)
            self._nas.tell(INTERIM, _SESSION, cast.MOBILE_NUMBER, _AWAY)
            self._gateway.wait(lambda: self._gateway.explain(new)["in_kernel"] is True, "the new address")
            self._stage.promise("a flow from the new address passes", probe(self._lab, [new]) == ["passed"])
            self._stage.promise(
                "the live flow from the old one is drained, not cut at once",
                stream.wait_for_arrivals(SETTLE_PACKETS),
            )
        self._nas.tell(START, _NEXT_SESSION, cast.STRANGERS_NUMBER, _HOME)
        self._stage.promise(
            "who has the old address now, and is not registered, is refused",
            probe(self._lab, [self.flow(_HOME)]) == ["rejected"],
            self._reason(self.flow(_HOME)),
        )

    def go(self) -> None:
        self._stage.act("The freelancer, still known after the restarts, goes offline")
        bindings = self._gateway.get("/v1/bindings", address=_AWAY)["items"]
        self._stage.promise(
            "the binding outlived the restarts: it was on disk before it was answered",
            len(bindings) == 1 and bindings[0]["registrations"] == [cast.MOBILE["id"]],
            ", ".join(f"{each['prefix']} reported by {each['nas']}" for each in bindings),
        )
        self._nas.tell(STOP, _SESSION, cast.MOBILE_NUMBER, _AWAY)
        flow = self.flow()
        self._gateway.wait(lambda: self._gateway.explain(flow)["decision"] == "unregistered", "the Stop")
        self._gateway.wait_in_sync()
        self._stage.promise("after Accounting-Stop a new flow is refused", probe(self._lab, [flow]) == ["rejected"])

    def _reason(self, flow: Flow) -> str:
        return str(self._gateway.explain(flow)["reason"])
