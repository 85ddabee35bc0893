"""The gate for changes that an operator makes: one that would break an assertion is refused, unless it is forced.

Settings and local files that are loaded, an `accept`, and another mode come through here. What would become of the
registry is rehearsed on a fork of it, so the guard and the overrides themselves answer. Until the registry in force
is loaded nothing is judged: a start neither waits for an assertion nor is refused for one. Nor is a reading of the
registry, nor what the clock brings; the next look at the kernel says what it broke.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gatewayd.assertions.judge import AssertionsBroken, Broken, World, in_force, would_break_in_slices
from gatewayd.assertions.overlay import Ends, overlay_in_slices
from gatewayd.assertions.states import AssertionStates
from gatewayd.compile.ruleset import policy_of
from gatewayd.control.controller import Controller
from gatewayd.log import get_logger
from gatewayd.model.assertion import Assertion
from gatewayd.model.flow import Flow
from gatewayd.model.policy import Policy, Stage
from gatewayd.model.registration import Changes
from gatewayd.registry.rehearsal import Rehearsed, fork_registry, rehearse_in_slices
from gatewayd.registry.state import KERNEL, RegistryState
from gatewayd.settings import Settings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.override_file import OverrideFile
from gatewayd.sources.runner import run_in_slices

log = get_logger(__name__)

LOCAL_FILES: Final = "local files"
"""Who asks for a change of the directory that is watched."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would leave and enter force; `fork`: the registry after that, None where it would not change.
    `assertions`: those in force then."""

    assertions: tuple[Assertion, ...]
    changes: tuple[Changes, ...] = ()
    fork: RegistryState | None = None


class AssertionGate:
    """`states`: of the assertions in force. `refused`, `forced`: changes, since the start."""

    def __init__(self, controller: Controller) -> None:
        self.states = AssertionStates()
        self.refused = 0
        self.forced = 0
        self._controller = controller
        self._given: tuple[Assertion, ...] = ()
        self._files: tuple[OverrideFile, ...] = ()
        """In force."""
        self._faults: tuple[str, ...] = ()
        self._waiting: OverridesReading | None = None
        """Local files that were refused."""

    def settle(self) -> None:
        """Those whose end has come are in force no longer."""
        now = self._controller.certain()
        self.states.use(in_force(self._given, now), sum(now < each.until_s for each in self._given))

    # -- what a change would break -------------------------------------------------------------------------

    async def would_break(self, policy: Policy) -> tuple[Broken, ...]:
        """If this came into force in the place of the policy of the moment."""
        controller, nothing = self._controller, Rehearsal(self.states.assertions)
        return await self.judge(nothing, controller.policy(controller.moment()), policy)

    async def check_policy(self, policy: Policy, change: str, by: str, *, is_forced: bool) -> None:
        """Raises AssertionsBroken, unless it is forced."""
        self._let_through(await self.would_break(policy), change, by, is_forced=is_forced)

    async def check_stage(self, stage: Stage, by: str, is_forced: bool) -> None:
        """Another mode or canary, by `gatewayd mode`. Raises AssertionsBroken, unless it is forced."""
        policy = policy_of(self._controller.settings, stage)
        await self.check_policy(policy, f"mode {stage}", by, is_forced=is_forced)

    async def check_settings(
        self, settings: Settings, reading: OverridesReading | None, by: str, *, is_forced: bool
    ) -> None:
        """A reload. `reading`: of another directory of local files. Raises AssertionsBroken, unless forced.

        Mode observe waits for nothing: while another change is being applied, the registry's part is not judged.
        """
        waits = settings.policy.mode != "observe" or not self._controller.is_applying()
        rehearsal = await self.rehearse(settings, reading) if waits else Rehearsal(self.states.assertions)
        broken = await self.judge(rehearsal, self.policy(), policy_of(settings, settings.policy.stage))
        self._let_through(broken, "reload", by, is_forced=is_forced)

    async def accept(self, serial: int, by: str, *, is_forced: bool) -> dict[str, object]:
        """As Controller.accept. Raises AssertionsBroken too, unless it is forced."""
        controller, held = self._controller, self._controller.registry.held()
        calls: list[Rehearsed] = []
        if held is not None and held.serial == serial:
            calls.append(lambda fork: fork.accept(serial, controller.certain(), by))
        retains = not any(KERNEL in each.by_cause and each.serial == serial for each in controller.holds())
        rehearsal = await self._rehearse(self.states.assertions, calls)
        broken = await self.judge(rehearsal, self.policy(), self.policy(), retains=retains)
        self._let_through(broken, f"accept {serial}", by, is_forced=is_forced)
        return await controller.accept(serial, by)

    async def rehearse(self, settings: Settings, reading: OverridesReading | None) -> Rehearsal:
        """What a reload would make of the registry; with None, the local files stay."""
        controller, now = self._controller, self._controller.certain()
        names, assertions = [each.name for each in settings.registry.sources], self.states.assertions
        calls: list[Rehearsed] = []
        if names != list(controller.sources):
            calls.append(lambda fork: fork.use_sources(names, now))
        if reading is not None:
            files, given = split(reading.files)
            assertions = in_force(given, now)
            if files != self._files:
                calls.append(lambda fork: fork.use_overrides(files, now))
        return await self._rehearse(assertions, calls)

    async def judge(
        self, rehearsal: Rehearsal, before: Policy, after: Policy, *, retains: bool = True
    ) -> tuple[Broken, ...]:
        """What it would break. `retains`: elements that nobody registers stay."""
        controller, assertions = self._controller, rehearsal.assertions
        if not assertions or not controller.loaded:
            return ()
        allowlist, now = controller.allowlist, controller.moment()

        def is_retained(flow: Flow) -> bool:
            return not allowlist.matching(flow, now) and controller.reconciler.element_for(flow) is not None

        def is_none(_: Flow) -> bool:
            return False

        overlay = overlay_in_slices(allowlist, rehearsal.changes, Ends(allowlist, assertions))
        was = World(allowlist, before, now, is_retained)
        becomes = World(await run_in_slices(overlay), after, now, is_retained if retains else is_none)
        return await run_in_slices(would_break_in_slices(assertions, was, becomes))

    def policy(self) -> Policy:
        """What is armed, or would be once the time of `enforce_from` has come: that is judged now."""
        controller = self._controller
        policy, settings = controller.policy(controller.moment()), controller.settings
        return policy if policy.mode != "observe" else policy_of(settings, settings.policy.stage)

    # -- local files ---------------------------------------------------------------------------------------

    async def deliver(self, reading: OverridesReading) -> None:
        """What the directory has now. Files that are refused wait, and those from before stay in force."""
        try:
            await self.use_files(reading, LOCAL_FILES, is_forced=False)
        except AssertionsBroken as error:
            self._waiting = reading
            lines = tuple(
                f"{each}; `gatewayd reload --force` takes the files all the same" for each in error.broken
            )
            await self._controller.use_overrides(OverridesReading(self._files, (*reading.faults, *lines)))

    async def use_files(self, reading: OverridesReading, by: str, *, is_forced: bool) -> None:
        """Judge, and put into force. Raises AssertionsBroken, unless it is forced."""
        rehearsal = await self.rehearse(self._controller.settings, reading)
        broken = await self.judge(rehearsal, self.policy(), self.policy())
        self._let_through(broken, "local files", by, is_forced=is_forced)
        await self.adopt(reading)

    async def adopt(self, reading: OverridesReading) -> None:
        """Put files into force, as a start does, or once they were judged."""
        self._waiting = None
        self._files, self._given = split(reading.files)
        self.settle()
        await self._controller.use_overrides(replace(reading, files=self._files))

    async def try_again(self, by: str, *, is_forced: bool) -> tuple[Broken, ...]:
        """With local files that wait since they were refused. What they would still break."""
        if self._waiting is None:
            return ()
        try:
            await self.use_files(self._waiting, by, is_forced=is_forced)
        except AssertionsBroken as error:
            return error.broken
        return ()

    # -- help ----------------------------------------------------------------------------------------------

    async def _rehearse(self, assertions: tuple[Assertion, ...], calls: Sequence[Rehearsed]) -> Rehearsal:
        """Before the registry is loaded nothing is known of a change."""
        if not calls or not self._controller.loaded:
            return Rehearsal(assertions)
        fork = await self._controller.between_changes(fork_registry)
        changes = await run_in_slices(rehearse_in_slices(fork, calls))
        return Rehearsal(assertions, changes, fork)

    def _let_through(self, broken: tuple[Broken, ...], change: str, by: str, *, is_forced: bool) -> None:
        if not broken:
            return
        for each in broken:
            name, reason = each.assertion.name, each.reason
            if is_forced:
                log.warning("assertion.forced", change=change, assertion=name, reason=reason, by=by)
            else:
                log.error("assertion.refused", change=change, assertion=name, reason=reason, by=by)
        if is_forced:
            self.forced += 1
            self.states.force(each.assertion for each in broken)
            return
        self.refused += 1
        raise AssertionsBroken(broken)


def split(files: Sequence[OverrideFile]) -> tuple[tuple[OverrideFile, ...], tuple[Assertion, ...]]:
    """Pins and filters, which are the registry's, and the assertions, in the order of the files."""
    own = tuple(replace(each, assertions=()) for each in files)
    return own, tuple(assertion for each in files for assertion in each.assertions)
