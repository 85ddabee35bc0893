"""What the API asks of the daemon. The daemon implements it; tests have a fake.

Answers are views, made in one turn of the loop: nothing that is asked here waits, except `sync` and `accept`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gatewayd.api.views import (
    ExplainView,
    FlowPage,
    MetricsView,
    RegistrationPage,
    RegistrationView,
    StatusView,
)
from gatewayd.model import Flow, Status


class Queries(Protocol):
    """Read only, all but `sync` and `accept`, which the API offers on its Unix socket alone."""

    def is_alive(self) -> str | None:
        """None, or the reason why this process should be restarted."""
        ...

    def readiness(self) -> tuple[str, ...]:
        """Why the kernel cannot be relied on to have the allowlist; empty = ready."""
        ...

    def status(self) -> StatusView: ...

    def metrics(self) -> MetricsView: ...

    def explain(self, flow: Flow) -> ExplainView:
        """What would become of the flow now. `source_port` 0: not given.

        Raises AllowlistIncomplete where a source that was not read yet may register it.
        """
        ...

    def registrations(
        self, category: str | None, status: Status | None, text: str | None, offset: int, limit: int
    ) -> RegistrationPage:
        """Those that meet all conditions given, in a stable order.

        `text`: part of an id, or an address or prefix among or covered by the clients or peers.
        """
        ...

    def registration(self, registration_id: str) -> RegistrationView | None: ...

    def flows(self, registration_id: str | None, offset: int, limit: int) -> FlowPage:
        """Live registered flows, all or those of one registration; an unknown id has none."""
        ...

    async def sync(self) -> Mapping[str, object]:
        """Read every source now; returns what came of it, when it is in the kernel.

        May raise GatewaydError, whose message goes to the caller.
        """
        ...

    async def accept(self, serial: int) -> Mapping[str, object]:
        """Release the removals held under this serial; returns what was released.

        Raises GatewaydError (SerialNotHeld) when none are; its message goes to the caller.
        """
        ...
