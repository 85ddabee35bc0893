"""`gatewayd run`, `teardown` and `demo`: the daemon in the foreground, the end of what it leaves in the kernel, and
a gateway with customers and an internet in network namespaces of this machine."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack, aclosing
from pathlib import Path
from types import FrameType

import click
from click.core import ParameterSource

from gatewayd.cli.arguments import Listen
from gatewayd.cli.check import config_option
from gatewayd.cli.output import count
from gatewayd.errors import SettingsInvalid
from gatewayd.kernel.claim import claimed_table
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.tables import KernelTables
from gatewayd.model.policy import MarkLayout
from gatewayd.settings import Settings, read_settings
from gatewayd.settings.values import ListenAddress

WIDTH_ELSEWHERE = 180
"""Columns of the demo where the output is no terminal."""


@click.command("run")
@config_option
def run(config_path: str) -> None:
    """Run the daemon in the foreground.

    Stopping it leaves the kernel as it is; `gatewayd teardown` removes the table.
    """
    import uvloop

    from gatewayd.daemon import run_daemon

    settings = read_settings(config_path)
    run_daemon(settings, Path(config_path), uvloop.run)


@click.command("teardown")
@config_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def teardown(config_path: str, yes: bool) -> None:
    """Remove the table from the kernel, with all sets and rules in it.

    From then on gatewayd does nothing to any traffic. Live flows lose the bits of the ct mark that are ours.
    The daemon must be stopped first: it would put everything back at once.

    Exit status 0 when no table of ours is left, 1 without a yes, 2 while the daemon runs or where the file has a
    fault.
    """
    try:
        settings = read_settings(config_path)
    except SettingsInvalid as error:
        way_out = "gatewayd: nothing is removed; mend the file, or: nft delete table inet NAME (kernel.table)"
        raise SettingsInvalid((*error.faults, way_out)) from None
    with claimed_table(settings.kernel.table, Path(settings.http.socket).parent):
        if not yes:
            _ask(f"Remove table inet {settings.kernel.table} from the kernel?")
        removed, flows = asyncio.run(tear_down(settings))
    table = f"table inet {settings.kernel.table}"
    click.echo(f"{table} is removed, {count(flows, 'flow')} unmarked" if removed else f"there was no {table}")


def _ask(question: str) -> None:
    """Ends the command without a yes, also where there is no answer."""
    try:
        if click.confirm(question):
            return
    except click.Abort:
        click.echo(err=True)
    raise click.ClickException("nothing is removed")


async def tear_down(settings: Settings) -> tuple[bool, int]:
    """Whether there was a table, and how many live flows carried our mark."""
    tables = KernelTables.open(settings.kernel.table)
    conntrack = Conntrack()
    conntrack.open()
    try:
        await tables.check()
        tag = (await tables.read_table()).tag
        removed = await tables.delete_table()
        layout = MarkLayout(settings.kernel.ct_mark_mask)
        marks = [(layout.registered, layout.registered)]
        if tag is not None:
            marks.append((layout.judged(tag.epoch), layout.mask))
        flows = 0
        for mark, mask in marks:
            async with aclosing(conntrack.dump(mark=mark, mask=mask)) as batches:
                async for events in batches:
                    flows += await conntrack.change_marks((event.key for event in events), 0, layout.mask)
        return removed, flows
    finally:
        conntrack.close()
        tables.close()


@click.command("demo")
@click.option(
    "--registrations",
    type=click.IntRange(1, 4_000_000),
    default=31_000,
    show_default=True,
    help="How many the registry holds.",
)
@click.option("--keep", is_flag=True, help="Leave it running at the end, with the places to look at.")
@click.option(
    "--listen", type=Listen(), default="127.0.0.1:0", help="With --keep: for page and API.  [default: any port]"
)
def demo(registrations: int, keep: bool, listen: ListenAddress) -> None:
    """Show it all in a lab on this machine: needs root and no network.

    Builds three network namespaces, fills a registry with registrations over real prefixes and serves its signed
    feed in one of them, starts the daemon in another and sends real traffic through it. Ends with a summary; exit
    status 1 if anything was not as promised.
    Nothing outside the namespaces is touched, and they vanish at the end, also on Ctrl-C or a lost terminal.
    """
    from rich.console import Console

    from gatewayd.demo.acts import Stage
    from gatewayd.demo.scenario import Scenario, keep_running
    from gatewayd.errors import MissingPrerequisite
    from gatewayd.lab.lab import Lab, missing_for_lab

    if not keep and click.get_current_context().get_parameter_source("listen") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--listen is for the gateway that --keep leaves running; give both")
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it: there the demo goes on
        signal.signal(signal.SIGHUP, _interrupt)
    missing = missing_for_lab()
    if missing is not None:
        raise MissingPrerequisite(f"the lab cannot be built here: {missing}", "run the demo as root on Linux")
    stage = Stage(Console() if sys.stdout.isatty() else Console(width=WIDTH_ELSEWHERE))
    with ExitStack() as stack:
        listening = stack.enter_context(_bound(listen))
        directory = Path(tempfile.mkdtemp(prefix="gatewayd-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        lab = stack.enter_context(Lab())
        scenario = Scenario(stage, lab, directory, registrations)
        scenario.play()
        kept = stage.summary()
        if keep:
            keep_running(lab, scenario.gateway, scenario.registry, stage, listening)
    if not kept:
        sys.exit(1)


def _bound(address: ListenAddress) -> socket.socket:
    """Before the play, which takes a minute: does another program have the port?"""
    found = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address.host, address.port))
    except OSError as error:
        found.close()
        raise click.BadParameter(
            f"{address.host} port {address.port}: {error.strerror}", param_hint="--listen"
        ) from None
    return found


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
