"""A run: registry, operator, NAS, other programs and the host around one daemon after another, and what must hold.

After every write to the kernel, and after every event:

- a flow that passed and is registered all along passes (`truth`): in the sets that the rules look into, and, where
  rules come that refuse something, beyond that every registered flow of which the process has to know;
- a flow that is marked registered keeps its mark while it is registered or drains, unless the sets let it pass;
- nothing is armed that no operator armed, and rules of another policy have another epoch.

At the end, when all has come to rest: the sets let pass what is registered and nothing else, each of them is in
use, and the mode is one that an operator wanted, with each trial confirmed or over.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

from gatewayd.api.arming import ModeRequest
from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.compile.ruleset import parse_tag
from gatewayd.control.arming_queries import Arming, check_nothing
from gatewayd.errors import InputRejected
from gatewayd.kernel.fake import FakeSet
from gatewayd.model import Registration
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.flow import Flow, Mode
from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.model.registration import Ports
from gatewayd.model.transaction import CreateSet, Ruleset, RulesTag, Transaction
from gatewayd.settings import PolicySettings, RegistrySettings, RemovalLimit, Settings, SourceSettings
from gatewayd.settings.model import ShrinkGuardSettings, TripSettings
from gatewayd.settings.subscribers import ProfileSettings, SubscriberSettings
from gatewayd.sources.override_file import Filter, OverrideFile, Pin
from tests.simulation.disk import Disk
from tests.simulation.kernel import LAYOUT, Kernel
from tests.simulation.life import STAGE, Life
from tests.simulation.loop import Clock, Dice, SeededLoop
from tests.simulation.oracle import ALL, flows_found, flows_gone
from tests.simulation.parties import FLOWS, PARTIES, SOURCES, names_of
from tests.simulation.script import SUBSCRIBERS, Cue, Script, make_script
from tests.simulation.truth import Session, Truth
from tests.support.reconciling import registered, subscribed

SESSION_TIMEOUT_S: Final = 60.0
ELEMENT_TIMEOUT_S: Final = 30.0
DRAIN_S: Final = 4.0
REPEAT_S: Final = 2.0
"""A NAS sends a record again until it is answered."""
DOUBT_S: Final = 10.0
"""Within which a change that no program told of is found."""
SLACK_S: Final = 6.0
"""What a way back takes at most, once nothing is in its way."""
REST_S: Final = 300.0
"""Within which all has come to rest, once nothing more happens."""

RANK: Final[dict[Mode, int]] = {"observe": 0, "mark": 1, "limit": 2, "reject": 3}
_V4, _V4_NEXT, _BLOCKS = "100.64.0.1", "100.64.0.2", "100.64.0.9"
PLACES: Final[list[tuple[tuple[str, Ports], ...]]] = [
    ((_V4, None),),
    ((_V4_NEXT, None),),
    (("2001:db8:64::/64", None),),
    (("2001:db8:64::/56", None),),
    ((_BLOCKS, (1024, 2047)),),
    ((_BLOCKS, (1000, 2999)),),
    ((_BLOCKS, (2048, 3071)),),
    ((_V4, None), ("2001:db8:64::/64", None)),
    ((_BLOCKS, None),),
]
_PINNED: Final = [
    registered("pin-1", "203.0.113.10", services=["ipsec"]),
    registered("pin-2", "10.0.0.0/30"),
    registered("pin-3", "198.18.0.1"),
]
_FILTERED: Final = ("", "bank", "h-10.0.0.5", "net")


class Broken(AssertionError):
    """Something that must hold does not."""


@dataclass(slots=True)
class Order:
    """A mode that an operator wants, from when to when. `ends_with_life`: a restart is its end too."""

    mode: Mode
    from_s: float
    until_s: float
    life: int
    is_trial: bool
    is_over: bool = False


@dataclass(slots=True)
class Counts:
    """What runs have done."""

    runs: int = 0
    events: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    rulesets: int = 0
    lives: int = 0
    cuts: int = 0
    failures: int = 0
    records: int = 0
    grown: int = 0
    turns: int = 0

    def add(self, other: Counts) -> None:
        self.events.update(other.events)
        for name in ("runs", "commits", "rulesets", "lives", "cuts", "failures", "records", "grown", "turns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def _settings(mode: Mode, drain_s: float, guard: ShrinkGuardSettings) -> Settings:
    sources = tuple(
        SourceSettings(name, f"file:/{name}", allow_unsigned=True, allow_endpoints=True) for name in SOURCES
    )
    return Settings(
        RegistrySettings(sources, shrink_guard=guard, local=None, max_added_endpoints=1000, max_elements=100_000),
        replace(PolicySettings(mode=mode, drain_s=drain_s), trip=TripSettings(failing_assertions=None)),
        subscribers=SubscriberSettings(
            "/nowhere",
            max_sessions=1000,
            element_timeout_s=ELEMENT_TIMEOUT_S,
            profile=ProfileSettings(
                country_code="92",
                session_timeout_s=SESSION_TIMEOUT_S,
                min_session_timeout_s=SESSION_TIMEOUT_S,
                restart_grace_s=5.0,
            ),
        ),
    )


class World:
    """One run. `trace`: what happened, for people and for its digest."""

    def __init__(self, seed: int, script: Script | None = None) -> None:
        self.seed = seed
        self.script = make_script(Dice(seed)) if script is None else script
        self.dice = dice = Dice(seed ^ 0x5EED)
        self.clock = Clock()
        self.loop = SeededLoop(self.clock, dice, is_shuffled=dice.chance(0.5))
        self.kernel = Kernel(self.clock, dice)
        self.disk = Disk(dice)
        self.truth = Truth(SOURCES, SESSION_TIMEOUT_S)
        self.trace: list[str] = []
        self.counts = Counts(runs=1)
        guard = RemovalLimit(count=2) if dice.chance(0.2) else RemovalLimit(count=1_000_000)
        self._guard = ShrinkGuardSettings(guard, protected=())
        # -- what a life sees of its environment
        self.boot_id = "boot 1"
        self.published: Mapping[str, Mapping[str, Registration]] = {name: {} for name in SOURCES}
        self.files: tuple[OverrideFile, ...] = ()
        self.failing: set[str] = set()
        self.settings = _settings(dice.pick(("reject", "reject", "observe", "limit")), DRAIN_S, self._guard)
        # -- within
        self._forms: dict[str, int] = {}
        self._pins: set[int] = set()
        self._filter = 0
        self._slots: dict[int, str] = {}
        self._numbers = 0
        self._recorded_s = 0.0
        self._unanswered: dict[int, AccountingEvent] = {}
        self._orders: list[Order] = []
        self._file_modes: list[tuple[Mode, float]] = [(self.settings.policy.mode, -inf)]
        self._passed = self._found = 0
        """Certain flows that passed after the last write; and that the sets let pass."""
        self._doubtful, self._doubted_at_s = 0, -inf
        """Flows of elements that another program took out, until the process must have seen it: another element may
        let them pass meanwhile, which has its own time to go."""
        self._drain_s = DRAIN_S
        self._lost_at: dict[Flow, float] = {}
        self._back_at: dict[Flow, float] = {}
        self._tag: RulesTag | None = None
        self._hindered_s = 0.0
        """When a way back was last hindered by the world: a start, a call that fails, another program."""
        self._graveyard: list[Life] = []
        self._is_stale = False
        """A state directory of before came back: the journal may have sessions that are over."""
        self._next = 0
        self._waits = 0
        self._due_s = 0.0
        self._resume: tuple[float, Callable[[], None]] | None = None
        self.life: Life | None = None
        self.kernel.point, self.kernel.wrote, self.kernel.cleared = self._point, self._wrote, self._cleared

    # -- the run -------------------------------------------------------------------------------------------

    def run(self) -> Counts:
        """Raises Broken."""
        STAGE.settings, STAGE.note = self.settings, self._note
        try:
            self._begin_life()
            self._cue()
            self.loop.run_until(self._step)
            self._end()
        finally:
            self._bury()
        self.counts.turns += self.loop.turns
        return self.counts

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def _note(self, event: str, fields: Mapping[str, object]) -> None:
        if event == "late_admission":
            self.counts.events["late admission"] += 1
        self.trace.append(f"{self.clock.elapsed_s:.3f} log {event}")

    def _say(self, what: str) -> None:
        self.trace.append(f"{self.clock.elapsed_s:.3f} {what}")

    def _cue(self) -> None:
        """For the next event."""
        if self._next < len(self.script):
            cue = self.script[self._next]
            self._waits, self._due_s = cue.waits, self.clock.elapsed_s + cue.seconds
            self.loop.call_at(self._due_s, _nothing)

    def _point(self) -> None:
        self._waits -= 1

    def _step(self) -> bool:
        """Between two turns of the loop. Whether the script is over."""
        resume = self._resume
        if resume is not None:
            if self.clock.elapsed_s < resume[0]:
                return False
            self._resume = None
            resume[1]()
        while self._next < len(self.script) and (self._waits < 0 or self.clock.elapsed_s >= self._due_s):
            cue = self.script[self._next]
            self._next += 1
            self._happen(cue)
            self._cue()
            if self._resume is not None:
                return False
        return self._next >= len(self.script)

    def _happen(self, cue: Cue) -> None:
        kind, *rest = cue.event
        self._say(f"event {cue.event!r}")
        self._check_mode()
        self.counts.events[kind] += 1
        self._changed()
        HAPPENINGS[kind](self, *rest)
        self._changed()

    # -- lives ---------------------------------------------------------------------------------------------

    def _begin_life(self) -> None:
        self.truth.begin_life()
        self.counts.lives += 1
        self.life = Life(self.truth.life, self.kernel, self.disk, self, self.loop)
        for session in self.truth.sessions.values():
            session.heard_by = self.truth.life if self.life.knows_session(session.nas, session.id) else 0
        self.truth.changed()
        self._hindered_s = self.clock.elapsed_s
        self.life.start()
        for number in self._unanswered:
            self._send(number)
        self._say(f"life {self.truth.life}")

    def _kill(self) -> None:
        if self.life is not None:
            self.life.kill()
            self._graveyard.append(self.life)
            self.life = None
            self.kernel.tables.unwatch()
            self.kernel.trouble.calls = 0
            self.loop.drop_all()
            for order in self._orders:
                if order.until_s == inf and RANK[order.mode] > RANK[self.settings.policy.mode]:
                    # Beyond what the file says an order ends with the process.
                    order.until_s = self.clock.elapsed_s

    def _bury(self) -> None:
        self._kill()
        STAGE.note = lambda _event, _fields: None
        self.loop.close()
        for life in self._graveyard:
            life.close()
        self._graveyard.clear()

    def restart(self, kind: str, writes: int, pause_s: float) -> None:
        self.counts.cuts += 1
        self._kill()
        if kind in ("old", "power"):
            self.disk.go_back(writes)
            self._is_stale = self._is_stale or writes > 0
        if kind == "power":
            self.kernel.power_off()
            self.truth.lose_kernel()
            self.boot_id = f"boot {self.counts.cuts + 1}"
            self._tag, self._lost_at, self._back_at = None, {}, {}
            for order in self._orders:
                if order.is_trial:
                    order.until_s = min(order.until_s, self.clock.elapsed_s)
        self._safe_anew()
        self._resume = self.clock.elapsed_s + pause_s, self._begin_life
        self.loop.call_later(pause_s, _nothing)

    # -- what a life sees ----------------------------------------------------------------------------------

    def restored(self, source: str, registrations: Mapping[str, Registration]) -> None:
        self.truth.sources[source].restored = registrations
        self.truth.changed()
        self._changed()

    def fetched(self, source: str, registrations: Mapping[str, Registration]) -> None:
        self.truth.note_fetched(source, registrations)
        self._changed()

    def delivered(self, source: str, registrations: Mapping[str, Registration]) -> None:
        self.truth.note_delivered(source, registrations)
        self._changed()

    def laid(self, files: tuple[OverrideFile, ...]) -> None:
        self.truth.note_laid(files)
        self._changed()

    def received(self, event: AccountingEvent) -> None:
        session = self.truth.sessions.get(event.session)
        if session is not None and event.kind != "stop":
            session.heard_by = self.truth.life
        self.truth.changed()

    def answered(self, event: AccountingEvent) -> None:
        for number, each in list(self._unanswered.items()):
            if each is event:
                del self._unanswered[number]

    # -- what must hold ------------------------------------------------------------------------------------

    def _is_armed(self) -> bool:
        table = self.kernel.tables.table
        tag = self._tag
        return table is not None and bool(table.rules) and tag is not None and tag.mode != "observe"

    def _look(self) -> tuple[int, int]:
        """Flows that the sets let pass, and flows that pass."""
        found = flows_found(self.kernel.tables.table, self.clock.elapsed_s)
        return found, found if self._is_armed() else ALL

    def _check(self, what: str) -> None:
        found, passes = self._look()
        for lost in (self._found & ~found, self._passed & ~passes):
            if lost:
                raise Broken(f"{what}: lost {', '.join(names_of(lost))}")

    def _check_mode(self) -> None:
        """A mode that no operator wants any more goes, once nothing is in the way."""
        life, tag, now = self.life, self._tag, self.clock.elapsed_s
        if life is None or not life.is_started or tag is None or not self._is_armed():
            return
        allowed = self._allowed(2 * SLACK_S)
        is_able = life.controller.loaded or allowed == {"observe"}
        if tag.mode not in allowed and is_able and now > self._hindered_s + 2 * SLACK_S:
            raise Broken(f"mode {tag.mode} is in force still, and no operator wants it")

    def _changed(self) -> None:
        """Something happened around the process: only what is registered all along counts from now on."""
        now = self.clock()
        self._settle()
        self._found &= self.truth.certain(now) & ~self._doubtful
        self._passed &= self.truth.known(now) & ~self._doubtful
        self._note_lost_flows()

    def _settle(self) -> None:
        """Whether the process has put all into the kernel, by its own word: that makes the oracle stricter only
        after a restart."""
        life = self.life
        if life is None or not life.is_started or life.reconciler.unready() is not None:
            return
        self.truth.settle()
        if self.clock.elapsed_s > self._doubted_at_s + DOUBT_S:
            self._doubtful = 0

    def _safe_anew(self) -> None:
        """Somebody else took something away, or the process is another."""
        now = self.clock()
        found, passes = self._look()
        self._found &= self.truth.certain(now) & found & ~self._doubtful
        self._passed &= self.truth.known(now) & passes & ~self._doubtful

    def _wrote(self, write: Transaction | Ruleset) -> None:
        if isinstance(write, Ruleset):
            self.counts.rulesets += 1
            self._check_rules(write)
            self._say(f"rules epoch={write.epoch} {' '.join(sorted(write.set_names))}")
        else:
            self.counts.commits += 1
            self.counts.grown += sum(isinstance(each, CreateSet) and "_g" in each.name for each in write.operations)
            self._say(f"commit {write.cause} " + " ".join(_text(each) for each in write.operations))
        self._changed()
        self._check("after a write")
        now = self.clock()
        found, passes = self._look()
        self._found = self.truth.certain(now) & found & ~self._doubtful
        self._passed = self.truth.known(now) & passes & ~self._doubtful

    def _check_rules(self, ruleset: Ruleset) -> None:
        tag, before = parse_tag(ruleset.tag), self._tag
        assert tag is not None
        if before is not None and before.policy != tag.policy and before.epoch == tag.epoch:
            raise Broken(f"rules of another policy in the same epoch {tag.epoch}")
        if tag.mode != "observe" and tag.mode not in self._allowed(SLACK_S):
            raise Broken(f"mode {tag.mode} is armed, and no operator wants it")
        self._tag = tag

    def _allowed(self, slack_s: float) -> set[Mode]:
        """Modes that some operator's word stands for, or did not so long ago."""
        now = self.clock.elapsed_s
        found = {mode for mode, until_s in self._file_modes[:-1] if now < until_s + slack_s}
        found.add(self._file_modes[-1][0])
        found.update(each.mode for each in self._orders if now < each.until_s + slack_s)
        return found

    def _cleared(self, flows: list[Flow]) -> None:
        """The process takes the mark *registered* off these flows."""
        now, found = self.clock.elapsed_s, flows_found(self.kernel.tables.table, self.clock.elapsed_s)
        for flow in flows:
            number = FLOWS.index(flow)
            if found >> number & 1 or not self._is_armed():
                continue
            is_back = now - self._back_at.get(flow, now) > SLACK_S
            since_s = now if is_back else self._lost_at.get(flow, now)
            if now < since_s + self._drain_s - 0.5:
                raise Broken(
                    f"the mark of {names_of(1 << number)[0]} goes after {now - since_s:.1f} s of its drain"
                )

    def _note_lost_flows(self) -> None:
        """Since when flows with the mark *registered* are registered no more by anything."""
        if not self.kernel.flows.connections:
            return
        possible, now = self.truth.possible(self.clock()), self.clock.elapsed_s
        for event in self.kernel.flows.connections.values():
            if possible >> FLOWS.index(event.flow) & 1:
                self._back_at.setdefault(event.flow, now)
                continue
            # Back for a moment that no search of connections need have seen?
            if now - self._back_at.pop(event.flow, now) > SLACK_S:
                self._lost_at[event.flow] = now
            self._lost_at.setdefault(event.flow, now)

    # -- the registry --------------------------------------------------------------------------------------

    def publish(self, *moves: tuple[str, int]) -> None:
        self._forms.update(moves)
        for source in SOURCES:
            now = {
                each.id: each
                for name, form in sorted(self._forms.items())
                if PARTIES[name][0] == source
                for each in PARTIES[name][1][form % len(PARTIES[name][1])]
            }
            if now != self.published[source]:
                self.published = {**self.published, source: now}
                self.truth.sources[source].present = now
                if self.life is not None:
                    self.life.pokes[source].set()
        self.truth.changed()

    def change_files(self, pin: int, filter: int) -> None:
        self._pins ^= {pin}
        self._filter = filter
        pins = tuple(Pin(_PINNED[each], "ticket", inf, 1, "a.yaml") for each in sorted(self._pins))
        id = _FILTERED[filter]
        filters = (Filter(id, None, "ticket", inf, 1, "a.yaml"),) if id else ()
        self.files = (OverrideFile("a.yaml", pins, filters),)
        self.truth.note_files(self.files)
        if self.life is not None:
            self.life.files_changed.set()

    def fail_source(self, number: int, is_failing: bool) -> None:
        self.failing = {*self.failing, SOURCES[number]} if is_failing else self.failing - {SOURCES[number]}

    # -- accounting ----------------------------------------------------------------------------------------

    def record(self, kind: str, slot: int, subscriber: int, place: int) -> None:
        self._numbers += 1
        sessions, now, nas = self.truth.sessions, self._time_of_record(), f"bng{slot % 2}"
        if kind == "on":
            for each in sessions.values():
                each.is_sure = each.is_sure and each.nas != nas
            self._tell("on", nas, "", None, ())
        elif kind == "start":
            id, digest = f"s{self._numbers}", subscribed(SUBSCRIBERS[subscriber]).subscriber
            assert digest is not None
            places = tuple((parse_prefix(text), ports) for text, ports in PLACES[place])
            for each in sessions.values():
                each.is_sure = each.is_sure and not any(
                    _overlap(one, other) for one in each.places for other in places
                )
            self._slots[slot] = id
            sessions[id] = Session(nas, id, digest, places, now)
            self._tell("start", nas, id, digest, places)
        elif (session := sessions.get(self._slots.get(slot, ""))) is not None:
            if kind == "stop":
                del sessions[session.id]
            else:
                session.at_s = now
            self._tell(kind, session.nas, session.id, session.subscriber, session.places)
        self.truth.changed()

    def _time_of_record(self) -> float:
        """No two records are of one moment: which of them is newer could not be told."""
        self._recorded_s = max(self.clock(), self._recorded_s + 0.001)
        return self._recorded_s

    def _tell(
        self, kind: Any, nas: str, id: str, digest: bytes | None, places: tuple[tuple[Prefix, Ports], ...]
    ) -> None:
        self.counts.records += 1
        now = self._recorded_s
        ports = next((each for _, each in places if each is not None), None)
        event = AccountingEvent(
            kind=kind,
            nas=nas,
            session=id,
            subscriber=digest,
            at_s=now,
            received_at_s=now,
            addresses=tuple(prefix for prefix, _ in places),
            ports=ports,
            is_final_stop=kind == "stop",
        )
        self._numbers += 1
        self._unanswered[self._numbers] = event
        self._send(self._numbers)

    def _send(self, number: int) -> None:
        self.loop.call_later(self.dice.random() * 0.1, self._arrive, number, self.life)

    def _arrive(self, number: int, life: Life | None) -> None:
        event = self._unanswered.get(number)
        if event is None or life is None or life is not self.life:
            return
        life.hear(event)
        self._changed()
        if number in self._unanswered:
            self.loop.call_later(REPEAT_S, self._arrive, number, life)

    # -- operators -----------------------------------------------------------------------------------------

    def change_mode(self, what: str, mode: Mode, seconds: float) -> None:
        life = self.life
        if what == "file":
            self._use_file(mode if self.settings.policy.mode == "observe" else "observe", self._drain_s)
        elif life is not None and life.is_started:
            life.do(self._command(life, what, mode, seconds))

    def reload(self, drain_s: float) -> None:
        self._use_file(self.settings.policy.mode, drain_s)

    def _use_file(self, mode: Mode, drain_s: float) -> None:
        """The file says something else; whether it is read, the daemon decides."""
        now = self.clock.elapsed_s
        self._drain_s = min(self._drain_s, drain_s)
        self._file_modes[-1] = self._file_modes[-1][0], now + 60.0  # until the reload was made, or refused
        self._file_modes.append((mode, inf))
        self.settings = STAGE.settings = _settings(mode, drain_s, self._guard)
        if self.life is not None:
            self.life.do(self._reload(self.life))

    async def _reload(self, life: Life) -> None:
        outcome = await life.reloader.reload(_NO_GROUP, "SIGHUP")
        if not outcome.is_done:
            # The file says one thing and the daemon goes by another; an operator may want either.
            self._file_modes = [(mode, inf) for mode, _ in self._file_modes]
        self._say(f"reload {outcome.error}")

    async def _command(self, life: Life, what: str, mode: Mode, seconds: float) -> None:
        arming, now = Arming(life.trials, check_nothing), self.clock.elapsed_s
        order = Order(mode, now, inf, self.truth.life, is_trial=what in ("confirm", "timed"))
        try:
            match what:
                case "confirm" | "timed" | "plain":
                    if order.is_trial:
                        order.until_s = now + seconds + 0.5
                    self._orders.append(order)
                    await arming.set_mode(
                        ModeRequest(
                            mode,
                            canary_percent=None,
                            confirm_s=int(seconds) if what == "confirm" else None,
                            for_s=int(seconds) if what == "timed" else None,
                            comment="",
                            is_forced=False,
                            by="uid 0",
                        )
                    )
                case "observe":
                    await arming.set_mode(
                        ModeRequest(
                            "observe",
                            canary_percent=None,
                            confirm_s=None,
                            for_s=None,
                            comment="",
                            is_forced=False,
                            by="uid 0",
                        )
                    )
                    self._end_orders(now)
                case "yes":
                    await arming.confirm("uid 0")
                    for each in self._orders:
                        if each.is_trial and each.until_s > now:
                            each.until_s, each.is_trial = inf, False
                case "revert":
                    await arming.revert("uid 0")
        except InputRejected as error:
            if order in self._orders:
                order.until_s = min(order.until_s, self.clock.elapsed_s)
            self._say(f"refused: {error}")
        else:
            self._say(f"done: {what} {mode}")

    def _end_orders(self, now: float) -> None:
        for each in self._orders:
            if each.from_s < now:
                each.until_s = min(each.until_s, self.clock.elapsed_s)

    def accept(self) -> None:
        life = self.life
        if life is not None and life.is_started:
            for hold in life.controller.holds():
                life.do(self._accept(life, hold.serial))

    async def _accept(self, life: Life, serial: int) -> None:
        try:
            await life.gate.accept(serial, "uid 0", is_forced=False)
        except InputRejected as error:
            self._say(f"refused: {error}")

    # -- the kernel, and other programs --------------------------------------------------------------------

    def fail(self, calls: int, after: bool) -> None:
        if self.life is not None:
            self.counts.failures += calls
            self._hindered_s = self.clock.elapsed_s
            self.kernel.trouble.calls, self.kernel.trouble.after = calls, after

    def tamper(self, is_heard: bool, kind: int, number: int) -> None:
        tables = self.kernel.tables
        before = None if tables.table is None else tables.table.copy()
        tables.tamper(lambda: self._damage(kind, number), received=is_heard)
        self._doubtful |= flows_gone(before, tables.table)
        self._doubted_at_s = self._hindered_s = self.clock.elapsed_s
        self._safe_anew()

    def _damage(self, kind: int, number: int) -> None:
        tables = self.kernel.tables
        table = tables.table
        if table is None:
            return
        names = sorted(each for each in table.sets if each not in RULE_SETS)
        name = names[number % len(names)] if names else ""
        if kind == 0:
            tables.table, self._tag = None, None
        elif kind == 1:
            table.rules, table.used, self._tag = "", frozenset(), None
        elif kind == 2 and name:  # nft flush set
            for key in list(table.sets[name].keys):
                table.sets[name].drop(key)
        elif kind == 3 and name and (parsed := parse_set_name(name)) is not None:
            table.sets[name].put([bytes(parsed[0].key_length)], self.clock.elapsed_s)
        elif kind == 4:
            table.sets.setdefault("c4_31", FakeSet(Mask(4, 31), 4, 1024))
        elif kind == 5:
            table.sets.setdefault("c4_32_g1", FakeSet(Mask(4, 32), 4, 1024))
        elif kind == 6 and name and name not in table.used:  # nft delete set
            del table.sets[name]
        elif kind == 7 and name and table.sets[name].keys:
            table.sets[name].drop(min(table.sets[name].keys))

    def packet(self, number: int) -> None:
        """A packet of a flow: judged by the rules in force, and logged where they find nothing."""
        table, tag = self.kernel.tables.table, self._tag
        if table is None or not table.rules or tag is None:
            return
        number %= len(FLOWS)
        flow, flows = FLOWS[number], self.kernel.flows
        known = next((each for each in flows.connections.values() if each.flow == flow), None)
        if known is not None and known.mark & LAYOUT.registered:
            return
        if flows_found(table, self.clock.elapsed_s) >> number & 1:
            flows.put(flow, LAYOUT.registered)
            return
        flows.put(flow, LAYOUT.judged(tag.epoch))
        life = self.life
        if life is not None and life.is_started:
            self.loop.call_later(self.dice.random() * 0.05, self._logged, life, flow)

    def packets(self) -> None:
        for number in range(0, len(FLOWS), 3):
            self.packet(number)

    def _logged(self, life: Life, flow: Flow) -> None:
        if life is self.life:
            life.core.watch.on_packets([flow])

    def retire(self) -> None:
        if self.life is not None:
            self.life.reconciler.tracker.retire_unused()

    def urge(self, number: int) -> None:
        """A registered flow came before its element."""
        life = self.life
        if life is not None and life.is_started:
            life.core.watch.on_packets([FLOWS[number % len(FLOWS)]])

    def fill_disk(self, is_full: bool) -> None:
        self.disk.is_full = is_full

    # -- the end -------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Nothing more happens: all comes to rest, and is as it should be."""
        self._say("the end of the script")
        self.failing, self.disk.is_full, self.kernel.trouble.calls = set(), False, 0
        if self.life is None:
            self._resume = None
            self._begin_life()
        self._end_sessions()
        self._rest(2.0)
        may_have_ghosts = self._is_stale and self.counts.records > 0
        self._rest(SESSION_TIMEOUT_S * 1.2 + ELEMENT_TIMEOUT_S if may_have_ghosts else 12.0)
        until_s = self.clock.elapsed_s + REST_S
        while (reason := self._unrest()) is not None:
            if self.clock.elapsed_s > until_s:
                raise Broken(f"it does not come to rest: {reason}")
            self.accept()
            self._rest(1.0)
        self._check_end()

    def _end_sessions(self) -> None:
        """Sessions that may be over end; the others are confirmed."""
        for each in list(self.truth.sessions.values()):
            now = self._time_of_record()
            if each.is_sure and now < each.at_s + SESSION_TIMEOUT_S - 5.0:
                each.at_s = now
                self._tell("interim", each.nas, each.id, each.subscriber, each.places)
            else:
                del self.truth.sessions[each.id]
                self._tell("stop", each.nas, each.id, each.subscriber, each.places)
        self.truth.changed()

    def _rest(self, seconds: float) -> None:
        """Sessions stay confirmed meanwhile."""
        until_s = self.clock.elapsed_s + seconds
        while self.clock.elapsed_s < until_s:
            step_s = min(
                until_s, self.clock.elapsed_s + (3.0 if seconds < SESSION_TIMEOUT_S else SESSION_TIMEOUT_S / 3)
            )
            self.loop.call_at(step_s, _nothing)
            self.loop.run_until(lambda until_s=step_s: self.clock.elapsed_s >= until_s)  # type: ignore[misc]
            if seconds > SESSION_TIMEOUT_S / 3:
                self._end_sessions()
            self._changed()
            self._check("at rest")
            self._check_mode()

    def _unrest(self) -> str | None:
        life = self.life
        assert life is not None
        if not life.is_started or self._unanswered:
            return "records without an answer" if self._unanswered else "it does not start"
        if (why := life.reconciler.unready()) is not None:
            return why
        if life.reconciler.tracker.count_surplus() or life.reconciler.tracker.retired:
            return "surplus"
        if life.controller.holds():
            return "removals are held"
        if life.trials.state.trial is not None:
            return "a trial is pending"
        if not life.controller.is_policy_in_force():
            return "another policy is in force"
        found = flows_found(self.kernel.tables.table, self.clock.elapsed_s)
        wrong = found ^ self.truth.registered(self.clock())
        return f"{names_of(wrong)} are wrong" if wrong else None

    def _check_end(self) -> None:
        table = self.kernel.tables.table
        assert table is not None
        unused = table.sets.keys() - RULE_SETS - table.used
        if unused:
            raise Broken(f"sets that no rule looks into: {sorted(unused)}")
        tag = self._tag
        if tag is None or (tag.mode != "observe" and tag.mode not in self._allowed(2 * SLACK_S)):
            raise Broken(f"at rest with {tag}, which no operator wants")


_NO_GROUP: Any = None


def _nothing() -> None:
    """A time has come, and the run is looked at."""


def _text(operation: Any) -> str:
    keys = sorted(each.hex() for each in getattr(operation, "keys", ()))
    name = getattr(operation, "set_name", getattr(operation, "name", ""))
    return f"{type(operation).__name__} {name} {','.join(keys)}"


def _overlap(one: tuple[Prefix, Ports], other: tuple[Prefix, Ports]) -> bool:
    (prefix, ports), (theirs, their_ports) = one, other
    if len(prefix.packed) != len(theirs.packed):
        return False
    if not (prefix.covers(theirs.packed) or theirs.covers(prefix.packed)):
        return False
    return ports is None or their_ports is None or (ports[0] <= their_ports[1] and their_ports[0] <= ports[1])


HAPPENINGS: Final[dict[str, Callable[..., None]]] = {
    "publish": World.publish,
    "files": World.change_files,
    "source": World.fail_source,
    "start": lambda world, *rest: world.record("start", *rest),
    "interim": lambda world, *rest: world.record("interim", *rest),
    "over": lambda world, *rest: world.record("stop", *rest),
    "on": lambda world, *rest: world.record("on", *rest),
    "kill": lambda world, *rest: world.restart("kill", *rest),
    "old": lambda world, *rest: world.restart("old", *rest),
    "power": lambda world, *rest: world.restart("power", *rest),
    "mode": World.change_mode,
    "reload": World.reload,
    "fail": World.fail,
    "tamper": World.tamper,
    "packet": World.packet,
    "packets": World.packets,
    "retire": World.retire,
    "urge": World.urge,
    "disk": World.fill_disk,
    "accept": World.accept,
}
