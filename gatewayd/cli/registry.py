"""`gatewayd registry`: a registry's files, and the reference registry, without a daemon."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from gatewayd.cli.registry_authoring import history, import_file, keygen, revoke, upsert
from gatewayd.cli.registry_publish import publish, serve
from gatewayd.errors import SourceFailed
from gatewayd.feed.reading import Format, RecordReader, format_of, reader_for

CHUNK_BYTES: Final = 1 << 20


@click.group("registry")
def command() -> None:
    """Registry files: check them; keep a registry and publish its feed."""


for _subcommand in (keygen, import_file, upsert, revoke, history, publish, serve):
    command.add_command(_subcommand)


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "format", type=click.Choice(["ndjson", "csv"]), help="Default: found out.")
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
            _print_json({"file": str(file), "error": why})
        else:
            click.echo(f"{file}: {why}", err=True)
        sys.exit(2)
    if as_json:
        _print_json(_report(file, found, reader))
    else:
        _print_report(file, found, reader)
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


def _print_json(document: dict[str, object]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def _print_report(file: Path, format: Format, reader: RecordReader) -> None:
    """Rejections first, so that the counts stay in sight; a table on a terminal, plain lines elsewhere."""
    for rejection in reader.rejections:
        click.echo(f"{file}:{rejection}")
    unlisted = reader.rejected.total() - len(reader.rejections)
    if unlisted:
        click.echo(f"{file}: {unlisted} more rejected records are not listed")
    rows = [("records", "", reader.records), ("usable", "", len(reader.registrations))]
    rows += [("category", category, count) for category, count in _categories(reader).items()]
    rows += [("rejected", code, count) for code, count in sorted(reader.rejected.items())]
    console = Console()
    if not console.is_terminal:
        for word, which, count in rows:
            click.echo(" ".join(filter(None, (word, which, str(count)))))
        return
    table = Table(title=f"{file} ({format})")
    table.add_column("what")
    table.add_column("which")
    table.add_column("records", justify="right")
    for word, which, count in rows:
        table.add_row(word, which, str(count))
    console.print(table)
