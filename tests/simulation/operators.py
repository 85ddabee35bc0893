"""Operators: the configuration file and its reload, modes and trials, removals that are held."""

from __future__ import annotations

from typing import Any, Final

from gatewayd.api.arming import ModeRequest
from gatewayd.control.arming_queries import Arming, check_nothing
from gatewayd.errors import InputRejected
from gatewayd.model.flow import Mode
from gatewayd.model.policy import Stage
from gatewayd.settings import PolicySettings, RegistrySettings, RemovalLimit, Settings, SourceSettings
from gatewayd.settings.model import ShrinkGuardSettings, TripSettings
from gatewayd.settings.subscribers import ProfileSettings, SubscriberSettings
from tests.simulation.life import STAGE, Life, Lives
from tests.simulation.loop import Clock, Dice
from tests.simulation.parties import SOURCES
from tests.simulation.told import Trace
from tests.simulation.wanted import Order, Wanted
from tests.simulation.watch import Watch

SESSION_TIMEOUT_S: Final = 60.0
ELEMENT_TIMEOUT_S: Final = 30.0
DRAIN_S: Final = 4.0
_NO_GROUP: Any = None


class ConfigFile:
    """`settings`: as the file says them, for the next start or reload."""

    def __init__(self, dice: Dice) -> None:
        limit = RemovalLimit(count=2) if dice.chance(0.2) else RemovalLimit(count=1_000_000)
        self._guard = ShrinkGuardSettings(limit, protected=())
        self.settings = self._make(Stage(dice.pick(("reject", "reject", "observe", "limit"))), DRAIN_S)

    def write(self, stage: Stage, drain_s: float) -> None:
        self.settings = self._make(stage, drain_s)
        STAGE.use(self.settings)

    def _make(self, stage: Stage, drain_s: float) -> Settings:
        sources = tuple(
            SourceSettings(name, f"file:/{name}", allow_unsigned=True, allow_endpoints=True) for name in SOURCES
        )
        return Settings(
            RegistrySettings(
                sources, shrink_guard=self._guard, local=None, max_added_endpoints=1000, max_elements=100_000
            ),
            PolicySettings(
                mode=stage.mode,
                canary_percent=stage.canary_percent,
                drain_s=drain_s,
                trip=TripSettings(failing_assertions=None),
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
    """What they say is kept in `wanted`; what comes of it is the daemon's."""

    def __init__(
        self, clock: Clock, config: ConfigFile, wanted: Wanted, lives: Lives, watch: Watch, trace: Trace
    ) -> None:
        self._clock, self._config, self._wanted = clock, config, wanted
        self._lives, self._watch, self._say = lives, watch, trace.say
        self._drain_s = DRAIN_S
        """The shortest of all that the file has said."""

    def change_mode(self, what: str, mode: Mode, seconds: float, percent: int = 100) -> None:
        """`what`: by a command of this name; by the file, with this mode or back to observe."""
        life, stage = self._lives.life, Stage(mode, percent)
        if what == "file":
            is_observe = self._wanted.file_stage.mode == "observe"
            self._use_file(stage if is_observe else Stage("observe", percent), self._drain_s)
        elif life is not None and life.is_started:
            life.do(self._command(life, what, stage, seconds))

    def write_stage(self, mode: Mode, percent: int) -> None:
        """By the file."""
        self._use_file(Stage(mode, percent), self._drain_s)

    def reload(self, drain_s: float) -> None:
        self._use_file(self._wanted.file_stage, drain_s)

    def accept(self) -> None:
        """All removals that are held."""
        life = self._lives.life
        if life is not None and life.is_started:
            for hold in life.controller.holds():
                life.do(self._accept(life, hold.serial))

    def _use_file(self, stage: Stage, drain_s: float) -> None:
        self._drain_s = min(self._drain_s, drain_s)
        self._watch.shorten_drain(drain_s)
        self._wanted.use_file(stage, self._clock.elapsed_s)
        self._config.write(stage, drain_s)
        if (life := self._lives.life) is not None:
            life.do(self._reload(life))

    async def _reload(self, life: Life) -> None:
        outcome = await life.reloader.reload(_NO_GROUP, "SIGHUP")
        if not outcome.is_done:
            self._wanted.refuse_file()
        self._say(f"reload {outcome.error}")

    async def _command(self, life: Life, what: str, stage: Stage, seconds: float) -> None:
        arming, given_s = Arming(life.trials, check_nothing), self._clock.elapsed_s
        order: Order | None = None
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
