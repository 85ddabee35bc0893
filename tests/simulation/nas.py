"""The NAS: sessions of subscribers begin, go on and end, and each record is sent until it is answered."""

from __future__ import annotations

from typing import Any, Final

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.model.registration import Ports
from tests.simulation.life import Life, Lives
from tests.simulation.loop import Clock, Dice, SeededLoop
from tests.simulation.script import SUBSCRIBERS
from tests.simulation.told import Counts
from tests.simulation.truth import Session, Truth
from tests.simulation.watch import Watch
from tests.support.reconciling import subscribed

REPEAT_S: Final = 2.0
"""A NAS sends a record again until it is answered."""
END_MARGIN_S: Final = 5.0
"""A session that has been confirmed for so much less than its timeout is alive for certain."""
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


class Nas:
    """Two of them, one for each half of the slots of sessions. `unanswered`: records by number, in their order."""

    def __init__(
        self, clock: Clock, loop: SeededLoop, dice: Dice, truth: Truth, lives: Lives, watch: Watch, counts: Counts
    ) -> None:
        self.unanswered: dict[int, AccountingEvent] = {}
        self._clock, self._loop, self._dice = clock, loop, dice
        self._truth, self._lives, self._watch, self._counts = truth, lives, watch, counts
        self._slots: dict[int, str] = {}
        self._numbers = 0
        self._recorded_s = 0.0

    def record(self, kind: str, slot: int, subscriber: int, place: int) -> None:
        """`kind`: on, start, interim or stop, of the session in a slot."""
        self._numbers += 1
        now, nas, truth = self._time_of_record(), f"bng{slot % 2}", self._truth
        if kind == "on":
            truth.doubt_nas(nas)
            self._tell("on", nas, "", None, ())
        elif kind == "start":
            id, digest = f"s{self._numbers}", subscribed(SUBSCRIBERS[subscriber]).subscriber
            assert digest is not None
            places = tuple((parse_prefix(text), ports) for text, ports in PLACES[place])
            self._slots[slot] = id
            truth.begin_session(Session(nas, id, digest, places, now))
            self._tell("start", nas, id, digest, places)
        elif (session := truth.sessions.get(self._slots.get(slot, ""))) is not None:
            self._go_on(session, now, ends=kind == "stop")

    def end_sessions(self, timeout_s: float) -> None:
        """Sessions that may be over end; the others are confirmed."""
        for each in list(self._truth.sessions.values()):
            now = self._time_of_record()
            is_alive = each.is_sure and now < each.at_s + timeout_s - END_MARGIN_S
            self._go_on(each, now, ends=not is_alive)

    def resend(self) -> None:
        """To another process."""
        for number in self.unanswered:
            self._send(number)

    def answered(self, event: AccountingEvent) -> None:
        for number, each in list(self.unanswered.items()):
            if each is event:
                del self.unanswered[number]

    def _go_on(self, session: Session, now: float, *, ends: bool) -> None:
        if ends:
            self._truth.end_session(session)
        else:
            self._truth.confirm_session(session, now)
        kind = "stop" if ends else "interim"
        self._tell(kind, session.nas, session.id, session.subscriber, session.places)

    def _time_of_record(self) -> float:
        """No two records are of one moment: which of them is newer could not be told."""
        self._recorded_s = max(self._clock.true_s(), self._recorded_s + 0.001)
        return self._recorded_s

    def _tell(
        self, kind: Any, nas: str, id: str, digest: bytes | None, places: tuple[tuple[Prefix, Ports], ...]
    ) -> None:
        self._counts.records += 1
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
        self.unanswered[self._numbers] = event
        self._send(self._numbers)

    def _send(self, number: int) -> None:
        self._loop.call_later(self._dice.random() * 0.1, self._arrive, number, self._lives.life)

    def _arrive(self, number: int, life: Life | None) -> None:
        event = self.unanswered.get(number)
        if event is None or life is None or life is not self._lives.life:
            return
        life.hear(event, self._clock.true_s())
        self._watch.changed()
        if number in self.unanswered:
            self._loop.call_later(REPEAT_S, self._arrive, number, life)
