"""Rejected records of a real daemon: listed by their place, without their content, and over a restart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gatewayd.demo.cast import BANK, EMBASSY
from tests.support.lab_daemon import LabDaemon

pytestmark = pytest.mark.kernel


def places(daemon: LabDaemon) -> list[tuple[int, str | None, str]]:
    body: dict[str, Any] = daemon.get("/v1/rejected")
    assert body["total"] == body["listed"] == len(body["items"])
    return [(each["line"], each["id"], each["code"]) for each in body["items"]]


def test_rejected_records_are_listed_by_their_place_and_after_a_restart(daemon: LabDaemon) -> None:
    wrong = {**EMBASSY, "id": "WRONG", "clients": ["39.33.9.1/24"]}
    named = {**EMBASSY, "id": "NAMED", "msisdn": "+923001234567"}
    lines = [msgspec.json.encode(each) for each in (BANK, wrong, named)]
    daemon.write_registry("national", b"\n".join([*lines, b"{nonsense"]) + b"\n")
    daemon.configure("observe")
    daemon.start()
    daemon.wait_ready()
    expected = [(2, "WRONG", "prefix_host_bits"), (3, "NAMED", "identity_field"), (4, None, "not_json")]
    assert places(daemon) == expected
    shown = daemon.ask("registrations", "--rejected")
    assert shown.returncode == 0, shown.stderr
    assert "WRONG" in shown.stdout
    told = shown.stdout + str(daemon.get("/v1/rejected")) + daemon.log_text()
    assert "923001234567" not in told
    assert "39.33.9.1" not in told
    # From the last good, before the source is there again.
    (daemon.directory / "national.ndjson").rename(daemon.directory / "elsewhere")
    daemon.stop_for_good()
    daemon.start()
    daemon.wait_ready()
    assert places(daemon) == expected
