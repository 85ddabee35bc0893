"""What RADIUS accounting does in the field, case by case: from the datagram to the kernel and back to the answer.

The numbers are those of the list of cases in which other listeners went wrong: LibreQoS, FortiGate, PacketFence,
FreeRADIUS, Kannel, accel-ppp, Nokia. Each test looks at what the kernel holds, at the answer, and at what is
counted.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gatewayd.model.prefix import parse_prefix
from gatewayd.settings.subscribers import ProfileSettings, RadiusClient
from tests.support.nas import INTERIM, OFF, ON, START, STOP
from tests.support.radius import (
    NOKIA_INTERIM,
    VECTORS,
    accounting_request,
    attribute,
    extended,
    integer,
    is_response,
    status_server,
    text,
    vendor,
)
from tests.support.subscribers import (
    ALI,
    BANO,
    CHAND,
    PROFILE,
    eventually,
    named,
    number,
    registration,
    subscriber_gateway,
)

HOME, ABROAD = "10.0.0.1", "10.0.0.2"
HOME_32, ABROAD_32 = f"{HOME}/32", f"{ABROAD}/32"
SLAAC, DELEGATED = "2001:db8:1::/64", "2001:db8:100::/56"
TGPP = 10415
NSAPI = vendor(TGPP, attribute(10, b"5"))
LAST_BEARER = vendor(TGPP, attribute(11, b"\xff"))


async def test_7b_01_identical_bytes_get_the_same_answer_and_happen_once(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        request = nas.word(START, "s1", ALI, HOME)
        first = await nas.ask(request)
        before = await gateway.tracker()
        writes = len(gateway.fake.writes)
        assert [await nas.ask(request) for _ in range(3)] == [first] * 3
        assert await gateway.tracker() == before
        assert gateway.kernel() == {HOME_32: ALI}
        assert (gateway.stats.events, gateway.stats.duplicates, gateway.counts.starts) == (1, 3, 1)
        assert len(gateway.fake.writes) == writes


async def test_7b_01_a_repeat_with_a_new_delay_is_another_packet_and_the_same_event(tmp_path: Path) -> None:
    """RFC 2866 §4.1: with Acct-Delay-Time the Identifier and the authenticator change."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, SLAAC)
        before = await gateway.tracker()
        at = int(gateway.clock())
        for delay in (3, 6, 9):
            gateway.clock.advance(3)
            await nas.says(START, "s1", ALI, HOME, SLAAC, delay=delay, ago=int(gateway.clock()) - at)
        after = await gateway.tracker()
        assert (after.bound, after.elements, after.sessions) == (before.bound, before.elements, 1)
        assert (gateway.stats.events, gateway.stats.duplicates, gateway.counts.repeated) == (4, 0, 3)


async def test_7b_01_without_event_time_the_delay_says_when_it_was(tmp_path: Path) -> None:
    """A Start that was repeated until after the Stop of the next session does not come before it."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s2", BANO, HOME, ago=None, delay=2)
        await nas.says(START, "s1", ALI, HOME, ago=None, delay=9)
        assert await gateway.in_sync() == {HOME_32: BANO}
        assert gateway.counts.superseded == 1


async def test_7b_02_a_stop_under_the_identifier_of_the_last_interim_is_a_stop(tmp_path: Path) -> None:
    """accel-ppp: the Stop repeats the id of the Interim before it, with other contents."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME)
        interim = nas.word(INTERIM, "s1", ALI, HOME)
        await nas.ask(interim)
        assert await gateway.in_sync() == {HOME_32: ALI}
        nas._identifiers = iter([interim[1]])  # type: ignore[assignment]
        stop = nas.word(STOP, "s1", ALI, HOME)
        assert stop[1] == interim[1]
        assert is_response(await nas.ask(stop), stop)
        assert await gateway.in_sync() == {}
        assert (gateway.stats.events, gateway.stats.duplicates, gateway.counts.stops) == (3, 0, 1)


async def test_7b_02_many_requests_at_once_under_one_identifier_are_all_taken(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path, registered=range(1, 6)) as gateway:
        nas = gateway.nas()
        requests = []
        for subscriber in range(1, 6):
            nas._identifiers = iter([77])  # type: ignore[assignment]
            requests.append(nas.word(START, f"s{subscriber}", subscriber, f"10.0.0.{subscriber}"))
        for request in requests:
            nas.send(request)
        await gateway.has_read_all()
        assert await gateway.in_sync() == {f"10.0.0.{each}/32": each for each in range(1, 6)}
        answers = nas.received()
        assert len(answers) == 5
        assert all(any(is_response(answer, request) for answer in answers) for request in requests)
        assert (gateway.stats.events, gateway.stats.duplicates) == (5, 0)


@pytest.mark.parametrize("new_place", [HOME, ABROAD], ids=["same address", "other address"])
async def test_7b_03_a_late_stop_of_an_old_session_removes_only_what_that_session_owns(
    tmp_path: Path, new_place: str
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, SLAAC, ago=20)
        await nas.says(START, "s2", ALI, new_place, ago=10)
        await nas.says(STOP, "s1", ALI, HOME, SLAAC)
        assert await gateway.in_sync() == {f"{new_place}/32": ALI}
        assert (gateway.counts.stops, len(gateway.service.sessions)) == (1, 1)


async def test_7b_03_a_late_stop_takes_nothing_from_whoever_has_the_address_now(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=20)
        await nas.says(START, "s2", BANO, HOME, ago=10)
        await nas.says(STOP, "s1", ALI, HOME)
        assert await gateway.in_sync() == {HOME_32: BANO}
        assert (gateway.counts.stops, gateway.counts.evictions) == (1, 1)


async def test_7b_03_a_stop_of_an_earlier_life_of_a_session_id_leaves_the_later_one(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=30)
        await nas.says(START, "s1", BANO, ABROAD, ago=10)
        await nas.says(STOP, "s1", ALI, HOME, ago=20)
        assert await gateway.in_sync() == {ABROAD_32: BANO}
        assert (gateway.counts.late_stops, gateway.counts.missed_stops) == (1, 1)


async def test_7b_04_an_address_that_is_given_to_another_without_a_stop_is_his_at_once(tmp_path: Path) -> None:
    """And before the answer: who has the answer may count on it."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=10)
        assert await gateway.in_sync() == {HOME_32: ALI}
        gateway.hold_disk()
        nas.send(nas.word(START, "s2", BANO, HOME))
        await gateway.has_read_all()
        assert await gateway.in_sync() == {HOME_32: BANO}
        assert nas.received() == []
        gateway.free_disk()
        await gateway.in_sync()
        assert (gateway.counts.evictions, gateway.counts.missed_stops) == (1, 1)


async def test_7b_04_nobody_registered_takes_an_address_too(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=10)
        await nas.says(START, "s2", CHAND, HOME)
        assert await gateway.in_sync() == {}
        assert (gateway.counts.evictions, gateway.counts.missed_stops) == (1, 1)


async def test_7b_04_an_older_start_takes_nothing(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s2", BANO, HOME, ago=10)
        await nas.says(START, "s1", ALI, HOME, ago=20)
        assert await gateway.in_sync() == {HOME_32: BANO}
        assert (gateway.counts.superseded, gateway.counts.evictions) == (1, 0)


async def test_7b_04_a_session_has_one_ipv4_address_and_a_subscriber_as_many_as_his_sessions(
    tmp_path: Path,
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=10)
        await nas.says(INTERIM, "s1", ALI, ABROAD, ago=5)
        assert await gateway.in_sync() == {ABROAD_32: ALI}
        await nas.says(START, "s2", ALI, HOME)
        assert await gateway.in_sync() == {HOME_32: ALI, ABROAD_32: ALI}
        assert gateway.counts.evictions == 0


async def test_7b_04_where_a_subscriber_has_one_address_the_session_that_began_last_has_it(tmp_path: Path) -> None:
    """Its older session lives, and says so; a late word of one that began before changes nothing."""
    profile = ProfileSettings(country_code="92", single_session=True)
    async with subscriber_gateway(tmp_path, profile=profile) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=30)
        await nas.says(START, "s2", ALI, ABROAD, ago=20)
        assert await gateway.in_sync() == {ABROAD_32: ALI}
        await nas.says(INTERIM, "s1", ALI, HOME, ago=10)
        assert await gateway.in_sync() == {ABROAD_32: ALI}
        await nas.says(START, "s0", ALI, "100.64.9.9", ago=40)
        assert await gateway.in_sync() == {ABROAD_32: ALI}
        await gateway.crash()
        await gateway.come_back()
        assert await gateway.in_sync() == {ABROAD_32: ALI}
        await nas.says(STOP, "s2", ALI, ABROAD, ago=5)
        await nas.says(INTERIM, "s1", ALI, HOME)
        assert await gateway.in_sync() == {HOME_32: ALI}


async def test_7b_05_an_interim_behind_its_stop_raises_nothing(tmp_path: Path) -> None:
    """PacketFence #2113. Nor does one of the second after it, nor the Start; a crash in between is no help."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=60)
        await nas.says(STOP, "s1", ALI, HOME, ago=30)
        for ago in (40, 30, 29):
            await nas.says(INTERIM, "s1", ALI, HOME, ago=ago)
        await nas.says(START, "s1", ALI, HOME, ago=60)
        assert await gateway.in_sync() == {}
        assert gateway.counts.tombstoned == 4
        await gateway.crash()
        await gateway.come_back()
        await nas.says(INTERIM, "s1", ALI, HOME, ago=31)
        assert await gateway.in_sync() == {}
        assert gateway.counts.tombstoned == 1


async def test_7b_05_a_later_word_is_of_another_life_of_the_id(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(STOP, "s1", ALI, HOME, ago=30)
        await nas.says(START, "s1", ALI, HOME, ago=10)
        assert await gateway.in_sync() == {HOME_32: ALI}
        assert (gateway.counts.tombstoned, gateway.counts.unknown_stops) == (0, 1)


async def test_7b_05_tombstones_are_forgotten_in_time(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME)
        await nas.says(STOP, "s1", ALI, HOME)
        assert {key[0] for key in await gateway.rows()} == {"ended", "address"}
        await gateway.pass_time(901)
        assert await gateway.rows() == {}
        assert gateway.service.sessions.tombstones == 0


async def test_7b_06_an_interim_of_a_session_that_nobody_knows_is_its_start(tmp_path: Path) -> None:
    """PacketFence PR#9249: after a restart sessions were unknown, and their Stops were dropped."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=60)
        await gateway.crash()
        await gateway.come_back(forgetting=True, waits=False)
        assert await gateway.read_back() == {HOME_32: ALI}, "until it is known to be somebody else's"
        assert gateway.bound() == {}
        await nas.says(INTERIM, "s1", ALI, HOME, ago=5)
        assert await gateway.in_sync() == {HOME_32: ALI}
        assert gateway.counts.interims_first == 1
        await nas.says(STOP, "s1", ALI, HOME)
        assert await gateway.in_sync() == {}
        assert gateway.counts.unknown_stops == 0


@pytest.mark.parametrize("status", [ON, OFF], ids=["on", "off"])
async def test_7b_07_a_restart_ends_what_is_not_confirmed_after_a_grace_and_of_that_nas_alone(
    tmp_path: Path, status: int
) -> None:
    async with subscriber_gateway(tmp_path, registered=(ALI, BANO, CHAND)) as gateway:
        nas, other = gateway.nas("bng-1"), gateway.nas("bng-2")
        await nas.says(START, "s1", ALI, HOME, ago=10)
        await nas.says(START, "s2", BANO, ABROAD, ago=10)
        await other.says(START, "s1", CHAND, "10.0.0.3", ago=10)
        await nas.ask(nas.request(integer(40, status), integer(55, int(gateway.clock()))))
        await gateway.do_what_is_due()
        assert await gateway.in_sync() == {HOME_32: ALI, ABROAD_32: BANO, "10.0.0.3/32": CHAND}
        await gateway.pass_time(60)
        await nas.says(INTERIM, "s2", BANO, ABROAD)
        assert await gateway.in_sync() == {HOME_32: ALI, ABROAD_32: BANO, "10.0.0.3/32": CHAND}
        await gateway.pass_time(90)
        assert await gateway.in_sync() == {ABROAD_32: BANO, "10.0.0.3/32": CHAND}
        assert (gateway.counts.restarts, gateway.counts.ended_by_restart, gateway.counts.expired) == (1, 1, 0)


async def test_7b_07_an_accounting_on_of_a_proxy_ends_nothing_of_the_nas_behind_it(tmp_path: Path) -> None:
    """It names the proxy, or nobody, and then it is of who sent it."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas("bng-1")
        await nas.says(START, "s1", ALI, HOME, ago=10)
        await gateway.nas("proxy-7").restart_now()
        assert is_response(*(await nas.asks_plainly(integer(40, ON))))
        await gateway.pass_time(600)
        assert await gateway.in_sync() == {HOME_32: ALI}
        assert (gateway.counts.restarts, gateway.counts.ended_by_restart) == (2, 0)


async def test_7b_07_the_sessions_of_a_nas_that_never_says_on_run_out(tmp_path: Path) -> None:
    """accel-ppp's default. New ids at the same address take it at once; the silent rest lives out its time."""
    async with subscriber_gateway(tmp_path, registered=(ALI, BANO, CHAND)) as gateway:
        nas = gateway.nas()
        await nas.says(START, "old-1", ALI, HOME, interim=300)
        await nas.says(START, "old-2", BANO, ABROAD, interim=300)
        await gateway.pass_time(300)
        await nas.says(START, "new-1", CHAND, HOME, interim=300)
        assert await gateway.in_sync() == {HOME_32: CHAND, ABROAD_32: BANO}
        await gateway.pass_time(580)
        assert await gateway.in_sync() == {HOME_32: CHAND, ABROAD_32: BANO}
        await gateway.pass_time(130)
        assert await gateway.in_sync() == {HOME_32: CHAND}
        assert (gateway.counts.evictions, gateway.counts.missed_stops, gateway.counts.expired) == (1, 1, 2)


@pytest.mark.parametrize(("interim", "left"), [("snapshot", {HOME_32}), ("merge", {HOME_32, SLAAC, DELEGATED})])
async def test_7b_08_an_interim_names_all_of_a_session_or_a_part_as_its_nas_has_it(
    tmp_path: Path, interim: str, left: set[str]
) -> None:
    async with subscriber_gateway(tmp_path, nas=(named("bng-1", interim=interim),)) as gateway:
        nas = gateway.nas("bng-1")
        await nas.says(START, "s1", ALI, HOME, SLAAC, DELEGATED, ago=10)
        assert await gateway.in_sync() == {HOME_32: ALI, SLAAC: ALI, DELEGATED: ALI}
        await nas.says(INTERIM, "s1", ALI, HOME)
        assert (await gateway.in_sync()).keys() == left
        assert gateway.counts.interims == 1


async def test_7b_08_an_interim_without_addresses_says_nothing_of_them(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path, profile=ProfileSettings("snapshot", country_code="92")) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, SLAAC, ago=10)
        await nas.says(INTERIM, "s1", ALI)
        assert await gateway.in_sync() == {HOME_32: ALI, SLAAC: ALI}


async def test_7b_08_a_nokia_interim_as_it_was_sent(tmp_path: Path) -> None:
    """All kinds of addresses; its subscriber is a MAC address, which is nobody's number."""
    async with subscriber_gateway(tmp_path) as gateway:
        await gateway.nas().ask(NOKIA_INTERIM)
        assert await gateway.in_sync() == {}
        assert len(gateway.service.sessions) == 1


async def test_7b_09_a_subscriber_has_the_union_of_his_live_sessions(tmp_path: Path) -> None:
    """One session each for IPv4, SLAAC and the delegated prefix."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        link = text(50, "m1")
        for session, address in (("v4", HOME), ("slaac", SLAAC), ("pd", DELEGATED)):
            await nas.says(START, session, ALI, address, ago=10, extra=link)
        await nas.says(START, "v4-again", ALI, HOME, ago=5, extra=link)
        assert await gateway.in_sync() == {HOME_32: ALI, SLAAC: ALI, DELEGATED: ALI}
        await nas.says(STOP, "slaac", ALI, SLAAC, extra=link)
        assert await gateway.in_sync() == {HOME_32: ALI, DELEGATED: ALI}
        await nas.says(STOP, "v4", ALI, HOME, extra=link)
        assert await gateway.in_sync() == {HOME_32: ALI, DELEGATED: ALI}
        await nas.says(STOP, "v4-again", ALI, HOME, extra=link)
        assert await gateway.in_sync() == {DELEGATED: ALI}
        assert (gateway.counts.starts, gateway.counts.stops, gateway.counts.evictions) == (4, 3, 0)


async def test_7b_10_a_stop_of_one_bearer_ends_nothing_and_the_last_one_all(tmp_path: Path) -> None:
    """3GPP TS 29.061 §16.4.7: two PDP contexts of one address; only the last Stop has the indicator."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas("ggsn-1")
        await nas.says(START, "primary", ALI, HOME, ago=10, extra=NSAPI)
        await nas.says(START, "secondary", ALI, HOME, ago=9, extra=NSAPI)
        await nas.says(STOP, "primary", ALI, HOME, ago=5, extra=NSAPI)
        assert await gateway.in_sync() == {HOME_32: ALI}
        assert gateway.counts.bearer_stops == 1
        await nas.says(STOP, "secondary", ALI, HOME, extra=NSAPI + LAST_BEARER)
        assert await gateway.in_sync() == {}
        assert gateway.counts.stops == 2


async def test_7b_10_a_bearer_whose_siblings_are_unknown_keeps_the_address_until_the_final_stop(
    tmp_path: Path,
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas("ggsn-1")
        await nas.says(START, "primary", ALI, HOME, ago=10, extra=NSAPI)
        await nas.says(STOP, "primary", ALI, HOME, ago=5, extra=NSAPI)
        assert await gateway.in_sync() == {HOME_32: ALI}
        await nas.says(STOP, "unheard", ALI, HOME, extra=NSAPI + LAST_BEARER)
        assert await gateway.in_sync() == {}
        assert (gateway.counts.bearer_stops, gateway.counts.unknown_stops) == (1, 1)


async def test_7b_11_a_proxys_queue_of_old_packets_is_applied_by_event_time(tmp_path: Path) -> None:
    """FreeRADIUS robust-proxy-accounting: the home server was away for an hour, and gets it all, in any order."""
    async with subscriber_gateway(tmp_path, registered=(ALI, BANO, CHAND)) as gateway:
        nas = gateway.nas()
        await nas.says(START, "fresh", CHAND, "10.0.0.3", interim=1800)
        queue = [
            nas.word(INTERIM, "s1", ALI, HOME, ago=3000, interim=1800),
            nas.word(START, "s2", BANO, HOME, ago=1500, interim=1800),
            nas.word(STOP, "s1", ALI, HOME, ago=2000),
            nas.word(INTERIM, "s1", ALI, HOME, ago=2500, interim=1800),
            nas.word(START, "s1", ALI, HOME, ago=3500, interim=1800),
        ]
        for request in queue:
            nas.send(request)
        await gateway.has_read_all()
        assert await gateway.in_sync() == {HOME_32: BANO, "10.0.0.3/32": CHAND}
        answers = nas.received()
        assert all(any(is_response(answer, request) for answer in answers) for request in queue)
        assert gateway.counts.tombstoned == 2


async def test_7b_11_an_old_event_prolongs_no_life(tmp_path: Path) -> None:
    """It counts from when it happened: an Interim of ten minutes ago is worth five minutes of fifteen."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, interim=300)
        await gateway.pass_time(890)
        await nas.says(START, "fresh", CHAND, "10.0.0.3", interim=300)
        await nas.says(INTERIM, "s1", ALI, HOME, ago=880, interim=300)
        assert await gateway.in_sync() == {HOME_32: ALI}
        await gateway.pass_time(130)
        assert await gateway.in_sync() == {}
        assert gateway.counts.expired == 1


async def test_7b_11_what_had_run_out_when_it_came_is_never_bound(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "fresh", CHAND, "10.0.0.3", interim=300)
        await gateway.in_sync()
        writes = len(gateway.fake.writes)
        await nas.says(START, "s1", ALI, HOME, ago=7200, interim=300)
        assert await gateway.in_sync() == {}
        assert (gateway.counts.stale, len(gateway.fake.writes)) == (1, writes)


@pytest.mark.parametrize(("interim_s", "least", "most"), [(60, 900, 1010), (600, 1800, 2000)])
async def test_7b_12_a_missed_stop_costs_three_intervals_and_a_quarter_of_an_hour_at_least(
    tmp_path: Path, interim_s: int, least: int, most: int
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        await gateway.nas().says(START, "s1", ALI, HOME, interim=interim_s)
        await gateway.pass_time(least - 5)
        assert await gateway.in_sync() == {HOME_32: ALI}
        await gateway.pass_time(most - least + 5)
        assert await gateway.in_sync() == {}
        assert (gateway.counts.expired, len(await gateway.rows())) == (1, 1)


async def test_7b_12_a_nas_without_interims_is_believed_for_as_long_as_its_profile_says(tmp_path: Path) -> None:
    """A day, another time, or for ever."""
    profiles = (named("short", session_timeout_s=3600.0), named("ever", session_timeout_s=float("inf")))
    async with subscriber_gateway(tmp_path, registered=(ALI, BANO, CHAND), nas=profiles) as gateway:
        for name, subscriber in (("usual", ALI), ("short", BANO), ("ever", CHAND)):
            await gateway.nas(name).says(START, "s1", subscriber, f"10.0.0.{subscriber}")
        await gateway.pass_time(3590)
        assert len(await gateway.in_sync()) == 3
        await gateway.pass_time(400)
        assert set((await gateway.in_sync()).values()) == {ALI, CHAND}
        await gateway.pass_time(82_000)
        assert set((await gateway.in_sync()).values()) == {ALI, CHAND}
        await gateway.pass_time(10_000)
        assert set((await gateway.in_sync()).values()) == {CHAND}
        await gateway.pass_time(200_000)
        assert set((await gateway.in_sync()).values()) == {CHAND}
        assert gateway.counts.expired == 2


@pytest.mark.parametrize(
    ("nat_side", "expected"), [("inside", {"100.64.0.1/32"}), ("outside", {"203.0.113.9/32 1024-2047"})]
)
async def test_7b_13_the_address_is_the_one_on_this_side_of_the_nat(
    tmp_path: Path, nat_side: str, expected: set[str]
) -> None:
    """RFC 8045 §3.1.2, IP-Port-Range: address, first and last port."""
    block = extended(
        6, attribute(3, bytes((203, 0, 113, 9))) + integer(8, 1) + integer(9, 1024) + integer(10, 2047)
    )
    async with subscriber_gateway(tmp_path, nas=(named("bng-1", nat_side=nat_side),)) as gateway:
        nas = gateway.nas("bng-1")
        await nas.says(START, "s1", ALI, "100.64.0.1", ago=10, extra=block)
        assert (await gateway.in_sync()).keys() == expected
        assert gateway.stats.ignored == {}
        await nas.says(STOP, "s1", ALI, "100.64.0.1", extra=block)
        assert await gateway.in_sync() == {}


async def test_7b_13_two_share_an_address_by_ports_and_the_overlap_is_the_laters(tmp_path: Path) -> None:
    def block(first: int, last: int) -> bytes:
        return vendor(6527, text(121, f"203.0.113.9 {first}-{last} router base"))

    async with subscriber_gateway(tmp_path, nas=(named("bng-1", nat_side="outside"),)) as gateway:
        nas = gateway.nas("bng-1")
        await nas.says(START, "s1", ALI, ago=10, extra=block(1024, 2047))
        await nas.says(START, "s2", BANO, ago=5, extra=block(2048, 3000))
        shared = {"203.0.113.9/32 1024-2047": ALI, "203.0.113.9/32 2048-3000": BANO}
        assert await gateway.in_sync() == shared
        await nas.says(START, "s3", BANO, extra=block(2000, 2040))
        later = {"203.0.113.9/32 2000-2040": BANO, "203.0.113.9/32 2048-3000": BANO}
        assert await gateway.in_sync() == later
        assert (gateway.counts.evictions, gateway.counts.missed_stops) == (1, 1)


async def test_7b_14_the_answer_waits_for_the_disk_and_the_kernel_does_not(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        gateway.hold_disk()
        request = nas.word(START, "s1", ALI, HOME)
        assert await nas.gets_no_answer(request)
        assert gateway.kernel() == {HOME_32: ALI}
        assert await nas.gets_no_answer(request)
        assert (gateway.stats.pending_duplicates, gateway.service.journal.waiting) == (1, 1)
        gateway.free_disk()
        await eventually(lambda: gateway.stats.responses > 2)
        assert is_response(nas.received()[0], request)
        assert ("session", "bng-1", "s1") in await gateway.rows()


async def test_7b_14_what_was_not_answered_comes_again_after_a_crash_and_nothing_that_was_is_lost(
    tmp_path: Path,
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME)
        gateway.hold_disk()
        request = nas.word(START, "s2", BANO, ABROAD)
        assert await nas.gets_no_answer(request)
        await gateway.crash()
        await gateway.come_back(waits=False)
        assert await gateway.read_back() == {HOME_32: ALI, ABROAD_32: BANO}, "the kernel comes before the disk"
        assert gateway.bound() == {HOME_32: ALI}
        assert is_response(await nas.ask(request), request)
        assert await gateway.in_sync() == {HOME_32: ALI, ABROAD_32: BANO}


async def test_7b_14_a_full_queue_is_silence_and_the_sender_repeats(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path, registered=range(1, 6)) as gateway:
        nas = gateway.nas()
        gateway.hold_disk()
        gateway.service.journal._most_waiting = 3
        requests = [nas.word(START, f"s{each}", each, f"10.0.0.{each}") for each in range(1, 6)]
        for request in requests:
            assert await nas.gets_no_answer(request)
        assert (gateway.service.unanswered, gateway.service.journal.stats.refused) == (2, 2)
        assert gateway.kernel() == {f"10.0.0.{each}/32": each for each in range(1, 6)}
        gateway.free_disk()
        await gateway.in_sync()
        answers = nas.received()
        assert [any(is_response(answer, each) for answer in answers) for each in requests] == [True] * 3 + [
            False
        ] * 2
        gateway.clock.advance(5)
        for request in requests:
            assert is_response(await nas.ask(request), request)
        assert {key[2] for key in await gateway.rows()} == {f"s{each}" for each in range(1, 6)}


async def test_7b_15_a_stranger_and_a_wrong_secret_get_silence_a_count_and_a_line_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=10)
        before = await gateway.tracker()
        wrong = gateway.nas("bng-1", secret=b"another")
        stranger = gateway.nas("bng-1", host="127.0.0.9")
        caplog.clear()
        for _ in range(20):
            assert await wrong.gets_no_answer(wrong.word(STOP, "s1", ALI, HOME))
            assert await stranger.gets_no_answer(stranger.word(STOP, "s1", ALI, HOME))
        assert await gateway.tracker() == before
        assert gateway.kernel() == {HOME_32: ALI}
        assert (gateway.stats.unknown_client, gateway.stats.rejected) == (20, {"bad_authenticator": 20})
        assert gateway.service.listener is not None
        worst = gateway.service.listener.refusals.worst(9)
        assert {each.source: each.reasons for each in worst} == {
            bytes((127, 0, 0, 1)): {"bad_authenticator": 20},
            bytes((127, 0, 0, 9)): {"unknown_client": 20},
        }
        assert [each.getMessage() for each in caplog.records].count("radius.refused") == 2


async def test_7b_15_status_server_is_answered_to_whoever_has_the_secret(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        assert len(await nas.ask(status_server())) == 38
        assert await nas.gets_no_answer(status_server(secret=b"another"))
        assert await nas.gets_no_answer(status_server(is_signed=False))
        assert gateway.stats.rejected == {"bad_message_authenticator": 1, "missing_message_authenticator": 1}
        assert (gateway.stats.events, len(gateway.service.sessions)) == (0, 0)


async def test_7b_15_a_policy_may_ask_for_a_message_authenticator(tmp_path: Path) -> None:
    secret = tmp_path / "strict"
    secret.write_bytes(b"strict\n")
    strict = RadiusClient(parse_prefix("127.0.0.5/32"), str(secret), require_message_authenticator=True)
    async with subscriber_gateway(tmp_path, clients=(strict,)) as gateway:
        nas = gateway.nas(host="127.0.0.5", secret=b"strict")
        assert await nas.gets_no_answer(nas.word(START, "s1", ALI, HOME))
        assert gateway.kernel() == {}
        assert gateway.stats.rejected == {"missing_message_authenticator": 1}


async def test_7b_16_an_event_from_the_future_is_of_now_and_counted(tmp_path: Path) -> None:
    """So a word of now takes the address back; else nobody could for hours."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=-4 * 3600)
        gateway.clock.advance(1)
        assert await gateway.in_sync() == {HOME_32: ALI}
        assert gateway.stats.ignored == {"event_timestamp_in_future": 1}
        await nas.says(START, "s2", BANO, HOME)
        assert await gateway.in_sync() == {HOME_32: BANO}


async def test_7b_16_a_little_ahead_is_believed(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=-200)
        await nas.says(STOP, "s1", ALI, HOME, ago=-250)
        assert await gateway.in_sync() == {}
        assert gateway.stats.ignored == {}


async def test_7b_16_a_nas_hours_behind_keeps_its_sessions_alive(tmp_path: Path) -> None:
    """What every one of its events is late by is its clock, and no age."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, ago=5 * 3600, interim=300)
        for _ in range(8):
            await gateway.pass_time(300)
            await nas.says(INTERIM, "s1", ALI, HOME, ago=5 * 3600, interim=300)
            assert await gateway.in_sync() == {HOME_32: ALI}
        await nas.says(STOP, "s1", ALI, HOME, ago=5 * 3600)
        assert await gateway.in_sync() == {}
        assert (gateway.counts.stale, gateway.counts.expired, gateway.stats.ignored) == (0, 0, {})


async def test_7b_16_a_nas_that_does_not_know_the_date_is_timed_by_arrival(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        since_1970 = int(gateway.clock()) - 4711
        await nas.says(START, "s1", ALI, HOME, ago=since_1970)
        gateway.clock.advance(1)
        assert await gateway.in_sync() == {HOME_32: ALI}
        await nas.says(START, "s2", BANO, HOME, ago=since_1970)
        assert await gateway.in_sync() == {HOME_32: BANO}
        assert gateway.stats.ignored == {"event_timestamp_implausible": 2}


@pytest.mark.parametrize("by_s", [6 * 3600, -6 * 3600], ids=["forward", "back"])
async def test_7b_16_to_set_our_own_clock_ends_no_session(tmp_path: Path, by_s: int) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, interim=300)
        gateway.clock.set_by(by_s)
        await gateway.pass_time(300)
        assert await gateway.in_sync() == {HOME_32: ALI}
        await gateway.pass_time(700)
        assert await gateway.in_sync() == {}
        assert gateway.counts.expired == 1


async def test_7b_17_a_cold_start_has_what_was_known_until_its_time_is_up(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, interim=300)
        await nas.says(START, "s2", BANO, ABROAD, interim=300)
        await gateway.crash()
        gateway.clock.advance(500)
        await gateway.come_back()
        assert await gateway.in_sync() == {HOME_32: ALI, ABROAD_32: BANO}
        assert all(each.is_restored for each in gateway.confirmed())
        await nas.says(INTERIM, "s1", ALI, HOME, interim=300)
        restored = {each.session: each.is_restored for each in gateway.confirmed()}
        assert restored == {"s1": False, "s2": True}
        await gateway.pass_time(510)
        assert await gateway.in_sync() == {HOME_32: ALI}
        assert gateway.counts.expired == 1


async def test_7b_17_what_ran_out_while_nobody_was_there_is_never_bound_again(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        await gateway.nas().says(START, "s1", ALI, HOME, interim=300)
        await gateway.crash()
        gateway.clock.advance(1200)
        await gateway.come_back()
        assert await gateway.in_sync() == {}
        assert gateway.counts.expired == 1


async def test_7b_17_who_is_registered_no_more_is_neither_bound_nor_kept(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        await gateway.nas().says(START, "s1", ALI, HOME)
        await gateway.crash()
        del gateway.registrations[registration(ALI).id]
        await gateway.come_back()
        assert await gateway.in_sync() == {}
        assert await gateway.rows() == {}


async def test_7b_17_a_list_of_sessions_fills_a_gateway_that_knows_nothing(tmp_path: Path) -> None:
    """And loses to whatever is newer than it."""
    listed = tmp_path / "sessions.csv"
    listed.write_text(
        "nas,session,number,addresses,at\n"
        f"bng-1,s1,+{number(ALI)},{HOME},2023-11-14T22:10:00Z\n"
        f"bng-1,s2,+{number(BANO)},{ABROAD} {SLAAC},2023-11-14T22:10:00Z\n"
    )
    async with subscriber_gateway(tmp_path, sessions_file=str(listed), profile=PROFILE) as gateway:
        assert await gateway.in_sync() == {HOME_32: ALI, ABROAD_32: BANO, SLAAC: BANO}
        nas = gateway.nas()
        await nas.says(STOP, "s1", ALI, HOME, ago=10)
        assert await gateway.in_sync() == {ABROAD_32: BANO, SLAAC: BANO}
        await gateway.crash()
        await gateway.come_back()
        assert await gateway.in_sync() == {ABROAD_32: BANO, SLAAC: BANO}


async def test_a_pipe_in_the_place_of_the_list_of_sessions_holds_no_start_up(tmp_path: Path) -> None:
    listed = tmp_path / "sessions.csv"
    os.mkfifo(listed)
    async with subscriber_gateway(tmp_path, sessions_file=str(listed), profile=PROFILE) as gateway:
        await gateway.nas().says(START, "s1", ALI, HOME)
        assert await gateway.in_sync() == {HOME_32: ALI}


# -- sequences that real gear sent ---------------------------------------------------------------------------------

NOKIA_S = 0x67FBD27E
NOKIA = [
    bytes.fromhex(
        "04da00a7db29351b0e99e02cc383c21cb31b9f582806000000010406c000020a011330323a30303a30313a30303a3030"
        "3a30310806b40000020906ffffff00190869706f652d3120064d4147312c183138313030373030303030314332363746"
        "424432374532183138313030373030303030314344363746424432374537"
        "0667fbd27e3d060000000f5712312f312f63322f313a3230312e3130302906000000002d0600000001"
    ),
    bytes.fromhex(
        "04f800c158888ae92867cd5f1cebcd60da4599af2806000000030406c000020a011330323a30303a30313a30303a3030"
        "3a30310806b40000020906ffffff006114004020052005200500520000000000000000190869706f652d3120064d4147"
        "312c18313831303037303030303031433236374642443237452e0600000000321831383130303730303030303143443637"
        "4642443237453706"
        "67fbd27e3d060000000f5712312f312f63322f313a3230312e3130302906000000002d0600000001"
    ),
    NOKIA_INTERIM,
]
"""Attributes of a Nokia 7750's call trace of 2025-04-13 (hatakkey/MAG-integrated), encoded with radclient 3.2.1."""
V4, NOKIA_SLAAC, NOKIA_DELEGATED = "180.0.0.2/32", "2005:2005:2005:52::/64", "2002:2002:2002:5100::/56"


@pytest.mark.parametrize("interim", ["snapshot", "merge"])
async def test_a_dual_stack_session_of_a_nokia_as_it_was_sent(tmp_path: Path, interim: str) -> None:
    """The IPv6 prefixes come in Interims of the second of the Start, and the netmask widens nothing. The trace's
    subscriber is a MAC address: once as it is, once with a number in each packet."""
    async with subscriber_gateway(tmp_path, start_s=NOKIA_S + 1, nas=(named("MAG1", interim=interim),)) as gateway:
        nas = gateway.nas()
        for request in NOKIA:
            assert is_response(await nas.ask(request), request)
            assert await gateway.in_sync() == {}
            assert len(gateway.service.sessions) == 1
        whose = text(31, f"+{number(ALI)}")
        for request, expected in zip(
            NOKIA, [{V4}, {V4, NOKIA_SLAAC}, {V4, NOKIA_SLAAC, NOKIA_DELEGATED}], strict=True
        ):
            await nas.ask(accounting_request(request[20:], whose))
            kernel = await gateway.in_sync()
            assert kernel.keys() >= expected
            assert set(kernel.values()) == {ALI}
        assert kernel.keys() == {V4, NOKIA_SLAAC, NOKIA_DELEGATED}
        assert len(gateway.service.sessions) == 1
        assert gateway.stats.ignored == {}


async def test_start_interim_and_stop_of_one_second_under_one_identifier_as_dapphp_sends_them(
    tmp_path: Path,
) -> None:
    vectors = [each for each in VECTORS if each.id.startswith("dapphp")]
    secret = tmp_path / "dapphp"
    secret.write_bytes(b"xyzzy5461\n")
    client = RadiusClient(parse_prefix("127.0.0.6/32"), str(secret))
    async with subscriber_gateway(tmp_path, start_s=1_764_894_139.0, clients=(client,)) as gateway:
        nas = gateway.nas(host="127.0.0.6", secret=b"xyzzy5461")
        for vector, sessions in zip(vectors, [1, 1, 0], strict=True):
            assert await nas.ask(vector.request) == vector.response
            assert len(gateway.service.sessions) == sessions
        assert await gateway.in_sync() == {}
        assert (gateway.stats.events, gateway.stats.duplicates) == (3, 0)


async def test_an_interim_without_a_start_a_second_start_and_a_lonely_stop_as_in_freeradius_sql_tests(
    tmp_path: Path,
) -> None:
    """acct_update_no_start, acct_start_conflict, acct_2_stop; all are answered."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(INTERIM, "00000004", ALI, "198.51.100.59", extra=integer(46, 30))
        assert await gateway.in_sync() == {"198.51.100.59/32": ALI}
        assert len(gateway.service.sessions) == 1
        for _ in range(2):
            await nas.says(START, "00000003", BANO, "198.51.100.60")
            assert await gateway.in_sync() == {"198.51.100.59/32": ALI, "198.51.100.60/32": BANO}
            assert len(gateway.service.sessions) == 2
        await nas.says(STOP, "00000002", ALI, "198.51.100.59", extra=integer(49, 1))
        assert await gateway.in_sync() == {"198.51.100.59/32": ALI, "198.51.100.60/32": BANO}
        assert gateway.counts.unknown_stops == 1
