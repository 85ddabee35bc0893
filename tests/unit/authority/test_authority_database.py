from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.authority import database as module
from gatewayd.authority.database import VERSION, Applied, Publication, PublishedFile, RegistryDatabase
from gatewayd.errors import RegistryUnusable
from tests.support.newer import contents_of, make_newer

ONE = Publication("s", 1, 5.0, 3)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[RegistryDatabase]:
    with RegistryDatabase(tmp_path / "r.db") as database:
        yield database


def apply(database: RegistryDatabase, replace: bool = False, dry_run: bool = False, **records: str) -> Applied:
    return database.apply(
        records.items(), at_s=0.0, action="import", actor="me", is_all=lambda: replace, dry_run=dry_run
    )


def test_what_is_stored_is_counted_and_audited(database: RegistryDatabase) -> None:
    assert apply(database, a="1", b="1") == Applied(2, 0, 0, 0)
    assert apply(database, a="2", b="1", c="1") == Applied(1, 1, 1, 0)
    assert list(database.records()) == ["2", "1", "1"]
    assert (database.count(), database.sequence()) == (3, 4)
    assert [(row.at, row.action, row.actor, row.id, row.before, row.after) for row in database.history()] == [
        ("1970-01-01T00:00:00Z", "import", "me", "c", None, "1"),
        ("1970-01-01T00:00:00Z", "import", "me", "a", "1", "2"),
        ("1970-01-01T00:00:00Z", "import", "me", "b", None, "1"),
        ("1970-01-01T00:00:00Z", "import", "me", "a", None, "1"),
    ]
    assert [row.sequence for row in database.history("a")] == [3, 1]
    assert [row.sequence for row in database.history(most=1)] == [4]


def test_what_is_equal_is_no_change(database: RegistryDatabase) -> None:
    apply(database, a="1")
    applied = apply(database, a="1")
    assert applied == Applied(0, 0, 1, 0)
    assert not applied.has_changes
    assert database.sequence() == 1


def test_a_whole_registry_withdraws_what_it_does_not_have(database: RegistryDatabase) -> None:
    apply(database, a="1", b="1", c="1")
    assert apply(database, replace=True, b="2", d="1") == Applied(1, 1, 0, 2)
    assert database.record_of("a") is None
    assert database.record_of("b") == "2"
    assert [(row.id, row.before, row.after) for row in database.history(most=2)] == [
        ("c", "1", None),
        ("a", "1", None),
    ]


def test_a_dry_run_counts_and_leaves_no_trace(database: RegistryDatabase) -> None:
    apply(database, a="1")
    assert apply(database, replace=True, dry_run=True, b="1") == Applied(1, 0, 0, 1)
    assert (list(database.records()), database.sequence()) == (["1"], 1)
    apply(database, b="1")


def test_a_list_that_breaks_off_stores_nothing(database: RegistryDatabase) -> None:
    def broken() -> Iterator[tuple[str, str]]:
        yield "a", "1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.apply(broken(), at_s=0.0, action="import", actor="me")
    assert (database.count(), database.sequence()) == (0, 0)
    assert apply(database, a="1").added == 1


def test_an_id_twice_is_a_mistake_and_stores_nothing(database: RegistryDatabase) -> None:
    with pytest.raises(RegistryUnusable, match="UNIQUE"):
        database.apply([("a", "1"), ("a", "2")], at_s=0.0, action="import", actor="me")
    assert database.count() == 0


def test_changes_since_are_what_differs_now(database: RegistryDatabase) -> None:
    apply(database, a="1", b="1", c="1", d="1")
    apply(database, a="2")
    apply(database, a="3", b="2", c="2", e="1")
    apply(database, replace=True, a="3", b="1", c="2", f="1")
    assert list(database.changes_since(4)) == [("a", "3"), ("c", "2"), ("d", None), ("f", "1")]
    assert list(database.changes_since(0)) == [("a", "3"), ("b", "1"), ("c", "2"), ("f", "1")]
    assert list(database.changes_since(database.sequence())) == []


@pytest.mark.parametrize("statement", ["DELETE FROM audit", "UPDATE audit SET actor = 'nobody'"])
def test_the_audit_cannot_be_rewritten(database: RegistryDatabase, statement: str) -> None:
    apply(database, a="1")
    with sqlite3.connect(database.path) as other, pytest.raises(sqlite3.IntegrityError, match="only appended"):
        other.execute(statement)
    other.close()


def test_a_moment_does_not_see_what_is_stored_meanwhile(database: RegistryDatabase) -> None:
    apply(database, a="1")
    with RegistryDatabase(database.path) as other, other.one_moment():
        apply(database, b="1")
        assert (other.count(), other.sequence()) == (1, 1)
    assert database.count() == 2


def test_publications_are_noted_if_they_follow_on_the_last(database: RegistryDatabase) -> None:
    file = PublishedFile("p", "h", 1, 1)
    assert database.last_publication() is None
    assert database.note_publication(None, ONE, [file])
    assert not database.note_publication(None, Publication("s", 2, 6.0, 4), [])
    again = Publication("s", 1, 7.0, 4)
    assert database.note_publication(ONE, again, [PublishedFile("p", "h", 1, 1, 8.0)])
    assert database.last_publication() == again
    assert database.files() == {"p": PublishedFile("p", "h", 1, 1, 8.0)}
    database.forget_files(["p", "q"])
    assert not database.files()


def test_a_database_is_opened_again(tmp_path: Path) -> None:
    turns: list[None] = []
    for _ in range(2):
        with RegistryDatabase(tmp_path / "r.db", on_turn=lambda: turns.append(None)) as database:
            assert apply(database, a="1").unchanged in (0, 1)
    assert database.path.exists()


def test_a_long_statement_calls_the_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INSTRUCTIONS_PER_TURN", 10)
    turns: list[None] = []
    with RegistryDatabase(tmp_path / "r.db", on_turn=lambda: turns.append(None)) as database:
        records = [(f"id{number}", "1") for number in range(100)]
        database.apply(records, at_s=0.0, action="import", actor="me")
    assert turns


def test_a_database_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnusable, match="there is no such database; `gatewayd registry import` makes one"):
        RegistryDatabase(tmp_path / "r.db", may_create=False)
    assert not (tmp_path / "r.db").exists()


def test_a_file_that_is_no_database_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_text("id,category,status\n" * 100)
    with pytest.raises(RegistryUnusable, match="not a database"):
        RegistryDatabase(tmp_path / "r.db")
    with pytest.raises(RegistryUnusable, match="unable to open"):
        RegistryDatabase(tmp_path / "nowhere" / "r.db")


@pytest.mark.parametrize("killed", [False, True])
def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path, *, killed: bool) -> None:
    RegistryDatabase(tmp_path / "r.db").close()
    make_newer(tmp_path / "r.db", [f"PRAGMA user_version = {VERSION + 1}"], killed=killed)
    before = contents_of(tmp_path)
    with pytest.raises(RegistryUnusable, match=f"newer gatewayd \\(schema {VERSION + 1}, known up to {VERSION}\\)"):
        RegistryDatabase(tmp_path / "r.db")
    assert contents_of(tmp_path) == before
