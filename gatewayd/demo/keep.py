"""`gatewayd demo --keep`: the lab stays, its API within reach of a browser on this machine."""

from __future__ import annotations

import asyncio
import socket

from gatewayd.demo import cast
from gatewayd.demo.cast import is_streamable
from gatewayd.demo.gateway import DemoGateway
from gatewayd.demo.registry import DemoRegistry
from gatewayd.demo.stage import Stage
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream

API = ("127.0.0.1", 9480)
KEPT_PORT = 39999
KEPT_RATE_PPS = 40.0
TO_REVOKE = cast.FREELANCER["id"]


def keep_running(lab: Lab, gateway: DemoGateway, registry: DemoRegistry, stage: Stage) -> None:
    """Until Ctrl-C."""
    stage.act("It keeps running, with some traffic; Ctrl-C ends it")
    flows = [line.flow for line in cast.lines(KEPT_PORT) if is_streamable(line)]
    with Stream(lab, flows, rate_pps=KEPT_RATE_PPS, answered=True):
        try:
            asyncio.run(_relay(lab, gateway, registry, stage))
        except KeyboardInterrupt:
            stage.say("ending")


async def _relay(lab: Lab, gateway: DemoGateway, registry: DemoRegistry, stage: Stage) -> None:
    """Carry connections to this host's loopback on to the gateway's: the API listens in its namespace."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with lab.gateway.entered():
            inner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        inner.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(inner, API)
            far_reader, far_writer = await asyncio.open_connection(sock=inner)
        except OSError:
            inner.close()
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    carried: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio before 3.12 logs a traceback for one of its own that is cancelled.
        task = asyncio.create_task(carry(reader, writer))
        carried.add(task)
        task.add_done_callback(carried.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    for path in ("/v1/status?pretty", "/metrics", "/readyz", "/v1/flows?pretty", "/v1/registrations?pretty"):
        stage.say(f"http://{host}:{port}{path}")
    stage.say(f"gatewayd status --socket {gateway.socket_path}")
    stage.say(f"nsenter --net={lab.gateway.path} nft list table inet gatewayd")
    stage.say(f"log: {gateway.log_path}")
    stage.say("to change the registry:")
    stage.say(f"cd {registry.directory}")
    stage.say(f"gatewayd registry revoke {TO_REVOKE}")
    stage.say(f"gatewayd registry publish --key {registry.private_key_path.name}")
    stage.say(f"gatewayd sync --socket {gateway.socket_path.name}")
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while raw := await reader.read(1 << 16):
            writer.write(raw)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
