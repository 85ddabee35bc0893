"""`gatewayd sync`, `reload`, `accept`: read the registry or the configuration now; release held removals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click
import msgspec

from gatewayd.cli.client import Endpoint, socket_options
from gatewayd.cli.output import BAD, DOUBTFUL, GOOD, Line, print_json, print_lines


@click.command("sync")
@socket_options
def sync(endpoint: Endpoint, as_json: bool) -> None:
    """Read every source of the registry now.

    Exit status 1 when a source could not be read; what is in force stays then.
    """
    if _post(endpoint, "/v1/sync", as_json).get("errors"):
        click.get_current_context().exit(1)


_force_option = click.option(
    "--force",
    "is_forced",
    is_flag=True,
    help="Also where it breaks an assertion; the log says who did it.",
)


@click.command("reload")
@_force_option
@socket_options
def reload(endpoint: Endpoint, as_json: bool, is_forced: bool) -> None:
    """Read the configuration again, and say what came of it.

    Works before the daemon is ready too. Exit status 1 when the file was refused, or a file that it names; each
    fault is printed. So is each assertion (`must_pass`, `must_not_pass`) that it would break; unless it is
    forced, it is refused then. Where the policy of the file still waits for a new source or for the kernel, it
    says so.
    """
    body = endpoint.post("/v1/reload?force=1" if is_forced else "/v1/reload")
    outcome = endpoint.parse(body, Outcome)
    if as_json:
        print_json(body)
    else:
        print_lines(describe_reload(outcome))
    if not outcome.reloaded or outcome.faults or outcome.broken:
        click.get_current_context().exit(1)


class Outcome(msgspec.Struct, frozen=True):
    """As api.queries.Queries.reload has it."""

    reloaded: bool
    mode: str
    faults: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()


def describe_reload(outcome: Outcome) -> Iterator[Line]:
    if outcome.reloaded:
        yield Line("reload", "done", GOOD)
    else:
        yield Line("reload", "REFUSED; the settings from before stay in force", BAD)
    for fault in outcome.faults:
        yield Line("fault", fault, BAD)
    for each in outcome.broken:
        yield Line("WOULD BREAK", each, BAD)
    if outcome.broken:
        what = "the local files wait" if outcome.reloaded else "nothing was changed"
        yield Line("", f"{what}; gatewayd reload --force does it all the same", DOUBTFUL)
    for key in outcome.needs_restart:
        yield Line("needs a restart", key, BAD)
    yield Line("mode in force", outcome.mode)
    for reason in outcome.waits_for:
        yield Line("waits for", reason, DOUBTFUL)


@click.command("accept")
@click.argument("serial", type=click.IntRange(min=0))
@_force_option
@socket_options
def accept(endpoint: Endpoint, serial: int, as_json: bool, is_forced: bool) -> None:
    """Release removals that the guard holds.

    SERIAL is the one that `gatewayd status` shows beside HELD, so that nobody accepts more than was looked at.
    Exit status 1 when nothing is held under it, or when that would break an assertion; what is in force stays then.
    """
    _post(endpoint, f"/v1/accept?serial={serial}" + ("&force=1" if is_forced else ""), as_json)


def _post(endpoint: Endpoint, path: str, as_json: bool) -> Mapping[str, object]:
    body = endpoint.post(path)
    outcome = endpoint.parse(body, dict[str, object])
    if as_json:
        print_json(body)
    else:
        print_lines(describe_outcome(outcome))
    return outcome


def describe_outcome(outcome: Mapping[str, object]) -> Iterator[Line]:
    """A line a value, and one for each part of what has parts."""
    for name, value in outcome.items():
        label, style = name.replace("_", " "), BAD if name == "errors" else ""
        if not isinstance(value, dict):
            yield Line(label, _words(value))
            continue
        if not value:
            yield Line(label, "none")
        for part, inner in value.items():
            yield Line(label, f"{part}: {_words(inner)}", style)
            label = ""


def _words(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
