"""What a plan asks of a running daemon, and what it answers: a change rehearsed on what is in force."""

from __future__ import annotations

from typing import Final

import msgspec

from gatewayd.model import Mode

MAX_LISTED: Final = 20
"""Ids of a kind that an answer names."""


class PlanRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`config`: the text of a configuration, in the place of that in force, and `filename` for its faults. `mode`
    and `canary` (percent): in the place of the configuration's, from now on. `counts_flows`: live ones too."""

    config: str | None = None
    filename: str = ""
    mode: Mode | None = None
    canary: int | None = None
    counts_flows: bool = True


class HeldPlan(msgspec.Struct, frozen=True):
    """Removals that the guard would hold, or holds already: how many, by what brought them about, and why."""

    by_cause: dict[str, int]
    reason: str


class RegistrationsPlan(msgspec.Struct, frozen=True):
    """Registrations that would come into force, leave it, or change. Of each at most MAX_LISTED ids."""

    came: int = 0
    went: int = 0
    changed: int = 0
    came_ids: tuple[str, ...] = ()
    went_ids: tuple[str, ...] = ()
    changed_ids: tuple[str, ...] = ()


class FlowCounts(msgspec.Struct, frozen=True):
    """Live flows. `loses`, `gains`: registered now and not after, and the other way round. `enters`, `leaves`: the
    scope. Of all that would be unregistered: `refused`, `limited`, `marked`, `passed` (observe, or beyond the
    canary). `is_complete`: all were looked at, within the bounds of number and time."""

    looked_at: int = 0
    registered: int = 0
    loses: int = 0
    gains: int = 0
    enters: int = 0
    leaves: int = 0
    refused: int = 0
    limited: int = 0
    marked: int = 0
    passed: int = 0
    is_complete: bool = True


class PlanView(msgspec.Struct, frozen=True):
    """`faults`: why the configuration, or a local file, would not be taken; then nothing else was looked at.

    `broken`: assertions that the change would break, for which it would be refused. `failing`: those that fail
    now. `waits_for`: sources that must be read first. `added`, `removed`: elements of the allowlist, by mask; None
    where the changes are too many to be compiled. `ruleset`: as nft text, None where it stays.
    """

    faults: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    registrations: RegistrationsPlan = RegistrationsPlan()
    held: tuple[HeldPlan, ...] = ()
    broken: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    assertions: int = 0
    waits_for: tuple[str, ...] = ()
    added: dict[str, int] | None = None
    removed: dict[str, int] | None = None
    new_masks: tuple[str, ...] = ()
    unprogrammed: dict[str, str] = {}
    ruleset: str | None = None
    policy: str = ""
    mode: Mode = "observe"
    flows: FlowCounts = FlowCounts()
    clock_doubt: str | None = None
