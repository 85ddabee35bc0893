"""Changes of the mode over HTTP: who may ask for what, and what a wrong question is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gatewayd.api.arming import ModeRequest
from gatewayd.api.arming_routes import read_mode
from gatewayd.api.queries import ParameterRejected
from gatewayd.model.policy import Stage
from gatewayd.trial.state import ChangeRefused
from gatewayd.trial.views import ArmingView
from tests.support.fake_queries import FakeQueries, serving


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, FakeQueries, str]]:
    queries, path = FakeQueries(), tmp_path / "api.sock"
    connector = aiohttp.UnixConnector(str(path))
    async with serving(queries, path) as server, aiohttp.ClientSession(connector=connector) as session:
        yield session, queries, f"http://127.0.0.1:{server.port}"


async def test_each_change_says_who_asks_and_answers_with_all_of_it(socket: Any) -> None:
    session, queries, _ = socket
    queries.arming.shown = ArmingView(mode="reject", wanted=Stage("reject", 10))
    for path in ("/v1/confirm", "/v1/revert", "/v1/rearm", "/v1/trial/ack"):
        async with session.post(f"http://gatewayd{path}") as answer:
            assert (answer.status, (await answer.json())["wanted"]) == (
                200,
                {"mode": "reject", "canary_percent": 10},
            )
    async with session.post("http://gatewayd/v1/mode?mode=reject&canary=10&confirm=600&comment=order+17") as answer:
        assert answer.status == 200
    *commands, mode = queries.arming.asked
    assert commands == [(word, "uid 0") for word in ("confirm", "revert", "rearm", "acknowledge")]
    assert mode == ModeRequest("reject", 10, 600, None, "order 17", False, "uid 0")


async def test_a_refusal_is_409_and_its_sentence(socket: Any) -> None:
    session, queries, _ = socket
    queries.arming.refusal = ChangeRefused("no trial is pending")
    async with session.post("http://gatewayd/v1/confirm") as answer:
        assert (answer.status, await answer.json()) == (409, {"error": "no trial is pending"})


async def test_on_tcp_it_can_be_looked_at_and_not_changed(socket: Any) -> None:
    _, queries, url = socket
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/v1/trial") as answer:
            assert (answer.status, (await answer.json())["pending"]) == (200, None)
        for path in ("/v1/mode?mode=observe", "/v1/confirm", "/v1/revert", "/v1/rearm", "/v1/trial/ack"):
            async with session.post(url + path) as answer:
                assert answer.status in (404, 405)
    assert queries.arming.asked == []


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        ({}, "mode"),
        ({"mode": "refuse"}, "mode"),
        ({"mode": "reject", "canary": "101"}, "canary"),
        ({"mode": "reject", "canary": "-1"}, "canary"),
        ({"mode": "reject", "confirm": "0"}, "confirm"),
        ({"mode": "reject", "confirm": "9" * 12}, "confirm"),
        ({"mode": "reject", "for": "2h"}, "for"),
        ({"mode": "reject", "for": "60", "confirm": "60"}, "for"),
        ({"mode": "reject", "comment": "a\nb"}, "comment"),
        ({"mode": "reject", "comment": "x" * 201}, "comment"),
        ({"mode": "reject", "comment": "for 923007654321"}, "comment"),
        ({"mode": "reject", "comment": "ali@persons.example"}, "comment"),
        ({"mode": "reject", "until": "now"}, "until"),
    ],
)
def test_a_wrong_parameter_is_named(asked: dict[str, str], parameter: str) -> None:
    with pytest.raises(ParameterRejected) as rejected:
        read_mode(asked.items(), "uid 0")
    assert rejected.value.parameter == parameter


def test_what_is_not_given_is_none() -> None:
    assert read_mode([("mode", "observe")], "uid 7") == ModeRequest("observe", None, None, None, "", False, "uid 7")
    assert read_mode([("mode", "mark"), ("for", "60"), ("force", "1")], "uid 7").for_s == 60


async def test_a_report_is_a_page_once_there_is_one(socket: Any) -> None:
    session, queries, _ = socket
    async with session.get("http://gatewayd/v1/trial/report") as answer:
        assert answer.status == 404
    queries.arming.page = b"<!doctype html>"
    async with session.get("http://gatewayd/v1/trial/report") as answer:
        assert (answer.status, await answer.read()) == (200, b"<!doctype html>")
        assert answer.content_type == "text/html"
