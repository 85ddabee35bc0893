"""The answers about the registry behind what is in force: pins and filters, removals that are held, changes.

Times are RFC 3339 in UTC; None: no such moment.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gatewayd.model import Registration, service_words
from gatewayd.model.moment import format_time
from gatewayd.model.registration import RejectedRecord
from gatewayd.registry.endpoint_guard import HeldBack
from gatewayd.registry.history import Step
from gatewayd.registry.standing import HeldRemoval, OverrideNote, Standing


class OverrideView(msgspec.Struct, frozen=True):
    """A local pin or filter in force. `subject`: its id or prefix. `file`: its name, without directory."""

    kind: Literal["pin", "filter"]
    subject: str
    file: str
    line: int
    comment: str
    until: str | None

    def __str__(self) -> str:
        end = f", until {self.until}" if self.until else ""
        return f"{self.kind} of {self.subject} in {self.file}:{self.line} ({self.comment}){end}"


class StandingView(msgspec.Struct, frozen=True):
    """`source`: the one that counts; None: no source has the id. `also_in`: later sources that have it too.
    `held_since`: a removal is held since then, brought about by `held_cause`. `dropped`: a filter takes it away
    whole; `trimmed`: some of its client prefixes, and `clients` are those that the source has."""

    source: str | None
    also_in: tuple[str, ...] = ()
    pin: OverrideView | None = None
    filters: tuple[OverrideView, ...] = ()
    dropped: bool = False
    trimmed: bool = False
    clients: tuple[str, ...] = ()
    held_since: str | None = None
    held_cause: str | None = None

    @property
    def is_out_of_force(self) -> bool:
        """A filter took it away, and nothing of it is held."""
        return self.dropped and self.held_since is None


class HeldRemovalView(msgspec.Struct, frozen=True):
    """In force as before, until `gatewayd accept`. `becomes`: what comes then; `prefixes` go. `flows`: that are
    alive."""

    id: str
    category: str
    prefixes: tuple[str, ...]
    becomes: Literal["nothing", "another form"]
    cause: str
    since: str | None
    flows: int
    registrant: str | None = None


class HeldRegistrant(msgspec.Struct, frozen=True):
    """A company of which removals are held. `of`: how many of its registrations are in force."""

    registrant: str
    held: int
    of: int

    @property
    def is_whole(self) -> bool:
        """Nothing of it would be left."""
        return self.held >= self.of


class HeldEndpointsView(msgspec.Struct, frozen=True):
    """An addition that waits: not in force. `replaces`: endpoints that are in force under its id."""

    id: str
    registrant: str | None
    endpoints: tuple[str, ...]
    services: tuple[str, ...]
    replaces: tuple[str, ...]
    cause: str
    since: str | None


class HeldList(msgspec.Struct, frozen=True):
    """`serial`: what `gatewayd accept` takes. `total`: ids that are held, of which `items` begins at `offset`.
    `elements`: of the kernel, that a start found and no registration wants; `elements_serial` is theirs.
    `registrants`: whose the removals are. `endpoints`: additions of providers, accepted by their own serial."""

    serial: int
    since: str | None
    reason: str
    total: int
    offset: int
    items: tuple[HeldRemovalView, ...]
    elements: int = 0
    elements_serial: int = 0
    registrants: tuple[HeldRegistrant, ...] = ()
    endpoints: tuple[HeldEndpointsView, ...] = ()
    endpoints_serial: int = 0
    endpoints_reason: str = ""


class RejectedView(msgspec.Struct, frozen=True):
    """A record that is not usable, by its place: a line of the reading of this serial, or of a delta that led to
    it. `id` None: it has none that is usable. `field`: the name of the field at fault. Nothing of its content."""

    source: str
    serial: int
    line: int
    id: str | None
    code: str
    field: str
    is_delta: bool


class RejectedList(msgspec.Struct, frozen=True):
    """`total`: rejected records since each source was last read whole. `listed`: of them those whose place is
    known, of which `items` begins at `offset`."""

    total: int
    listed: int
    offset: int
    items: tuple[RejectedView, ...]


class StepView(msgspec.Struct, frozen=True):
    """What one event changed. `cause`: a source, or a word with a `/`. `by`: who accepted. `omitted`: ids that are
    counted and not listed."""

    at: str | None
    cause: str
    serial: int
    by: str
    came: tuple[str, ...]
    went: tuple[str, ...]
    changed: tuple[str, ...]
    omitted: int


class ChangeList(msgspec.Struct, frozen=True):
    """Steps of this run, the oldest first. `dropped`: how many older ones are forgotten."""

    dropped: int
    items: tuple[StepView, ...]


def override_view(note: OverrideNote) -> OverrideView:
    until = format_time(note.until_s)
    return OverrideView(note.kind, note.subject, note.file, note.line, note.comment, until)


def standing_view(standing: Standing) -> StandingView:
    """Of an id that is known."""
    said, registered, held = standing.in_source, standing.registered, standing.held
    clients = () if said is None else _words(said)
    return StandingView(
        standing.source,
        standing.also_in,
        None if standing.pin is None else override_view(standing.pin),
        tuple(map(override_view, standing.filters)),
        dropped=said is not None and registered is None,
        trimmed=standing.pin is None and registered is not None and clients != _words(registered),
        clients=clients,
        held_since=None if held is None else format_time(held.since_s),
        held_cause=None if held is None else held.cause,
    )


def held_removal_view(removal: HeldRemoval, flows: int) -> HeldRemovalView:
    kept = {prefix for each in removal.versions for prefix in (*each.clients, *each.endpoints)}
    now = removal.registered
    stays = set() if now is None else {*now.clients, *now.endpoints}
    return HeldRemovalView(
        removal.id,
        removal.versions[0].category,
        tuple(map(str, sorted(kept - stays))),
        "nothing" if now is None else "another form",
        removal.cause,
        format_time(removal.since_s),
        flows,
        removal.versions[-1].registrant,
    )


def held_endpoints_view(id: str, held: HeldBack) -> HeldEndpointsView:
    wanted = held.wanted
    return HeldEndpointsView(
        id,
        None if wanted is None else wanted.registrant,
        () if wanted is None else tuple(map(str, wanted.endpoints)),
        () if wanted is None else service_words(wanted.services),
        () if held.before is None else tuple(map(str, held.before.endpoints)),
        held.cause,
        format_time(held.since_s),
    )


def rejected_view(source: str, record: RejectedRecord) -> RejectedView:
    return RejectedView(source, record.serial, record.line, record.id, record.code, record.field, record.is_delta)


def step_view(step: Step) -> StepView:
    return StepView(
        format_time(step.at_s), step.cause, step.serial, step.by, step.came, step.went, step.changed, step.omitted
    )


def _words(registration: Registration) -> tuple[str, ...]:
    return tuple(map(str, registration.clients))
