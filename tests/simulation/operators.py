"""Operators: the configuration file and its reload, modes and trials, removals that are held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gatewayd.api.arming import ModeRequest
from gatewayd.control.arming_queries import Arming
from gatewayd.errors import InputRejected
from gatewayd.model.flow import Mode
from gatewayd.model.policy import Stage
from gatewayd.settings import PolicySettings, RegistrySettings, RemovalLimit, Settings, SourceSettings
from gatewayd.settings.model import ShrinkGuardSettings, TripSettings
from gatewayd.settings.subscribers import ProfileSettings, SubscriberSettings
from tests.simulation.life import STAGE, Life, Lives
from tests.simulation.loop import Clock, Dice
from tests.simulation.parties import CONFIGURED, names_of
from tests.simulation.told import Broken, Trace
from tests.simulation.truth import Truth
from tests.simulation.wanted import Order, Wanted
from tests.simulation.watch import Watch

SESSION_TIMEOUT_S: Final = 60.0
ELEMENT_TIMEOUT_S: Final = 30.0
DRAIN_S: Final = 4.0
REFRESH_S: Final = 60.0


class ConfigFile:
    """`settings`: as the file says them, for the next start or reload."""

    def __init__(self, dice: Dice) -> None:
        limit = RemovalLimit(count=2) if dice.chance(0.2) else RemovalLimit(count=1_000_000)
        self._guard = ShrinkGuardSettings(limit, protected=())
        self._stage = Stage(dice.pick(("reject", "reject", "observe", "limit")))
        self._drain_s, self._refresh_s = DRAIN_S, REFRESH_S
        self._late_admissions: int | None = None
        self.sources: tuple[str, ...] = CONFIGURED[0]
        self.settings = self._make()

    def write(
        self,
        *,
        stage: Stage | None = None,
        drain_s: float | None = None,
        sources: tuple[str, ...] | None = None,
        refresh_s: float | None = None,
        late_admissions: int | None = None,
    ) -> None:
        """None: as before."""
        self._stage = self._stage if stage is None else stage
        self._drain_s = self._drain_s if drain_s is None else drain_s
        self.sources = self.sources if sources is None else sources
        self._refresh_s = self._refresh_s if refresh_s is None else refresh_s
        self._late_admissions = self._late_admissions if late_admissions is None else late_admissions
        self.settings = self._make()
        STAGE.use(self.settings)

    def _make(self) -> Settings:
        stage, drain_s = self._stage, self._drain_s
        sources = tuple(
            SourceSettings(name, f"file:/{name}", allow_unsigned=True, allow_endpoints=True)
            for name in self.sources
        )
        return Settings(
            RegistrySettings(
                sources,
                shrink_guard=self._guard,
                local=None,
                refresh_s=self._refresh_s,
                max_added_endpoints=1000,
                max_elements=100_000,
            ),
            PolicySettings(
                mode=stage.mode,
                canary_percent=stage.canary_percent,
                drain_s=drain_s,
                trip=TripSettings(failing_assertions=0, late_admissions=self._late_admissions),
            ),
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


class Operators:
    """What they say is kept in `wanted`; what comes of it is the daemon's. `asserted`: flows that must pass."""

    def __init__(
        self,
        clock: Clock,
        config: ConfigFile,
        truth: Truth,
        wanted: Wanted,
        lives: Lives,
        watch: Watch,
        trace: Trace,
        asserted: Callable[[], int],
    ) -> None:
        self._clock, self._config, self._truth, self._wanted = clock, config, truth, wanted
        self._lives, self._watch, self._say, self._asserted = lives, watch, trace.say, asserted
        self._behind: Life | None = None
        """The process that does not go by the file."""

    def change_mode(self, what: str, mode: Mode, seconds: float, percent: int = 100) -> None:
        """`what`: by a command of this name; by the file, with this mode or back to observe."""
        life, stage = self._lives.life, Stage(mode, percent)
        if what == "file":
            is_observe = self._wanted.file_stage.mode == "observe"
            self.write_stage(mode if is_observe else "observe", percent)
        elif life is not None and life.is_started:
            life.do(self._command(life, what, stage, seconds))

    def write_stage(self, mode: Mode, percent: int) -> None:
        """By the file."""
        self._config.write(stage=Stage(mode, percent))
        self._use_file(Stage(mode, percent))

    def reload(self, drain_s: float) -> None:
        """With another time to drain."""
        self._watch.shorten_drain(drain_s)
        self._config.write(drain_s=drain_s)
        self._use_file(self._wanted.file_stage)

    def write_sources(self, number: int, refresh_s: float) -> None:
        """Some come, some go; with another `refresh_s` each is asked again by another runner."""
        self._config.write(sources=CONFIGURED[number], refresh_s=refresh_s)
        self._truth.note_configured(CONFIGURED[number])
        self._use_file(self._wanted.file_stage)

    def write_trip(self, late_admissions: int) -> None:
        """So many registered flows before their element trip it no more."""
        self._config.write(late_admissions=late_admissions)
        self._use_file(self._wanted.file_stage)

    def rearm(self) -> None:
        """The latch of a trip is off."""
        life = self._lives.life
        if life is not None and life.is_started:
            life.do(self._rearm(life))

    def is_behind(self) -> bool:
        """The process does not go by the file: its reload was refused, or is under way."""
        return self._behind is not None and self._behind is self._lives.life

    def reload_again(self) -> None:
        self._use_file(self._wanted.file_stage)

    def accept(self) -> None:
        """All removals that are held."""
        life = self._lives.life
        if life is not None and life.is_started:
            for hold in life.controller.holds():
                life.do(self._accept(life, hold.serial))

    def _use_file(self, stage: Stage) -> None:
        self._wanted.use_file(stage, self._clock.elapsed_s)
        if (life := self._lives.life) is not None:
            self._behind = life
            life.do(self._reload(life))

    async def _reload(self, life: Life) -> None:
        settings = self._config.settings
        outcome = await life.reloader.ask("SIGHUP")
        if outcome.is_done and settings is self._config.settings and self._behind is life:
            self._behind = None
        if not outcome.is_done:
            self._wanted.refuse_file()
        self._say(f"reload {outcome.error}")

    async def _command(self, life: Life, what: str, stage: Stage, seconds: float) -> None:
        arming, given_s = Arming(life.trials, life.gate.check_stage), self._clock.elapsed_s
        order: Order | None = None
        doomed, version = self._doomed(life, what, stage), self._truth.version
        try:
            match what:
                case "confirm" | "timed" | "plain":
                    order = self._wanted.begin(stage, given_s, None if what == "plain" else seconds)
                    await arming.set_mode(_request(stage, what, seconds))
                case "observe":
                    await arming.set_mode(_request(Stage("observe", stage.canary_percent), what, seconds))
                    self._wanted.end(given_s, self._clock.elapsed_s)
                case "yes":
                    await arming.confirm("uid 0")
                    self._wanted.confirm(given_s)
                case "revert":
                    await arming.revert("uid 0")
        except InputRejected as error:
            if order is not None:
                self._wanted.refuse(order, self._clock.elapsed_s)
            self._say(f"refused: {error}")
        else:
            self._say(f"done: {what} {stage}")
            cut = doomed & self._asserted() & self._watch.lost_flows()
            if cut and version == self._truth.version:
                raise Broken(f"{stage} cuts {names_of(cut)}, which must pass, and was not refused")

    def _doomed(self, life: Life, what: str, stage: Stage) -> int:
        """Flows that must pass, and that this order alone would cut."""
        in_force = self._watch.stage()
        is_observe = in_force is not None and in_force.mode == "observe" and life.controller.is_policy_in_force()
        arms = what in ("confirm", "timed", "plain") and stage in (Stage("limit"), Stage("reject"))
        if not (arms and is_observe and life.trials.state.trial is None):
            return 0
        return self._asserted() & self._watch.lost_flows()

    async def _rearm(self, life: Life) -> None:
        try:
            await Arming(life.trials, life.gate.check_stage).rearm("uid 0")
        except InputRejected as error:
            self._say(f"refused: {error}")

    async def _accept(self, life: Life, serial: int) -> None:
        try:
            await life.gate.accept(serial, "uid 0", is_forced=False)
        except InputRejected as error:
            self._say(f"refused: {error}")


def _request(stage: Stage, what: str, seconds: float) -> ModeRequest:
    return ModeRequest(
        stage.mode,
        canary_percent=stage.canary_percent,
        confirm_s=int(seconds) if what == "confirm" else None,
        for_s=int(seconds) if what == "timed" else None,
        comment="",
        is_forced=False,
        by="uid 0",
    )
