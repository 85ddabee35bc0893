"""Interfaces as the kernel has them, and their changes, in a namespace of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import uvloop

from gatewayd.kernel import links
from gatewayd.kernel.links import follow_links, read_interfaces
from gatewayd.lab.namespace import Namespace

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("links") as made:
        yield made


def add(namespace: Namespace, *names: str) -> None:
    script = "".join(f"link add {name} type veth peer name peer-{name}\n" for name in names)
    namespace.run(["ip", "-batch", "-"], input=script)


def test_the_interfaces_are_those_of_the_namespace(namespace: Namespace) -> None:
    with namespace.entered():
        assert read_interfaces() == ("lo",)
        add(namespace, *(f"ppp{number}" for number in range(300)))  # several datagrams
        found = read_interfaces()
    assert len(found) == 601
    assert {"lo", "ppp0", "ppp299", "peer-ppp299"} <= set(found)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_each_change_is_noticed_and_a_storm_is_few_looks(
    namespace: Namespace, factory: type[asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "PAUSE_S", 0.2)
    seen: list[tuple[str, ...]] = []

    async def scenario() -> None:
        told = asyncio.Event()

        def take(names: tuple[str, ...]) -> None:
            seen.append(names)
            told.set()

        async def until(name: str, *, is_there: bool) -> None:
            while not seen or (name in seen[-1]) is not is_there:
                told.clear()
                await told.wait()

        def read() -> tuple[str, ...]:
            with namespace.entered():
                return read_interfaces()

        # A thread is in the namespace of the thread that makes it.
        with namespace.entered():
            task = asyncio.ensure_future(follow_links(read, take))
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await until("lo", is_there=True)
            await asyncio.to_thread(add, namespace, "ppp0")
            await until("ppp0", is_there=True)
            await asyncio.to_thread(namespace.run, ["ip", "link", "set", "ppp0", "name", "wan0"])
            await until("wan0", is_there=True)
            await asyncio.to_thread(namespace.run, ["ip", "link", "del", "wan0"])
            await until("wan0", is_there=False)
            looks = len(seen)
            await asyncio.to_thread(add, namespace, *(f"ppp{number}" for number in range(1, 501)))
            await until("ppp500", is_there=True)
            assert len(seen) - looks < 100, "one look for many of the 1,000 links"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())
    for thread in threading.enumerate():
        if thread.name == "links":
            thread.join(10)
            assert not thread.is_alive()


def test_an_error_of_the_thread_is_raised_in_the_loop() -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many"):
        asyncio.run(follow_links(fail, lambda _: None))
