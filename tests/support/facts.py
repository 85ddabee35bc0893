"""Facts of a healthy host, with what a test wants different."""

from __future__ import annotations

from typing import Any

from gatewayd.doctor.facts import Facts, Link, Question

QUESTION = Question("gatewayd", -10, 0xFF000000, "reject", "/var/lib/gatewayd", ("ppp*",), ("eth0",), (9480, 9481))
LINKS = (Link("lo"), Link("ppp0"), Link("eth0"))


def facts(question: Question = QUESTION, **changes: Any) -> Facts:
    return Facts(question, **{"links": LINKS, **changes})
