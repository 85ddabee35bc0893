"""A flood of the accounting port, in real time. Honest senders are answered through it."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import parse_prefix
from gatewayd.settings.subscribers import ProfileSettings
from gatewayd.subscribers.radius.clients import Client, ClientTable, Profiles
from gatewayd.subscribers.radius.listener import AccountingListener
from tests.support.accounting import Table
from tests.support.radius import SECRET, accounting_request, attribute, integer, is_response, text

ROOT = Path(__file__).parents[2]
SECONDS = 6.0
STRANGERS, FORGED = 100_000, 500
GUARD_S = 60.0
REPEAT_S = 3.0
HONEST = "127.0.0.9"


class Port:
    """A listener over a table of sessions that answers at once, as for the unregistered."""

    def __init__(self) -> None:
        self.table = Table(registered=())
        self.listener = AccountingListener(
            [("127.0.0.1", 0)],
            clients=ClientTable(
                [Client(parse_prefix("127.0.0.1/32"), (SECRET,)), Client(parse_prefix(f"{HONEST}/32"), (SECRET,))]
            ),
            profiles=Profiles(ProfileSettings(country_code="92")),
            pepper=b"a pepper of these tests",
            on_event=self._take,
            clock=time.time,
            monotonic=time.monotonic,
        )
        self.listener.open()
        self.listener.start()

    def _take(self, event: AccountingEvent, answer: Callable[[], None]) -> None:
        self.table.sessions.receive(event, time.time())
        self.table.sessions.next_changes()
        answer()


async def ask_all(port: tuple[str, int], until: Callable[[], bool]) -> tuple[list[float], int]:
    """Interims of one NAS, one after another, some 200 a second, each repeated until it is answered. The times of
    the answers in seconds, sorted; and how many repeats that took."""
    times: list[float] = []
    repeats = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as nas:
        nas.bind((HONEST, 0))
        nas.connect(port)
        for number in itertools.count():
            if until():
                break
            address = attribute(8, bytes([10, 0, number >> 8 & 255, number & 255]))
            request = accounting_request(
                integer(40, 3), text(44, f"s{number}"), text(31, "+923001234567"), address, identifier=number & 255
            )
            began_s = time.monotonic()
            while True:
                nas.send(request)
                with suppress(TimeoutError):
                    async with asyncio.timeout(REPEAT_S):
                        while not is_response(await asyncio.get_running_loop().sock_recv(nas, 4096), request):
                            pass
                        break
                repeats += 1
            times.append(time.monotonic() - began_s)
            await asyncio.sleep(random.uniform(0.002, 0.006))
    return sorted(times), repeats


async def test_an_honest_nas_is_answered_through_a_flood_of_forged_datagrams_and_of_strangers() -> None:
    port = Port()
    stats = port.listener.stats
    address = port.listener.addresses[0]
    flood = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.flooding", str(address[1]), str(SECONDS), str(STRANGERS), str(FORGED),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(GUARD_S):
            times, repeats = await ask_all(address, lambda: flood.returncode is not None)
            sent, _ = await flood.communicate()
    finally:
        if flood.returncode is None:
            flood.kill()
        port.listener.close()
    strangers, forged = map(int, sent.split())
    print(
        f"\nstrangers {strangers / SECONDS:.0f}/s, forged {forged / SECONDS:.0f}/s; answers {len(times)}:", end=" "
    )
    print(f"p50 {times[len(times) // 2] * 1e3:.1f} ms, p99 {times[int(len(times) * 0.99)] * 1e3:.1f} ms")
    print(f"{repeats} repeats, {stats.kernel_drops} dropped for want of room")
    assert stats.events == len(times) > 0
    assert 0 < sum(stats.rejected.values()) <= forged
    assert stats.rejected.keys() == {"bad_authenticator"}
    assert stats.unknown_client < strangers / 10, "the kernel drops them"
    assert stats.flood_drops > strangers / 2
    if not stats.kernel_drops:
        assert (repeats, sum(stats.rejected.values())) == (0, forged), "each datagram of a client had room"
        assert stats.flood_drops + stats.unknown_client == strangers
