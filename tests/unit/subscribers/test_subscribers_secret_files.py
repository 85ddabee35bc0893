"""Files with a pepper or with RADIUS secrets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.cli import main
from gatewayd.errors import SecretFileUnusable
from gatewayd.model.msisdn import subscriber_digest
from gatewayd.subscribers.secret_files import (
    MAX_FILE_BYTES,
    MAX_SECRET_BYTES,
    MAX_SECRETS,
    is_exposed,
    read_pepper,
    read_secrets,
)

PEPPER = b"sixteen bytes !!"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def refusal_of(read: Callable[[str], object], path: Path) -> SecretFileUnusable:
    with pytest.raises(SecretFileUnusable) as refused:
        read(str(path))
    assert refused.value.path == str(path)
    assert str(refused.value) == f"{path}: {refused.value.why}"
    return refused.value


# -- the pepper --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [PEPPER, PEPPER + b"\n", PEPPER + b" \t\r\n\n"])
def test_what_ends_a_line_is_no_part_of_the_pepper(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_pepper(path) == PEPPER


@pytest.mark.parametrize(
    "content",
    [
        PEPPER + b"\n",
        b" \n" + PEPPER + b"\r\n",
        b"\xff\x00 \nqwertz\xfe uiop\r\n",
        bytes(range(33, 127)) + b"p" * 40_000,
    ],
)
def test_the_registry_and_the_gateway_make_the_same_digest_of_a_number(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    path.write_bytes(content)
    record = {"id": "a", "category": "freelancer", "status": "active"}

    def upsert(field: dict[str, str], *options: str) -> str:
        return CliRunner().invoke(main, ["registry", "upsert", *options], input=json.dumps(record | field)).output

    assert upsert({"mobile": "+92 300 1234567"}, "--pepper-file", str(path)) == "a added\n"
    digest = subscriber_digest("923001234567", read_pepper(path))
    assert upsert({"subscriber": f"hmac-sha256:{digest.hex()}"}) == "a unchanged\n"


@pytest.mark.parametrize("content", [b"", b"\n", PEPPER[:15], PEPPER[:15] + b" \r\n\t"])
def test_a_short_pepper_is_refused_and_not_repeated(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    why = refusal_of(read_pepper, path).why
    assert why == "the pepper has fewer than 16 bytes; make one: head -c 32 /dev/urandom | base64 > PEPPER_FILE"


# -- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        (b"testing123", (b"testing123",)),
        (b"testing123\r\n", (b"testing123",)),
        (b"# BNGs, since 2026\n\nnew one \n\told\t\n  # not yet\n#no\n", (b"new one", b"old")),
        (b"b\na\nb\n", (b"b", b"a")),
        (b"\xef\xbb\xbfa#1\n", (b"a#1",)),
        ("schlüssel\n".encode(), ("schlüssel".encode(),)),
        (b"\xfc\n", (b"\xfc",)),
        (b"x" * MAX_SECRET_BYTES, (b"x" * MAX_SECRET_BYTES,)),
        (
            b"\n".join(b"%d" % number for number in range(MAX_SECRETS)),
            tuple(map(b"%d".__mod__, range(MAX_SECRETS))),
        ),
    ],
)
def test_secrets_are_read_line_by_line_in_order(path: Path, content: bytes, secrets: tuple[bytes, ...]) -> None:
    path.write_bytes(content)
    assert read_secrets(path) == secrets


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no secret; a line that begins with # is a comment"),
        (b" \r\n\n#hunter2\n", "holds no secret; a line that begins with # is a comment"),
        (b"a\nhunter2" + b"x" * 247, "line 2 is longer than 253 bytes"),
        (b"a\nb\n\nhunter2\x00\n", "line 4 has control characters"),
        (b"hunter2\x7f", "line 1 has control characters"),
        (b"hunter2\tx", "line 1 has control characters"),
        (b"\n".join(b"hunter2%d" % number for number in range(9)), "holds 9 secrets, more than 8"),
    ],
)
def test_a_file_that_is_none_of_secrets_is_refused_and_not_repeated(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    assert refusal_of(read_secrets, path).why == why


REFUSAL = re.compile(
    r"holds no secret; a line that begins with # is a comment|holds \d+ secrets, more than 8"
    r"|line \d+ (is longer than 253 bytes|has control characters)"
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=260) | st.sampled_from([b"", b"#", b" x ", b"\r"]), max_size=10).map(b"\n".join))
def test_arbitrary_bytes_are_usable_secrets_or_refused_without_a_word_of_them(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        secrets, why = read_secrets(path), None
    except SecretFileUnusable as error:
        secrets, why = (), error.why
    assert bool(secrets) == (why is None)
    assert why is None or REFUSAL.fullmatch(why)
    assert len(secrets) == len(set(secrets)) <= MAX_SECRETS
    for secret in secrets:
        assert 1 <= len(secret) <= MAX_SECRET_BYTES
        assert secret == secret.strip()
        assert secret in content


# -- either ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_pepper, read_secrets])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(path: Path, read: Callable[[str], object]) -> None:
    assert refusal_of(read, path).why == "No such file or directory"
    assert refusal_of(read, path.parent).why == "Is a directory"
    assert refusal_of(read, Path(f"{path}\0")).why == "embedded null byte"


@pytest.mark.parametrize("read", [read_pepper, read_secrets])
def test_a_fifo_in_the_place_of_a_file_holds_nobody_up(read: Callable[[str], object], path: Path) -> None:
    os.mkfifo(path)
    assert refusal_of(read, path).why == "not a regular file"


@pytest.mark.parametrize("read", [read_pepper, read_secrets])
def test_a_file_that_is_too_large_is_not_cut_short(path: Path, read: Callable[[str], object]) -> None:
    path.write_bytes(b"#" * (MAX_FILE_BYTES - 1) + b"\nhunter2\n")
    assert refusal_of(read, path).why == f"is larger than {MAX_FILE_BYTES} bytes"


@pytest.mark.parametrize(
    ("mode", "exposed"), [(0o600, False), (0o640, False), (0o660, False), (0o644, True), (0o602, True)]
)
def test_a_file_is_exposed_when_others_may_read_or_change_it(path: Path, mode: int, exposed: bool) -> None:
    path.touch()
    path.chmod(mode)
    assert is_exposed(path) is exposed


def test_a_file_that_is_not_there_is_not_exposed(path: Path) -> None:
    assert not is_exposed(path)
    assert not is_exposed(f"{path}\0")
