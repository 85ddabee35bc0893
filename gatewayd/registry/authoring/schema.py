"""The tables of the reference registry, as the steps that lead from one version of them to the next.

`PRAGMA user_version` says how many steps a database has behind it. A step that was released never changes;
what is to be different is a further step.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE registrations (
            id TEXT NOT NULL PRIMARY KEY,
            record TEXT NOT NULL  -- canonical JSON (canonical.py)
        ) WITHOUT ROWID
        """,
        # The audit is the change log too: a delta is what stands after the `sequence` of the last publication.
        """
        CREATE TABLE audit (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            at TEXT NOT NULL,      -- RFC 3339, UTC
            action TEXT NOT NULL,  -- import, upsert, revoke, suspend, withdraw
            actor TEXT NOT NULL,
            id TEXT NOT NULL,
            before TEXT,           -- canonical JSON; NULL: there was none
            after TEXT             -- canonical JSON; NULL: withdrawn
        )
        """,
        "CREATE INDEX audit_by_id ON audit (id, sequence)",
        "CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only appended to'); END",
        "CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only appended to'); END",
        """
        CREATE TABLE publications (
            number INTEGER PRIMARY KEY,
            session TEXT NOT NULL,
            serial INTEGER NOT NULL,
            issued_at REAL NOT NULL,    -- Unix seconds, of the last notification with this serial
            sequence INTEGER NOT NULL,  -- the last row of the audit that is in it
            UNIQUE (session, serial)
        )
        """,
        """
        CREATE TABLE files (
            path TEXT NOT NULL PRIMARY KEY,  -- below the directory that is published
            sha256 TEXT NOT NULL,
            size INTEGER NOT NULL,
            count INTEGER NOT NULL,          -- lines
            retired_at REAL                  -- Unix seconds; NULL: in the notification
        ) WITHOUT ROWID
        """,
    ),
)
"""Statements of each step. The step from version n to n + 1 is `MIGRATIONS[n]`."""

VERSION: Final = len(MIGRATIONS)
