"""`gatewayd registry keygen|import|upsert|revoke`: changes of the reference registry's database."""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gatewayd.cli.nearest import Choice
from gatewayd.cli.output import print_value, print_words, printable
from gatewayd.cli.registry_reading import database_option, describe_applied, json_option, shown_rows
from gatewayd.errors import InputRejected, PepperUnusable, RegistryUnusable

if TYPE_CHECKING:
    from gatewayd.authority.importing import ImportReport
    from gatewayd.authority.readers import Hashing
    from gatewayd.feed.reading import Format

_Function = Callable[..., Any]


PATIENCE_S: Final = 1.0


class Meter:
    """Called with a step, how much of it is done and of how much (0 = not known)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun_s = time.monotonic()
        self._bar: Progress | None = None
        self._step = ""

    def __call__(self, step: str, done: int, of: int) -> None:
        if self._bar is None:
            if not self._console.is_terminal or time.monotonic() - self._begun_s < PATIENCE_S:
                return
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        if step != self._step:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(step, total=of or None)
            self._step = step
        self._bar.update(self._bar.task_ids[0], completed=done, total=of or None)

    def stop(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def metered() -> Iterator[Meter]:
    """A meter on stderr, so that what is printed stays clean."""
    meter = Meter(Console(stderr=True))
    try:
        yield meter
    finally:
        meter.stop()


def _change_options(function: _Function) -> _Function:
    actor = click.option("--actor", help="Who changes it, for the audit. Default: the name of this user.")
    return database_option(actor(json_option(function)))


def _number_options(function: _Function) -> _Function:
    pepper = click.option(
        "--pepper-file",
        type=click.Path(path_type=Path),
        help="The secret that `mobile` numbers are hashed with; the numbers are dropped.",
    )
    country = click.option("--country-code", help="Of numbers in national form (0300...), such as 92.")
    return pepper(country(function))


_reactivate_option = click.option(
    "--reactivate",
    is_flag=True,
    help="Make active what is suspended or revoked, where the record says so.",
)


@click.command("keygen")
@click.option("--kid", required=True, help="The key's name, which gateways are configured with.")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def keygen(file: Path, kid: str, as_json: bool) -> None:
    """Make a key to sign the feed with: FILE, for this host alone, and FILE.pub, for the gateways.

    A file that is there is never overwritten.
    """
    from gatewayd.feed.notification import generate_key

    key = generate_key(kid)
    public = file.with_name(file.name + ".pub")
    for path in (file, public):
        if path.exists():
            raise RegistryUnusable(str(path), "is there already; a key is never overwritten")
    _write_new(file, key.private_text(), 0o600)
    _write_new(public, key.public_text(), 0o644)
    if as_json:
        print_value({"kid": kid, "private": str(file), "public": str(public)})
    else:
        print_words(("kid", kid), ("private", file), ("public", public))


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "format", type=Choice(["ndjson", "csv"]), help="Default: found out.")
@click.option("--replace", is_flag=True, help="Withdraw registrations that FILE does not have.")
@_reactivate_option
@click.option("--dry-run", is_flag=True, help="Say what would change and change nothing.")
@_number_options
@_change_options
def import_file(
    file: Path,
    format: Format | None,
    replace: bool,
    reactivate: bool,
    dry_run: bool,
    pepper_file: Path | None,
    country_code: str | None,
    database: Path,
    actor: str | None,
    as_json: bool,
) -> None:
    """Add and change registrations from FILE (CSV or NDJSON, plain or gzip).

    Rejected rows and changes are listed, and the rest is stored. While there are rejected rows, --replace withdraws
    nothing. What is suspended or revoked stays so, though FILE has it active: the file may be an old one.

    Exit status: 0 all rows are stored, 1 some are not or nothing could be withdrawn, 2 usage.
    """
    from gatewayd.authority.database import RegistryDatabase
    from gatewayd.authority.importing import FileImport

    hashing = _hashing(pepper_file, country_code)
    with metered() as meter:
        reading = FileImport(file, format=format, hashing=hashing, progress=meter)
        with RegistryDatabase(database, on_turn=lambda: meter("storing", 0, 0)) as registry:
            report = reading.store(
                registry,
                at_s=time.time(),
                actor=actor or _user(),
                replace=replace,
                reactivates=reactivate,
                dry_run=dry_run,
            )
    if as_json:
        document = {"database": str(database), "dry_run": dry_run, **msgspec.to_builtins(report)}
        document["applied"] = {word: n for word, n in document["applied"].items() if isinstance(n, int)}
        print_value(
            document | {"changes": shown_rows(report.applied.rows), "inactive": dict(report.applied.inactive)}
        )
    else:
        _print_report(report, dry_run)
    sys.exit(1 if report.rejected or report.held or report.applied.not_reactivated else 0)


@click.command("upsert")
@click.argument("record", default="-")
@_reactivate_option
@_number_options
@_change_options
def upsert(
    record: str,
    reactivate: bool,
    pepper_file: Path | None,
    country_code: str | None,
    database: Path,
    actor: str | None,
    as_json: bool,
) -> None:
    """Add or change one registration: RECORD is a JSON object; - or nothing: it is read from stdin.

    With a mobile number use stdin: arguments are seen by every user of the host.
    """
    from gatewayd.authority.database import RegistryDatabase
    from gatewayd.authority.importing import written_record

    raw = sys.stdin.buffer.read() if record == "-" else os.fsencode(record)
    id, written = written_record(raw, _hashing(pepper_file, country_code))
    with RegistryDatabase(database) as registry:
        applied = registry.apply(
            [(id, written)], at_s=time.time(), action="upsert", actor=actor or _user(), reactivates=reactivate
        )
    for _, status in applied.inactive:
        raise InputRejected(f"{id} is {status} and stays so; --reactivate makes it active again")
    _print_change(id, "added" if applied.added else "changed" if applied.changed else "unchanged", as_json)


@click.command("revoke")
@click.argument("id")
@click.option("--suspend", is_flag=True, help="Suspend it instead; `upsert --reactivate` makes it active again.")
@_change_options
def revoke(id: str, suspend: bool, database: Path, actor: str | None, as_json: bool) -> None:
    """Revoke registration ID. It stays in the registry, so that gateways can say why it no longer counts."""
    from gatewayd.authority.database import RegistryDatabase
    from gatewayd.authority.importing import with_status

    with RegistryDatabase(database, may_create=False) as registry:
        record = registry.record_of(id)
        if record is None:
            raise InputRejected(f"there is no registration {printable(id)!r}")
        status = "suspended" if suspend else "revoked"
        applied = registry.apply(
            [(id, with_status(record, "suspended" if suspend else "revoked"))],
            at_s=time.time(),
            action="suspend" if suspend else "revoke",
            actor=actor or _user(),
        )
    _print_change(id, status if applied.has_changes else "unchanged", as_json)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _hashing(pepper_file: Path | None, country_code: str | None) -> Hashing | None:
    from gatewayd.authority.readers import Hashing
    from gatewayd.model.msisdn import is_country_code, pepper_of

    if country_code is not None and not is_country_code(country_code):
        raise click.BadParameter("must be one to three digits, such as 92", param_hint="--country-code")
    if pepper_file is None:
        return None
    try:
        raw = pepper_file.read_bytes()
    except OSError as error:
        raise PepperUnusable(f"{pepper_file}: {error.strerror}", "give a file that can be read") from None
    return Hashing(pepper_of(raw), country_code)


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "w") as stream:
            os.fchmod(descriptor, mode)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise RegistryUnusable(str(path), error.strerror or str(error)) from None


def _print_change(id: str, what: str, as_json: bool) -> None:
    if as_json:
        print_value({"id": id, "result": what})
    else:
        click.echo(f"{id} {what}")


def _print_report(report: ImportReport, dry_run: bool) -> None:
    """Rejections and changes first, so that the counts stay in sight."""
    for rejection in report.rejections:
        click.echo(printable(f"{report.file}:{rejection}"))
    unlisted = sum(report.rejected.values()) - len(report.rejections)
    if unlisted:
        click.echo(printable(f"{report.file}: {unlisted} more rejected records are not listed"))
    applied = report.applied
    for line in describe_applied(applied):
        click.echo(line)
    if dry_run:
        click.echo("dry run: nothing is changed")
    print_words(
        ("records", report.records),
        ("added", applied.added),
        ("changed", applied.changed),
        ("unchanged", applied.unchanged),
        ("withdrawn", applied.withdrawn),
        ("not_reactivated", applied.not_reactivated),
        *((f"rejected {code}", count) for code, count in report.rejected.items()),
    )
    if report.held:
        click.echo(f"nothing is withdrawn: {report.held}", err=True)
