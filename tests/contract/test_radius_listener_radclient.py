"""The listener before radclient, FreeRADIUS's own client (Debian: freeradius-utils)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.msisdn import subscriber_digest
from gatewayd.model.prefix import parse_prefix
from gatewayd.settings.subscribers import ProfileSettings
from gatewayd.subscribers.radius.clients import Client, ClientTable, Profiles
from gatewayd.subscribers.radius.listener import AccountingListener
from tests.support.manual_clock import until

SECRET = "a secret of some length"
PEPPER = b"sixteen bytes or more"
NUMBER = "923001234567"
START = f"""\
Acct-Status-Type = Start, Acct-Session-Id = "0A0B", NAS-Identifier = "bng-1", Framed-IP-Address = 100.64.1.2,
Delegated-IPv6-Prefix = 2001:db8:5::/56, Calling-Station-Id = "{NUMBER}", Acct-Interim-Interval = 300
""".replace("\n", " ")
OUTER_S = 60.0


@dataclass
class Scene:
    listener: AccountingListener
    events: list[tuple[AccountingEvent, Callable[[], None]]] = field(default_factory=list)
    answers_at_once: bool = True

    def use(self, *, require: bool = False, answer: bool = False) -> None:
        """With a Message-Authenticator required of requests, put into answers."""
        table = ClientTable(
            Client(parse_prefix(prefix), (SECRET.encode(),), require, answer) for prefix in ("127.0.0.0/8", "::1")
        )
        self.listener.use(table, Profiles(ProfileSettings(country_code="92")))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    def on_event(event: AccountingEvent, answer: Callable[[], None]) -> None:
        made.events.append((event, answer))
        if made.answers_at_once:
            answer()

    listener = AccountingListener(
        [("0.0.0.0", 0), ("::1", 0)],
        clients=ClientTable(()),
        profiles=Profiles(ProfileSettings()),
        pepper=PEPPER,
        on_event=on_event,
        clock=time.time,
        monotonic=time.monotonic,
    )
    made = Scene(listener)
    made.use()
    listener.open()
    listener.start()
    yield made
    listener.close()


@dataclass
class Said:
    code: int
    text: str


async def radclient(
    scene: Scene, what: str, attributes: str, *options: str, host: str = "127.0.0.2", secret: str = SECRET
) -> Said:
    """One run of it. `what`: acct or status."""
    ipv4, ipv6 = scene.listener.addresses
    to = f"[{host}]:{ipv6[1]}" if ":" in host else f"{host}:{ipv4[1]}"
    process = await asyncio.create_subprocess_exec(
        "radclient", "-x", *options, to, what, secret,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(f"{attributes}\n".encode()), OUTER_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, out.decode())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
async def test_a_start_is_an_event_and_its_answer_is_accepted(scene: Scene, host: str) -> None:
    said = await radclient(scene, "acct", START, host=host)
    assert said.code == 0, said.text
    assert "Received Accounting-Response" in said.text
    ((event, _),) = scene.events
    assert (event.kind, event.nas, event.session, event.interim_s) == ("start", "bng-1", "0A0B", 300)
    assert [str(prefix) for prefix in event.addresses] == ["100.64.1.2/32", "2001:db8:5::/56"]
    assert (event.subscriber, event.ignored) == (subscriber_digest(NUMBER, PEPPER), ())


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
async def test_it_is_there_when_status_server_asks(scene: Scene, host: str) -> None:
    said = await radclient(scene, "status", "Message-Authenticator = 0x00", host=host)
    assert said.code == 0, said.text
    assert "Received Accounting-Response" in said.text
    assert (scene.listener.stats.status_server, scene.events) == (1, [])


@pytest.mark.parametrize(
    ("what", "attributes", "reason"),
    [
        ("acct", START, "bad_authenticator"),
        ("status", "Message-Authenticator = 0x00", "bad_message_authenticator"),
    ],
)
async def test_a_wrong_secret_gets_no_answer(scene: Scene, what: str, attributes: str, reason: str) -> None:
    said = await radclient(scene, what, attributes, "-r", "2", "-t", "0.2", secret="another")
    assert said.code == 1
    assert "No reply from server" in said.text
    assert scene.listener.stats.rejected == {reason: 2}
    assert (scene.events, scene.listener.stats.responses) == ([], 0)


async def test_repeats_while_it_is_being_written_are_dropped_and_the_late_answer_is_accepted(scene: Scene) -> None:
    scene.answers_at_once = False
    stats = scene.listener.stats
    async with asyncio.TaskGroup() as group:
        run = group.create_task(radclient(scene, "acct", START, "-r", "50", "-t", "0.3"))
        await until(lambda: stats.pending_duplicates >= 2, within_s=OUTER_S)
        scene.events[0][1]()
    assert run.result().code == 0, run.result().text
    assert (stats.events, stats.responses) == (1, 1)


async def test_what_is_never_answered_is_repeated(scene: Scene) -> None:
    scene.answers_at_once = False
    said = await radclient(scene, "acct", START, "-r", "3", "-t", "0.2")
    assert said.code == 1
    stats = scene.listener.stats
    assert (stats.requests, stats.events, stats.pending_duplicates, stats.responses) == (3, 1, 2, 0)


async def test_a_message_authenticator_is_asked_for_and_given(scene: Scene) -> None:
    scene.use(require=True, answer=True)
    without = await radclient(scene, "acct", START, "-r", "1", "-t", "0.2")
    assert without.code == 1
    assert scene.listener.stats.rejected == {"missing_message_authenticator": 1}
    signed = await radclient(scene, "acct", f"{START}, Message-Authenticator = 0x00")
    assert signed.code == 0, signed.text
    assert "Message-Authenticator" in signed.text.partition("Received Accounting-Response")[2]


async def test_proxy_states_come_back(scene: Scene) -> None:
    said = await radclient(scene, "acct", f"{START}, Proxy-State = 0x0102, Proxy-State = 0x03")
    assert said.code == 0, said.text
    answer = said.text.partition("Received Accounting-Response")[2]
    assert answer.index("Proxy-State = 0x0102") < answer.index("Proxy-State = 0x03")


async def test_many_at_once_are_all_answered(scene: Scene) -> None:
    said = await radclient(scene, "acct", START, "-c", "200", "-p", "50")
    assert said.code == 0, said.text
    assert scene.listener.stats.responses >= 200
    assert scene.listener.stats.rejected == {}
