"""Endpoints of licensed providers, on a kernel in memory: marks of connections, late admission, attribution."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import msgspec
import pytest

from gatewayd.model import Extension, Registration, parse_prefix, reverse_flow
from gatewayd.registry.extended import WARN_BEFORE_S
from tests.support.fake_conntrack import FakeConntrack, connection_event
from tests.support.manual_clock import Time, until
from tests.support.owning import FAR, REGISTERED, flow, owning, registration

BANK = registration("BANK", "39.32.0.0/28")


def provider(id: str = "VPN-7", endpoint: str = f"{FAR}/32", *words: str) -> Registration:
    extension = Extension(endpoints=(parse_prefix(endpoint),))
    return registration(id, services=words or ("ipsec", "wireguard"), category="provider", extension=extension)


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


def test_what_was_judged_before_an_endpoint_came_is_judged_again_whoever_spoke_first(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", BANK)
            await it.in_sync()
            near, far = flow("39.40.9.9"), reverse_flow(flow("39.40.9.8", "udp/500", 500))
            other = flow("39.40.9.9", "udp/1194")
            for each in (near, far, other):
                conntrack.put(each, it.judged())
            await it.read("national", BANK, provider())
            await until(lambda: [conntrack.mark_of(each) for each in (near, far)] == [0, 0])
            assert conntrack.mark_of(other) == it.judged()

    time.run(scenario())


def test_a_flow_that_the_far_end_woke_stays_registered_and_is_the_providers(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", provider())
            await it.in_sync()
            near, far = flow("39.40.9.9"), reverse_flow(flow("39.40.9.8", "udp/500", 500))
            for each in (near, far):
                conntrack.put(each, REGISTERED)
                it.watch.on_connections([connection_event(each, mark=REGISTERED)])
            assert it.controller.attribution.usage("VPN-7") is not None
            assert it.controller.attribution.unmatched == 0
            await it.read("national")  # the feed is empty: held or not, in force until accepted
            it.configure(drain_s=0.0)
            assert [conntrack.mark_of(each) for each in (near, far)] == [REGISTERED] * 2

    time.run(scenario())


def test_where_the_kernel_has_the_endpoint_its_judgement_stands(time: Time) -> None:
    """The packet came from outside, and the endpoint is inside: only the kernel knows that."""

    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", provider())
            await it.in_sync()
            seen = flow("39.40.9.9")
            conntrack.put(seen, it.judged())
            it.watch.on_packets([seen] * 3)
            await asyncio.sleep(120)  # an audit of all marks among it
            assert it.watch.late_admissions == 0
            assert (conntrack.mark_of(seen), it.scanner.not_believed) == (it.judged(), 0)
            assert len(it.controller.aggregate) == 1

    time.run(scenario())


def test_an_endpoint_that_the_kernel_does_not_have_yet_is_admitted_ahead_of_all_else(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", BANK)
            await it.in_sync()
            late = flow("39.40.9.9")
            conntrack.put(late, it.judged())
            it.programmer.upsert(provider(), time.clock())
            it.watch.on_packets([late])
            await it.in_sync()
            await until(lambda: conntrack.mark_of(late) == 0)
            assert it.watch.late_admissions == 1

    time.run(scenario())


def test_one_that_cannot_be_programmed_is_not_admitted_late(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, conntrack=FakeConntrack()) as it:
            large = provider("VPN-8", f"{FAR}/32", *(f"udp/{port}-{port + 40}" for port in range(1000, 65000, 64)))
            await it.read("national", large)
            await it.in_sync()
            assert "VPN-8" in it.reconciler.unprogrammed()
            it.watch.on_packets([flow("39.40.9.9", "udp/1001")])
            assert it.watch.late_admissions == 0

    time.run(scenario())


def test_endpoints_are_said_loudly_and_too_many_wait_for_a_word(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [each.message for each in caplog.records if each.message.startswith("endpoints.")]

    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK, provider())
            assert said() == ["endpoints.added"]
            many = [provider(f"MANY-{number}", f"198.51.{number}.0/24") for number in range(17)]
            await it.read("national", BANK, provider(), *many)
            await it.in_sync()
            assert said() == ["endpoints.added", "endpoints.held"]
            assert not it.passes(many[0])
            (hold,) = it.controller.holds()
            assert (hold.by_cause, it.controller.extended.providers().held) == ({"registry/endpoints": 17}, 17)
            assert await it.controller.accept(hold.serial, "uid 0") == {
                "serial": hold.serial, "released": {"registry/endpoints": 17},
            }  # fmt: skip
            await it.in_sync()
            assert it.passes(many[0])
            assert it.controller.holds() == ()
            assert said().count("endpoints.added") == 18
            await it.read("national", BANK, *many)
            assert it.controller.holds() == ()
            assert said()[-1] == "endpoints.removed", it.controller.holds()
            view = it.controller.extended.providers()
            assert (view.registrations, view.added, view.removed) == (17, 18, 1)

    with caplog.at_level(logging.INFO):
        time.run(scenario())


def test_a_provisional_registration_is_said_before_it_ends(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> list[logging.LogRecord]:
        return [each for each in caplog.records if each.message == "provisional.ending"]

    async def scenario() -> None:
        ends = time.clock() + WARN_BEFORE_S[0] + 60
        one = registration("PK-9", "39.32.0.0/28", extension=Extension("co-1", True), valid_until_s=ends)
        async with owning(time.clock) as it:
            await it.read("national", one)
            await it.in_sync()
            assert not said()
            await asyncio.sleep(120)
            found = said()
            assert len(found) == 1
            assert found[0].fields["id"] == "PK-9"  # type: ignore[attr-defined]
            assert it.controller.extended.provisional(time.clock()).soonest[0].id == "PK-9"

    with caplog.at_level(logging.WARNING):
        time.run(scenario())


def test_a_flow_to_a_suspended_provider_is_a_near_miss_of_the_provider(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", msgspec.structs.replace(provider(), status="suspended"))
            await it.in_sync()
            it.watch.on_packets([flow("39.40.9.9"), flow("39.40.9.9", destination="192.0.2.9")])
            (line,) = it.controller.near_misses.listed()
            assert (line.registration_id, line.reason) == ("VPN-7", "suspended")

    time.run(scenario())
