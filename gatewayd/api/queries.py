"""What the API asks of the daemon. The daemon implements it; tests have a fake.

Answers are views, made in one turn of the loop: nothing that is asked here waits, except what changes something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gatewayd.api.subscriber_views import BindingPage
from gatewayd.api.views import (
    ExplainView,
    FlowPage,
    MetricsView,
    RegistrationPage,
    RegistrationView,
    StatusView,
)
from gatewayd.model import Flow, Prefix, Status


class Queries(Protocol):
    """Read only, all but `sync`, `accept`, `put_bindings` and `delete_binding`, which the API offers on its Unix
    socket alone."""

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

    def bindings(
        self, registration_id: str | None, prefix: Prefix | None, offset: int, limit: int
    ) -> BindingPage | None:
        """Addresses of registered subscribers, all or those of one registration, those that cover `prefix`; an
        unknown id has none. None where the configuration knows no subscribers."""
        ...

    async def put_bindings(self, entries: Sequence[object]) -> Mapping[str, object] | None:
        """Take live sessions, all or none; returns what came of it, when it is on disk. None as in `bindings`.

        Raises SessionEntryInvalid, and SessionsNotKept.
        """
        ...

    async def delete_binding(self, nas: object, session: object, at: object) -> Mapping[str, object] | None:
        """The session is over, at `at` or now; one that nobody knows is no fault. As `put_bindings`."""
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
