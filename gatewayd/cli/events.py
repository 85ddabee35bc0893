"""`gatewayd events`: what happened and what happens, a line each; with `-f` also over a restart of the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

import click
import msgspec

from gatewayd.api.event_stream import GAP, GapView, Message, NotAStream, StreamReader
from gatewayd.cli.client import Endpoint, daemon_options, moment_of
from gatewayd.cli.output import BAD, DOUBTFUL, count, print_event
from gatewayd.errors import DaemonNotReachable
from gatewayd.log.ring import FollowedEvent

SILENCE_S: Final = 45.0
"""Three heartbeats of the daemon."""
RETRY_S: Final = 2.0
_STYLES: Final = {"warning": DOUBTFUL, "error": BAD}


@click.command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, also over a restart. End with Ctrl-C.")
@click.option(
    "--since",
    metavar="TIME",
    help="Such as 2h, 2026-01-31T00:00:00Z, or the id of an event. Default: all that the daemon remembers.",
)
@daemon_options
def command(endpoint: Endpoint, follow: bool, since: str | None, as_json: bool) -> None:
    """Show the events of the daemon: registry applied, held, mode, reload, repair, late admission.

    The daemon remembers the latest 4,000 of its run. Where events are missing, it says how many. With --json, one
    object a line.
    """
    asyncio.run(_show(endpoint, moment_of(since), as_json, follow=follow))


async def _show(endpoint: Endpoint, since: str | None, as_json: bool, *, follow: bool) -> None:
    """Until the stream ends; one that follows is asked for again, from the last event on."""
    parameters = {"follow": "yes" if follow else "no"} | ({} if since is None else {"since": since})
    last_id, has_answered, was_lost = "", False, False
    while True:
        headers: Mapping[str, str] = {"Last-Event-ID": last_id} if last_id else {}
        reader = StreamReader()
        try:
            async with aclosing(endpoint.stream("/v1/events", parameters, headers, SILENCE_S)) as chunks:
                async for chunk in chunks:
                    has_answered = True
                    if was_lost:
                        click.echo("gatewayd: the daemon answers again", err=True)
                        was_lost = False
                    for message in _messages(endpoint, reader, chunk):
                        last_id = message.id or last_id
                        _print(endpoint, message, as_json)
        except DaemonNotReachable as error:
            if not (follow and has_answered):
                raise
            if not was_lost:
                click.echo(f"{error}; asking again every {RETRY_S:g} s", err=True)
            was_lost = True
        if not follow:
            return
        await asyncio.sleep(RETRY_S)


def _messages(endpoint: Endpoint, reader: StreamReader, chunk: bytes) -> list[Message]:
    try:
        return list(reader.feed(chunk))
    except NotAStream:
        raise DaemonNotReachable(endpoint.place, "what answers there is not this gatewayd") from None


def _print(endpoint: Endpoint, message: Message, as_json: bool) -> None:
    body = message.data.encode()
    if message.event == GAP:
        gap = endpoint.parse(body, GapView)
        if as_json:
            click.echo(msgspec.json.encode({"gap": gap}).decode())
        else:
            print_event("-", describe_gap(gap), "", DOUBTFUL)
        return
    event = endpoint.parse(body, FollowedEvent)
    if as_json:
        click.echo(message.data)
        return
    fields = " ".join(f"{name}={_text(value)}" for name, value in event.fields.items())
    left = f" ({', '.join(event.omitted)} too long)" if event.omitted else ""
    print_event(event.at, event.event, fields + left, _STYLES.get(event.level, ""))


def describe_gap(gap: GapView) -> str:
    if gap.reason == "restart":
        return "the daemon was started since; events of before are in the log alone"
    missed = "events" if gap.missed is None else count(gap.missed, "event")
    return f"{missed} missed: forgotten for newer ones"


def _text(value: object) -> str:
    if isinstance(value, str):
        return value if value and " " not in value else msgspec.json.encode(value).decode()
    return msgspec.json.encode(value).decode()
