"""Other tables' rules and the size of connection tracking, read from a real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from gatewayd.errors import DumpInterrupted
from gatewayd.kernel.external import RuleReader, read_conntrack_size
from gatewayd.lab.namespace import Namespace
from tests.support.planes import fresh_namespace, run_nft

pytestmark = pytest.mark.kernel

RULES = """
table inet gatewayd {
  chain forward {
    type filter hook forward priority -10
    ct mark set 0x01000000
  }
}
table ip routing {
  set many {
    type ipv4_addr
    elements = { 192.0.2.1, 192.0.2.2 }
  }
  chain pre {
    type filter hook prerouting priority -150
    ip saddr @many counter ct mark set 0x2
    ct mark set ct mark and 0xff000000 or 0x2
    meta mark set ct mark
    meta mark set ct mark and 0x00ffffff
  }
}
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with fresh_namespace(RULES) as made:
        yield made


def read(namespace: Namespace) -> list[str]:
    with namespace.entered():
        reader = RuleReader.open("gatewayd", 0xFF000000)
    try:
        return [f"{each.deed} {each.table} {each.chain}" for each in asyncio.run(reader.neighbours())]
    finally:
        reader.close()


def test_rules_over_our_bits_are_found_and_what_keeps_them_is_not(namespace: Namespace) -> None:
    assert read(namespace) == ["writes routing pre", "leaks routing pre"]
    run_nft(namespace, "delete table ip routing")
    assert read(namespace) == []


def test_the_generation_goes_up_with_any_commit(namespace: Namespace) -> None:
    with namespace.entered():
        reader = RuleReader.open("gatewayd", 0xFF000000)

    async def scenario() -> tuple[int, int]:
        before = await reader.generation()
        run_nft(namespace, "add table inet other")
        return before, await reader.generation()

    before, after = asyncio.run(scenario())
    reader.close()
    assert after == before + 1


def test_a_list_that_is_interrupted_again_and_again_is_taken_as_it_is(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RuleReader._list
    attempts = []

    async def interrupted(reader: RuleReader, found: dict[object, None]) -> None:
        attempts.append(reader)
        await whole(reader, found)  # type: ignore[arg-type]
        raise DumpInterrupted("list rules of all tables")

    monkeypatch.setattr(RuleReader, "_list", interrupted)
    assert read(namespace) == ["writes routing pre", "leaks routing pre"]
    assert len(attempts) == 3


def test_the_size_is_of_the_namespace(namespace: Namespace) -> None:
    with namespace.entered():
        size = read_conntrack_size()
    assert size is not None
    assert (size.entries, size.dropped, size.insert_failed) == (0, 0, 0)
    assert size.most > 0
