"""`gatewayd top`: the screen with textual's pilot, and the program in a terminal of 80×24."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from textual.coordinate import Coordinate
from textual.pilot import Pilot
from textual.widgets import Static

from gatewayd.api.near_misses import NearMissLineView
from gatewayd.api.status import AggregateView
from gatewayd.api.views import FlowPage, FlowView
from gatewayd.cli import main, top_screen
from gatewayd.cli.client import Endpoint
from gatewayd.cli.top_screen import Cells, TopScreen
from gatewayd.top.tables import COLUMNS, MAX_ROWS
from tests.support.fake_queries import BANK, PEACE, TROUBLE, FakeQueries, serving, serving_in_a_thread
from tests.support.terminal import GATEWAYD, terminal


class ManyFlows(FakeQueries):
    """`sent`: the bytes of each flow; `seconds`: of the clock of the daemon's scans."""

    def __init__(self, sent: list[int]) -> None:
        super().__init__()
        self.sent, self.seconds = sent, 0
        self.near_miss_lines = [
            NearMissLineView(
                BANK.id, "bank", "service_not_listed", "tcp/22 is not among its services",
                f"registry: add the service tcp/22 to {BANK.id}", "tcp/22", "198.51.100.0/24", 7, None, None,
            ),
            NearMissLineView("PK-gone", "bank", "withdrawn", "it is gone", "registry: register it again",
                             "tcp/22", "198.51.100.0/24", 1, None, None),
        ]  # fmt: skip

    def flows(self, registration_id: str | None, offset: int, limit: int) -> FlowPage:
        at = f"2024-11-04T03:00:{self.seconds:02}Z"
        flows = [
            FlowView(
                "203.0.113.5", "198.51.100.7", "udp/51820", 1000 + number, (f"PK-{number % 2}[bold]",),
                1, size_bytes, "2024-11-04T02:00:00Z", at,
            )
            for number, size_bytes in enumerate(self.sent)
        ]  # fmt: skip
        return FlowPage(len(flows), offset, tuple(flows[offset : offset + limit]))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_screen, "EVERY_S", 0.05)


@asynccontextmanager
async def shown(
    queries: FakeQueries, directory: Path, size: tuple[int, int] = (80, 24)
) -> AsyncGenerator[tuple[TopScreen, Pilot[None]], None]:
    async with serving(queries, directory / "api.sock"):
        screen = TopScreen(Endpoint(str(directory / "api.sock")))
        async with screen.run_test(size=size) as pilot:
            yield screen, pilot
        await let_go()


async def let_go() -> None:
    """Of connections whose question the screen broke off when it ended: for some turns none is left."""
    quiet = 0
    for _ in range(600):
        tasks = repr(asyncio.all_tasks())
        quiet = 0 if "RequestHandler.start" in tasks or "_accept_connection2" in tasks else quiet + 1
        if quiet == 5:
            return
        await asyncio.sleep(0.01)


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        await pilot.pause(0.05)
    raise AssertionError("it does not come")


def text_of(screen: TopScreen, name: str) -> str:
    return str(screen.query_one(f"#{name}", Static).render())


def rows_of(cells: Cells) -> list[list[str]]:
    return [[str(cell) for cell in cells.get_row_at(number)] for number in range(cells.row_count)]


async def test_flows_are_sorted_by_what_they_carry_and_enter_explains(tmp_path: Path) -> None:
    queries = ManyFlows([1000, 9000, 5000])
    async with shown(queries, tmp_path) as (screen, pilot):
        cells = screen.cells("flows")
        await until(pilot, lambda: cells.row_count == 3)
        assert [row[0] for row in rows_of(cells)] == ["-", "-", "-"]
        assert [row[1] for row in rows_of(cells)] == [f"203.0.113.5:{port}" for port in (1001, 1002, 1000)]
        queries.seconds, queries.sent = 10, [31_720, 9000, 15_240]
        await until(pilot, lambda: rows_of(cells)[0][0] == "3.0 KiB/s")
        assert [row[:2] for row in rows_of(cells)] == [
            ["3.0 KiB/s", "203.0.113.5:1000"], ["1.0 KiB/s", "203.0.113.5:1002"], ["-", "203.0.113.5:1001"],
        ]  # fmt: skip
        assert rows_of(cells)[0][4] == "PK-0[bold]"
        assert text_of(screen, "head").endswith("flows, by rate; 3 flows alive")
        await pilot.press("enter")
        await until(
            pilot, lambda: "is registered" in text_of(screen, "lines") or "PASSES" in text_of(screen, "lines")
        )
        assert screen.query_one("#answer").display
        assert not cells.display
        await pilot.press("escape")
        assert cells.display
        await pilot.press("s")
        assert rows_of(cells)[0][1] == "203.0.113.5:1000"
        await pilot.press("q")
    assert screen.return_code == 0


async def test_a_redraw_writes_the_cells_that_changed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Coordinate] = []
    update = Cells.update_cell_at

    def note(self: Cells, coordinate: Coordinate, value: object, *, update_width: bool = False) -> None:
        written.append(coordinate)
        update(self, coordinate, value, update_width=update_width)  # type: ignore[arg-type]

    monkeypatch.setattr(Cells, "update_cell_at", note)
    queries = ManyFlows([9000, 5000, 1000])
    async with shown(queries, tmp_path) as (screen, pilot):
        cells = screen.cells("flows")
        await until(pilot, lambda: cells.row_count == 3)
        await until(pilot, lambda: screen._turn > 3)
        assert written == []
        queries.seconds, queries.sent = 10, [19_240, 5000, 1000]
        await until(pilot, lambda: rows_of(cells)[0][0] == "1.0 KiB/s")
        assert written == [(0, 0)]
        queries.sent = [19_240]
        await until(pilot, lambda: cells.row_count == 1)
        assert written == [(0, 0)]


async def test_the_cursor_follows_its_row(tmp_path: Path) -> None:
    queries = ManyFlows([9000, 5000, 1000])
    async with shown(queries, tmp_path) as (screen, pilot):
        cells = screen.cells("flows")
        await until(pilot, lambda: cells.row_count == 3)
        await pilot.press("down")
        chosen = cells.chosen
        assert chosen is not None
        queries.seconds, queries.sent = 10, [9000, 5000, 90_000]
        await until(pilot, lambda: cells.cursor_row == 2)
        assert cells.chosen is not None
        assert cells.chosen.key == chosen.key


async def test_enter_on_a_registration_shows_its_flows(tmp_path: Path) -> None:
    queries = ManyFlows([9000, 5000, 1000])
    async with shown(queries, tmp_path) as (screen, pilot):
        await until(pilot, lambda: screen.cells("flows").row_count == 3)
        await pilot.press("2")
        assert [row[1:] for row in rows_of(screen.cells("registrations"))] == [
            ["2", "9.8 KiB", "PK-0[bold]"], ["1", "4.9 KiB", "PK-1[bold]"],
        ]  # fmt: skip
        await pilot.press("down", "enter")
        cells = screen.cells("flows")
        await until(pilot, lambda: cells.display and cells.row_count == 1)
        await until(pilot, lambda: "flows of PK-1[bold]" in text_of(screen, "head"))
        await pilot.press("escape")
        assert screen.cells("registrations").display


async def test_a_near_miss_says_its_mend(tmp_path: Path) -> None:
    queries = ManyFlows([])
    async with shown(queries, tmp_path) as (screen, pilot):
        await pilot.press("3")
        cells = screen.cells("near misses")
        await until(pilot, lambda: cells.row_count == 2)
        assert rows_of(cells)[0] == ["-", "7", BANK.id, "tcp/22", "tcp/22 is not among its services"]
        await pilot.press("enter")
        await until(pilot, lambda: "registry: add the service tcp/22" in text_of(screen, "lines"))
        assert "203.0.113.0/28" in text_of(screen, "lines")
        await pilot.press("escape", "down", "enter")
        await until(pilot, lambda: "PK-gone, which is in no source now" in text_of(screen, "lines"))


@pytest.mark.parametrize(
    ("keeps_flows", "row"),
    [
        (True, ["2024-11-04T02:59:55Z", "203.0.113.9:40000", "198.51.100.7", "udp/500"]),
        (False, ["55 flows", "192.0.2.0/24", "-", "udp/51820 (54)"]),
    ],
)
async def test_unregistered_flows_or_the_counts_of_prefixes(
    keeps_flows: bool, row: list[str], tmp_path: Path
) -> None:
    queries = ManyFlows([])
    queries.keeps_flows = keeps_flows
    queries.view = msgspec.structs.replace(
        PEACE, unregistered=(AggregateView("192.0.2.0/24", 55, ("udp/51820 (54)",)),)
    )
    async with shown(queries, tmp_path) as (screen, pilot):
        await pilot.press("4")
        await until(pilot, lambda: rows_of(screen.cells("unregistered")) == [row])
        await pilot.press("enter")
        await pilot.pause()
        assert not screen.query_one("#answer").display or keeps_flows


async def test_space_holds_the_screen(tmp_path: Path) -> None:
    queries = ManyFlows([9000])
    async with shown(queries, tmp_path) as (screen, pilot):
        cells = screen.cells("flows")
        await until(pilot, lambda: cells.row_count == 1)
        await pilot.press("space")
        queries.sent = [9000, 1]
        queries.view = TROUBLE
        turn = screen._turn
        await until(pilot, lambda: screen._turn > turn + 3)
        assert cells.row_count == 1
        assert text_of(screen, "head").startswith("NOT READY")
        assert "HELD" in text_of(screen, "head")
        await pilot.press("space")
        await until(pilot, lambda: cells.row_count == 2)


async def test_a_daemon_that_is_gone_is_said_until_it_is_back(tmp_path: Path) -> None:
    queries, endpoint = ManyFlows([9000]), Endpoint(str(tmp_path / "api.sock"))
    screen = TopScreen(endpoint)
    async with screen.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no gatewayd answers" in text_of(screen, "head"))
        async with serving(queries, tmp_path / "api.sock"):
            await until(pilot, lambda: text_of(screen, "head").startswith("READY"))
            queries.failure = RuntimeError("a fault")
            await until(pilot, lambda: not text_of(screen, "head").startswith("READY"))
            queries.failure = None
            await until(pilot, lambda: text_of(screen, "head").startswith("READY"))
            screen.workers.cancel_all()
            await let_go()
        screen.run_worker(screen._follow())
        await pilot.press("enter")
        await until(pilot, lambda: "no gatewayd answers" in text_of(screen, "head"))
        assert screen.cells("flows").row_count == 1


async def test_more_flows_than_a_screen_has_are_bounded(tmp_path: Path) -> None:
    async with shown(ManyFlows(list(range(5000, 0, -1))), tmp_path, (40, 12)) as (screen, pilot):
        await until(pilot, lambda: screen.cells("flows").row_count == MAX_ROWS)
        await until(pilot, lambda: "5,000 flows alive" in text_of(screen, "head"))


def test_the_columns_fit_in_eighty() -> None:
    for name, columns in COLUMNS.items():
        assert sum(width + 2 for _, width in columns) <= 80, name


@pytest.mark.parametrize(
    "changed", [{}, {"NO_COLOR": "1"}, {"LC_ALL": "C", "LANG": "C"}], ids=["xterm", "no colour", "C"]
)
def test_the_program_in_a_terminal(changed: dict[str, str], tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    with (
        serving_in_a_thread(FakeQueries(), socket),
        terminal([*GATEWAYD, "top", "--socket", str(socket)], changed=changed) as screen,
    ):
        screen.wait_for("203.0.113.5:40000")
        assert "Traceback" not in screen.text
        assert screen.raw.isascii() or not changed.get("LC_ALL")
        screen.press("q")
        assert screen.wait() == 0


def test_a_screen_needs_a_terminal_that_can_draw(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["top"])
    assert result.exit_code == 2
    assert result.stderr.endswith("the output is none; use: gatewayd flows, or gatewayd status\n")
    with terminal([*GATEWAYD, "top"], changed={"TERM": "dumb"}) as screen:
        assert screen.wait() == 2
        assert "TERM is dumb" in screen.text


def test_a_daemon_that_does_not_answer_is_said_before_the_screen(tmp_path: Path) -> None:
    with terminal([*GATEWAYD, "top", "--socket", str(tmp_path / "none")]) as screen:
        assert screen.wait() == 3
        assert screen.text.startswith("gatewayd: no gatewayd answers at ")


def test_without_textual_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['textual'] = None; from gatewayd.cli import main; main(['top'])"
    with terminal([sys.executable, "-c", program]) as screen:
        assert screen.wait() == 2
        assert "needs textual, which is not installed; pip install 'gatewayd[top]'" in screen.text


def test_json_is_of_other_commands() -> None:
    assert CliRunner().invoke(main, ["top", "--json"]).exit_code == 2


def test_no_other_command_imports_textual() -> None:
    program = (
        "import sys\nfrom gatewayd.cli import COMMANDS, main\n"
        "for name in COMMANDS: main.get_command(None, name)\n"
        "print([name for name in sys.modules if name.startswith('textual')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
