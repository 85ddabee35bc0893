"""Accounting that others send again, or send in the name of a NAS: it takes nothing, and binds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.model.prefix import parse_prefix
from gatewayd.settings import RadiusClient
from gatewayd.subscribers.radius.packet import KEEP_S
from tests.support.nas import INTERIM, ON, START, STOP
from tests.support.radius import integer, text
from tests.support.subscribers import ALI, BANO, subscriber_gateway

HOME, AWAY = "100.64.0.1", "100.64.0.2"
STRANGER = 99
"""A subscriber that is not registered."""


@pytest.mark.parametrize("ago", [None, 0], ids=["without a time", "with its time"])
async def test_a_start_that_is_replayed_lets_nobody_pass(tmp_path: Path, ago: int | None) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        start = nas.word(START, "a1", ALI, HOME, ago=ago)
        await nas.ask(start)
        assert await gateway.in_sync() == {f"{HOME}/32": ALI}
        await gateway.pass_time(10)
        await nas.says(STOP, "a1", ALI, HOME, ago=ago)
        await gateway.pass_time(10)
        await nas.says(START, "c1", STRANGER, HOME, ago=ago)
        await gateway.pass_time(KEEP_S + 3)
        await nas.ask(start)
        assert await gateway.in_sync() == {}


async def test_a_replayed_restart_ends_nothing_before_and_after_a_restart_of_ours(tmp_path: Path) -> None:
    many = range(1, 9)
    async with subscriber_gateway(tmp_path, registered=many) as gateway:
        nas = gateway.nas()
        on = nas.request(integer(40, ON))
        await nas.ask(on)
        await gateway.pass_time(60)
        for each in many:
            await nas.says(START, f"s{each}", each, f"100.64.0.{each}")
        bound = {f"100.64.0.{each}/32": each for each in many}
        assert await gateway.in_sync() == bound
        await gateway.pass_time(60)
        await nas.ask(on)
        await gateway.pass_time(300)
        assert await gateway.in_sync() == bound
        await gateway.crash()
        await gateway.come_back()
        await nas.ask(on)
        await gateway.pass_time(300)
        assert await gateway.in_sync() == bound
        await nas.restart_now()
        await gateway.pass_time(300)
        assert await gateway.in_sync() == {}


async def test_a_client_speaks_for_its_own_nas_and_its_own_addresses(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    confined = RadiusClient(
        parse_prefix("127.0.0.5/32"), str(secret), nas=("bng-5",), addresses=(parse_prefix("100.65.0.0/16"),),
        require_event_timestamp=True,
    )  # fmt: skip
    async with subscriber_gateway(tmp_path, clients=(confined,)) as gateway:
        await gateway.nas("bng-1").says(START, "a1", ALI, HOME)
        forger = gateway.nas("bng-1", host="127.0.0.5")
        await forger.says(STOP, "a1", ALI, HOME)
        await forger.ask(forger.request(integer(40, ON)))
        own = gateway.nas("bng-5", host="127.0.0.5")
        await own.says(START, "b1", BANO, HOME, AWAY)
        await own.says(START, "b2", BANO, "100.65.0.7", ago=None)
        await gateway.pass_time(300)
        assert await gateway.in_sync() == {f"{HOME}/32": ALI}
        await own.says(INTERIM, "b1", BANO, "100.65.0.8", AWAY)
        assert await gateway.in_sync() == {f"{HOME}/32": ALI, "100.65.0.8/32": BANO}
        assert gateway.stats.unusable == {"nas_not_allowed": 2, "no_event_timestamp": 1}
        assert gateway.stats.ignored == {"address_not_allowed": 3}


async def test_a_number_with_dashes_in_a_session_id_is_nowhere(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        for name, session in (("bng-1", "0300-0000001-17"), ("bng 0300 0000001", "s1")):
            nas.name = name
            await nas.ask(nas.request(integer(40, START), text(44, session), text(31, "+923000000001")))
        assert gateway.stats.unusable == {"number_in_clear": 2}
        assert await gateway.rows() == {}
