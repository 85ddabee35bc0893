"""A run: registry, operator, NAS, other programs and the host around one daemon after another, and what must hold.

After every write to the kernel, and after every event (`watch`):

- a flow that passed and is registered all along passes (`truth`): in the sets that the rules look into, and, where
  rules come that refuse something, beyond that every registered flow of which the process has to know;
- a flow that is marked registered keeps its mark while it is registered or drains, unless the sets let it pass;
- nothing is armed that no operator armed, nor anything after a trip (`wanted`); observe and mark refuse nothing;
- rules of another policy have another epoch.

At the end, when all has come to rest (`rest`): the sets let pass what is registered and nothing else, each of them
is in use, and the mode is one that an operator wanted, with each trial confirmed or over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from gatewayd.model import Registration
from gatewayd.model.accounting import AccountingEvent
from gatewayd.settings import Settings
from gatewayd.sources.override_file import OverrideFile
from tests.simulation.disk import Disk
from tests.simulation.kernel import Kernel
from tests.simulation.life import STAGE, Lives
from tests.simulation.loop import Clock, Dice, SeededLoop, nothing
from tests.simulation.nas import Nas
from tests.simulation.operators import DRAIN_S, SESSION_TIMEOUT_S, ConfigFile, Operators
from tests.simulation.outsiders import Outsiders
from tests.simulation.parties import SOURCES
from tests.simulation.registries import Registries
from tests.simulation.rest import Rest
from tests.simulation.script import Cue, Script, make_script
from tests.simulation.told import Counts, Trace
from tests.simulation.truth import Truth
from tests.simulation.wanted import Wanted
from tests.simulation.watch import Watch


class World:
    """One run. Implements life.Environment."""

    def __init__(self, seed: int, script: Script | None = None) -> None:
        self.seed = seed
        self.script = make_script(Dice(seed)) if script is None else script
        dice = Dice(seed ^ 0x5EED)
        self.clock = clock = Clock()
        self.loop = loop = SeededLoop(clock, dice, is_shuffled=dice.chance(0.5))
        self.kernel = kernel = Kernel(clock, dice)
        self.disk = Disk(dice)
        self.counts, self.trace = counts, trace = Counts(runs=1), Trace(clock)
        self.boot_id = "boot 1"
        config = ConfigFile(dice)
        self.config = config
        self.truth = truth = Truth(SOURCES, config.sources, clock, SESSION_TIMEOUT_S)
        self.wanted = wanted = Wanted(config.settings.policy.stage)
        self.lives = lives = Lives(kernel, self.disk, self, loop)
        self.watch = watch = Watch(kernel, truth, wanted, lives, counts, trace, DRAIN_S)
        self.registries = Registries(truth, lives)
        self.nas = Nas(clock, loop, dice, truth, lives, watch, counts)
        self.operators = Operators(clock, config, truth, wanted, lives, watch, trace, self.registries.asserted)
        self.outsiders = Outsiders(kernel, loop, lives, watch, counts)
        self._rest = Rest(kernel, loop, truth, wanted, lives, watch, self.nas, self.operators)
        self._is_stale = False
        """A state directory of before came back: the journal may have sessions that are over."""
        self._is_clock_set = self._is_age_unknown = False
        """Across a boot the host's clock says how old a session is: one that was set says nothing of it."""
        self._was_full = False
        self._next = 0
        self._waits = 0
        self._due_s = 0.0
        self._resume: tuple[float, Callable[[], None]] | None = None
        kernel.report_to(self._point, watch.wrote, watch.cleared)

    # -- the run -------------------------------------------------------------------------------------------

    def run(self) -> Counts:
        """Raises Broken."""
        STAGE.enter(self.settings, self._note)
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
        return self.trace.digest()

    def _note(self, event: str, _fields: Mapping[str, object]) -> None:
        if event in ("trip.tripped", "trip.latched"):
            self.wanted.trip(self.clock.elapsed_s)
        elif event == "trip.rearmed":
            self.wanted.rearm()
        if event in COUNTED:
            self.counts.events[COUNTED[event]] += 1
        self.trace.say(f"log {event}")

    def _cue(self) -> None:
        """For the next event."""
        if self._next < len(self.script):
            cue = self.script[self._next]
            self._waits, self._due_s = cue.waits, self.clock.elapsed_s + cue.seconds
            self.loop.call_at(self._due_s, nothing)

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
        self.trace.say(f"event {cue.event!r}")
        self.watch.check_mode()
        self.counts.events[kind] += 1
        self.watch.changed()
        HAPPENINGS[kind](self, *rest)
        self.watch.changed()

    # -- lives ---------------------------------------------------------------------------------------------

    def _begin_life(self) -> None:
        self.counts.lives += 1
        self.clock.host.begin_life()
        life = self.lives.make(self.truth.begin_life())
        self.truth.note_start(lambda nas, id: life.knows_session(nas, id) and not self._is_age_unknown)
        self.watch.hinder()
        life.start()
        self.nas.resend()
        self.trace.say(f"life {life.number}")

    def _kill(self) -> None:
        if self.lives.kill():
            self.wanted.end_life(self.clock.elapsed_s)

    def _bury(self) -> None:
        self._kill()
        STAGE.leave()
        self.loop.close()
        self.lives.close()

    def restart(self, kind: str, writes: int, pause_s: float) -> None:
        """`kind`: kill, or with the state directory as it was some writes ago: old, or power of a new boot."""
        self.counts.cuts += 1
        if kind != "kill" or self._was_full or not self.wanted.is_latched(self.clock.elapsed_s):
            self.wanted.rearm()
        self._kill()
        if kind in ("old", "power"):
            self.disk.go_back(writes)
            self._is_stale = self._is_stale or writes > 0
        if kind == "power":
            self.kernel.power_off()
            self.truth.lose_kernel()
            self._is_age_unknown = self._is_age_unknown or self._is_clock_set
            self.boot_id = f"boot {self.counts.cuts + 1}"
            self.watch.lose_power()
            self.wanted.lose_power(self.clock.elapsed_s)
        self.watch.look_again()
        self._resume = self.clock.elapsed_s + pause_s, self._begin_life
        self.loop.call_later(pause_s, nothing)

    def set_clock(self, what: str, seconds: float) -> None:
        """`what`: set by hand, NTP that comes or is lost."""
        host, now = self.clock.host, self.clock.elapsed_s
        if what == "set":
            self._is_clock_set = True
            host.set_by(seconds, now)
        elif what == "ntp":
            host.meet_ntp(now)
        else:
            host.lose_ntp(now)
        self.truth.changed()

    def fill_disk(self, is_full: bool) -> None:
        self._was_full = self._was_full or is_full
        self.disk.fill(is_full)

    def retire(self) -> None:
        if (life := self.lives.life) is not None:
            life.reconciler.tracker.retire_unused()

    def _end(self) -> None:
        """Nothing is in the way any more."""
        self.trace.say("the end of the script")
        self.registries.answer_all()
        self.registries.drop_assertions()
        self.disk.fill(False)
        self.kernel.heal()
        self.set_clock("ntp", 0.0)
        if self.lives.life is None:
            self._resume = None
            self._begin_life()
        self._rest.come(has_ghosts=self._is_stale and self.counts.records > 0)

    # -- what a life sees, and what is learnt of it --------------------------------------------------------

    @property
    def is_synced(self) -> bool:
        return self.clock.host.is_synced

    @property
    def settings(self) -> Settings:
        return self.config.settings

    @property
    def files(self) -> tuple[OverrideFile, ...]:
        return self.registries.files

    @property
    def published(self) -> Mapping[str, Mapping[str, Registration]]:
        return self.registries.published

    @property
    def failing(self) -> set[str]:
        return self.registries.failing

    @property
    def silent(self) -> set[str]:
        return self.registries.silent

    def uses(self, sources: Collection[str]) -> None:
        self.truth.note_used(sources)
        self.watch.changed()

    def restored(self, source: str, registrations: Mapping[str, Registration]) -> None:
        self.truth.note_restored(source, registrations)
        self.watch.changed()

    @property
    def serials(self) -> Mapping[str, int]:
        return self.registries.serials

    def fetched(self, source: str, registrations: Mapping[str, Registration], how: str) -> None:
        self.counts.answers[how] += 1
        self.truth.note_fetched(source, registrations)
        self.watch.changed()

    def delivered(self, source: str, registrations: Mapping[str, Registration]) -> None:
        self.truth.note_delivered(source, registrations)
        self.watch.changed()

    def laid(self, files: tuple[OverrideFile, ...]) -> None:
        self.truth.note_laid(files)
        self.registries.note_laid(files)
        self.watch.changed()

    def received(self, event: AccountingEvent) -> None:
        self.truth.note_received(event)

    def answered(self, event: AccountingEvent) -> None:
        self.nas.answered(event)


COUNTED = {
    "late_admission": "late admission",
    "assertion.refused": "refused for an assertion",
    "trip.tripped": "tripped",
}
"""Records of the log that the table of a soak has."""
HAPPENINGS: dict[str, Callable[..., None]] = {
    "publish": lambda world, *rest: world.registries.publish(*rest),
    "files": lambda world, *rest: world.registries.change_files(*rest),
    "assert": lambda world, *rest: world.registries.change_assertions(*rest),
    "source": lambda world, *rest: world.registries.fail_source(*rest),
    "silent": lambda world, *rest: world.registries.silence_source(*rest),
    "sources": lambda world, *rest: world.operators.write_sources(*rest),
    "start": lambda world, *rest: world.nas.record("start", *rest),
    "interim": lambda world, *rest: world.nas.record("interim", *rest),
    "over": lambda world, *rest: world.nas.record("stop", *rest),
    "on": lambda world, *rest: world.nas.record("on", *rest),
    "kill": lambda world, *rest: world.restart("kill", *rest),
    "old": lambda world, *rest: world.restart("old", *rest),
    "power": lambda world, *rest: world.restart("power", *rest),
    "mode": lambda world, *rest: world.operators.change_mode(*rest),
    "stage": lambda world, *rest: world.operators.write_stage(*rest),
    "trip": lambda world, *rest: world.operators.write_trip(*rest),
    "rearm": lambda world, *rest: world.operators.rearm(*rest),
    "reload": lambda world, *rest: world.operators.reload(*rest),
    "fail": lambda world, *rest: world.outsiders.fail(*rest),
    "tamper": lambda world, *rest: world.outsiders.tamper(*rest),
    "packet": lambda world, *rest: world.outsiders.packet(*rest),
    "packets": lambda world, *rest: world.outsiders.packets(*rest),
    "clock": lambda world, *rest: world.set_clock(*rest),
    "retire": lambda world, *rest: world.retire(*rest),
    "urge": lambda world, *rest: world.outsiders.urge(*rest),
    "disk": lambda world, *rest: world.fill_disk(*rest),
    "accept": lambda world, *rest: world.operators.accept(*rest),
}
