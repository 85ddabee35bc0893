"""Who else is at the kernel: calls that fail, programs that change the table, packets that the rules judge."""

from __future__ import annotations

from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.kernel.fake import FakeSet
from gatewayd.model.flow import Flow
from gatewayd.model.mask import Mask, parse_set_name
from tests.simulation.kernel import LAYOUT, Kernel
from tests.simulation.life import Life, Lives
from tests.simulation.loop import SeededLoop
from tests.simulation.oracle import flows_found, flows_gone
from tests.simulation.parties import FLOWS
from tests.simulation.told import Counts
from tests.simulation.watch import Watch


class Outsiders:
    """All of them; they keep nothing."""

    def __init__(self, kernel: Kernel, loop: SeededLoop, lives: Lives, watch: Watch, counts: Counts) -> None:
        self._kernel, self._loop, self._lives = kernel, loop, lives
        self._watch, self._counts = watch, counts

    def fail(self, calls: int, after: bool) -> None:
        """The next calls of the process fail, before they take effect or after it."""
        if self._lives.life is not None:
            self._counts.failures += calls
            self._watch.hinder()
            self._kernel.trouble.calls, self._kernel.trouble.after = calls, after

    def tamper(self, is_heard: bool, kind: int, number: int) -> None:
        """`is_heard`: whether the kernel's notification of it arrives."""
        tables = self._kernel.tables
        before = None if tables.table is None else tables.table.copy()
        tables.tamper(lambda: self._damage(kind, number), received=is_heard)
        self._watch.doubt(flows_gone(before, tables.table))

    def _damage(self, kind: int, number: int) -> None:
        tables = self._kernel.tables
        table = tables.table
        if table is None:
            return
        names = sorted(each for each in table.sets if each not in RULE_SETS)
        name = names[number % len(names)] if names else ""
        if kind == 0:
            tables.table = None
            self._watch.lose_rules()
        elif kind == 1:
            table.rules, table.used = "", frozenset()
            self._watch.lose_rules()
        elif kind == 2 and name:  # nft flush set
            for key in list(table.sets[name].keys):
                table.sets[name].drop(key)
        elif kind == 3 and name and (parsed := parse_set_name(name)) is not None:
            table.sets[name].put([bytes(parsed[0].key_length)], self._kernel.clock.elapsed_s)
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
        table, tag = self._kernel.tables.table, self._watch.tag
        if table is None or not table.rules or tag is None:
            return
        number %= len(FLOWS)
        flow, flows = FLOWS[number], self._kernel.flows
        known = next((each for each in flows.connections.values() if each.flow == flow), None)
        if known is not None and known.mark & LAYOUT.registered:
            return
        if flows_found(table, self._kernel.clock.elapsed_s) >> number & 1:
            flows.put(flow, LAYOUT.registered)
            return
        flows.put(flow, LAYOUT.judged(tag.epoch))
        life = self._lives.life
        if life is not None and life.is_started:
            self._loop.call_later(self._kernel.dice.random() * 0.05, self._logged, life, flow)

    def packets(self) -> None:
        """One of every third flow."""
        for number in range(0, len(FLOWS), 3):
            self.packet(number)

    def urge(self, number: int) -> None:
        """A registered flow came before its element."""
        life = self._lives.life
        if life is not None and life.is_started:
            life.core.watch.on_packets([FLOWS[number % len(FLOWS)]])

    def _logged(self, life: Life, flow: Flow) -> None:
        if life is self._lives.life:
            life.core.watch.on_packets([flow])
