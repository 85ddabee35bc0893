"""The gate for changes that an operator makes: one that would break an assertion is refused, unless it is forced.

Settings and local files that are loaded, an `accept`, and another mode come through here. What would become of the
registry is rehearsed on a fork of it, so the guard and the overrides themselves answer. Until the registry in force
is loaded nothing is judged: a start neither waits for an assertion nor is refused for one. Nor is a reading of the
registry, nor what the clock brings; the next look at the kernel says what it broke.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gatewayd.assertions.judge import AssertionsBroken, Broken, World, in_force, would_break_in_slices
from gatewayd.assertions.overlay import Ends, overlay_in_slices
from gatewayd.assertions.states import AssertionStates
from gatewayd.compile.ruleset import policy_in_force, policy_of
from gatewayd.control.controller import Controller
from gatewayd.log import get_logger
from gatewayd.model.assertion import Assertion
from gatewayd.model.flow import Flow
from gatewayd.model.moment import earliest_of
from gatewayd.model.policy import Policy, Stage
from gatewayd.model.registration import Changes
from gatewayd.registry.rehearsal import Rehearsed, rehearse_in_slices
from gatewayd.registry.state import KERNEL
from gatewayd.settings import Settings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.override_file import OverrideFile
from gatewayd.sources.runner import run_in_slices

log = get_logger(__name__)

LOCAL_FILES: Final = "local files"
"""Who asks for a change of the directory that is watched."""


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
        controller = self._controller
        return await self._judge(self.states.assertions, controller.policy(controller.moment()), policy)

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
        """A reload. `reading`: of another directory of local files. Raises AssertionsBroken, unless forced."""
        controller, now = self._controller, self._controller.certain()
        names, assertions = [each.name for each in settings.registry.sources], self.states.assertions
        calls: list[Rehearsed] = []
        if names != list(controller.sources):
            calls.append(lambda fork: fork.use_sources(names, now))
        if reading is not None:
            files, given = split(reading.files)
            assertions = in_force(given, now)
            calls.append(lambda fork: fork.use_overrides(files, now))
        before, after = self._configured(controller.settings), self._configured(settings)
        self._let_through(await self._judge(assertions, before, after, calls), "reload", by, is_forced=is_forced)

    async def accept(self, serial: int, by: str, *, is_forced: bool) -> dict[str, object]:
        """As Controller.accept. Raises AssertionsBroken too, unless it is forced."""
        controller, held = self._controller, self._controller.registry.held()
        calls: list[Rehearsed] = []
        if held is not None and held.serial == serial:
            calls.append(lambda fork: fork.accept(serial, controller.certain(), by))
        retains = not any(KERNEL in each.by_cause and each.serial == serial for each in controller.holds())
        policy = self._configured(controller.settings)
        broken = await self._judge(self.states.assertions, policy, policy, calls, retains=retains)
        self._let_through(broken, f"accept {serial}", by, is_forced=is_forced)
        return await controller.accept(serial, by)

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
        (files, given), now = split(reading.files), self._controller.certain()
        policy = self._configured(self._controller.settings)
        calls: list[Rehearsed] = [lambda fork: fork.use_overrides(files, now)]
        broken = await self._judge(in_force(given, now), policy, policy, calls)
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

    def _configured(self, settings: Settings) -> Policy:
        """As if the time of `enforce_from` had come: what is armed then is judged now."""
        policy = policy_in_force(settings, earliest_of(self._controller.moment()))
        return replace(policy, mode=settings.policy.mode)

    async def _judge(
        self,
        assertions: Sequence[Assertion],
        before: Policy,
        after: Policy,
        calls: Sequence[Rehearsed] = (),
        *,
        retains: bool = True,
    ) -> tuple[Broken, ...]:
        """`retains`: elements that nobody registers stay."""
        controller = self._controller
        if not assertions or not controller.loaded:
            return ()
        allowlist, now = controller.allowlist, controller.moment()

        def is_retained(flow: Flow) -> bool:
            return not allowlist.matching(flow, now) and controller.reconciler.element_for(flow) is not None

        def is_none(_: Flow) -> bool:
            return False

        was = World(allowlist, before, now, is_retained)
        changes: tuple[Changes, ...] = ()
        if calls:
            fork = await controller.fork_registry()
            changes = await run_in_slices(rehearse_in_slices(fork, calls))
        overlaid = await run_in_slices(overlay_in_slices(allowlist, changes, Ends(allowlist, assertions)))
        becomes = World(overlaid, after, now, is_retained if retains else is_none)
        return await run_in_slices(would_break_in_slices(assertions, was, becomes))

    def _let_through(self, broken: tuple[Broken, ...], change: str, by: str, *, is_forced: bool) -> None:
        if not broken:
            return
        for each in broken:
            fields = {"change": change, "assertion": each.assertion.name, "reason": each.reason, "by": by}
            if is_forced:
                log.warning("assertion.forced", **fields)
            else:
                log.error("assertion.refused", **fields)
        if is_forced:
            self.forced += 1
            return
        self.refused += 1
        raise AssertionsBroken(broken)


def split(files: Sequence[OverrideFile]) -> tuple[tuple[OverrideFile, ...], tuple[Assertion, ...]]:
    """Pins and filters, which are the registry's, and the assertions, in the order of the files."""
    own = tuple(replace(each, assertions=()) for each in files)
    return own, tuple(assertion for each in files for assertion in each.assertions)
