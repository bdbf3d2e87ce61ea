"""Small texts that a node remembers about itself: its name, the last address it listened on."""

from __future__ import annotations

from towline.store.database import Database


class Settings:
    """Key to text."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value, or `default` when it was never set."""
        row = self._db.row("SELECT value FROM settings WHERE key = ?", (key,))
        return default if row is None else str(row[0])

    def set(self, key: str, value: str) -> None:
        """Keep `value` under `key`."""
        self._db.execute(
            "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def remove(self, key: str) -> None:
        """Forget `key`, if it was set."""
        self._db.execute("DELETE FROM settings WHERE key = ?", (key,))

    def all(self) -> dict[str, str]:
        """Everything, by key."""
        return {str(key): str(value) for key, value in self._db.rows("SELECT key, value FROM settings")}
