"""`gatewayd mode`, `confirm`, `revert`, `trial`, `rearm`: change what is enforced, try it, and take it back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

import click

from gatewayd.cli.arguments import Duration, Percent
from gatewayd.cli.changes import Outcome, describe_reload
from gatewayd.cli.client import Endpoint, daemon_options, socket_options
from gatewayd.cli.mode_file import difference, write_stage
from gatewayd.cli.nearest import Choice
from gatewayd.cli.output import BAD, DOUBTFUL, GOOD, Line, print_json, print_lines, printable
from gatewayd.errors import DaemonNotReachable, GatewaydError
from gatewayd.filesystem import write_output
from gatewayd.model import Mode
from gatewayd.trial.views import (
    ArmingView,
    TrialView,
    describe_notice,
    describe_order,
    describe_trial,
    headlines,
)

DEFAULT_CONFIRM = "10m"
"""RFC 6241 §8.4.5.1."""
REPORT_PAUSE_S = 0.5
REPORT_PATIENCE_S = 60.0
"""After the end of a trial, for its report."""
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("mode")
@click.argument("mode", type=Choice(get_args(Mode)), required=False)
@click.option("--canary", type=Percent(), metavar="N%", help="Share of the clients; without it, as it is.")
@click.option(
    "--confirm",
    type=Duration(),
    is_flag=False,
    flag_value=DEFAULT_CONFIRM,
    metavar="[10m]",
    help="Take it back after this time, unless `gatewayd confirm`.",
)
@click.option("--for", "for_s", type=Duration(), metavar="2h", help="End by itself after this time.")
@click.option(
    "--comment", default="", metavar="TEXT", help="For the log and the status: which order, which ticket."
)
@click.option("--force", "is_forced", is_flag=True, help="Also where it breaks an assertion; the log says so.")
@click.option(
    "--report", "file", type=_FILE, help="With --for: wait for the end, and write the report to this file."
)
@click.option("--write", "is_write", is_flag=True, help="Write the mode of the daemon into its configuration file.")
@click.option("--config", "config_path", metavar="PATH", help="With --write: the file; without it, the daemon's.")
@socket_options
def mode(
    endpoint: Endpoint,
    as_json: bool,
    mode: Mode | None,
    canary: int | None,
    confirm: float | None,
    for_s: float | None,
    comment: str,
    is_forced: bool,
    is_write: bool,
    config_path: str | None,
    file: Path | None,
) -> None:
    """Change the mode of the running daemon; without MODE, show it.

    The configuration file stays as it is. A mode that enforces more than the file is over with the next restart.
    With --confirm it is taken back unless `gatewayd confirm` comes in time, and with --for in any case. The loss of
    this terminal changes nothing; a reboot takes it back. A second --confirm moves the end. `gatewayd mode observe`
    is always allowed, and ends what is pending.

    `gatewayd mode --write` writes the mode that the daemon has into the file, so that a restart has it too. It
    changes those words alone, prints the difference, and has the daemon read the file again.

    Exit status 1 when it is refused or could not be done: then nothing has changed, and no timer runs.
    """
    if mode is None or is_write:
        if (mode, canary, confirm, for_s, comment, is_forced, file) != (None, None, None, None, "", False, None):
            if is_write:
                raise click.UsageError("--write goes alone: it writes the mode that the daemon has")
            raise click.UsageError(f"name the mode: one of {', '.join(get_args(Mode))}")
        if is_write:
            _write(endpoint, config_path, as_json)
        else:
            _show(endpoint, endpoint.get("/v1/trial"), as_json)
        return
    if confirm is not None and for_s is not None:
        raise click.UsageError("--confirm and --for are two ends of one trial: give one of them")
    if file is not None and for_s is None:
        raise click.UsageError("--report goes with --for; for a trial that has ended: gatewayd trial --report FILE")
    asked = {
        "mode": mode,
        "canary": canary,
        "confirm": None if confirm is None else max(1, round(confirm)),
        "for": None if for_s is None else max(1, round(for_s)),
        "comment": comment or None,
        "force": 1 if is_forced else None,
    }
    view = _show(endpoint, endpoint.post("/v1/mode", asked), as_json)
    if file is not None and view.pending is not None:
        wait_for_report(endpoint, view.pending, file)


@click.command("confirm")
@socket_options
def confirm(endpoint: Endpoint, as_json: bool) -> None:
    """Keep the mode of the trial that is pending, from any terminal.

    Exit status 1 when none is pending.
    """
    _show(endpoint, endpoint.post("/v1/confirm"), as_json)


@click.command("revert")
@socket_options
def revert(endpoint: Endpoint, as_json: bool) -> None:
    """Take back the trial that is pending, at once and from any terminal.

    Exit status 1 when none is pending.
    """
    _show(endpoint, endpoint.post("/v1/revert"), as_json)


@click.command("rearm")
@socket_options
def rearm(endpoint: Endpoint, as_json: bool) -> None:
    """End the latch of a trip: the mode of before is in force again.

    Look at the evidence first (`gatewayd trial`). Exit status 1 when the gateway has not tripped.
    """
    _show(endpoint, endpoint.post("/v1/rearm"), as_json)


@click.command("trial")
@click.option("--ack", "is_ack", is_flag=True, help="What came back by itself was seen: take it off the status.")
@click.option("--report", "file", type=_FILE, help="Write the report of the latest trial to this file.")
@daemon_options
def trial(endpoint: Endpoint, as_json: bool, is_ack: bool, file: Path | None) -> None:
    """Show the trial that is pending, what came back by itself, and a trip.

    Exit status 0 while a trial is pending, 1 when none is. With --ack or --report: 1 when there is nothing to
    acknowledge, or no report. A report is there once a trial has ended without `gatewayd confirm`.
    """
    if file is not None:
        write_report(endpoint, file)
        return
    if is_ack:
        _show(endpoint, endpoint.post("/v1/trial/ack"), as_json)
        return
    if not _show(endpoint, endpoint.get("/v1/trial"), as_json).pending:
        click.get_current_context().exit(1)


def write_report(endpoint: Endpoint, file: Path) -> None:
    """Raises click.ClickException where there is none, or the file cannot be written."""
    page = endpoint.get("/v1/trial/report")
    try:
        write_output(file, [page])
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    click.echo(f"{file} is written", err=True)


def wait_for_report(endpoint: Endpoint, trial: TrialView, file: Path) -> None:
    """Until the trial has ended and is reported on; a daemon that restarts meanwhile is waited for."""
    click.echo("waiting for its end; Ctrl-C leaves the trial as it is: gatewayd trial --report FILE", err=True)
    until_s = time.monotonic() + trial.left_s + REPORT_PATIENCE_S
    while time.monotonic() < until_s:
        with suppress(DaemonNotReachable):
            view = endpoint.parse(endpoint.get("/v1/trial"), ArmingView)
            if view.report_of == trial.id:
                write_report(endpoint, file)
                return
            if view.pending is not None:
                until_s = time.monotonic() + view.pending.left_s + REPORT_PATIENCE_S
        time.sleep(REPORT_PAUSE_S)
    raise click.ClickException("the trial is over, and there is no report of it: look at the log")


def _write(endpoint: Endpoint, config_path: str | None, as_json: bool) -> None:
    view = endpoint.parse(endpoint.get("/v1/trial"), ArmingView)
    path = config_path or view.path
    if view.pending is not None:
        raise click.ClickException("a trial is pending: gatewayd confirm first, or gatewayd revert")
    changed = write_stage(path, view.wanted)
    for line in changed:
        click.echo(printable(line), err=as_json)
    if not changed:
        click.echo(f"{path} says {view.wanted} already", err=as_json)
    body = endpoint.post("/v1/reload")
    outcome = endpoint.parse(body, Outcome)
    if as_json:
        print_json(body)
    else:
        print_lines(describe_reload(outcome))
    if not outcome.reloaded:
        click.get_current_context().exit(1)


def _describe_difference(view: ArmingView) -> Iterator[Line]:
    """Of the file and the mode of the daemon, where this user may read it."""
    if not view.differs or view.pending is not None or not view.path:
        return
    with suppress(GatewaydError):
        for number, line in enumerate(difference(view.path, view.wanted)):
            yield Line("" if number else "difference", line)


def _show(endpoint: Endpoint, body: bytes, as_json: bool) -> ArmingView:
    view = endpoint.parse(body, ArmingView)
    if as_json:
        print_json(body)
    else:
        print_lines([*describe_arming(view), *_describe_difference(view)])
    return view


def describe_arming(view: ArmingView) -> Iterator[Line]:
    """All of it, the mode in force first."""
    stage = view.wanted if view.wanted.mode == view.mode else view.mode
    yield Line("mode", str(stage), DOUBTFUL if view.mode != "observe" else "")
    if view.mode != view.wanted.mode and view.trip is None and view.reverting is None:
        yield Line("", f"wanted is {view.wanted}: see gatewayd status", DOUBTFUL)
    yield from describe_changes(view)
    if view.pending is None and not view.notices:
        yield Line("trial", "none is pending")


def describe_changes(view: ArmingView) -> Iterator[Line]:
    """What the first line of the status names, with its particulars; nothing in peace."""
    if view.trip is not None:
        yield Line("TRIPPED", f"since {view.trip.at}: {view.trip.text}; gatewayd rearm", BAD)
    if view.reverting is not None:
        yield Line("REVERTING", f"to {view.reverting}: the kernel does not have it yet", BAD)
    if view.pending is not None:
        by = f"by {view.pending.by}" + (f" ({view.pending.comment})" if view.pending.comment else "")
        yield Line("TRIAL", f"{describe_trial(view.pending)}; {by}, until {view.pending.deadline}", DOUBTFUL)
    for notice in view.notices:
        ended = notice.kind == "ended"
        yield Line("ended" if ended else "REVERTED", describe_notice(notice), GOOD if ended else BAD)
    if order := describe_order(view):
        yield Line("order", order, DOUBTFUL)
    if view.not_saved is not None:
        yield Line("NOT SAVED", f"the record of the mode on disk is old: {view.not_saved}", BAD)


def headline_of(view: ArmingView) -> str:
    """For the first line of the status; "" in peace."""
    return "; ".join(headlines(view))
