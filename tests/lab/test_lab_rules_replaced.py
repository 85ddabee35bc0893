"""Rules that are replaced again and again under a flood of new flows: no registered one is refused, whatever moment
of the replacement its packet meets."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from gatewayd.compile.ruleset import compile_ruleset, replace_script
from gatewayd.lab.lab import Lab
from gatewayd.model.mask import Mask
from tests.bench.burst import Burst
from tests.support.events import flush_connections
from tests.support.lab_daemon import clean
from tests.support.reconciling import policy

pytestmark = pytest.mark.kernel

TABLE = "gatewayd"
CLIENTS = "39.32.0.0/24"
AT_ONCE = 60_000
"""Flows of a burst: conntrack is emptied after each."""
FLOOD_S = 12.0


@pytest.mark.parametrize("selector", ["", "wireguard"])
def test_no_registered_flow_is_refused_while_rules_are_replaced(
    shared_lab: Lab, tmp_path: Path, selector: str
) -> None:
    clean(shared_lab)
    gateway = shared_lab.gateway
    mask = Mask(4, 24, selector=selector)
    ruleset = compile_ruleset(TABLE, policy("reject"), {mask: str(mask)}, 1)
    begin, replaced = tmp_path / "begin.nft", tmp_path / "replace.nft"
    begin.write_text(
        f"add table inet {TABLE}\nadd set inet {TABLE} {mask} {{ type ipv4_addr; size 64; }}\n"
        f"add element inet {TABLE} {mask} {{ {CLIENTS.partition('/')[0]} }}\n{ruleset.text}"
    )
    gateway.run(["nft", "-f", str(begin)])
    chains = [line.split()[1] for line in ruleset.text.splitlines() if line.startswith("\tchain ")]
    replaced.write_text(replace_script(ruleset, TABLE, chains))
    burst = Burst(shared_lab, tmp_path, [f"39.32.0.{host}" for host in range(1, 200)])
    is_over = threading.Event()
    replacements = 0

    def replace_rules() -> None:
        nonlocal replacements
        while not is_over.is_set():
            gateway.run(["nft", "-f", str(replaced)])
            replacements += 1

    replacing = threading.Thread(target=replace_rules)
    replacing.start()
    try:
        deadline = time.monotonic() + FLOOD_S
        while time.monotonic() < deadline:
            burst.send(AT_ONCE)
            flush_connections(gateway)
    finally:
        is_over.set()
        replacing.join()
    listed = json.loads(gateway.run(["nft", "-j", "list", "counters", "table", "inet", TABLE]).stdout)["nftables"]
    counted = {each["counter"]["name"]: each["counter"]["packets"] for each in listed if "counter" in each}
    assert (counted["unregistered_flows"], counted["rejected_packets"]) == (0, 0)
    assert counted["registered_flows"] > AT_ONCE / 2
    assert replacements > 10
