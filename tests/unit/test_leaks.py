"""The search for planted secrets finds each form that it knows: a search that finds nothing proves nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.support.leaks import find, planted_number, planted_secret, planted_text, spellings

NUMBER = "923459876541"
NAME = "Zulfiqarzada"
SECRET = b"horse battery staple, correct"
ALL = (planted_number(NUMBER), planted_text("name", NAME), planted_secret("secret", SECRET))


@pytest.mark.parametrize("spelling", [*spellings(NUMBER), "+92 (0)345 98-76-541", "0345.987.6541", "٠"])
def test_a_number_is_found_in_any_spelling(spelling: str) -> None:
    line = json.dumps({"event": "session", "class": f"a-{spelling}/7"}).encode()
    if spelling == "٠":
        assert find(ALL, line) == []
    else:
        assert any("number" in each for each in find(ALL, line))


@pytest.mark.parametrize("ahead", range(4))
@pytest.mark.parametrize("text", [f"0{NUMBER[2:]}", NAME, SECRET.decode()])
def test_a_text_is_found_in_whatever_it_is_written(text: str, ahead: int) -> None:
    raw = b"x" * ahead + text.encode() + b"behind"
    for written in (
        raw, raw.hex().encode(), raw.hex().upper().encode(), raw.hex(":").encode(), base64.b64encode(raw),
        base64.urlsafe_b64encode(raw), raw[::-1],
        raw.decode().encode("utf-16-le"), raw.decode().encode("utf-16-be"),
        "".join(f"%{byte:02X}" for byte in raw).encode(),
    ):  # fmt: skip
        assert len({each.partition(" as ")[0] for each in find(ALL, b"before " + written)}) == 1, written


def test_a_number_is_found_as_the_network_and_a_file_pack_it(tmp_path: Path) -> None:
    digits = f"{NUMBER}"
    turned = bytes.fromhex("".join(digits[at + 1] + digits[at] for at in range(0, 12, 2)))
    assert find(ALL, b"\x91" + turned) == ["number as reversed BCD at 2"]
    odd = "9" + digits + "f"
    assert find(ALL, bytes.fromhex("".join(odd[at + 1] + odd[at] for at in range(0, 14, 2)))) != []
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE session (subscriber INTEGER)")
        connection.execute("INSERT INTO session VALUES (?)", (int(NUMBER),))
    connection.close()
    assert find(ALL, path.read_bytes()) == ["number as integer, big-endian"]
    assert find(ALL, int(NUMBER).to_bytes(8, "little")) == ["number as integer, little-endian"]


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512"])
def test_a_digest_without_a_key_is_found(name: str) -> None:
    for spelling in spellings(NUMBER):
        digest = hashlib.new(name, spelling.encode()).digest()
        for written in (digest, digest.hex().encode()[:20], base64.b64encode(digest)):
            assert find(ALL, b"subscriber=" + written), (name, spelling)
    assert find(ALL, hashlib.sha256(NAME.lower().encode()).hexdigest().encode())


def test_a_secret_that_is_cut_is_found() -> None:
    assert find(ALL, b"bad line 'rse battery staple, co...'") == ["secret as part"]


def test_what_was_not_planted_is_not_found() -> None:
    other = planted_number("923211234567")
    content = b"".join(form for _, form in other.forms) + bytes(range(256)) * 4 + b"2026-01-31 10.0.0.1 0345-98"
    assert find(ALL, content) == []
