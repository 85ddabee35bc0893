"""A registry that is away, lies, or is slow; a name server that does not answer."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.proof.faults.host import extras
from tests.proof.harness import Fault, World
from tests.support.bad_input import BAD_INPUTS, MAX_BYTES, BadInput
from tests.support.bad_registry import BadRegistry, Special, bad_registry
from tests.support.feeds import KEY, Fields, Publisher
from tests.support.name_server import ADDRESS, NameServer
from tests.support.refusing_disk import RefusingDisk

NAME = "registry.invalid"
LIES = tuple(each for each in BAD_INPUTS if not each.store_error and each.name != "slow body")
"""Every one that does not need minutes, or a disk."""


@contextmanager
def signed_feed(world: World) -> Iterator[None]:
    """The registry is a signed feed on a server of the gateway's own, and is asked every second."""
    publisher = Publisher(issued_at=time.time() - 3.0, intervals=(1, 1, 604_800))
    publisher.publish(*map(_upsert, world.constant))
    with bad_registry(publisher, inside=world.lab.gateway.entered) as feed:
        world.feed = feed
        follow(world, feed.url)
        yield


def _upsert(fields: Fields) -> Fields:
    return {"op": "upsert", "registration": fields}


def follow(world: World, url: str, *others: str) -> None:
    """The sources from now on: the feed, and files."""
    key = world.daemon.write_file("national.pub", KEY.public_text().encode())
    world.sources = ({"name": "feed", "url": url, "keys": [str(key)], "max_bytes": MAX_BYTES}, *others)
    guard = {"max_removed": "5%", "min_removed": 3}
    world.sections["registry"] = {"refresh": "1s", "retry": "1s", "shrink_guard": guard}


def publish(world: World, *records: Fields) -> None:
    """By the feed; and the kernel shall have these too."""
    world.feed.publish(*map(_upsert, records))
    expect_published(world)


def expect_published(world: World) -> None:
    world.records = tuple(world.feed.publisher.records.values())
    world.expect()


# -- away, lying, slow ---------------------------------------------------------------------------------------------


@contextmanager
def go_away(world: World) -> Iterator[None]:
    """A start in the outage has the last good alone."""
    world.feed.go_away()
    world.hears("source.failed")
    world.daemon.end(signal.SIGKILL)
    world.daemon.start()
    world.daemon.wait_ready()
    world.hears("source.restored", source="feed")
    world.sees("a source fails", lambda status: bool(status["sources"][0]["last_error"]))
    world.cgnat.change()
    world.expect()
    try:
        yield
    finally:
        world.feed.come_back()
    publish(world, *extras(20))


@dataclass(frozen=True, slots=True)
class Liar:
    """What the table of bad input works on."""

    registry: BadRegistry
    disk: RefusingDisk


@contextmanager
def lie(world: World) -> Iterator[None]:
    liar = Liar(world.feed, RefusingDisk())
    for each in LIES:
        world.feed.remember()
        each.misbehave(liar)
        _wait_noticed(world, each)
        world.feed.recover(was_followed=not each.error)
        _wait_followed(world)
    # Some of what lies brought is withdrawn by what followed, and an operator says that this is right.
    held = world.daemon.status()["sources"][0]["held"]
    if held is not None:
        world.daemon.accept(held["serial"])
    world.mark()
    expect_published(world)
    yield
    world.hears("source.failed")
    world.hears("guard.held")


def _wait_noticed(world: World, lie: BadInput) -> None:
    if lie.error:
        world.sees("error of the source", lambda status: lie.error in (status["sources"][0]["last_error"] or ""))
    else:
        _wait_followed(world)
    if lie.is_held:
        world.sees("held", lambda status: (status["sources"][0]["held"] or {"count": 0})["count"] > 0)


def _wait_followed(world: World) -> None:
    publisher = world.feed.publisher
    wanted = {"session": publisher.session, "serial": publisher.serial, "last_error": None}
    world.daemon.wait(lambda: wanted.items() <= world.daemon.status()["sources"][0].items(), "the feed is followed")


@contextmanager
def be_slow(world: World) -> Iterator[None]:
    """A byte now and then, and a body that stops in its middle. Accounting goes on."""
    world.feed.remember()
    world.feed.trickle_s = 2.0
    world.feed.special["notification"] = Special(manner="trickle")
    world.cgnat.change()
    world.expect()
    world.feed.special["notification"] = Special(manner="stall")
    world.hears("source.failed")
    world.sees("a source fails", lambda status: "no answer in time" in (status["sources"][0]["last_error"] or ""))
    yield
    world.feed.recover(was_followed=False)
    expect_published(world)


# -- names ---------------------------------------------------------------------------------------------------------


@contextmanager
def feed_by_name(world: World) -> Iterator[None]:
    """The feed by its name, beside a file; the daemon asks a name server of the gateway's own."""
    resolver = world.daemon.write_file("resolv.conf", f"nameserver {ADDRESS}\n".encode())
    mount = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
    world.daemon.wrapper = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    world.names = NameServer(world.lab.gateway)
    try:
        with signed_feed(world):
            follow(world, world.feed.url.replace("127.0.0.1", NAME), "national")
            yield
    finally:
        world.names.go_away()


@contextmanager
def lose_names(world: World) -> Iterator[None]:
    """First no answer, then no server. The connection that there was is lost too."""
    server = world.names
    assert server.asked
    server.silent = True
    asked = server.asked
    world.feed.go_away()
    world.hears("source.failed", source="feed")
    world.daemon.wait(lambda: server.asked > asked, "a name is asked for")
    world.feed.come_back()
    world.write(*world.constant, *extras(50))
    world.cgnat.change()
    world.expect()
    world.daemon.wait(world.is_repaired, "the file is followed meanwhile")
    server.go_away()
    world.daemon.end(signal.SIGKILL)
    world.daemon.start()
    world.daemon.wait_ready()
    world.hears("source.restored", source="feed")
    yield
    server.silent = False
    server.come_back()
    world.mark()
    _wait_followed(world)


FAULTS = (
    Fault(
        "registry away",
        "No connection is taken, and the daemon is killed and started meanwhile.",
        go_away,
        prepare=signed_feed,
        lasts=True,
    ),
    Fault(
        "registry lies",
        f"{len(LIES)} lies, one after the other: forged, cut, swollen, old, empty, halved, in markup, and more.",
        lie,
        prepare=signed_feed,
    ),
    Fault(
        "registry slow",
        "A byte every two seconds, then nothing more in the middle of an answer.",
        be_slow,
        prepare=signed_feed,
        lasts=True,
    ),
    Fault(
        "DNS dead",
        "The name server does not answer, and then is not there; the daemon is killed and started meanwhile.",
        lose_names,
        prepare=feed_by_name,
        lasts=True,
    ),
)
