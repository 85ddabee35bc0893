"""What the latest look said of each assertion, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from gatewayd.assertions.judge import Outcome
from gatewayd.model.assertion import MAX_ASSERTIONS, Assertion, Subject
from gatewayd.model.metric import counter, gauge
from gatewayd.model.moment import format_time

Turn = Literal["fails", "passes"]

MAX_SHOWN: Final = 20
"""Failing assertions that a status names."""
PATIENCE_S: Final = 2.0
"""For so long an assertion fails unsaid where the registry says that it holds: the kernel may not have it yet."""


class FailingView(msgspec.Struct, frozen=True):
    """`place`: file and line. `since`: RFC 3339."""

    name: str
    kind: str
    reason: str
    comment: str
    place: str
    since: str | None


class AssertionsView(msgspec.Struct, frozen=True):
    """`failing`: as of the latest look at the kernel. `examples`: at most MAX_SHOWN. `looked_at`: None before the
    kernel was first looked at. `ignored`: past the bound, or with the name of an earlier one."""

    total: Annotated[int, gauge("assertions", "Assertions of the local files that are in force.")] = 0
    failing: Annotated[int, gauge("assertions_failing",
        "Assertions that the kernel's rules and elements do not keep.",
        "`> 0`: **a named customer would be cut, or is**; `gatewayd status` names them first")] = 0  # fmt: skip
    ignored: Annotated[int, gauge("assertions_ignored",
        "Assertions that are not looked at: past the bound, or with the name of an earlier one.",
        "`> 0`")] = 0  # fmt: skip
    looked_at: Annotated[str | None, gauge("assertions_last_looked_timestamp_seconds",
        "When all assertions were last held against the kernel, Unix time; absent before the first time.",
        "older than 2 min")] = None  # fmt: skip
    refused: Annotated[int, counter("assertions_refused_changes",
        "Changes that were refused because they would have broken an assertion.")] = 0  # fmt: skip
    forced: Annotated[int, counter("assertions_forced_changes",
        "Changes that broke an assertion and were made with `--force`.",
        "rises: the log says by whom")] = 0  # fmt: skip
    look_failures: Annotated[int, counter("assertions_look_failures",
        "Looks at the kernel that failed; what was known before is shown.", "rises for 5 min")] = 0  # fmt: skip
    examples: tuple[FailingView, ...] = ()


@dataclass(frozen=True, slots=True)
class _State:
    """`failing_since_s`: monotonic, None where it holds. `said_s`: Unix seconds of the turn that was said."""

    outcome: Outcome
    failing_since_s: float | None = None
    said_s: float | None = None


class AssertionStates:
    """Owned by one task."""

    def __init__(self) -> None:
        self.assertions: tuple[Assertion, ...] = ()
        self.ignored = 0
        self._states: dict[Subject, _State] = {}
        self._forced: frozenset[Subject] = frozenset()
        """Broken by an operator who was told so; until they pass again."""

    def use(self, assertions: Sequence[Assertion], given: int) -> None:
        """These are in force, of `given` that the files have."""
        self.assertions = tuple(assertions[:MAX_ASSERTIONS])
        self.ignored = given - len(self.assertions)
        subjects = {each.subject for each in self.assertions}
        self._states = {subject: state for subject, state in self._states.items() if subject in subjects}
        self._forced &= subjects

    def force(self, broken: Iterable[Assertion]) -> None:
        """An operator makes a change that breaks these, and knows it."""
        self._forced |= {each.subject for each in broken}

    def note(
        self, assertion: Assertion, outcome: Outcome, now: float, likely_s: float, *, is_expected: bool
    ) -> Turn | None:
        """What a look said, at `now` of a clock that is never set; which turn is to be told, if any. `is_expected`:
        the registry says that it holds."""
        before = self._states.get(assertion.subject, _State(Outcome(holds=True)))
        if outcome.holds:
            self._states[assertion.subject] = _State(outcome)
            if before.failing_since_s is not None:
                self._forced -= {assertion.subject}
            return "passes" if before.said_s is not None else None
        since_s = now if before.failing_since_s is None else before.failing_since_s
        is_said = before.said_s is not None
        is_due = not is_said and (not is_expected or now - since_s >= PATIENCE_S)
        self._states[assertion.subject] = _State(outcome, since_s, likely_s if is_due else before.said_s)
        return "fails" if is_due else None

    @property
    def is_waiting(self) -> bool:
        """Whether one fails that is not said to fail: it is to be looked at again soon."""
        return any(each.failing_since_s is not None and each.said_s is None for each in self._states.values())

    def failing(self) -> tuple[tuple[Assertion, str], ...]:
        """Those that were said to fail, with the reason, in the order of the files."""
        return tuple((each, state.outcome.reason) for each, state in self._failing())

    def unforced(self) -> tuple[Assertion, ...]:
        """Those that were said to fail, but for what an operator broke knowingly."""
        return tuple(each for each, _ in self._failing() if each.subject not in self._forced)

    def view(self, looked_s: float | None, counts: AssertionsView) -> AssertionsView:
        """`counts`: what others count."""
        failing = self._failing()
        return msgspec.structs.replace(
            counts,
            total=len(self.assertions),
            failing=len(failing),
            ignored=self.ignored,
            looked_at=format_time(looked_s),
            examples=tuple(
                FailingView(
                    each.name, each.kind, state.outcome.reason, each.comment, each.place, format_time(state.said_s)
                )
                for each, state in failing[:MAX_SHOWN]
            ),
        )

    def _failing(self) -> list[tuple[Assertion, _State]]:
        pairs = ((each, self._states.get(each.subject)) for each in self.assertions)
        return [(each, state) for each, state in pairs if state is not None and state.said_s is not None]
