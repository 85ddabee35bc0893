"""`gatewayd registry`: a registry's files, and the reference registry, without a daemon."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec
from rich.console import Console

from gatewayd.cli.arguments import Listen
from gatewayd.cli.nearest import Choice
from gatewayd.cli.output import print_table, print_value, print_words, printable
from gatewayd.cli.registry_authoring import import_file, keygen, metered, revoke, upsert
from gatewayd.cli.registry_reading import database_option, export, history, json_option, list_registrations, show
from gatewayd.cli.registry_verify import verify
from gatewayd.errors import RegistryUnusable, SourceFailed
from gatewayd.feed.reading import Format, RecordReader, format_of, reader_for
from gatewayd.settings.values import ListenAddress

if TYPE_CHECKING:
    from gatewayd.authority.publishing import PublishReport

CHUNK_BYTES: Final = 1 << 20
DEFAULT_DIRECTORY: Final = Path("feed")
_YEAR_S: Final = 366 * 86400.0


@click.group("registry")
def command() -> None:
    """Registry files: check them; keep a registry and publish its feed."""


for _subcommand in (keygen, import_file, upsert, revoke, list_registrations, show, export, history, verify):
    command.add_command(_subcommand)


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "format", type=Choice(["ndjson", "csv"]), help="Default: found out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(file: Path, format: Format | None, as_json: bool) -> None:
    """Read FILE as the daemon would and list every record that would not be used.

    Exit status: 0 all records are usable, 1 some are rejected, 2 FILE cannot be read or used as a whole.
    """
    try:
        reader, found = _read(file, format)
    except (OSError, SourceFailed) as error:
        why = error.why if isinstance(error, SourceFailed) else error.strerror
        if as_json:
            print_value({"file": str(file), "error": why})
        else:
            click.echo(printable(f"{file}: {why}"), err=True)
        sys.exit(2)
    if as_json:
        print_value(_report(file, found, reader))
    else:
        _print_report(file, reader)
    sys.exit(1 if reader.rejected else 0)


def _read(file: Path, format: Format | None) -> tuple[RecordReader, Format]:
    with file.open("rb") as stream:
        chunk = stream.read(CHUNK_BYTES)
        found = format or format_of(str(file), None, chunk)
        reader = reader_for(found, str(file))
        while chunk:
            reader.feed(chunk)
            chunk = stream.read(CHUNK_BYTES)
        reader.finish()
    return reader, found


def _categories(reader: RecordReader) -> dict[str, int]:
    counted = Counter(registration.category for registration in reader.registrations.values())
    return dict(sorted(counted.items()))


def _report(file: Path, format: Format, reader: RecordReader) -> dict[str, object]:
    return {
        "file": str(file),
        "format": format,
        "records": reader.records,
        "usable": len(reader.registrations),
        "categories": _categories(reader),
        "rejected": dict(sorted(reader.rejected.items())),
        "rejections": [msgspec.to_builtins(rejection) for rejection in reader.rejections],
    }


def _print_report(file: Path, reader: RecordReader) -> None:
    """Rejections first, so that the counts stay in sight; a table on a terminal, plain lines elsewhere."""
    for rejection in reader.rejections:
        click.echo(printable(f"{file}:{rejection}"))
    unlisted = reader.rejected.total() - len(reader.rejections)
    if unlisted:
        click.echo(printable(f"{file}: {unlisted} more rejected records are not listed"))
    rows = [("records", "", reader.records), ("usable", "", len(reader.registrations))]
    rows += [("category", category, count) for category, count in _categories(reader).items()]
    rows += [("rejected", code, count) for code, count in sorted(reader.rejected.items())]
    if Console().is_terminal:
        print_table(("what", "which", "records"), [(word, which, str(count)) for word, which, count in rows])
    else:
        print_words(*((f"{word} {which}".rstrip(), count) for word, which, count in rows))


# -- the feed ------------------------------------------------------------------------------------------------------


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """`60s`, `10m`, `7d`."""
    from gatewayd.settings.values import parse_duration

    try:
        return parse_duration(value, 0.0, _YEAR_S)
    except ValueError as error:
        raise click.BadParameter(f"{value} {error}; such as 60s, 10m, 7d", ctx, param) from None


@command.command("publish")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key of `registry keygen`.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="What a web server serves.",
)
@click.option("--refresh", callback=_seconds, default="60s", show_default=True, help="How often gateways ask.")
@click.option("--retry", callback=_seconds, default="10s", show_default=True, help="How soon after a failure.")
@click.option("--expire", callback=_seconds, default="7d", show_default=True, help="How long a notification holds.")
@click.option("--grace", callback=_seconds, default="1h", show_default=True, help="How long old files are kept.")
@click.option("--max-deltas", type=click.IntRange(0, 2000), default=200, show_default=True)
@click.option("--new-session", is_flag=True, help="Make every gateway read the snapshot.")
@click.option("--allow-empty", is_flag=True, help="Publish a registry without registrations.")
@database_option
@json_option
def publish(
    key: Path,
    directory: Path,
    refresh: float,
    retry: float,
    expire: float,
    grace: float,
    max_deltas: int,
    new_session: bool,
    allow_empty: bool,
    database: Path,
    as_json: bool,
) -> None:
    """Write the feed's files: a new serial if anything changed, else the same one, issued anew.

    To be run from a timer, more often than --expire and at best as often as --refresh.
    """
    from gatewayd.authority.database import RegistryDatabase
    from gatewayd.authority.publishing import PublishOptions
    from gatewayd.authority.publishing import publish as publish_feed
    from gatewayd.feed.notification import load_signing_key

    try:
        signing_key = load_signing_key(key.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryUnusable(str(key), getattr(error, "strerror", None) or "is not text") from None
    options = PublishOptions(
        round(refresh), round(retry), round(expire), grace, max_deltas, new_session, allow_empty
    )
    with RegistryDatabase(database, may_create=False) as registry, metered() as meter:
        report = publish_feed(
            registry,
            directory,
            signing_key,
            options,
            now=time.time(),
            fresh_session=str(uuid.uuid4()),
            progress=meter,
        )
    if as_json:
        print_value({"directory": str(directory), **msgspec.to_builtins(report)})
    else:
        _print_publication(report)


def _print_publication(report: PublishReport) -> None:
    notification = report.notification
    click.echo(f"{report.outcome}{f': {report.why}' if report.why else ''}")
    print_words(
        ("session", notification.session),
        ("serial", notification.serial),
        ("registrations", notification.snapshot.count),
        ("snapshot_bytes", notification.snapshot.size),
        ("deltas", len(notification.deltas)),
        ("upserts", report.upserts),
        ("withdrawals", report.withdrawals),
        *(("repaired", path) for path in report.repaired),
        *(("deleted", path) for path in report.deleted),
    )


@command.command("serve")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="What `publish` wrote.",
)
@click.option("--listen", type=Listen(), default="127.0.0.1:8080", show_default=True, help="For the web server.")
def serve(directory: Path, listen: ListenAddress) -> None:
    """Serve a published directory over HTTP until SIGTERM or SIGINT; downloads under way may end."""
    from gatewayd.authority.serving import serve_until

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve_until(
            directory,
            listen.host,
            listen.port,
            stop,
            lambda host, port: click.echo(f"serving http://{host}:{port}/"),
        )

    asyncio.run(run())
