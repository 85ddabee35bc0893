"""`gatewayd registry list|show|export|history`: what the reference registry's database has, and what changed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import click
import msgspec

from gatewayd.cli.nearest import Choice
from gatewayd.cli.output import Line, count, print_lines, print_table, print_value, printable, some
from gatewayd.errors import InputRejected, RegistryUnusable
from gatewayd.feed.record import FIELDS, FLAG_FIELDS, LIST_FIELDS
from gatewayd.model import Status

if TYPE_CHECKING:
    from gatewayd.authority.database import Applied, AuditRow

DEFAULT_DATABASE = Path("registry.db")
DEFAULT_LIMIT: Final = 100
MAX_ADDED_LISTED: Final = 20
"""Additions that a report names; what changes something is named before them."""

_Function = Callable[..., Any]
_Record = Mapping[str, Any]
_LIMIT = click.IntRange(1, 1_000_000)


def database_option(function: _Function) -> _Function:
    return click.option(
        "--database",
        type=click.Path(path_type=Path),
        default=DEFAULT_DATABASE,
        show_default=True,
        help="The registry's SQLite database.",
    )(function)


def json_option(function: _Function) -> _Function:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document.")(function)


# -- what there is -------------------------------------------------------------------------------------------------


@click.command("list")
@click.option("--category", help="Only those of this category.")
@click.option("--status", type=Choice(get_args(Status)), help="Only those of this status.")
@click.option("--registrant", metavar="KEY", help="Only those of this company.")
@click.option("--search", metavar="TEXT", help="Part of an id or of a prefix.")
@click.option("--limit", type=_LIMIT, default=DEFAULT_LIMIT, show_default=True, help="At most.")
@click.option("--all", "all_of_them", is_flag=True, help="However many there are.")
@database_option
@json_option
def list_registrations(
    category: str | None,
    status: str | None,
    registrant: str | None,
    search: str | None,
    limit: int,
    all_of_them: bool,
    database: Path,
    as_json: bool,
) -> None:
    """List registrations, in order of id."""
    from gatewayd.authority.database import RegistryDatabase

    with RegistryDatabase(database, may_create=False) as registry, registry.one_moment():
        found = [
            each for each in _records(registry.records()) if _is_meant(each, category, status, registrant, search)
        ]
    shown = found if all_of_them else found[:limit]
    if as_json:
        print_value({"total": len(found), "items": shown})
        return
    if shown:
        print_table(("id", "category", "status", "clients", "peers", "services", "until"), [_row(e) for e in shown])
    if len(shown) < len(found):
        click.echo(f"{len(shown):,} of {len(found):,} shown; --all, --limit or --search for others")
    else:
        click.echo(count(len(found), "registration"))


def _is_meant(
    record: _Record, category: str | None, status: str | None, registrant: str | None, search: str | None
) -> bool:
    if category not in (None, record["category"]) or status not in (None, record["status"]):
        return False
    if registrant not in (None, record.get("registrant")):
        return False
    addresses = (*record.get("clients", ()), *record.get("peers", ()), *record.get("endpoints", ()))
    words = (record["id"], *addresses)
    return search is None or any(search in word for word in words)


def _addresses(record: _Record) -> str:
    endpoints = record.get("endpoints", ())
    return f"to {some(endpoints)}" if endpoints else some(record.get("clients", ()), none="by subscriber")


def _row(record: _Record) -> tuple[str, ...]:
    return (
        record["id"],
        record["category"],
        record["status"],
        _addresses(record),
        some(record.get("peers", ())),
        some(record.get("services", ())),
        record.get("valid_until", "open"),
    )


@click.command("show")
@click.argument("id")
@database_option
@json_option
def show(id: str, database: Path, as_json: bool) -> None:
    """Show all of registration ID, and its history, the latest change first."""
    from gatewayd.authority.database import RegistryDatabase

    with RegistryDatabase(database, may_create=False) as registry:
        record, rows = registry.record_of(id), registry.history(id)
    if record is None and not rows:
        raise InputRejected(f"there is no registration {printable(id)!r}")
    if as_json:
        print_value({"record": _object(record), "history": shown_rows(rows)})
        return
    if record is None:
        print_lines([Line("id", id), Line("status", "withdrawn: it is in the history alone")])
    else:
        print_lines(_described(msgspec.json.decode(record)))
    for number, row in enumerate(rows):
        what = f"{row.at} {row.action} by {row.actor}: {describe_change(row)}"
        print_lines([Line("" if number else "history", what)])


def _described(record: _Record) -> Iterator[Line]:
    for field in FIELDS:
        if field in LIST_FIELDS:
            words = record.get(field) or [_absent(field, record)]
            yield from (Line("" if number else field, word) for number, word in enumerate(words))
        elif field == "subscriber":
            yield Line(field, "a digest of a mobile number" if field in record else "none")
        elif field in FLAG_FIELDS:
            yield Line(field, "yes" if record.get(field) else "no")
        elif field == "registrant":
            yield Line(field, record.get(field, "none"))
        else:
            yield Line(field, record.get(field, "open"))


def _absent(field: str, record: _Record) -> str:
    """What it means that a list is empty."""
    match field:
        case "clients":
            return "none: a flow to its endpoints alone" if record.get("endpoints") else "by subscriber alone"
        case "endpoints":
            return "none"
        case _:
            return "any"


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--format", "format", type=Choice(["ndjson", "csv"]), help="Default: as FILE is called.")
@database_option
def export(file: Path | None, format: str | None, database: Path) -> None:
    """Write all registrations to FILE, or to stdout, as `import` reads them.

    A subscriber is its digest. FILE is replaced whole or not at all.
    """
    from gatewayd.authority.database import RegistryDatabase
    from gatewayd.authority.disk import Disk

    form = format or ("csv" if file is not None and file.suffix == ".csv" else "ndjson")
    with RegistryDatabase(database, may_create=False) as registry, registry.one_moment():
        lines = _csv_lines(registry.records()) if form == "csv" else (f"{each}\n" for each in registry.records())
        if file is None:
            for line in lines:
                click.echo(line, nl=False)
            return
        try:
            Disk().write(file, (line.encode() for line in lines), 0o640)
        except OSError as error:
            raise RegistryUnusable(str(file), error.strerror or str(error)) from None
        click.echo(printable(f"{file}: {count(registry.count(), 'registration')}"))


def _csv_lines(records: Iterable[str]) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (FIELDS, *map(_cells, _records(records))):
        writer.writerow(row)
        yield out.getvalue()
        out.seek(0)
        out.truncate()


def _cells(record: _Record) -> list[str]:
    return [_cell(record.get(each)) for each in FIELDS]


def _cell(value: object) -> str:
    """Of CSV, as `import` reads it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return " ".join(value)
        case _:
            return str(value)


def _records(records: Iterable[str]) -> Iterator[_Record]:
    return map(msgspec.json.Decoder(dict[str, Any]).decode, records)


# -- what changed --------------------------------------------------------------------------------------------------


@click.command("history")
@click.argument("id", required=False)
@click.option("--limit", type=_LIMIT, default=100, show_default=True)
@database_option
@json_option
def history(id: str | None, limit: int, database: Path, as_json: bool) -> None:
    """Show who changed what and when: of registration ID, or of all. The latest change comes first."""
    from gatewayd.authority.database import RegistryDatabase

    with RegistryDatabase(database, may_create=False) as registry:
        rows = registry.history(id, limit)
    if as_json:
        print_value(shown_rows(rows))
        return
    print_table(
        ("at", "action", "actor", "id", "change"),
        [(row.at, row.action, row.actor, row.id, describe_change(row)) for row in rows],
    )


def shown_rows(rows: Iterable[AuditRow]) -> list[dict[str, object]]:
    """For JSON, with records as objects."""
    return [msgspec.to_builtins(r) | {"before": _object(r.before), "after": _object(r.after)} for r in rows]


def _object(record: str | None) -> object:
    return None if record is None else msgspec.json.decode(record)


def describe_applied(applied: Applied) -> Iterator[str]:
    """A line for each change, those that may be a mistake first."""
    for id, status in applied.inactive:
        yield f"! {id}: stays {status}, and the file has it active (--reactivate)"
    changed = [row for row in applied.rows if row.before is not None]
    added = [row for row in applied.rows if row.before is None]
    for row in (*changed, *islice(added, MAX_ADDED_LISTED)):
        sign = "+" if row.before is None else "-" if row.after is None else "~"
        yield f"{sign} {row.id}: {describe_change(row)}"
    unlisted = (
        applied.added + applied.changed + applied.withdrawn - len(changed) - min(len(added), MAX_ADDED_LISTED)
    )
    if unlisted:
        yield f"{count(unlisted, 'more change')} not listed"


def describe_change(row: AuditRow) -> str:
    """`status revoked → active, clients +203.0.113.0/28`; of an addition and a withdrawal, what it was."""
    before: _Record = msgspec.json.decode(row.before) if row.before is not None else {}
    after: _Record = msgspec.json.decode(row.after) if row.after is not None else {}
    if not before or not after:
        what = before or after
        return ", ".join((what["category"], what["status"], _addresses(what)))
    parts = [_difference(each, before, after) for each in FIELDS if before.get(each) != after.get(each)]
    return ", ".join(parts)


def _difference(field: str, before: _Record, after: _Record) -> str:
    if field == "subscriber":
        return "another subscriber"
    if field in FLAG_FIELDS:
        return field if after.get(field) else f"not {field}"
    if field not in LIST_FIELDS:
        absent = "none" if field == "registrant" else "open"
        return f"{field} {before.get(field, absent)} → {after.get(field, absent)}"
    old, new = before.get(field, ()), after.get(field, ())
    words = [f"+{word}" for word in new if word not in old] + [f"-{word}" for word in old if word not in new]
    meaning = "" if old and new else f" (was {'some' if old else 'any'}, is {'some' if new else 'any'})"
    return f"{field} {' '.join(words)}{'' if field in ('clients', 'endpoints') else meaning}"
