"""The tables, as numbered steps. A step that was released is never changed; a new one is added behind it."""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    # 1: who may come in
    """
    CREATE TABLE people (
        name TEXT PRIMARY KEY,
        grants TEXT NOT NULL,
        created REAL NOT NULL,
        last_seen REAL,
        revoked INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE keys (
        public BLOB PRIMARY KEY CHECK (length(public) = 32),
        person TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
        added REAL NOT NULL,
        revoked INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX keys_by_person ON keys (person);
    CREATE TABLE invites (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        grants TEXT NOT NULL,
        secret_hash TEXT NOT NULL UNIQUE,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        cancelled INTEGER NOT NULL DEFAULT 0,
        used REAL,
        used_by BLOB
    ) STRICT;
    CREATE INDEX invites_by_name ON invites (name);
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    """,
    # 2: what they did
    """
    CREATE TABLE transfers (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        person TEXT NOT NULL,
        direction TEXT NOT NULL CHECK (direction IN ('get', 'put')),
        share TEXT NOT NULL,
        path BLOB NOT NULL,
        files INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        state TEXT NOT NULL,
        started REAL NOT NULL,
        updated REAL NOT NULL
    ) STRICT;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time REAL NOT NULL,
        person TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;
    """,
    # 3: rooms, beside their logs
    """
    CREATE TABLE rooms (
        name TEXT PRIMARY KEY,
        topic TEXT NOT NULL DEFAULT '',
        private INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL,
        creator TEXT NOT NULL,
        keep_seconds REAL,
        keep_bytes INTEGER,
        keep_records INTEGER,
        epoch TEXT NOT NULL DEFAULT '',
        seq INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE room_members (
        room TEXT NOT NULL,
        person TEXT NOT NULL,
        by_admin INTEGER NOT NULL,
        PRIMARY KEY (room, person)
    ) STRICT;
    CREATE TABLE room_mutes (
        room TEXT NOT NULL,
        person TEXT NOT NULL,
        until REAL NOT NULL,
        muted_by TEXT NOT NULL,
        PRIMARY KEY (room, person)
    ) STRICT;
    CREATE TABLE room_reads (
        room TEXT NOT NULL,
        person TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (room, person)
    ) STRICT;
    CREATE TABLE room_removed (room TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (room, seq)) STRICT;
    """,
    # 4: commands
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        person TEXT NOT NULL,
        request TEXT NOT NULL,
        argv TEXT NOT NULL,
        terminal INTEGER NOT NULL,
        on_disconnect TEXT NOT NULL,
        after REAL NOT NULL,
        state TEXT NOT NULL,
        status INTEGER,
        signal INTEGER,
        reason TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started REAL NOT NULL,
        ended REAL,
        bytes INTEGER NOT NULL,
        size INTEGER NOT NULL,
        UNIQUE (person, request)
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state);
    """,
)
