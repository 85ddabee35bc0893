"""What happens in a run, as data: a seed gives a script, and a script that failed is made shorter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.simulation.loop import Dice
from tests.simulation.parties import CONFIGURED, PARTIES

Event = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Cue:
    """An event, and when: after so many `waits` of calls to the kernel or after `seconds`, the first of them."""

    waits: int
    seconds: float
    event: Event

    def __str__(self) -> str:
        return f"{self.waits} waits or {self.seconds:g} s: {self.event!r}"


Script = tuple[Cue, ...]

MAX_EVENTS: Final = 12
PINS: Final = 3
ASSERTIONS: Final = 3
PLACES: Final = 9
SUBSCRIBERS: Final = ("ali", "bea")
SESSION_SLOTS: Final = 4
PERCENTS: Final = (100, 100, 60, 20)


def _move(dice: Dice) -> Event:
    names = sorted(PARTIES)
    moves = {dice.pick(names): dice.below(8) for _ in range(1 + dice.below(3))}
    return ("publish", *moves.items())


def _record(dice: Dice) -> Event:
    kind = dice.pick(("start", "start", "start", "interim", "over", "over", "on"))
    return (kind, dice.below(SESSION_SLOTS), dice.below(len(SUBSCRIBERS)), dice.below(PLACES))


def _mode(dice: Dice) -> Event:
    modes = ("reject", "limit", "mark")
    what = dice.pick(("file", "file", "confirm", "confirm", "timed", "plain", "observe", "yes", "yes", "revert"))
    return ("mode", what, dice.pick(modes), dice.pick((2.0, 8.0, 20.0)), dice.pick(PERCENTS))


def _restart(dice: Dice) -> Event:
    kind = dice.pick(("kill", "kill", "kill", "old", "power"))
    writes = dice.below(6) if kind in ("old", "power") else 0
    return (kind, writes, dice.pick((0.0, 0.3, 3.0)))


def _clock(dice: Dice) -> Event:
    what = dice.pick(("set", "set", "set", "ntp", "lost"))
    return ("clock", what, dice.pick((-90_000.0, -400.0, -20.0, -8.0, 8.0, 20.0, 400.0, 90_000.0)))


_KINDS: Final[tuple[tuple[int, Callable[[Dice], Event]], ...]] = (
    (9, _move),
    (6, _record),
    (4, _restart),
    (4, _mode),
    (3, lambda dice: ("fail", 1 + dice.below(3), dice.chance(0.5))),
    (3, lambda dice: ("tamper", dice.chance(0.7), dice.below(8), dice.below(100))),
    (3, lambda dice: ("packet", dice.below(1000))),
    (2, lambda dice: ("packets",)),
    (2, lambda dice: ("files", dice.below(PINS), dice.below(4))),
    (1, lambda dice: ("source", dice.below(3), dice.chance(0.5))),
    (1, lambda dice: ("silent", dice.below(3), dice.chance(0.5))),
    (2, lambda dice: ("sources", dice.below(len(CONFIGURED)), dice.pick((60.0, 60.0, 90.0)))),
    (2, lambda dice: ("assert", dice.below(ASSERTIONS))),
    (1, lambda dice: ("trip", dice.below(2))),
    (1, lambda dice: ("rearm",)),
    (1, lambda dice: ("disk", dice.chance(0.6))),
    (2, lambda dice: ("stage", dice.pick(("observe", "mark", "limit", "reject")), dice.pick(PERCENTS))),
    (1, lambda dice: ("reload", dice.pick((0.0, 4.0, 12.0)))),
    (2, _clock),
    (1, lambda dice: ("retire",)),
    (1, lambda dice: ("accept",)),
    (1, lambda dice: ("urge", dice.below(1000))),
)
_HINDRANCES: Final = (_restart, _KINDS[4][1], _move)


def _cue(dice: Dice, event: Event) -> Cue:
    return Cue(dice.pick((0, 1, 2, 3, 4, 6, 9, 40, 1000)), dice.pick((0.02, 0.3, 1.0, 6.0)), event)


def _trial(dice: Dice) -> list[Cue]:
    """A trial in a gateway at rest, and what may come in its way when it ends."""
    seconds = dice.pick((2.0, 3.0, 8.0))
    begin = Cue(
        1000, 3.0, ("mode", dice.pick(("confirm", "timed")), dice.pick(("reject", "limit", "mark")), seconds)
    )
    hindrances = [Cue(1000, seconds / 2, dice.pick(_HINDRANCES)(dice)) for _ in range(dice.below(4))]
    return [begin, *hindrances, Cue(1000, dice.pick((0.3, seconds)), ("retire",))]


def _assertion(dice: Dice) -> list[Cue]:
    """An assertion in a gateway at rest, and what an operator may do against it."""
    against: tuple[Event, ...] = (
        ("files", dice.below(PINS), 1 + dice.below(3)),
        ("sources", dice.below(len(CONFIGURED)), 60.0),
        ("stage", dice.pick(("limit", "reject")), dice.pick(PERCENTS)),
        ("mode", "confirm", "reject", 8.0, dice.pick(PERCENTS)),
        ("accept",),
        _move(dice),
    )
    begin = [Cue(1000, 3.0, ("assert", dice.below(ASSERTIONS)))]
    if dice.chance(0.5):
        # It fails already, and what arms would make it worse.
        begin[:0] = [
            Cue(1000, 3.0, ("stage", "observe", 100)),
            Cue(1000, 3.0, ("publish", ("bank", 6), ("many", 3), ("net", 2))),
        ]
    return [*begin, *(Cue(1000, dice.pick((0.02, 1.0)), dice.pick(against)) for _ in range(1 + dice.below(3)))]


def _trip(dice: Dice) -> list[Cue]:
    """Registered flows that come before their elements, where one is too many, and what may come after."""
    early: tuple[Event, ...] = (("packets",), ("urge", dice.below(1000)), _move(dice))
    late = [Cue(dice.below(6), 0.3, dice.pick(early)) for _ in range(3)]
    after = dice.pick((("rearm",), ("kill", 0, 0.3), ("stage", "limit", 100), ("trip", 1)))
    begin = [Cue(1000, 3.0, ("trip", 0)), Cue(1000, 3.0, ("stage", "reject", 100)), Cue(1000, 3.0, _move(dice))]
    return [*begin, *late, Cue(1000, dice.pick((0.3, 3.0)), after), Cue(1000, 3.0, dice.pick(_HINDRANCES)(dice))]


def make_script(dice: Dice) -> Script:
    """From an empty gateway: first somebody is registered.

    Each seed has kinds of its own that come often, and others that do not come at all: what needs several of one
    kind in a row is found so, and what most hide each other is not hidden.
    """
    wheel = [make for weight, make in _KINDS for _ in range(weight * dice.pick((0, 1, 1, 1, 5)))] or [_move]
    begin = ("publish", *((name, dice.below(3)) for name in sorted(PARTIES) if dice.chance(0.7)))
    cues = [Cue(0, 0.0, begin)]
    if dice.chance(0.15):
        cues += _trial(dice)
    if dice.chance(0.15):
        cues += _assertion(dice)
    if dice.chance(0.1):
        cues += _trip(dice)
    for _ in range(3 + dice.below(MAX_EVENTS - 3)):
        cues.append(_cue(dice, dice.pick(wheel)(dice)))
    return tuple(cues[: MAX_EVENTS + 2])
