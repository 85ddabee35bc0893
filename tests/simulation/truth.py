"""What is registered by the word of registry, operator and NAS, and which flows no write may take away.

Nothing of it is asked of the program. A flow is *certain* while every state that the program may go by registers
it: the present one, the one that it was given last, and those that are on their way to it. A flow that passes and
is certain has to pass after the next write as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Ports, Registration
from gatewayd.sources.override_file import OverrideFile
from tests.simulation.loop import Clock
from tests.simulation.oracle import ALL, flows_at, flows_of

State = Mapping[str, Registration]
Times = Sequence[tuple[float, float]]
"""The earliest and the latest that it may be, once for each way in which the process may judge that."""
MARGIN_S: Final = 5.0
"""A window that has opened counts as open for certain so long after."""
ROUNDING_S: Final = 0.001
PINS: Final = "pins"


@dataclass(slots=True)
class Session:
    """As its NAS knows it. `is_sure`: no other session has had an address of it. `heard_by`: the life that has
    received a record of it, and so knows it."""

    nas: str
    id: str
    subscriber: bytes
    places: tuple[tuple[Prefix, Ports], ...]
    at_s: float
    is_sure: bool = True
    heard_by: int = 0


@dataclass(slots=True)
class Source:
    """`present`: as published. `given`: as the running process has it for certain, None before it has read any of
    it; `restored`: as its last good had it. `under_way`: states that it may have taken meanwhile.

    `in_kernel`: what the kernel had all of, and every state that some process may have gone by since; only None
    says that this is not known. What is in all of them is in the kernel, and a start finds it.
    """

    present: State = field(default_factory=dict)
    given: State | None = None
    restored: State | None = None
    under_way: list[State] = field(default_factory=list)
    in_kernel: list[State] | None = None

    def settle(self) -> None:
        """The kernel has all of what the process has."""
        if self.given is not None:
            self.in_kernel = [self.given, *self.under_way]

    def forget(self) -> None:
        """Another process: what it knows is not known yet."""
        self.given = self.restored = None
        self.under_way = []

    def note(self, state: State) -> None:
        """The process may go by it from now on."""
        self.under_way.append(state)
        if self.in_kernel is not None:
            self.in_kernel.append(state)


class Truth:
    """`sources`: with PINS among them. `life`: the number of the running process. Asked of the moment."""

    def __init__(
        self, names: Iterable[str], configured: Collection[str], clock: Clock, session_timeout_s: float
    ) -> None:
        self._clock = clock
        self.configured: Collection[str] = configured
        self.published: dict[str, State] = {name: {} for name in names}
        self.sources = {name: Source() for name in (*names, PINS)}
        self.filtered: list[frozenset[str]] = [frozenset()]
        """Ids that filters drop: at present, and by files that the process has or may have."""
        self.sessions: dict[str, Session] = {}
        self.life = 0
        self.version = 0
        """Another after each change."""
        self._timeout_s = session_timeout_s
        self._cached: tuple[float, int, int, int, int] | None = None
        self._flows = FlowsOfStates()

    def changed(self) -> None:
        self._cached = None
        self.version += 1

    # -- sessions ------------------------------------------------------------------------------------------

    def begin_session(self, session: Session) -> None:
        """Others that have had an address of it may be over."""
        self._doubt_others(session, self.sessions.values())
        self.sessions[session.id] = session
        self.changed()

    def confirm_session(self, session: Session, now: float) -> None:
        """The last record of an address decides whose it is, also where it is of an older session."""
        others = [each for each in self.sessions.values() if each.subscriber != session.subscriber]
        self._doubt_others(session, others)
        session.at_s = now
        self.changed()

    def _doubt_others(self, session: Session, others: Iterable[Session]) -> None:
        for each in others:
            if any(_overlap(one, other) for one in each.places for other in session.places):
                each.is_sure = False

    def end_session(self, session: Session) -> None:
        del self.sessions[session.id]
        self.changed()

    def doubt_nas(self, nas: str) -> None:
        """It began again: its sessions may be over."""
        for each in self.sessions.values():
            each.is_sure = each.is_sure and each.nas != nas
        self.changed()

    def note_received(self, event: AccountingEvent) -> None:
        """The process has it."""
        session = self.sessions.get(event.session)
        if session is not None and event.kind != "stop":
            session.heard_by = self.life
        self.changed()

    # -- flows ---------------------------------------------------------------------------------------------

    def _alive(self, now: float, *, knows: bool) -> list[Session]:
        return [
            each
            for each in self.sessions.values()
            if each.is_sure and now < each.at_s + self._timeout_s and (not knows or each.heard_by == self.life)
        ]

    def registered(self) -> int:
        """By all that is published."""
        filtered, alive = self.filtered[-1], self._alive(self._clock.true_s(), knows=False)
        times = self._times()[-1:]
        return sum_of(self._flows.of(each.present, filtered, alive, times, 0.0) for each in self.sources.values())

    def certain(self) -> int:
        """Those that no write of the process may take out of the sets."""
        return self._look()[1]

    def known(self) -> int:
        """Those that the process has to know of before its rules refuse anything."""
        return self._look()[2]

    def possible(self) -> int:
        """Those that some state registers by which the process may go, for any session, at any time it may be."""
        return self._look()[3]

    def draining(self) -> int:
        """Those of which the process may have begun to end the connections: no state registers them for a session
        that is sure, by each time that it may be."""
        return ALL & ~self._look()[4]

    def _times(self) -> Times:
        now = self._clock.true_s()
        return [
            (now + each.earliest_s, now + each.latest_s) for each in self._clock.host.spans(self._clock.elapsed_s)
        ]

    def _look(self) -> tuple[float, int, int, int, int]:
        cached, true_s = self._cached, self._clock.true_s()
        if cached is not None and cached[0] == true_s:
            return cached
        filtered, alive = frozenset[str]().union(*self.filtered), self._alive(true_s, knows=True)
        now = self._times()
        flows, certain, known, possible, kept = self._flows, 0, 0, 0, 0
        sure = self._alive(true_s, knows=False)
        everybody, dropped = list(self.sessions.values()), self.filtered[-1].intersection(*self.filtered)
        for source in self.sources.values():
            states = [source.present, *source.under_way]
            mine = flows.of_all(states, filtered, alive, now)
            if source.given is not None:
                mine &= flows.of(source.given, filtered, alive, now, MARGIN_S)
            elif source.in_kernel is not None:
                mine &= flows.of_all(source.in_kernel, filtered, alive, now)
                if source.restored is not None:
                    # By an older last good a window may have closed: that is known, and what is retained is not.
                    ever = flows.of(source.restored, filtered, alive, [(-inf, inf)], 0.0)
                    mine &= ~ever | flows.of(source.restored, filtered, alive, now, MARGIN_S)
            elif source.restored is not None:
                mine &= flows.of(source.restored, filtered, alive, now, MARGIN_S)
            else:
                mine = 0
            certain |= mine
            has = source.given if source.given is not None else source.restored
            if has is not None:
                known |= mine & flows.of(has, filtered, alive, now, MARGIN_S)
            for state in (*states, *([] if has is None else [has])):
                for time in now:
                    possible |= flows.of(state, dropped, everybody, [time], 0.0)
                kept |= flows.of(state, dropped, sure, now, 0.0)
        self._cached = true_s, certain, known, possible, kept
        return self._cached

    # -- what the process learns -----------------------------------------------------------------------------

    def settle(self) -> None:
        """The kernel has all of what the process has."""
        for each in self.sources.values():
            each.settle()
        self._cached = None

    def lose_kernel(self) -> None:
        """It is empty, as after a power cut."""
        for each in self.sources.values():
            each.in_kernel = None
        self.changed()

    def begin_life(self) -> int:
        """The number of the process that begins."""
        self.life += 1
        for each in self.sources.values():
            each.forget()
        self.filtered = self.filtered[-1:]
        self.changed()
        return self.life

    def note_start(self, knows_session: Callable[[str, str], bool]) -> None:
        """`knows_session`: whether the journal that it starts from has a session, by NAS and id, and can tell its
        age."""
        for each in self.sessions.values():
            each.heard_by = self.life if knows_session(each.nas, each.id) else 0
        self.changed()

    def note_published(self, source: str, state: State) -> None:
        """Of a source that no file names nothing is registered."""
        self.published[source] = state
        if source in self.configured:
            self.sources[source].present = state
        self.changed()

    def note_configured(self, sources: Collection[str]) -> None:
        """The file names these; the process may go by it from now on."""
        for name in self.published:
            if (name in sources) != (name in self.configured):
                found = self.sources[name]
                found.present = self.published[name] if name in sources else {}
                found.note(found.present)
        self.configured = sources
        self.changed()

    def note_used(self, sources: Collection[str]) -> None:
        """The process goes by a file that names these; what it asked another source for, it leaves."""
        for name in self.published:
            if name not in sources:
                self.sources[name].given = {}
                self.sources[name].under_way.clear()
        self.changed()

    def note_restored(self, source: str, state: State) -> None:
        self.sources[source].restored = state
        self.changed()

    def note_fetched(self, source: str, state: State) -> None:
        self.sources[source].note(state)
        self.changed()

    def note_delivered(self, source: str, state: State) -> None:
        found = self.sources[source]
        found.given = state
        if state in found.under_way:
            del found.under_way[: found.under_way.index(state) + 1]
        self.changed()

    # -- pins and filters ----------------------------------------------------------------------------------

    def note_files(self, files: tuple[OverrideFile, ...]) -> None:
        """The operator wrote them; the process may read them from now on."""
        self.sources[PINS].present = state = pins_of(files)
        self.sources[PINS].note(state)
        self.filtered.append(filtered_by(files))
        self.changed()

    def note_laid(self, files: tuple[OverrideFile, ...]) -> None:
        """The process has them."""
        pins = self.sources[PINS]
        pins.given = pins_of(files)
        if pins.given == pins.present:
            pins.under_way.clear()
            self.filtered = self.filtered[-1:]
        self.changed()


def _overlap(one: tuple[Prefix, Ports], other: tuple[Prefix, Ports]) -> bool:
    (prefix, ports), (theirs, their_ports) = one, other
    if len(prefix.packed) != len(theirs.packed):
        return False
    if not (prefix.covers(theirs.packed) or theirs.covers(prefix.packed)):
        return False
    return ports is None or their_ports is None or (ports[0] <= their_ports[1] and their_ports[0] <= ports[1])


def pins_of(files: tuple[OverrideFile, ...]) -> State:
    return {pin.id: pin.registration for file in files for pin in file.pins}


def filtered_by(files: tuple[OverrideFile, ...]) -> frozenset[str]:
    return frozenset(each.id for file in files for each in file.filters if each.id is not None)


def sum_of(some: Iterable[int]) -> int:
    found = 0
    for each in some:
        found |= each
    return found


def _is_open(opens: float, closes: float, now: Times, margin_s: float) -> bool:
    """A time that is worked out from another is off by some bits, also at the end of a window."""
    closes -= ROUNDING_S if margin_s else 0.0
    return all(latest >= opens + margin_s and earliest < closes for earliest, latest in now)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A state without what is filtered. `always`: flows that no time and no session decides. `state` keeps the
    object alive: it is found by its identity."""

    state: State
    always: int
    others: tuple[Registration, ...]


def _sort(state: State, filtered: frozenset[str]) -> _Sorted:
    always, others = 0, []
    for id, each in state.items():
        if id in filtered:
            continue
        if each.subscriber is None and each.valid_from_s == -inf and each.valid_until_s == inf:
            always |= flows_of(each)
        else:
            others.append(each)
    return _Sorted(state, always, tuple(others))


class FlowsOfStates:
    """The flows that states register. A state is asked for at every write, and never changed."""

    def __init__(self) -> None:
        self._sorted: dict[tuple[int, frozenset[str]], _Sorted] = {}

    def of(self, state: State, filtered: frozenset[str], alive: list[Session], now: Times, margin_s: float) -> int:
        """For the sessions that are `alive`; a window counts as open `margin_s` after it may have opened, until it
        has closed for certain."""
        key = id(state), filtered
        known = self._sorted.get(key)
        if known is None:
            known = self._sorted[key] = _sort(state, filtered)
        found = known.always
        for each in known.others:
            opens, closes = each.valid_from_s, each.valid_until_s
            if (opens > -inf or closes < inf) and not _is_open(opens, closes, now, margin_s):
                continue
            if each.subscriber is None:
                found |= flows_of(each)
                continue
            for session in alive:
                if session.subscriber == each.subscriber:
                    for prefix, ports in session.places:
                        found |= flows_at(each, prefix, ports)
        return found

    def of_all(self, states: list[State], filtered: frozenset[str], alive: list[Session], now: Times) -> int:
        """Those that every one of the states registers."""
        found = -1
        for each in states:
            found &= self.of(each, filtered, alive, now, MARGIN_S)
        return found
