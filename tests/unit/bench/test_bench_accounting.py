"""The sender of accounting: what it sends is what a NAS sends, and it counts what comes of it."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gatewayd.lab.world import DEMO_PEPPER, mobile_number
from gatewayd.model.accounting import AccountingEvent, NasProfile
from gatewayd.model.msisdn import subscriber_digest
from gatewayd.subscribers.radius.accounting import read_event
from gatewayd.subscribers.radius.packet import AccountingRequest, encode_response, open_request
from tests.bench.accounting import Load, Sending, Sent, build_radius_sender, fill, here, send
from tests.bench.numbered import UNLISTED
from tests.support.lab_daemon import holds
from tests.support.radius import SECRET

LISTED = (7, 4_000_001, 12)


@dataclass
class Server:
    """`answers`: of a datagram's bytes and how often they came, whether it is answered."""

    port: int
    answers: Callable[[bytes, int], bool]
    secret: bytes
    came: Counter[bytes] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)

    def events(self) -> list[AccountingEvent]:
        """Of each request, in the order in which they came first. Raises if one is not believed, or not whole."""
        found = []
        for raw in self.came:
            request = open_request(raw, (SECRET,))
            assert isinstance(request, AccountingRequest)
            event = read_event(request, bytes([127, 0, 0, 1]), NasProfile(), DEMO_PEPPER, time.time())
            assert event.ignored == ()
            found.append(event)
        return found


def digest(number: int) -> bytes:
    return subscriber_digest(mobile_number(number), DEMO_PEPPER)


@contextmanager
def serving(
    answers: Callable[[bytes, int], bool] = lambda raw, times: True, secret: bytes = SECRET
) -> Iterator[Server]:
    ending = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        opened.bind(("127.0.0.1", 0))
        server = Server(opened.getsockname()[1], answers, secret)

        def work() -> None:
            while not ending.is_set():
                if not select.select([opened], [], [], 0.05)[0]:
                    continue
                raw, source = opened.recvfrom(4096)
                server.came[raw] += 1
                server.sources.add(source[0])
                if server.answers(raw, server.came[raw]):
                    request = open_request(raw, (SECRET,))
                    assert isinstance(request, AccountingRequest)
                    reply = encode_response(request)
                    opened.sendto(reply if server.secret == SECRET else reply[:-1] + b"?", source)

        thread = threading.Thread(target=work, name="server", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            ending.set()
            thread.join()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_radius_sender(tmp_path_factory.mktemp("sender"))


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    path.write_bytes(b"".join(struct.pack("<I", each) for each in LISTED))
    return path


def test_it_is_compiled_once(program: Path) -> None:
    made = program.stat().st_mtime_ns
    assert build_radius_sender(program.parent) == program
    assert program.stat().st_mtime_ns == made


def test_the_closed_loop_starts_each_subscriber_once_at_an_address_of_his_own(program: Path, numbers: Path) -> None:
    with serving() as server:
        sent = fill(program, here, Load(50, numbers, window=4, port=server.port))
    events = server.events()
    assert (sent.asked, sent.sent, sent.answered, sent.unanswered, sent.held) == (50, 50, 50, 0, 0)
    assert {event.kind for event in events} == {"start"}
    assert {(event.nas, event.session) for event in events} == {
        (f"bng-{k % 20:02}.core.example", f"s{k:x}-0") for k in range(50)
    }
    assert [event.subscriber for event in events[:3]] == [digest(number) for number in LISTED]
    assert [event.subscriber for event in events[3:5]] == [digest(UNLISTED + 3), digest(UNLISTED + 4)]
    assert [str(prefix) for prefix in events[5].addresses] == ["10.0.0.5/32", "2400:adc1:0:5::/64"]
    assert len({prefix for event in events for prefix in event.addresses}) == 100
    assert server.sources == {f"127.0.1.{number + 1}" for number in range(20)}


def test_the_open_loop_is_mostly_interims_and_as_many_starts_as_stops(program: Path, numbers: Path) -> None:
    with serving() as server:
        sent = send(program, here, Load(400, numbers, rate=2000, seconds=0.5, share=300, port=server.port))
    events = server.events()
    assert (sent.asked, sent.answered + sent.unanswered) == (1000, 1000)
    kinds = Counter(event.kind for event in events)
    assert kinds.total() == 1000
    assert 700 < kinds["interim"] < 900
    assert 50 < kinds["start"] < 150
    assert 50 < kinds["stop"] < 150
    listed = {digest(number) for number in LISTED}
    assert 200 < sum(event.subscriber in listed for event in events) < 400


def test_a_start_is_of_a_session_that_nobody_has_heard_of(program: Path) -> None:
    with serving() as server:
        send(program, here, Load(30, rate=2000, seconds=0.3, port=server.port))
    live: dict[str, AccountingEvent] = {}
    seen: set[str] = set()
    for event in server.events():
        if event.kind == "start":
            assert event.session not in seen
            assert {each.addresses for each in live.values()}.isdisjoint({event.addresses})
        if event.kind == "stop":
            live.pop(event.session, None)
        else:
            live[event.session] = event
        seen.add(event.session)


def test_another_place_and_other_nas_share_nothing_with_the_first(program: Path) -> None:
    with serving() as server:
        load = Load(20, first_nas=1, nas=2, unlisted=6_000_000, place=4_000_000, port=server.port)
        fill(program, here, load)
    events = server.events()
    assert {event.nas for event in events} == {"bng-01.core.example", "bng-02.core.example"}
    assert str(events[0].addresses[0]) == "10.61.9.0/32"
    assert events[0].subscriber == digest(6_000_000)


def test_what_is_not_answered_is_repeated_as_it_was(program: Path) -> None:
    with serving(lambda raw, times: times > 1) as server:
        sent = send(program, here, Load(20, repeat_ms=20, give_up_ms=20_000, port=server.port))
    assert (sent.answered, sent.unanswered) == (20, 0)
    assert sent.repeats >= 20
    assert len(server.came) == 20
    assert min(server.came.values()) > 1


def test_what_nobody_answers_is_given_up_and_counted(program: Path) -> None:
    with serving(lambda raw, times: False) as server:
        sent = send(program, here, Load(20, repeat_ms=20, give_up_ms=100, port=server.port))
        with pytest.raises(RuntimeError, match="20 of 20 sessions were not taken"):
            fill(program, here, Load(20, repeat_ms=20, give_up_ms=100, port=server.port))
    assert (sent.answered, sent.unanswered, sent.p99_s) == (0, 20, 0.0)
    assert sent.repeats >= 20


def test_a_nas_has_256_requests_under_way_on_each_socket_and_no_more(program: Path) -> None:
    with serving(lambda raw, times: False) as server:
        sent = send(program, here, Load(3000, nas=1, window=4000, give_up_ms=2000, port=server.port))
    assert (sent.sent, sent.held, sent.unanswered) == (8 * 256, 3000 - 8 * 256, 3000)


def test_an_answer_without_the_secret_is_none(program: Path) -> None:
    with (
        serving(secret=b"another") as server,
        pytest.raises(RuntimeError, match=r"\b[12]?\d answers were wrong"),
    ):
        send(program, here, Load(20, give_up_ms=300, port=server.port))


def test_one_that_is_stopped_sends_nothing_new_and_says_what_it_did(program: Path) -> None:
    with (
        serving() as server,
        Sending(program, here, Load(100, rate=500, seconds=600.0, port=server.port)) as sending,
    ):
        assert holds(lambda: len(server.came) > 20)
        sent = sending.stop()
    assert isinstance(sent, Sent)
    assert 20 < sent.asked == sent.answered < 300_000


def test_a_word_that_it_does_not_know_is_refused(program: Path) -> None:
    done = subprocess.run([str(program), "speed=9"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "speed" in done.stderr
