"""Secrets are compared in constant time: read in the source of all packages, as a measured time is too noisy."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyrad.packet import AcctPacket

import gatewayd

ROOT = Path(gatewayd.__file__).parent
SECRET: Final = re.compile(
    r"authenticator|credential|digest|hmac|mac\b|passw|pepper|secret|sha256|signature|token", re.IGNORECASE
)
"""Names of what an attacker may try to guess byte by byte."""
OF_THE_DISK: Final = "a checksum, against damage; who can write the file can write the checksum"
PUBLIC: Final = "of what is published, and signed with it"
OF_ONE_SENDER: Final = "both sides are of one record, whose sender has the number"
ALLOWED: Final = {
    ("authority.publishing", "sha256.hexdigest() == known.sha256"): PUBLIC,
    ("feed.files", "digest != self._ref.sha256"): PUBLIC,
    ("sources.client_plan", "new.snapshot.sha256 == current.snapshot_sha256"): PUBLIC,
    ("sources.client_plan", "offered[serial].sha256 != sha256"): PUBLIC,
    ("registry.guard_record", "check != hashlib.sha256(rest).hexdigest().encode()"): OF_THE_DISK,
    ("trial.record", "check != hashlib.sha256(rest).hexdigest().encode()"): OF_THE_DISK,
    ("sources.last_good", "row[:_DIGEST_BYTES] != _digest_of(kind, number, token, content)"): OF_THE_DISK,
    ("sources.last_good_file", "_head_of(connection).token != head.token"): OF_THE_DISK,
    ("subscribers.journal_file", "token != self._token"): OF_THE_DISK,
    ("subscribers.journal_file", "token == self._token"): OF_THE_DISK,
    ("subscribers.journal_file", "checksum == _checksum_of(f'{token} {groups} {rows}')"): OF_THE_DISK,
    ("reconcile.steps", "tag.policy == _policy_digest(policy)"): "of our rules in the kernel",
    ("sources.fetch", "signature != self._signature"): "inode, size and time of a file",
    ("sources.files", "signature == previous"): "inode, size and time of a file",
    ("sources.files", "signature != seen"): "inode, size and time of a file",
    ("sources.files", "signature == before.signature"): "inode, size and time of a file",
    (
        "sources.files",
        "(status.st_size, status.st_mtime_ns) != (signature.size_bytes, signature.modified_ns)",
    ): "inode, size and time of a file",
    ("lab.traffic", "self._tokens.number_in(attempt.recv(4096)) == number"): "of packets in the lab",
    ("model.msisdn", "subscriber_digest(number, pepper) == subscriber"): OF_ONE_SENDER,
    ("model.msisdn", "subscriber_digest(country_code + number, pepper) == subscriber"): OF_ONE_SENDER,
    ("sources.plain_source", "signature != self._validator"): "inode, size and time of a file",
    ("subscribers.sessions.nas", "known == authenticator"): "of requests that are authenticated, to find repeats",
}
"""Comparisons with `==` of something of that name that is no secret, each with the reason."""


def compared(tree: ast.AST) -> Iterator[str]:
    """Comparisons for equality, and look-ups in a collection written out, in which such a name stands."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        for operator, left, right in zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False):
            is_equality = isinstance(operator, ast.Eq | ast.NotEq)
            is_listed = type(operator).__name__.endswith("In") and isinstance(right, ast.Tuple | ast.List | ast.Set)
            sides = (left, right)
            has_number = any(isinstance(each, ast.Constant) for each in sides) or any(map(_is_length, sides))
            if (is_equality or is_listed) and not has_number and any(map(_is_secret, sides)):
                yield ast.unparse(ast.Compare(left, [operator], [right]))


def _is_length(side: ast.expr) -> bool:
    return isinstance(side, ast.Call) and isinstance(side.func, ast.Name) and side.func.id in ("len", "type")


def _is_secret(side: ast.expr) -> bool:
    names = (
        each.attr if isinstance(each, ast.Attribute) else each.id
        for each in ast.walk(side)
        if isinstance(each, ast.Attribute | ast.Name)
    )
    return any(SECRET.search(name) and not name.isupper() for name in names)


def test_no_secret_is_compared_byte_by_byte() -> None:
    found = {
        (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), each)
        for path in ROOT.rglob("*.py")
        for each in compared(ast.parse(path.read_text()))
    }
    assert found - ALLOWED.keys() == set(), "hmac.compare_digest, or a line in ALLOWED with the reason"
    assert ALLOWED.keys() - found == set(), "these are gone: take them off the list"


def test_the_reading_finds_what_it_looks_for() -> None:
    wrong = """
request.authenticator == expected
if given != self._secret: pass
token in (first, second)
mac == hmac.digest(key, content, "md5")
"""
    assert len(list(compared(ast.parse(wrong)))) == 4
    right = 'len(secret) == 16\ncompare_digest(secret, given)\ntoken == ""\nname == other\nsecret is None\n'
    assert list(compared(ast.parse(right))) == []


def test_the_library_compares_a_message_authenticator_so_too() -> None:
    """A Status-Server has no other proof, and is answered before anything else of it is known."""
    assert "compare_digest(" in inspect.getsource(AcctPacket.verify_message_authenticator)
