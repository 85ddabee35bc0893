"""`gatewayd status --watch` in a terminal, against a real server with a fake daemon behind it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cli import main
from tests.support.fake_queries import PEACE, TROUBLE, FakeQueries, serving_in_a_thread
from tests.support.terminal import GATEWAYD, terminal


def test_it_draws_what_changes_and_says_when_the_daemon_is_gone(tmp_path: Path) -> None:
    socket, queries = tmp_path / "api.sock", FakeQueries()
    with terminal([*GATEWAYD, "status", "--watch", "--socket", str(socket)], columns=100, lines=30) as screen:
        assert screen.wait() == 3
        assert "no gatewayd answers" in screen.text
    with terminal(
        ["sh", "-c", f'until [ -S "{socket}" ]; do sleep 0.1; done; exec "$@"', "sh",
         *GATEWAYD, "status", "--watch", "--socket", str(socket)], columns=100, lines=30,
    ) as screen:  # fmt: skip
        with serving_in_a_thread(queries, socket):
            screen.wait_for("daemon         gatewayd")
            seen = len(screen.text)
            queries.view = TROUBLE
            screen.wait_for("NOT READY: 12 registered elements are not in the kernel", seen)
        screen.wait_for(f"what follows is of {PEACE.now}", seen)
        seen = len(screen.text)
        queries.view = PEACE
        with serving_in_a_thread(queries, socket):
            screen.wait_for(lambda text: text.rstrip().endswith(f"now {PEACE.now}"), seen)
            assert screen.raw.count(b"\x1b[?1049h") == 1
            screen.process.send_signal(signal.SIGINT)
            assert screen.wait() == 130
        assert screen.raw.count(b"\x1b[?1049l") == 1


@pytest.mark.parametrize("columns", [20, 40])
def test_what_does_not_fit_is_not_drawn(columns: int, tmp_path: Path) -> None:
    socket, queries = tmp_path / "api.sock", FakeQueries()
    with (
        serving_in_a_thread(queries, socket),
        terminal([*GATEWAYD, "status", "--watch", "--socket", str(socket)], columns=columns, lines=10) as screen,
    ):
        screen.wait_for("more:")
        assert "READY" in screen.text
        assert "daemon" not in screen.text


def test_without_a_terminal_it_says_what_to_use() -> None:
    result = CliRunner().invoke(main, ["status", "--watch"])
    assert result.exit_code == 2
    assert result.stderr.endswith("the output is none; use: gatewayd status, or gatewayd events --follow\n")


def test_a_screen_is_no_json() -> None:
    result = CliRunner().invoke(main, ["status", "--watch", "--json"])
    assert result.exit_code == 2
