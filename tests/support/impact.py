"""Reports of impact, and a daemon without one."""

from __future__ import annotations

from gatewayd.impact.counting import PrefixService, ServiceBucket
from gatewayd.impact.report import ImpactReport, Question, Run, Sums, make_report
from gatewayd.state_file.view import StateFileView

NOON = 1_750_000_000.0
"""2025-06-15T15:06:40Z."""
ASKED = Question(NOON - 3600, NOON, 3600, top=20, percent=10, counts=True, shadows_limit=False)
PEACE = Sums(
    packets={"unregistered_flows": 30, "unregistered_packets": 900},
    prefixes={
        PrefixService(bytes((10, 0, 1)), 17, 51820): 20,
        PrefixService(bytes((10, 0, 1)), 6, 1194): 4,
        PrefixService(bytes.fromhex("20010db8000c"), 50, 0): 6,
    },
    services={ServiceBucket(17, 51820, 3): 20, ServiceBucket(6, 1194, 50): 4, ServiceBucket(50, 0, 99): 6},
    interfaces={"ppp*": 24, "eth1": 6},
    steps=[(int(NOON) - 3600, 10), (int(NOON), 20)],
    runs=[Run(NOON - 86400, NOON, 0, is_new_table=True)],
)


def report_of(sums: Sums = PEACE, asked: Question = ASKED) -> ImpactReport:
    return make_report(sums, asked, StateFileView("impact", "ok"))


async def no_impact(since_s: float | None, top: int, percent: int) -> ImpactReport:
    """Of a daemon that has counted nothing."""
    return report_of(Sums())
