"""An operator's assertion on a flow: it must pass as registered, or it must not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gatewayd.model.flow import Flow
from gatewayd.model.service import PROTOCOLS_WITH_PORTS, Service

AssertionKind = Literal["must_pass", "must_not_pass"]

Subject = tuple[AssertionKind, str, bytes, bytes, tuple[Service, ...]]

MAX_ASSERTIONS: Final = 200
"""Of all local files together: each is looked up in the kernel every few seconds."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """Of the flows from `source` to `destination`, addresses of one family, with each of `services`. A service is a
    protocol without ports, or one port of one. `until_s`: Unix seconds, inf: for ever. `line` of `file` has it."""

    kind: AssertionKind
    name: str
    source: bytes
    destination: bytes
    services: tuple[Service, ...]
    comment: str
    until_s: float
    line: int
    file: str = ""

    @property
    def flows(self) -> tuple[Flow, ...]:
        """One for each service."""
        return tuple(
            Flow(each.protocol, self.source, self.destination, 0, each.low)
            if each.protocol in PROTOCOLS_WITH_PORTS
            else Flow(each.protocol, self.source, self.destination)
            for each in self.services
        )

    @property
    def subject(self) -> Subject:
        """What it is about; where it stands and its comment may be others."""
        return self.kind, self.name, self.source, self.destination, self.services

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"
