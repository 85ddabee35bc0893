"""Other programs' ct marks and conntrack zones, under registered traffic of both families."""

from __future__ import annotations

import pytest

from gatewayd.demo.cast import BANK, EMBASSY, SOFTWARE_HOUSE
from gatewayd.lab.traffic import probe
from gatewayd.model.policy import MarkLayout
from tests.support.lab_daemon import LabDaemon, connections, holds
from tests.support.neighbours import OPENED, examine, restore, start, strangers, traffic

pytestmark = pytest.mark.kernel

LAYOUT = MarkLayout(0xFF000000)
OURS = 0xFF000000


def mangle(*rules: str) -> str:
    return "\n".join(["*mangle", *(f"-A {each}" for each in rules), "COMMIT", ""])


BESIDE = {
    "bits outside our mask": (
        mangle(
            "PREROUTING -j CONNMARK --set-xmark 0x7/0x00ffffff", "POSTROUTING -j CONNMARK --set-xmark 0x9/0xffff"
        ),
        set(),
    ),
    "the whole mark": (
        mangle("PREROUTING -j CONNMARK --set-mark 0x7", "POSTROUTING -j CONNMARK --set-mark 0x9"),
        {"mark-written"},
    ),
    "a mark of ours": (mangle(f"PREROUTING -j CONNMARK --set-mark {LAYOUT.judged(1):#x}"), {"mark-written"}),
    "saved and restored with a mask": (
        mangle(
            "PREROUTING -j CONNMARK --restore-mark --mask 0x00ffffff",
            "PREROUTING -m mark --mark 0 -i inside0 -j MARK --set-xmark 0x7/0x00ffffff",
            "PREROUTING -j CONNMARK --save-mark --mask 0x00ffffff",
        ),
        set(),
    ),
    "saved and restored whole": (
        mangle(
            "PREROUTING -j CONNMARK --restore-mark",
            "PREROUTING -m mark --mark 0 -i inside0 -j MARK --set-mark 0x7",
            "PREROUTING -j CONNMARK --save-mark",
        ),
        {"mark-written", "mark-leaked"},
    ),
}
"""What another program does to ct marks, and the doctor's findings."""


@pytest.mark.parametrize("what", BESIDE)
def test_nothing_is_lost_and_strangers_are_refused_beside_another_user_of_the_mark(
    daemon: LabDaemon, what: str
) -> None:
    rules, checks = BESIDE[what]
    gateway = start(daemon).gateway
    with traffic(daemon.lab) as flows:
        for _ in range(2):
            restore(gateway, rules)
            flows.goes_on(10)
            flows.refuses()
        flows.goes_on()
        flows.is_whole()
    found = examine(daemon)
    assert {each for each in found if each.startswith("mark-")} == checks
    if not checks:
        theirs = {each.mark & ~OURS for each in connections(daemon.lab) if each.flow in OPENED}
        assert theirs
        assert theirs <= {0x7, 0x9}


def test_a_program_that_writes_the_registered_bit_makes_strangers_pass_and_is_a_fault(daemon: LabDaemon) -> None:
    """Its rule is believed: a mark cannot be told from ours. Flows that have it keep it for the drain."""
    gateway = start(daemon).gateway
    restore(gateway, mangle(f"PREROUTING -j CONNMARK --set-mark {LAYOUT.registered:#x}"))
    with traffic(daemon.lab) as flows:
        assert set(probe(daemon.lab, strangers())) == {"passed"}
        found = examine(daemon)["mark-written"]
        assert {each.severity for each in found} == {"fault"}
        for each in found:
            assert each.command is not None
            gateway.run(["sh", "-ec", each.command])
        assert set(probe(daemon.lab, [each for each in strangers() if each.source_port])) == {"rejected"}
        assert holds(lambda: set(probe(daemon.lab, strangers())) == {"rejected"}, deadline_s=90)
        flows.is_whole()


# -- zones ---------------------------------------------------------------------------------------------------------


ZONES = """
*raw
-A PREROUTING -i inside0 -j CT --zone 5
-A PREROUTING -i outside0 -j CT --zone 5
COMMIT
"""


def test_flows_in_a_zone_pass_and_drain_and_strangers_are_refused(daemon: LabDaemon) -> None:
    lab = start(daemon, policy={"drain": "0s"})
    restore(lab.gateway, ZONES)
    with traffic(lab) as flows:
        flows.refuses()
        flows.goes_on()
        flows.is_whole()
    assert "conntrack-zone" in examine(daemon)
    listed = connections(lab)
    assert {each.zone for each in listed} == {5}
    assert {each.mark for each in listed} == {LAYOUT.registered}
    embassys = [each for each in OPENED if each.protocol == 50]
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.sync()

    def drained() -> bool:
        return not any(each.mark for each in connections(lab) if each.flow in embassys)

    assert holds(drained)
    assert set(probe(lab, embassys)) == {"rejected"}
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY])
    daemon.sync()
    assert holds(lambda: set(probe(lab, embassys)) == {"passed"})
