"""`gatewayd`: the commands, imported when they are used.

`gatewayd --help` and a shell's completion import nothing of a command, so the names and the one-line helps stand in
the table below. `run`, `plan` and `teardown` touch the kernel; `check` and `registry` look at files; the others ask
the daemon, through `client`, over its Unix socket. `arguments` has durations and shares. They print through
`output`: tables on a terminal, plain aligned text elsewhere, the API's own JSON with `--json`. `private` knows what
a fault does not repeat. From the commands `manual` and `completions` write the man pages and a shell's completions,
for a package.

Exit status: 0 ok, 1 failed, 2 usage or configuration, 3 daemon not reachable, 130 interrupted.
It is decided here, from the class of the error; a command raises and never catches to choose a number. A fault
is one line on stderr and never a traceback; a traceback is a bug.

Review notes: can an engineer at three in the morning see first what is wrong? Is the output without a terminal
stable enough for a script, and does `--json` have everything the text has? Does text from outside (errors of
sources, addresses of pages) reach the terminal without its control characters? Does the command say what it
would have needed when it fails? Is the import of the command still lazy?
"""

from __future__ import annotations

import gc
import sys
from codecs import register_error
from collections.abc import Sequence
from errno import EDQUOT, EIO, ENOSPC
from importlib import import_module
from io import TextIOWrapper
from typing import Any, Final

import click

from gatewayd import __version__
from gatewayd.errors import DaemonNotReachable, GatewaydError, SettingsInvalid, UsageError

COMMANDS: Final[dict[str, str]] = {
    "run": "Run the daemon.",
    "check": "Check a configuration file.",
    "plan": "Show what would change in the kernel; touch nothing.",
    "status": "Show what the daemon is doing, on one screen.",
    "top": "Watch flows and registrations by rate, on a screen.",
    "explain": "Say why a flow passes or does not.",
    "registrations": "List registrations, or show one.",
    "flows": "List the registered flows that are alive.",
    "bindings": "List the addresses of registered subscribers.",
    "sync": "Read the registry now.",
    "held": "Show the removals that the guard holds.",
    "reload": "Read the configuration again.",
    "mode": "Change what is enforced: at once, or as a trial.",
    "confirm": "Keep the mode of the trial that is pending.",
    "revert": "Take back the trial that is pending.",
    "trial": "Show the trial that is pending.",
    "rearm": "End the latch of a trip.",
    "accept": "Release removals that the guard holds.",
    "changes": "Show which registrations came, went and changed.",
    "doctor": "Examine the host: what keeps traffic from passing.",
    "impact": "Show unregistered flows, and who a policy would refuse.",
    "report": "Show the use of registrations over weeks and months.",
    "events": "Show what happens: changes, holds, modes, repairs.",
    "registry": "Work with registry files.",
    "teardown": "Remove the table from the kernel.",
    "demo": "Show it all in a lab on this machine.",
}
"""Commands in the order of the help, each with its line there; the rest is in `cli/<name>.py`, as `command`, or in
the module of several that `SHARED` names."""
SHARED: Final[dict[str, str]] = {
    "run": "service",
    "teardown": "service",
    "demo": "service",
    "registrations": "listings",
    "flows": "listings",
    "bindings": "listings",
    "sync": "changes",
    "held": "standing",
    "reload": "changes",
    "accept": "changes",
    "mode": "mode",
    "confirm": "mode",
    "revert": "mode",
    "trial": "mode",
    "rearm": "mode",
    "changes": "standing",
}

_GC_THRESHOLD: Final = 50_000
"""Imports make few cycles and many objects: looking for cycles every 700 of them costs a tenth of each start."""
_WORDS: Final = "gatewayd.words"
_LIKENESS: Final = "gatewayd.likeness"
_LIKE: Final = {"…": "...", "\N{REPLACEMENT CHARACTER}": "?", "→": "->", "–": "-", "’": "'"}

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_REACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 130


def exit_status(error: GatewaydError) -> int:
    """What an error means to the shell."""
    if isinstance(error, DaemonNotReachable):
        return EXIT_NOT_REACHABLE
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED


def write_likeness(error: UnicodeError) -> tuple[str | bytes, int]:
    """For a sign that a terminal's encoding does not have: three dots, a question mark, or its number. So with a
    byte of an argument that is no text. Nothing that a command has to say fails for its letters."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    likeness = "".join(_LIKE.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return likeness, error.end


def _without_persons(error: click.ClickException, words: Sequence[str]) -> click.ClickException:
    """The fault, without a person's number that was among the words of the command line."""
    from gatewayd.cli.private import without_persons

    text = without_persons(error.message, words)
    if text == error.message:
        return error
    if isinstance(error, click.BadParameter):
        return click.BadParameter(text, error.ctx, error.param, error.param_hint)
    if isinstance(error, click.UsageError):
        return click.UsageError(text, error.ctx)
    return click.ClickException(text)


class CommandGroup(click.Group):
    """A group whose commands are modules, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{SHARED.get(cmd_name, cmd_name)}")
        command = getattr(module, cmd_name if cmd_name in SHARED else "command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **extra: Any) -> Any:
        register_error(_LIKENESS, write_likeness)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors=_LIKENESS)
        return super().main(*args, **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from gatewayd.cli.nearest import nearest_command

            raise click.UsageError(error.message + nearest_command(self, ctx, args[0]), ctx) from None

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        words = tuple(args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            raise _without_persons(error, words) from None
        context.meta[_WORDS] = words
        return context

    def invoke(self, ctx: click.Context) -> object:
        gc.set_threshold(_GC_THRESHOLD)
        try:
            return super().invoke(ctx)
        except GatewaydError as error:
            from gatewayd.cli.private import without_persons

            # The faults of a configuration begin with their place, as a compiler's do.
            prefix = "" if isinstance(error, SettingsInvalid) else "gatewayd: "
            click.echo(prefix + without_persons(str(error), ctx.meta[_WORDS]), err=True)
            ctx.exit(exit_status(error))
        except click.ClickException as error:
            raise _without_persons(error, ctx.meta[_WORDS]) from None
        except UnicodeEncodeError as error:
            # Output has its likeness; this is an argument with a byte that is no text, a surrogate.
            click.echo(f"gatewayd: {error.object[:64]!a} is not UTF-8 text", err=True)
            ctx.exit(EXIT_USAGE)
        except OSError as error:
            # This is its output, on a full disk. click has the closed pipe.
            if error.filename is not None or error.errno not in (ENOSPC, EIO, EDQUOT):
                raise
            click.echo(f"gatewayd: the output cannot be written: {error.strerror}", err=True)
            ctx.exit(EXIT_FAILED)
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(EXIT_INTERRUPTED)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gatewayd")
def main() -> None:
    """Keep registered VPN traffic passing.

    Exit status: 0 ok, 1 failed, 2 usage or configuration, 3 daemon not reachable.
    """
