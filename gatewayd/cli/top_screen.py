"""The screen of `gatewayd top`: asks the daemon, and writes what changed into cells that stay.

A table is made once, and only cells whose text changed are written; rows come and go at its end. So a redraw costs
what changed, also over a slow ssh. It asks once a second: the status, one page of flows, and what the table that is
shown needs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import ClassVar, Final, TypeVar
from urllib.parse import quote

import click
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from gatewayd.api.explanation import describe_explanation, verdict
from gatewayd.api.near_misses import NearMissList
from gatewayd.api.registration_text import describe_registration
from gatewayd.api.status import StatusView
from gatewayd.api.text import BAD, DOUBTFUL, Line, count
from gatewayd.api.views import ExplainView, FlowPage, RegistrationView, UnregisteredFlowPage
from gatewayd.cli.client import Endpoint, NotOffered
from gatewayd.cli.output import headline_text, line_text, printable
from gatewayd.cli.status import headline
from gatewayd.errors import DaemonNotReachable
from gatewayd.top.flows import MAX_FLOWS, FlowTable, Order
from gatewayd.top.tables import (
    COLUMNS,
    MAX_ROWS,
    ClassRates,
    NearMissTable,
    Row,
    Table,
    aggregate_rows,
    flow_rows,
    registration_rows,
    unregistered_rows,
)

EVERY_S: Final = 1.0
RARELY: Final = 5
"""Near misses and unregistered flows are asked for every so many times."""
TABLES: Final[tuple[Table, ...]] = tuple(COLUMNS)
KEYS: Final = "1-4 table  Enter ask  s sort  space hold  Esc back  q quit"
_T = TypeVar("_T")


class Cells(DataTable[Text]):
    """A table of rows by their place. `put` writes the cells that differ, and nothing else."""

    def __init__(self, name: Table) -> None:
        super().__init__(id=name.replace(" ", "-"), cursor_type="row", zebra_stripes=False)
        self.rows_shown: list[Row] = []
        for label, width in COLUMNS[name]:
            self.add_column(Text(label), width=width)

    def put(self, rows: list[Row]) -> None:
        """The cursor stays on its row, wherever that has gone; in the first line it stays there."""
        before = self.rows_shown
        kept = before[self.cursor_row].key if 0 < self.cursor_row < len(before) else None
        for number, (old, new) in enumerate(zip(before, rows, strict=False)):
            for column, (was, is_now) in enumerate(zip(old.cells, new.cells, strict=True)):
                if was != is_now:
                    self.update_cell_at((number, column), _cell(is_now))  # type: ignore[arg-type]
        for row in rows[len(before) :]:
            self.add_row(*map(_cell, row.cells))
        for _ in before[len(rows) :]:
            self.remove_row(self.ordered_rows[-1].key)
        self.rows_shown = rows
        if kept is not None:
            found = next((number for number, row in enumerate(rows) if row.key == kept), self.cursor_row)
            if found != self.cursor_row:
                self.move_cursor(row=found, animate=False)

    @property
    def chosen(self) -> Row | None:
        return self.rows_shown[self.cursor_row] if 0 <= self.cursor_row < len(self.rows_shown) else None


def _cell(text: str) -> Text:
    """Never markup: ids come from a registry."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


class TopScreen(App[None]):
    """`q` ends it. Raises nothing for a daemon that is gone: the first line says so until it is back."""

    CSS = """
    #head { height: auto; max-height: 4; }
    #foot { height: 1; dock: bottom; text-style: reverse; }
    DataTable { height: 1fr; scrollbar-size: 0 0; }
    #answer { height: 1fr; scrollbar-size: 0 0; }
    .away { display: none; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "quit"),
        ("escape", "leave", "back"),
        ("s", "sort", "sort"),
        ("space", "hold", "hold"),
        *((str(number), f"table({name!r})", name) for number, name in enumerate(TABLES, 1)),
    ]

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(ansi_color=True)
        self._endpoint = endpoint
        self._flows, self._rates, self._near = FlowTable(), ClassRates(), NearMissTable()
        self._near_rows: list[Row] = []
        self._unregistered: list[Row] = []
        self._order: Order = "rate"
        self._table: Table = "flows"
        self._of: str | None = None
        self._is_held = self._is_answering = False
        self._turn = 0

    def compose(self) -> ComposeResult:
        # Held, not looked for: a turn may end after the screen has.
        self._head, self._lines = Static(id="head"), Static(id="lines")
        self._answer = VerticalScroll(id="answer")
        self._cells = {name: Cells(name) for name in TABLES}
        yield self._head
        yield from self._cells.values()
        with self._answer:
            yield self._lines
        yield Static(Text(KEYS), id="foot")

    def on_mount(self) -> None:
        self.show_table()
        self.run_worker(self._follow(), exclusive=True)

    def cells(self, name: Table) -> Cells:
        return self._cells[name]

    # -- what the daemon says ------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                head = await self._read()
            except (DaemonNotReachable, click.ClickException) as error:
                text = error.format_message() if isinstance(error, click.ClickException) else str(error)
                head = [headline_text(text, BAD)]
            self._draw(head)
            await asyncio.sleep(EVERY_S)

    async def _read(self) -> list[Text]:
        """A turn of questions; returns the first lines of the screen."""
        view = await self._ask("/v1/status", StatusView)
        now = time.monotonic()
        offset, limit = self._flows.next_page()
        page = await self._ask("/v1/flows", FlowPage, {"offset": str(offset), "limit": str(limit)})
        self._flows.take(page, now)
        if self._turn % RARELY == 0:
            await self._read_rarely(view)
        self._turn += 1
        return [
            headline_text(*headline(view)),
            Text(self._rates.take(view, now) or "flows and bytes a second: ..."),
        ]

    async def _read_rarely(self, view: StatusView) -> None:
        near = await self._ask("/v1/near-misses", NearMissList, {"limit": str(MAX_ROWS)})
        self._near_rows = self._near.rows(near.items)
        try:
            found = await self._ask("/v1/flows/unregistered", UnregisteredFlowPage, {"limit": str(MAX_ROWS)})
            self._unregistered = unregistered_rows(found.items)
        except NotOffered:
            self._unregistered = aggregate_rows(view.unregistered)

    async def _ask(self, path: str, view: type[_T], parameters: Mapping[str, str] | None = None) -> _T:
        return self._endpoint.parse(await self._endpoint.ask(path, parameters), view)

    # -- the screen ----------------------------------------------------------------------------------------

    def _draw(self, head: Iterable[Text]) -> None:
        self._head.update(Text("\n").join([*head, self._title()]))
        if not self._is_held:
            self.cells(self._table).put(self._rows())

    def _title(self) -> Text:
        flows = self._flows
        alive = f"{'' if flows.is_whole else f'{len(flows):,} of '}{count(flows.total, 'flow')} alive"
        if flows.total > MAX_FLOWS:
            alive += f", the oldest {MAX_FLOWS:,} here"
        of = f" of {self._of}" if self._of is not None and self._table == "flows" else ""
        order = f", by {'rate' if self._order == 'rate' else 'total'}"
        text = f"{self._table}{of}{order if self._table in ('flows', 'registrations') else ''}; {alive}"
        return Text(printable(text + ("; HELD, space goes on" if self._is_held else "")), style="bold")

    def _rows(self) -> list[Row]:
        match self._table:
            case "flows":
                return flow_rows(self._flows.flows(self._order, MAX_ROWS, self._of))
            case "registrations":
                return registration_rows(self._flows.registrations(self._order, MAX_ROWS))
            case "near misses":
                return self._near_rows
            case _:
                return self._unregistered

    def show_table(self) -> None:
        for name in TABLES:
            self.cells(name).set_class(name != self._table or self._is_answering, "away")
        self._answer.set_class(not self._is_answering, "away")
        shown = self._answer if self._is_answering else self.cells(self._table)
        shown.focus()
        if not self._is_answering:
            self.cells(self._table).put(self._rows())

    # -- keys ----------------------------------------------------------------------------------------------

    def action_table(self, name: Table) -> None:
        self._table, self._of, self._is_answering = name, None, False
        self.show_table()

    def action_sort(self) -> None:
        self._order = "bytes" if self._order == "rate" else "rate"
        self.show_table()

    def action_hold(self) -> None:
        self._is_held = not self._is_held

    def action_leave(self) -> None:
        """From an answer to its table; from the flows of a registration to the registrations."""
        if not self._is_answering and self._of is not None:
            self._table = "registrations"
            self._of = None
        self._is_answering = False
        self.show_table()

    def on_data_table_row_selected(self) -> None:
        row = self.cells(self._table).chosen
        if row is None or row.subject is None:
            return
        if row.question == "registration":
            self._table, self._of = "flows", row.subject["id"]
            self.show_table()
            return
        self.run_worker(self._ask_about(row.question == "flow", row.subject))

    async def _ask_about(self, is_flow: bool, subject: Mapping[str, str]) -> None:
        with suppress(DaemonNotReachable):  # the first line says so
            try:
                texts = await (self._explain(subject) if is_flow else self._describe(subject))
            except click.ClickException as error:
                texts = [headline_text(error.format_message(), BAD)]
            self._lines.update(Text("\n").join(texts))
            self._is_answering = True
            self.show_table()

    async def _explain(self, flow: Mapping[str, str]) -> list[Text]:
        view = await self._ask("/v1/explain", ExplainView, flow)
        return [headline_text(*verdict(view)), *map(line_text, describe_explanation(view))]

    async def _describe(self, miss: Mapping[str, str]) -> list[Text]:
        lines = [Line("near miss", miss["why"], DOUBTFUL), Line("mend", miss["mend"])]
        try:
            view = await self._ask(f"/v1/registrations/{quote(miss['id'], safe='')}", RegistrationView)
            lines += describe_registration(view)
        except NotOffered:
            lines.append(Line("id", f"{miss['id']}, which is in no source now"))
        return [line_text(line) for line in lines]
