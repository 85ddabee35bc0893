"""The questions about changes of the mode, and what a change of it is asked with."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gatewayd.model import Mode
from gatewayd.trial.views import ArmingView


class ModeRequest(NamedTuple):
    """`canary_percent` None: as it is. Of `confirm_s` and `for_s` one is there at most. `by`: who asks."""

    mode: Mode
    canary_percent: int | None
    confirm_s: int | None
    for_s: int | None
    comment: str
    is_forced: bool
    by: str


class ArmingQueries(Protocol):
    """What the API asks of changes. All but `view` and `report` change something. They raise InputRejected with one
    sentence."""

    def view(self) -> ArmingView: ...

    async def report(self) -> bytes | None:
        """Of the latest trial that was not confirmed, as a page."""
        ...

    async def set_mode(self, request: ModeRequest) -> None: ...

    async def confirm(self, by: str) -> None: ...

    async def revert(self, by: str) -> None: ...

    async def rearm(self, by: str) -> None: ...

    async def acknowledge(self, by: str) -> None: ...
