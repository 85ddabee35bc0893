"""Who a NAS is: what it calls itself, and from where it speaks.

Two boxes with one name are two. One box that is heard by another way (a proxy took over from another) is one. A box
that has several names is one, whichever of them it uses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.model.prefix import parse_address, parse_prefix
from gatewayd.settings.subscribers import RadiusClient
from tests.support.nas import INTERIM, OFF, ON, START, STOP
from tests.support.radius import attribute, integer, text
from tests.support.subscribers import (
    ALI,
    BANO,
    PROFILE,
    SpeakingNas,
    SubscriberGateway,
    number,
    subscriber_gateway,
)

ONE, OTHER = "127.0.0.11", "127.0.0.12"
HOME, AWAY = "192.0.2.77", "192.0.2.78"
BOTH = {f"{HOME}/32": ALI, f"{AWAY}/32": BANO}
LOOPBACK = attribute(4, parse_address("127.0.1.1"))


@asynccontextmanager
async def network(directory: Path, *, proxies: bool = False, **more: Any) -> AsyncIterator[SubscriberGateway]:
    """ONE and OTHER may send."""
    secret = str(directory / "secret")
    clients = tuple(RadiusClient(parse_prefix(f"{each}/32"), secret, proxy=proxies) for each in (ONE, OTHER))
    async with subscriber_gateway(directory, clients=clients, **more) as gateway:
        yield gateway


def two(gateway: SubscriberGateway, name: str = "MikroTik") -> tuple[SpeakingNas, SpeakingNas]:
    return gateway.nas(name, host=ONE), gateway.nas(name, host=OTHER)


async def restarts(nas: SpeakingNas, kind: int = ON, extra: bytes = b"") -> None:
    """Accounting-On or -Off, and the time until whoever is not heard again is gone."""
    gateway = nas._gateway
    await gateway.pass_time(10)
    await nas.ask(nas.request(integer(40, kind), integer(55, int(gateway.clock())), extra))
    await gateway.pass_time(200)


# -- two of one name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [b"", LOOPBACK], ids=["name alone", "and NAS-IP-Address 127.0.1.1"])
async def test_two_boxes_of_one_name_and_one_session_id_leave_each_other_alone(
    tmp_path: Path, extra: bytes
) -> None:
    async with network(tmp_path) as gateway:
        one, other = two(gateway)
        await one.says(START, "81000001", ALI, HOME, extra=extra)
        await other.says(START, "81000001", BANO, AWAY, extra=extra)
        assert await gateway.in_sync() == BOTH
        for _ in range(3):
            await gateway.pass_time(60)
            await one.says(INTERIM, "81000001", ALI, HOME, extra=extra)
            assert await gateway.in_sync() == BOTH
            await other.says(INTERIM, "81000001", BANO, AWAY, extra=extra)
            assert await gateway.in_sync() == BOTH
        await one.says(STOP, "81000001", ALI, HOME, extra=extra)
        assert await gateway.in_sync() == {f"{AWAY}/32": BANO}
        await other.says(INTERIM, "81000001", BANO, AWAY, extra=extra)
        assert await gateway.in_sync() == {f"{AWAY}/32": BANO}
        assert gateway.counts.missed_stops == 0


@pytest.mark.parametrize("kind", [ON, OFF])
@pytest.mark.parametrize("crashes", [False, True])
async def test_the_restart_of_one_ends_nothing_of_the_other(tmp_path: Path, kind: int, crashes: bool) -> None:
    async with network(tmp_path) as gateway:
        one, other = two(gateway)
        await one.says(START, "81000001", ALI, HOME)
        await other.says(START, "81000002", BANO, AWAY)
        if crashes:
            await gateway.crash()
            await gateway.come_back()
        await restarts(one, kind)
        assert await gateway.in_sync() == {f"{AWAY}/32": BANO}


async def test_two_of_one_name_behind_one_proxy_are_told_apart_by_their_addresses(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        proxy = gateway.nas("MikroTik", host=ONE)
        first, second = (attribute(4, parse_address(each)) for each in ("10.9.0.1", "10.9.0.2"))
        await proxy.says(START, "81000001", ALI, HOME, extra=first)
        await proxy.says(START, "81000001", BANO, AWAY, extra=second)
        assert await gateway.in_sync() == BOTH
        await restarts(proxy, extra=first)
        assert await gateway.in_sync() == {f"{AWAY}/32": BANO}


async def test_two_of_one_name_are_named_with_their_addresses(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        one, other = two(gateway)
        await one.says(START, "81000001", ALI, HOME)
        await other.says(START, "81000002", BANO, AWAY)
        assert gateway.service.sessions.same_names() == ()
        await other.says(START, "81000001", BANO, AWAY)
        (found,) = gateway.service.sessions.same_names()
        assert (found.name, set(found.sources)) == ("MikroTik", {ONE, OTHER})
        assert gateway.counts.same_name == 1
        assert {each.nas for each in gateway.confirmed()} == {
            f"MikroTik from {ONE}", f"MikroTik from {OTHER}",
        }  # fmt: skip


# -- one by two ways -------------------------------------------------------------------------------------------

REAL = attribute(4, parse_address("10.9.0.1"))


async def test_a_nas_behind_another_proxy_than_before_keeps_its_sessions(tmp_path: Path) -> None:
    """Of all that it says nothing is missed, and in the end it ends what it began."""
    async with network(tmp_path, profile=PROFILE) as gateway:
        before, after = two(gateway, "bng-1")
        for session, whose, address in (("s1", ALI, HOME), ("s2", BANO, AWAY)):
            await before.says(START, session, whose, address, extra=REAL, interim=600)
        for _ in range(6):
            await gateway.pass_time(600)
            await after.says(INTERIM, "s1", ALI, HOME, extra=REAL, interim=600)
            await after.says(INTERIM, "s2", BANO, AWAY, extra=REAL, interim=600)
            assert await gateway.in_sync() == BOTH
        await after.says(STOP, "s1", ALI, HOME, extra=REAL)
        assert await gateway.in_sync() == {f"{AWAY}/32": BANO}
        await restarts(after, extra=REAL)
        assert await gateway.in_sync() == {}
        assert len(gateway.service.sessions) == 0
        assert gateway.service.sessions.same_names() == ()


async def test_so_does_one_whose_interims_name_nobody_and_no_address(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        before, after = two(gateway, "bng-1")
        await before.says(START, "s1", ALI, HOME, extra=REAL, interim=600)
        for _ in range(8):
            await gateway.pass_time(600)
            at = integer(55, int(gateway.clock()))
            await after.ask(after.request(integer(40, INTERIM), text(44, "s1"), at, REAL))
            assert await gateway.in_sync() == {f"{HOME}/32": ALI}


async def test_a_stop_that_comes_by_the_other_way_is_of_the_session_and_a_late_word_does_not_raise_it(
    tmp_path: Path,
) -> None:
    async with network(tmp_path) as gateway:
        before, after = two(gateway, "bng-1")
        await before.says(START, "s1", ALI, HOME, extra=REAL)
        late = before.word(INTERIM, "s1", ALI, HOME, extra=REAL)
        await gateway.pass_time(10)
        await after.says(STOP, "s1", ALI, HOME, extra=REAL)
        assert await gateway.in_sync() == {}
        await after.ask(late)
        await before.ask(late)
        assert await gateway.in_sync() == {}


async def test_ways_in_turn_cost_nobody_anything(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        ways = two(gateway, "bng-1")
        await ways[0].says(START, "s1", ALI, HOME, interim=600)
        for turn in range(6):
            await gateway.pass_time(600)
            await ways[turn % 2].says(INTERIM, "s1", ALI, HOME, interim=600)
            assert await gateway.in_sync() == {f"{HOME}/32": ALI}
            assert len(gateway.service.sessions) == 1
        await ways[0].says(STOP, "s1", ALI, HOME)
        assert await gateway.in_sync() == {}


async def test_with_proxies_that_are_named_as_such_a_restart_is_of_the_nas_whichever_of_them_tells_it(
    tmp_path: Path,
) -> None:
    async with network(tmp_path, proxies=True) as gateway:
        before, after = two(gateway, "bng-1")
        await before.says(START, "s1", ALI, HOME, extra=REAL)
        await before.says(START, "s1", BANO, AWAY, extra=attribute(4, parse_address("10.9.0.2")))
        assert await gateway.in_sync() == BOTH
        await restarts(after, extra=REAL)
        assert await gateway.in_sync() == {f"{AWAY}/32": BANO}


async def test_a_list_that_names_the_nas_is_of_the_nas_that_is_heard(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        entry = {"nas": "bng-1", "session": "s1", "number": f"+{number(ALI)}", "addresses": [HOME]}
        await _put(gateway, entry)
        assert await gateway.in_sync() == {f"{HOME}/32": ALI}
        nas = gateway.nas("bng-1", host=ONE)
        await gateway.pass_time(10)
        await nas.says(STOP, "s1", ALI, HOME)
        assert await gateway.in_sync() == {}
        await gateway.pass_time(10)
        await _put(gateway, entry | {"session": "s2"})
        assert await gateway.in_sync() == {f"{HOME}/32": ALI}
        await gateway.pass_time(10)
        await restarts(nas)
        assert await gateway.in_sync() == {}


async def test_a_word_that_says_of_nobody_is_of_the_session_that_a_list_has(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        entry = {"nas": "bng-1", "session": "s1", "number": f"+{number(ALI)}", "addresses": [HOME]}
        await _put(gateway, entry)
        nas = gateway.nas("bng-1", host=ONE)
        for kind, left in ((INTERIM, {f"{HOME}/32": ALI}), (STOP, {})):
            await gateway.pass_time(10)
            await nas.ask(nas.request(integer(40, kind), text(44, "s1"), integer(55, int(gateway.clock()))))
            assert await gateway.in_sync() == left


async def test_a_session_that_a_nas_told_of_is_ended_and_changed_by_the_api_too(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        entry = {"nas": "bng-1", "session": "s1", "number": f"+{number(ALI)}", "addresses": [HOME]}
        await _put(gateway, entry | {"session": "s0"})
        nas = gateway.nas("bng-1", host=ONE)
        await gateway.pass_time(10)
        await nas.says(START, "s1", ALI, HOME)
        await gateway.pass_time(10)
        await _put(gateway, entry | {"addresses": [AWAY]})
        assert await gateway.in_sync() == {f"{HOME}/32": ALI, f"{AWAY}/32": ALI}, "s0 has it still"
        await gateway.pass_time(10)
        await nas.says(INTERIM, "s1", ALI, AWAY)
        await _delete(gateway, "bng-1", "s1")
        assert await gateway.in_sync() == {f"{HOME}/32": ALI}
        await _delete(gateway, "bng-1", "s0")
        assert await gateway.in_sync() == {}


async def test_of_two_of_one_name_the_api_ends_a_session_by_the_name_that_is_shown(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        one, other = two(gateway)
        await one.says(START, "81000001", ALI, HOME)
        await other.says(START, "81000001", BANO, AWAY)
        await gateway.pass_time(10)
        await _delete(gateway, "MikroTik", "81000001")
        assert await gateway.in_sync() == BOTH, "which of them?"
        await _delete(gateway, f"MikroTik from {OTHER}", "81000001")
        assert await gateway.in_sync() == {f"{HOME}/32": ALI}


async def _delete(gateway: SubscriberGateway, nas: str, session: str) -> None:
    (end,) = gateway.service.read_end(nas, session, None)
    gateway.service.receive(end, lambda: None)


async def _put(gateway: SubscriberGateway, entry: Mapping[str, object]) -> None:
    gateway.service.receive(gateway.service.read_session(entry), lambda: None)


# -- one with two names ----------------------------------------------------------------------------------------


def named(*names: str | None) -> tuple[bytes, ...]:
    """NAS-Identifier and NAS-IP-Address, where there are."""
    identifier, address = names
    found = () if identifier is None else (text(32, identifier),)
    return found if address is None else (*found, attribute(4, parse_address(address)))


WAYS = {
    "identifier in the restart alone": ((None, "10.9.0.1"), ("bng-1", "10.9.0.1")),
    "identifier in the starts alone": (("bng-1", "10.9.0.1"), (None, "10.9.0.1")),
    "address in the restart alone": (("bng-1", None), ("bng-1", "10.9.0.1")),
    "address in the starts alone": (("bng-1", "10.9.0.1"), ("bng-1", None)),
    "no name but in the restart": ((None, None), ("bng-1", None)),
    "no name but in the starts": (("bng-1", None), (None, None)),
    "one each, and the address is that of the sender": (("bng-1", None), (None, ONE)),
}


@pytest.mark.parametrize("kind", [ON, OFF])
@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_a_restart_by_another_of_its_names_is_of_the_nas(
    tmp_path: Path, way: str, kind: int, crashes: bool
) -> None:
    started, restarted = (named(*each) for each in WAYS[way])
    async with network(tmp_path) as gateway:
        nas, beside = gateway.nas(host=ONE), gateway.nas("bng-2", host=ONE)
        now = integer(55, int(gateway.clock()))
        start = [
            integer(40, START),
            text(44, "s1"),
            text(31, f"+{number(ALI)}"),
            now,
            attribute(8, parse_address(HOME)),
        ]
        await nas.asks_plainly(*start, *started)
        await beside.says(START, "s1", BANO, AWAY, extra=attribute(4, parse_address("10.9.0.2")))
        assert await gateway.in_sync() == BOTH
        if crashes:
            await gateway.crash()
            await gateway.come_back()
        await gateway.pass_time(10)
        await nas.asks_plainly(integer(40, kind), integer(55, int(gateway.clock())), *restarted)
        await gateway.pass_time(200)
        assert await gateway.in_sync() == {f"{AWAY}/32": BANO}


async def test_names_that_were_seen_together_are_of_one_nas(tmp_path: Path) -> None:
    async with network(tmp_path) as gateway:
        nas = gateway.nas(host=ONE)
        common = [text(44, "s1"), text(31, f"+{number(ALI)}"), attribute(8, parse_address(HOME))]
        await nas.asks_plainly(integer(40, START), *common, *named("bng-1", None))
        await gateway.pass_time(10)
        await nas.asks_plainly(integer(40, INTERIM), *common, *named("bng-1", "10.9.0.1"))
        await gateway.pass_time(10)
        await nas.asks_plainly(integer(40, ON), *named(None, "10.9.0.1"))
        await gateway.pass_time(200)
        assert await gateway.in_sync() == {}
