"""`gatewayd registry publish|serve`: the feed's files, written and served."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gatewayd.cli.output import print_json
from gatewayd.cli.registry_authoring import database_option, json_option, metered
from gatewayd.errors import RegistryUnusable

if TYPE_CHECKING:
    from gatewayd.authority.publishing import PublishReport

DEFAULT_DIRECTORY = Path("feed")
_YEAR_S = 366 * 86400.0


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """`60s`, `10m`, `7d`."""
    from gatewayd.settings.values import parse_duration

    try:
        return parse_duration(value, 0.0, _YEAR_S)
    except ValueError as error:
        raise click.BadParameter(f"{value} {error}; such as 60s, 10m, 7d", ctx, param) from None


@click.command("publish")
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
        print_json(msgspec.json.encode({"directory": str(directory), **msgspec.to_builtins(report)}))
    else:
        _print_report(report)


def _print_report(report: PublishReport) -> None:
    notification = report.notification
    click.echo(f"{report.outcome}{f': {report.why}' if report.why else ''}")
    click.echo(f"session {notification.session}")
    click.echo(f"serial {notification.serial}")
    click.echo(f"registrations {notification.snapshot.count}")
    click.echo(f"snapshot_bytes {notification.snapshot.size}")
    click.echo(f"deltas {len(notification.deltas)}")
    click.echo(f"upserts {report.upserts}")
    click.echo(f"withdrawals {report.withdrawals}")
    for path in report.repaired:
        click.echo(f"repaired {path}")
    for path in report.deleted:
        click.echo(f"deleted {path}")


@click.command("serve")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="What `publish` wrote.",
)
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="HOST:PORT")
def serve(directory: Path, listen: str) -> None:
    """Serve a published directory over HTTP until SIGTERM or SIGINT; downloads under way may end."""
    from gatewayd.authority.serving import serve_until
    from gatewayd.settings.values import parse_listen_address

    try:
        address = parse_listen_address(listen)
    except ValueError as error:
        raise click.BadParameter(f"{listen} {error}", param_hint="--listen") from None

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve_until(
            directory,
            address.host,
            address.port,
            stop,
            lambda host, port: click.echo(f"serving http://{host}:{port}/"),
        )

    asyncio.run(run())
