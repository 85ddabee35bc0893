"""A real Prometheus (Debian's) in a gateway of the lab, which scrapes its daemon and evaluates our rules."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import msgspec
import yaml

from gatewayd.lab.namespace import Namespace
from tests.support.lab_daemon import holds
from tests.support.renewed import RULES

ADDRESS = ("127.0.0.1", 9090)
EVERY = "1s"


class Prometheus:
    """Runs while the `with` block does; its files are in `directory`. Scrapes and evaluates each second."""

    def __init__(self, namespace: Namespace, directory: Path, target: str) -> None:
        self._namespace = namespace
        config = {
            "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "gatewayd", "static_configs": [{"targets": [target]}]}],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = directory / "prometheus.log"
        with self._log.open("wb") as log:
            self._process: subprocess.Popen[bytes] = namespace.popen(
                [
                    "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'tsdb'}",
                    f"--web.listen-address={ADDRESS[0]}:{ADDRESS[1]}",
                ],
                stdout=log,
                stderr=log,
                env=os.environ | {"GOMAXPROCS": "1"},
            )

    def __enter__(self) -> Self:
        assert holds(self._is_ready), self._log.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query: of each, its labels and its value now."""
        found: list[dict[str, Any]] = self._get("/api/v1/query", query=expr)["result"]
        return found

    def number(self, expr: str) -> float:
        """The value of the only series; 0 if there is none."""
        found = self.query(expr)
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else 0.0

    def alerts(self) -> dict[str, str]:
        """Each that is pending or firing, with which of the two."""
        return {each["labels"]["alertname"]: each["state"] for each in self._get("/api/v1/alerts")["alerts"]}

    def faulty_rules(self) -> list[str]:
        """Those that could not be evaluated, with the error."""
        rules = [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]
        return [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule["health"] == "err"]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self._ask("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        status, raw = self._ask(f"{path}?{urlencode(parameters)}")
        answer = msgspec.json.decode(raw)
        assert status == 200, answer
        return answer["data"]

    def _ask(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*ADDRESS, timeout=30.0)
        with self._namespace.entered():
            connection.sock = socket.create_connection(ADDRESS, timeout=30.0)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
