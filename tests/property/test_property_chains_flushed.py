"""Each chain of the rules flushed in turn, on a real kernel, under packets of registered flows: all pass, and none
is taken for unregistered.

The worlds are those of test_property_kernel_verdict.py. `tests/unit/compile/test_compile_ruleset_flushed.py` reads
the same in the text of many more rulesets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab
from gatewayd.model.policy import Policy
from tests.property.test_property_kernel_verdict import (
    ANSWER_DEADLINE_S,
    CUSTOMERS,
    Attempt,
    draw_bound_world,
    draw_provider_world,
    draw_world,
    reject_policy,
    send,
)
from tests.support.rulesets import chains_in
from tests.support.worlds import TABLE, World, forget_connections, program

pytestmark = pytest.mark.kernel

FLOWS = 24
SEED = 1
REJECT = reject_policy()
LIMIT = replace(REJECT, mode="limit", limit_bytes_s=1)
POLICIES = {
    "reject": REJECT,
    "reject, no side named": replace(REJECT, inside=(), outside=()),
    "reject, canary": replace(REJECT, canary_percent=60),
    "limit": LIMIT,
    "limit, no side named": replace(LIMIT, inside=(), outside=()),
}
_OTHERS = """table inet before {{
    chain before {{
        type filter hook prerouting priority {};
        {}
    }}
}}
"""
BEFORE = {
    "new": "",
    "known as judged": _OTHERS.format(-150, "ct mark set 0x01000000"),
    "untracked": _OTHERS.format(-300, "notrack"),
}
"""What another program does to each packet before it comes to our rules."""
COUNTED_BEFORE_A_LOOK_UP = {"known as judged": {"unregistered_packets"}}
HARM = {"unregistered_flows", "unregistered_packets", "rejected_packets", "limited_packets", "reclassified_flows"}

Draw = Callable[[int], tuple[World, list[Attempt]]]


@pytest.fixture(scope="module")
def lab(kernel: None) -> Iterator[Lab]:
    """With the calling thread in the gateway's namespace: asyncio and nft run there."""
    with Lab(CUSTOMERS) as made, made.gateway.entered():
        yield made


def drawn(draw: Draw, policy: Policy) -> tuple[World, list[Attempt], list[Attempt]]:
    """A world under the policy, flows that are registered in it, and strangers."""
    world, attempts = draw(SEED)
    world.policy = policy
    words = {each: world.decision(each.flow).word for each in attempts}
    registered = [each for each in attempts if words[each] == "registered"]
    return world, registered[:FLOWS], [each for each in attempts if words[each] == "unregistered"][:FLOWS]


def flushes(chains: Mapping[str, list[str]]) -> list[list[str]]:
    """Each chain of the way, all that look something up, and all that count and log."""
    beside = [name for name in chains if name.startswith(("count_", "note"))]
    looking = [name for name, lines in chains.items() if any("goto registered" in line for line in lines)]
    assert min(len(looking), len(beside)) > 1
    return [*([name] for name in chains if name not in beside), looking, beside]


def restored(chains: Mapping[str, list[str]], names: Sequence[str]) -> str:
    """What puts flushed chains back."""
    bodies = "".join(f"chain {name} {{\n" + "\n".join(chains[name]) + "\n}\n" for name in names)
    return f"table inet {TABLE} {{\n{bodies}}}\n"


@pytest.mark.parametrize(
    ("draw", "name", "before"),
    [
        (draw_world, "reject", "new"),
        (draw_world, "limit", "untracked"),
        (draw_world, "reject, canary", "known as judged"),
        (draw_bound_world, "limit", "known as judged"),
        (draw_provider_world, "limit, no side named", "new"),
        (draw_provider_world, "reject, no side named", "untracked"),
        (draw_provider_world, "reject", "known as judged"),
    ],
)
def test_whichever_chain_is_flushed_registered_packets_pass(lab: Lab, draw: Draw, name: str, before: str) -> None:
    world, registered, strangers = drawn(draw, POLICIES[name])
    assert min(len(registered), len(strangers)) > FLOWS / 2
    harm = HARM - COUNTED_BEFORE_A_LOOK_UP.get(before, set())

    async def run() -> None:
        tables = KernelTables.open(TABLE)
        try:
            ruleset = await program(tables, world)
            chains = chains_in(ruleset.text)
            assert {outcome for _, outcome in send(lab, strangers, 0.05)} & {"rejected", "lost"}
            lab.gateway.nft(BEFORE[before])
            counted = await tables.read_counters()
            for names in flushes(chains):
                forget_connections()
                lab.gateway.nft("".join(f"flush chain inet {TABLE} {each}\n" for each in names))
                outcomes = {outcome for _, outcome in send(lab, registered, ANSWER_DEADLINE_S)}
                after = await tables.read_counters()
                assert outcomes == {"passed"}, names
                assert {each for each in harm if after[each] != counted[each]} == set(), names
                lab.gateway.nft(restored(chains, names))
                counted = after
        finally:
            lab.gateway.nft("add table inet before\ndelete table inet before\n")
            tables.close()

    forget_connections()
    asyncio.run(run())
