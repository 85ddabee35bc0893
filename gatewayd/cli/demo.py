"""`gatewayd demo`: a gateway, customers and an internet on this machine, in network namespaces."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import click

WIDTH_ELSEWHERE = 180
"""Columns where the output is no terminal."""


@click.command("demo")
@click.option("--registrations", default=31_000, show_default=True, help="How many the registry holds.")
@click.option("--keep", is_flag=True, help="Leave it running at the end, with the places to look at.")
def command(registrations: int, keep: bool) -> None:
    """Show it all in a lab on this machine: needs root and no network.

    Builds three network namespaces, fills a registry with registrations over real prefixes and serves its signed
    feed in one of them, starts the daemon in another and sends real traffic through it. Ends with a summary; exit
    status 1 if anything was not as promised.
    Nothing outside the namespaces is touched, and they vanish at the end, also on Ctrl-C.
    """
    from rich.console import Console

    from gatewayd.demo.acts import Stage
    from gatewayd.demo.scenario import Scenario, keep_running
    from gatewayd.errors import MissingPrerequisite
    from gatewayd.lab.lab import Lab, missing_for_lab

    signal.signal(signal.SIGTERM, _interrupt)
    missing = missing_for_lab()
    if missing is not None:
        raise MissingPrerequisite(f"the lab cannot be built here: {missing}", "run the demo as root on Linux")
    stage = Stage(Console() if sys.stdout.isatty() else Console(width=WIDTH_ELSEWHERE))
    directory = Path(tempfile.mkdtemp(prefix="gatewayd-demo-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        lab = stack.enter_context(Lab())
        scenario = Scenario(stage, lab, directory, registrations)
        scenario.play()
        kept = stage.summary()
        if keep:
            keep_running(lab, scenario.gateway, scenario.registry, stage)
    if not kept:
        sys.exit(1)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
