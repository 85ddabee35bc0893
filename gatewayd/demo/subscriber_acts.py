"""The acts of a freelancer without a fixed address: registered by mobile number, known by accounting."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gatewayd.demo import cast
from gatewayd.demo.gateway import DemoGateway
from gatewayd.demo.nas import INTERIM, NAS_NAME, START, STOP, DemoNas
from gatewayd.demo.stage import Stage
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import RATE_PPS, SETTLE_PACKETS, Stream
from gatewayd.lab.traffic import probe
from gatewayd.model import Flow

_SESSION, _NEXT_SESSION = "0042-demo", "0043-demo"
_HOME, _AWAY = cast.MOBILE_ADDRESSES


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
        return cast.flow(address, cast.ELSEWHERE, "udp/51820", next(self._ports))

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
            ", ".join(f"{each['prefix']} told by {each['nas']}" for each in bindings),
        )
        self._nas.tell(STOP, _SESSION, cast.MOBILE_NUMBER, _AWAY)
        flow = self.flow()
        self._gateway.wait(lambda: self._gateway.explain(flow)["decision"] == "unregistered", "the Stop")
        self._gateway.wait_in_sync()
        self._stage.promise("after Accounting-Stop a new flow is refused", probe(self._lab, [flow]) == ["rejected"])

    def _reason(self, flow: Flow) -> str:
        return str(self._gateway.explain(flow)["reason"])
