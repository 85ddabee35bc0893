"""Bad accounting, by name: the right answer or silence, a count of what was wrong, and nothing else is different.

Before each input there are two subscribers, on a NAS of their own, and a bank with addresses in the registry. What
is bound, what the kernel holds and what is in the journal is compared before and after.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.subscribers.journal_rows import session_key
from tests.support.nas import INTERIM, START, STOP
from tests.support.radius import (
    SECRET,
    VECTORS,
    accounting_request,
    attribute,
    extended,
    integer,
    is_response,
    text,
    vendor,
)
from tests.support.subscribers import (
    ALI,
    BANO,
    CHAND,
    SpeakingNas,
    SubscriberGateway,
    bank,
    named,
    number,
    subscriber_gateway,
)

HOME, HOME_IPV6, BANK = "192.0.2.77", "2001:db8:aaaa::/64", "203.0.113.0/28"
STEADY = {f"{HOME}/32": ALI, HOME_IPV6: BANO}
PLACE, PLACE_32 = "10.0.0.9", "10.0.0.9/32"
NAME = "bng-1"
WHO, WHERE = text(31, f"+{number(CHAND)}"), attribute(8, bytes((10, 0, 0, 9)))
SESSION = text(44, "s9")
NEW_SESSION = session_key(NAME, "s9")
OUTSIDE = "cgnat-1"
HOUR_S = 3600


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[SubscriberGateway]:
    async with peaceful(tmp_path) as made:
        steady = made.nas("a steady NAS")
        await steady.says(START, "of-ali", ALI, HOME)
        await steady.says(START, "of-bano", BANO, HOME_IPV6)
        yield made


def peaceful(directory: Path) -> AbstractAsyncContextManager[SubscriberGateway]:
    return subscriber_gateway(
        directory,
        registered=(ALI, BANO, CHAND),
        more=(bank(BANK),),
        nas=(named(OUTSIDE, nat_side="outside"), named("plain-1", country_code=None)),
    )


def signed(body: bytes, *, code: int = 4, length: int | None = None, secret: bytes = SECRET) -> bytes:
    """A datagram whose authenticator is right, whatever else is not."""
    head = bytes((code, 7)) + (20 + len(body) if length is None else length).to_bytes(2, "big")
    return head + hashlib.md5(head + bytes(16) + body + secret).digest() + body


def start(*attributes: bytes, name: str = NAME, status: bytes = integer(40, START)) -> bytes:
    return accounting_request(text(32, name), status, SESSION, *attributes)


def ipv4(written: str) -> bytes:
    return attribute(8, bytes(map(int, written.split("."))))


# -- not believed: silence -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """`reason`: the code it is counted under."""

    name: str
    datagram: bytes
    reason: str

    def __str__(self) -> str:
        return self.name


GOOD = start(WHO, WHERE)
LONG = signed(text(32, NAME) + integer(40, START) + SESSION + WHO + WHERE + 20 * text(25, "x" * 247))
REFUSED = [
    Refused("no bytes", b"", "too_short"),
    Refused("half a header", GOOD[:19], "too_short"),
    Refused("a text", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad_length"),
    Refused("wrong length: more than there is", signed(GOOD[20:], length=len(GOOD) + 1), "bad_length"),
    Refused("wrong length: less than a header", signed(GOOD[20:], length=19), "bad_length"),
    Refused("wrong length: none", signed(GOOD[20:], length=0), "bad_length"),
    Refused("wrong length: cuts an attribute", signed(GOOD[20:], length=len(GOOD) - 1), "bad_authenticator"),
    Refused("wrong length: cuts attributes off", signed(GOOD[20:], length=len(GOOD) - 6), "bad_authenticator"),
    Refused("5000-byte datagram", LONG, "bad_length"),
    Refused("code Access-Request", signed(GOOD[20:], code=1), "bad_code"),
    Refused("code Accounting-Response", signed(GOOD[20:], code=5), "bad_code"),
    Refused("code Disconnect-Request", signed(GOOD[20:], code=40), "bad_code"),
    Refused("attribute of length 0", signed(GOOD[20:] + b"\x08\x00"), "bad_attribute"),
    Refused("attribute of length 1", signed(GOOD[20:] + b"\x08\x01"), "bad_attribute"),
    Refused("attribute of length 0 in the middle", signed(b"\x08\x00" + GOOD[20:]), "bad_attribute"),
    Refused("attribute that ends behind the packet", signed(GOOD[20:] + b"\x08\x06\x0a"), "bad_attribute"),
    Refused("attribute without a length", signed(GOOD[20:] + b"\x08"), "bad_attribute"),
    Refused("another secret", signed(GOOD[20:], secret=b"another"), "bad_authenticator"),
    Refused("no secret", signed(GOOD[20:], secret=b""), "bad_authenticator"),
    Refused("a bit of an address turned", GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "bad_authenticator"),
    Refused("Message-Authenticator of zeros", signed(attribute(80, bytes(16))), "bad_message_authenticator"),
    Refused("Message-Authenticator of another size", signed(attribute(80, bytes(15))), "bad_message_authenticator"),
    Refused("two Message-Authenticators", signed(2 * attribute(80, bytes(16))), "bad_message_authenticator"),
]  # fmt: skip


@pytest.mark.parametrize("bad", REFUSED, ids=str)
async def test_what_is_not_believed_gets_silence_and_changes_nothing(
    gateway: SubscriberGateway, bad: Refused
) -> None:
    nas = gateway.nas()
    before = await gateway.tracker()
    assert await nas.gets_no_answer(bad.datagram)
    assert await gateway.tracker() == before
    assert gateway.stats.rejected == {bad.reason: 1}
    assert gateway.kernel() == STEADY


async def test_random_bytes_get_silence(gateway: SubscriberGateway) -> None:
    generator = random.Random(2866)
    nas = gateway.nas()
    before = await gateway.tracker()
    sizes = [generator.choice([1, 19, 20, 21, 60, 300, 1500, 4096, 5000]) for _ in range(300)]
    for index, size in enumerate(sizes):
        raw = generator.randbytes(size)
        if index % 2 and size >= 20:
            raw = bytes((4, 1)) + size.to_bytes(2, "big") + raw[4:]
        nas.send(raw)
    assert await nas.gets_no_answer(b"\0")
    assert await gateway.tracker() == before
    assert sum(gateway.stats.rejected.values()) == 301


async def test_a_request_that_is_cut_off_anywhere_gets_silence(gateway: SubscriberGateway) -> None:
    """With the length of the whole, with its own, and signed anew as well: then it is a whole one if an attribute
    ends there."""
    nas = gateway.nas()
    before = await gateway.tracker()
    for cut in range(len(GOOD)):
        nas.send(GOOD[:cut])
        nas.send(GOOD[:2] + cut.to_bytes(2, "big") + GOOD[4:cut])
    assert await nas.gets_no_answer(b"\0")
    assert await gateway.tracker() == before
    ends, at = {0}, 20
    while at < len(GOOD):
        at += GOOD[at + 1]
        ends.add(at - 20)
    for cut in sorted(set(range(len(GOOD) - 20)) - ends):
        assert await nas.gets_no_answer(signed(GOOD[20 : 20 + cut]))
    assert await gateway.tracker() == before
    assert gateway.stats.events == 2


# -- believed and of no use: an answer, and nothing changes ----------------------------------------------------

UNUSABLE = {
    "two Acct-Status-Type": (start(WHO, WHERE, integer(40, STOP)), "bad_status_type"),
    "no Acct-Status-Type": (start(WHO, WHERE, status=b""), "bad_status_type"),
    "Acct-Status-Type of one byte": (start(WHO, WHERE, status=attribute(40, b"\1")), "bad_status_type"),
    "Acct-Status-Type Failed": (start(WHO, WHERE, status=integer(40, 15)), "unused_status_type"),
    "no Acct-Session-Id": (accounting_request(text(32, NAME), integer(40, START), WHO, WHERE), "no_session"),
    "the number for a session id": (
        accounting_request(text(32, NAME), integer(40, START), text(44, f"0{number(CHAND)}"), WHO, WHERE),
        "number_in_clear",
    ),
    "nothing at all": (accounting_request(), "bad_status_type"),
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_what_is_of_no_use_is_answered_and_changes_nothing(gateway: SubscriberGateway, name: str) -> None:
    request, reason = UNUSABLE[name]
    before = await gateway.tracker()
    answer = await gateway.nas().ask(request)
    assert is_response(answer, request)
    assert await gateway.tracker() == before
    assert gateway.stats.unusable == {reason: 1}
    assert gateway.kernel() == STEADY


# -- believed, and a part is of no use: the rest stands --------------------------------------------------------


@dataclass(frozen=True)
class Flawed:
    """A Start of CHAND. `gains`: what he is bound to by it. `ignored`: parts by reason. `conflicting`: addresses
    in a prefix that is somebody else's by the registry; bound all the same.
    `has_row`: whether his session is in the journal."""

    name: str
    request: bytes
    ignored: dict[str, int] = field(default_factory=dict)
    gains: tuple[str, ...] = ()
    conflicting: int = 0
    has_row: bool = True
    nas: str = NAME

    def __str__(self) -> str:
        return self.name


def bad_address(name: str, written: str, reason: str) -> Flawed:
    return Flawed(name, start(WHO, ipv4(written)), {reason: 1})


def ipv6(written: str) -> bytes:
    raw = bytes.fromhex(written.replace(" ", ""))
    return attribute(168, raw)


def block(written: str) -> bytes:
    return start(WHO, vendor(6527, text(121, written)), name=OUTSIDE)


UNUSED_BLOCK = {"port_block_unusable": 1}
AHEAD, MALFORMED = {"event_timestamp_in_future": 1}, {"address_malformed": 1}
FLAWED = [
    bad_address("zero address", "0.0.0.0", "address_unspecified"),
    bad_address("255.255.255.254", "255.255.255.254", "address_hint"),
    bad_address("255.255.255.255", "255.255.255.255", "address_hint"),
    bad_address("multicast", "224.0.0.5", "address_multicast"),
    bad_address("loopback", "127.0.0.1", "address_loopback"),
    bad_address("link-local", "169.254.1.2", "address_link_local"),
    bad_address("reserved", "240.0.0.1", "address_reserved"),
    Flawed("zero address, IPv6", start(WHO, ipv6("00" * 16)), {"address_unspecified": 1}),
    Flawed("loopback, IPv6", start(WHO, ipv6("00" * 15 + "01")), {"address_loopback": 1}),
    Flawed("link-local, IPv6", start(WHO, ipv6("fe80" + "00" * 13 + "01")), {"address_link_local": 1}),
    Flawed("multicast, IPv6", start(WHO, ipv6("ff02" + "00" * 13 + "01")), {"address_multicast": 1}),
    Flawed("mapped IPv4", start(WHO, ipv6("00" * 10 + "ffff" + "c000024d")), {"address_reserved": 1}),
    Flawed("a prefix for a region", start(WHO, attribute(97, b"\0\x10\x20\x01")), {"prefix_too_short": 1}),
    Flawed("everything, as a prefix", start(WHO, attribute(123, b"\0\0")), {"prefix_too_short": 1}),
    Flawed("prefix of 129 bits", start(WHO, attribute(97, b"\0\x81" + bytes(16))), MALFORMED),
    Flawed("someone else's static address", start(WHO, ipv4("203.0.113.5")), gains=("203.0.113.5/32",),
           conflicting=1),
    Flawed(
        "someone else's static address beside one's own",
        start(WHO, attribute(97, b"\0\x40\x20\x01\x0d\xb8\0\x09\0\0"), ipv4("203.0.113.15")),
        gains=("2001:db8:9::/64", "203.0.113.15/32"), conflicting=1,
    ),
    Flawed("the address behind somebody's prefix", start(WHO, ipv4("203.0.113.16")), gains=("203.0.113.16/32",)),
    Flawed("clock hours ahead", start(WHO, WHERE, integer(55, 1_700_000_000 + 5 * HOUR_S)),
           AHEAD, (PLACE_32,)),
    Flawed("clock hours behind", start(WHO, WHERE, integer(55, 1_700_000_000 - 5 * HOUR_S)), {}, (PLACE_32,)),
    Flawed("clock of 1970", start(WHO, WHERE, integer(55, 42)), {"event_timestamp_implausible": 1}, (PLACE_32,)),
    Flawed("clock of 2106", start(WHO, WHERE, integer(55, 0xFFFFFFFF)), AHEAD, (PLACE_32,)),
    Flawed("a delay of hours", start(WHO, WHERE, integer(41, 5 * HOUR_S)), {}, (PLACE_32,)),
    Flawed("wrong length: address of three bytes", start(WHO, attribute(8, b"\x0a\0\1")), MALFORMED),
    Flawed("wrong length: address of five bytes", start(WHO, attribute(8, b"\x0a\0\1\2\3")), MALFORMED),
    Flawed("wrong length: address of none", start(WHO, attribute(8, b"")), MALFORMED),
    Flawed("wrong length: IPv6 address of four bytes", start(WHO, attribute(168, b"\x0a\0\1\2")),
           MALFORMED),
    Flawed("wrong length: Event-Timestamp of three bytes", start(WHO, WHERE, attribute(55, b"\1\2\3")),
           {"integer_malformed": 1}, (PLACE_32,)),
    Flawed("wrong length: Acct-Delay-Time of eight bytes", start(WHO, WHERE, attribute(41, bytes(8))),
           {"integer_malformed": 1}, (PLACE_32,)),
    Flawed("an interval of a year", start(WHO, WHERE, integer(85, 31_536_000)),
           {"interim_interval_implausible": 1}, (PLACE_32,)),
    Flawed("a vendor's attributes cut off", start(WHO, WHERE, attribute(26, b"\0\0\x19\x7f\x79\xff10.0.0.1")), {},
           (PLACE_32,)),
    Flawed("a vendor without a number", start(WHO, WHERE, attribute(26, b"\0")), {}, (PLACE_32,)),
    Flawed("an extended attribute without a type", start(WHO, WHERE, attribute(241, b"")), {}, (PLACE_32,)),
    Flawed("a port range of nothing", start(WHO, WHERE, extended(6, b""), name=OUTSIDE), UNUSED_BLOCK, nas=OUTSIDE),
    Flawed("port block reversed", block("198.51.100.9 2047-1024 router base"), UNUSED_BLOCK, nas=OUTSIDE),
    Flawed("port block from 0", block("198.51.100.9 0-1023 router base"), UNUSED_BLOCK, nas=OUTSIDE),
    Flawed("port block beyond 65535", block("198.51.100.9 65000-65536 router base"), UNUSED_BLOCK, nas=OUTSIDE),
    Flawed("port block of a zero address", block("0.0.0.0 1024-2047 router base"), {"address_unspecified": 1},
           nas=OUTSIDE),
    Flawed("port block of someone else's static address", block("203.0.113.5 1024-2047 router base"),
           gains=("203.0.113.5/32 1024-2047",), conflicting=1, nas=OUTSIDE),
    Flawed("identity missing", start(WHERE), has_row=False),
    Flawed("identity empty", start(text(31, ""), WHERE), has_row=False),
    Flawed("identity of letters", start(text(31, "nobody"), WHERE), {"identity_not_a_number": 1}, has_row=False),
    Flawed("identity too long", start(text(31, "+" + 16 * "9"), WHERE), {"identity_too_long": 1}, has_row=False),
    Flawed("identity too short", start(text(31, "+92300"), WHERE), {"identity_too_short": 1}, has_row=False),
    Flawed("identity of bytes", start(attribute(31, b"\xff\xfe\0\x80"), WHERE), {"identity_not_a_number": 1},
           has_row=False),
    Flawed("identity a MAC address", start(text(31, "00-11-22-33-44-55"), WHERE), {"identity_hardware_address": 1},
           has_row=False),
    Flawed("identity given twice, differently", start(WHO, text(31, f"+{number(ALI)}"), WHERE),
           {"identity_ambiguous": 1}, has_row=False),
    Flawed("bare digits where no country is known", start(text(31, number(CHAND)), WHERE, name="plain-1"),
           {"identity_no_country_code": 1}, has_row=False, nas="plain-1"),
]  # fmt: skip


@pytest.mark.parametrize("bad", FLAWED, ids=str)
async def test_a_part_that_is_of_no_use_is_left_out_and_counted_and_the_rest_stands(
    gateway: SubscriberGateway, bad: Flawed
) -> None:
    before = await gateway.tracker()
    answer = await gateway.nas().ask(bad.request)
    assert is_response(answer, bad.request)
    after = await gateway.tracker()
    assert gateway.kernel() == STEADY | dict.fromkeys(bad.gains, CHAND)
    row = session_key(bad.nas, "s9")
    assert (row in after.rows) == bad.has_row
    assert {key: value for key, value in after.rows.items() if key != row} == before.rows
    assert before.bound < after.bound if bad.gains else before.bound == after.bound
    assert after.sessions == before.sessions + 1
    assert gateway.stats.ignored == bad.ignored
    assert gateway.service.conflicting == bad.conflicting
    assert gateway.stats.unusable == {}


async def test_5000_bytes_of_which_the_first_are_a_request_are_that_request(gateway: SubscriberGateway) -> None:
    """Bytes behind the stated length are padding (RFC 2865 §3)."""
    nas = gateway.nas()
    nas.send(GOOD.ljust(5000, b"\0"))
    await gateway.has_read_all()
    assert await gateway.in_sync() == STEADY | {PLACE_32: CHAND}
    assert [is_response(each, GOOD) for each in nas.received()] == [True]


SPELLINGS = [
    "+923000000003", "00923000000003", "923000000003", "03000000003", "+92 300 0000003", "+92-300-000-0003",
    "0300.0000003", "+92 (0)300 0000003", "0092 (300) 0000003", "923000000003@apn.example",
    "".join(chr(0x660 + int(digit)) for digit in "03000000003"),
    " +92 300\u20110000003 ",
]  # fmt: skip


async def test_a_number_in_ten_spellings_is_one_subscriber(gateway: SubscriberGateway) -> None:
    assert number(CHAND) == "923000000003"
    nas = gateway.nas()
    for index, spelling in enumerate(SPELLINGS):
        await nas.says(START, f"s-{index}", spelling, f"10.0.1.{index}")
    assert await gateway.in_sync() == STEADY | {f"10.0.1.{index}/32": CHAND for index in range(len(SPELLINGS))}
    await nas.says(START, "one", SPELLINGS[0], PLACE)
    for spelling in SPELLINGS:
        await nas.says(INTERIM, "one", spelling, PLACE)
    assert gateway.counts.missed_stops == 0
    assert gateway.stats.ignored == {}


# -- anything at all, under the right secret -------------------------------------------------------------------

SEEDS = [
    GOOD,
    start(WHO, WHERE, attribute(97, b"\0\x40\x20\x01\x0d\xb8\0\x09\0\0"), integer(55, 1_700_000_000)),
    start(WHO, WHERE, vendor(6527, text(121, "198.51.100.9 1024-2047 router base")), name=OUTSIDE),
    start(
        WHO,
        extended(6, attribute(3, bytes((198, 51, 100, 9))) + integer(9, 1024) + integer(10, 2047)),
        name=OUTSIDE,
    ),
    accounting_request(text(32, NAME), integer(40, STOP), SESSION, WHO, WHERE, integer(49, 1)),
    accounting_request(text(32, NAME), integer(40, 7)),
    *(vector.request for vector in VECTORS),
]
ATTRIBUTES = st.tuples(
    st.sampled_from([1, 4, 8, 25, 26, 31, 32, 33, 40, 41, 44, 46, 49, 50, 55, 85, 89, 95, 97, 123, 168, 241]),
    st.one_of(
        st.binary(max_size=24),
        st.sampled_from(
            [f"+{number(CHAND)}".encode(), b"s9", NAME.encode(), OUTSIDE.encode(), bytes((10, 0, 0, 9))]
        ),
        st.integers(0, 16).map(lambda value: value.to_bytes(4, "big")),
    ),
).map(lambda each: attribute(*each))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The attributes of a real request with bytes changed, taken out, put in or cut off."""
    raw = bytearray(draw(st.sampled_from(SEEDS))[20:])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.sampled_from([0, 1, 1, 1, 2, 20]))] = draw(st.binary(max_size=3))
    return bytes(raw)


BODIES = st.one_of(st.binary(max_size=64), st.lists(ATTRIBUTES, max_size=12).map(b"".join), mutated())


def is_well_formed(datagram: bytes) -> bool:
    """Whether attributes fill it, and a Message-Authenticator is right or not there; by the RFCs alone."""
    at, signatures = 20, []
    while at < len(datagram):
        if at + 1 == len(datagram) or datagram[at + 1] < 2 or at + datagram[at + 1] > len(datagram):
            return False
        if datagram[at] == 80:
            signatures.append((at, datagram[at + 2 : at + datagram[at + 1]]))
        at += datagram[at + 1]
    if not signatures:
        return True
    (at, signature), *others = signatures
    zeroed = datagram[:4] + bytes(16) + datagram[20 : at + 2] + bytes(16) + datagram[at + 18 :]
    return not others and hmac.digest(SECRET, zeroed, "md5") == signature


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Runs coroutines in one loop, as an example of hypothesis is no coroutine."""
    with asyncio.Runner() as runner:
        yield runner.run


def test_whatever_somebody_with_the_secret_says_is_answered_and_costs_nobody_else_anything(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    stack = AsyncExitStack()
    gateway: SubscriberGateway = run(stack.enter_async_context(peaceful(tmp_path)))
    nas: SpeakingNas = gateway.nas()

    async def begin() -> None:
        steady = gateway.nas("a steady NAS")
        await steady.says(START, "of-ali", ALI, HOME)
        await steady.says(START, "of-bano", BANO, HOME_IPV6)

    async def hear(datagrams: list[bytes]) -> None:
        nas.received()
        for datagram in datagrams:
            nas.send(datagram)
        await gateway.has_read_all()
        kernel = await gateway.in_sync()
        others = {place: whose for place, whose in kernel.items() if whose != CHAND}
        assert others == STEADY
        answers = nas.received()
        for datagram in datagrams:
            is_answered = any(is_response(answer, datagram) for answer in answers)
            assert is_answered == is_well_formed(datagram), datagram.hex()
        gateway.clock.advance(1)

    run(begin())

    @settings(max_examples=250, deadline=None)
    @given(st.lists(BODIES.map(signed), min_size=1, max_size=4))
    def anything(datagrams: list[bytes]) -> None:
        run(hear(datagrams))

    try:
        anything()
        stats = gateway.stats
        assert stats.requests == (
            sum(stats.rejected.values()) + stats.status_server + stats.duplicates + stats.pending_duplicates
            + stats.events + sum(stats.unusable.values())
        )  # fmt: skip
        assert min(sum(stats.rejected.values()), stats.events, sum(stats.unusable.values())) > 0
        assert sum(stats.ignored.values()) > 0
    finally:
        run(stack.aclose())
