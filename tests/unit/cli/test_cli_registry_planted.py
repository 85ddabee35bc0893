"""The authority: its signing key, its pepper and the persons in its files come out nowhere but in the key file."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.authority.serving import serving
from gatewayd.cli import main
from gatewayd.demo.cast import BANK
from tests.support.leaks import Planted, find, planted_secret, spellings
from tests.support.planting import (
    EMAIL,
    IDENTITY,
    NAME,
    NUMBER,
    PEPPER,
    PERSONS,
    SPELLINGS,
    csv_lines,
    feed_lines,
)

REQUESTS = (
    b"GET /notification.jws HTTP/1.1\r\nHost: %s\r\nX: %s\r\n",
    b"GET /%s?%s HTTP/1.1\r\nHost: a\r\n",
    b"%s /%s HTTP/1.1\r\nHost: a\r\n",
    b"GET / HTTP/%s\r\nHost: a\r\nRange: %s\r\n",
    b"\x00%s\r\n%s\r\n",
)


class Registry:
    """What was said is kept in `said`: each command's output, by the command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "registry.db"
        self.feed = directory / "feed"
        self.key = directory / "signing.key"
        self.said: list[tuple[str, bytes]] = []

    def run(self, *words: str, given: bytes | None = None, places: bool = True) -> int:
        database = ("--database", str(self.database)) if places else ()
        done = CliRunner().invoke(main, ["registry", *words, *database], input=given)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        self.said.append((" ".join(words), done.output.encode()))
        return done.exit_code

    def everything_happens(self) -> None:
        self.run("keygen", str(self.key), "--kid", "k1", places=False)
        pepper = self.directory / "pepper"
        pepper.write_bytes(PEPPER)
        hashing = ("--pepper-file", str(pepper), "--country-code", "92")
        for name, content in (("in.ndjson", feed_lines()), ("in.csv", csv_lines()), ("people.csv", people())):
            file = self.directory / name
            file.write_bytes(content)
            self.run("check", str(file), places=False)
            self.run("check", "--json", str(file), places=False)
            for option in ("--dry-run", "--json", "--replace"):
                self.run("import", str(file), *hashing, option)
        for each in SPELLINGS:
            record = {**BANK, "id": f"UP-{len(self.said)}", "clients": [], "mobile": each}
            for odd in (record, {**record, "name": NAME}, {**record, each: EMAIL}, each):
                self.run("upsert", "-", *hashing, given=json.dumps(odd).encode())
            self.run("upsert", "-", *hashing, given=each.encode())
            for word in ("revoke", "show", "history"):
                self.run(word, each)
            self.run("list", "--search", each)
        for words in (
            ("list", "--all"),
            ("list", "--json"),
            ("history",),
            ("history", "--json"),
            ("show", "CSV-GOOD"),
        ):
            self.run(*words)
        self.run("export", str(self.directory / "out.ndjson"))
        self.run("export", str(self.directory / "out.csv"))
        for option in ("--allow-empty", "--json", "--new-session"):
            assert self.run("publish", "--key", str(self.key), "--directory", str(self.feed), option) == 0
        self.run("publish", "--key", str(pepper), "--directory", str(self.feed))
        self.run("publish", "--key", f"{self.key}.pub", "--directory", str(self.feed))

    def files(self) -> Iterator[tuple[str, bytes]]:
        inputs = {"in.ndjson", "in.csv", "people.csv", "pepper", "signing.key"}
        for path in self.directory.rglob("*"):
            if path.is_file() and path.name not in inputs:
                content = path.read_bytes()
                yield f"file {path.name}", gzip.decompress(content) if path.suffix == ".gz" else content

    def secrets(self) -> tuple[Planted, ...]:
        scalar = json.loads(self.key.read_text())["d"]
        raw = urlsafe_b64decode(scalar + "=" * (-len(scalar) % 4))
        return (planted_secret("signing key", raw), planted_secret("key as text", scalar.encode()), *PEPPERS)


PEPPERS = (planted_secret("pepper", PEPPER),)


def people() -> bytes:
    """As a clerk exports them: a file with a person's columns, and numbers where a number is to be."""
    rows = ["id,category,status,mobile,services,registrant"]
    rows += [f"M-{number},freelancer,active,{each},wireguard," for number, each in enumerate(spellings(NUMBER))]
    rows += [
        f"X-{number},freelancer,active,{each},wireguard," for number, each in enumerate((IDENTITY, EMAIL, NAME))
    ]
    return "\n".join(rows).encode() + b"\n"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Registry:
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    made = Registry(tmp_path)
    made.everything_happens()
    return made


def leaks(outputs: Iterator[tuple[str, bytes]], planted: tuple[Planted, ...]) -> list[str]:
    return [f"{label}: {form}" for label, content in outputs for form in find(planted, content)]


async def answers(directory: Path) -> list[tuple[str, bytes]]:
    found = []
    async with serving(directory, "127.0.0.1", 0) as (host, port):
        for each in SPELLINGS:
            for request in REQUESTS:
                word = each.replace(" ", "").encode()
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(
                    request % (word, word) + b"Connection: close\r\n\r\n" if request.count(b"%s") == 2 else b""
                )
                found.append((f"serve {each}", await reader.read()))
                writer.close()
    return found


def test_nothing_planted_comes_out_of_the_registry(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    planted = (*PERSONS, *registry.secrets())
    assert leaks(iter(registry.said), planted) == []
    assert leaks(registry.files(), planted) == []
    served = asyncio.run(answers(registry.feed))
    assert len(served) == len(SPELLINGS) * len(REQUESTS)
    assert leaks(iter(served), planted) == []
    assert leaks(iter([("log", caplog.text.encode())]), planted) == []


def test_the_search_finds_the_key_and_a_number(registry: Registry) -> None:
    assert leaks(iter([("key", registry.key.read_bytes())]), registry.secrets()) != []
    assert leaks(iter([("in", people())]), PERSONS) != []
    assert any(b"M-0" in content for _, content in registry.files())
    assert sum(b"subscriber" in content for _, content in registry.files()) >= 2
