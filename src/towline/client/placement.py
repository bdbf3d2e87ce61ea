"""Remembers where a tree was put, so that the same command finds the same place again.

cp(1) puts a tree under the name that was given, or inside when a folder of that name is there. A transfer makes that
folder itself; run again after an interrupt, or to check that all is the same, it must not go inside then.
"""

from __future__ import annotations

import json
import os

from towline.trust.files import folder_lock, read_private, write_private

_FILE = "placements.json"
_KEPT = 1000


class Placements:
    """A small file in the client's folder: (alias, verb, local, remote) -> whether the tree went inside."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._path = os.path.join(home, _FILE)

    def find(self, alias: str, verb: str, local: str, remote: str) -> bool | None:
        """What was decided the last time, None when there was none."""
        value = self._read().get(_key(alias, verb, local, remote))
        return value if isinstance(value, bool) else None

    def note(self, alias: str, verb: str, local: str, remote: str, inside: bool) -> None:
        """Remember a decision."""
        with folder_lock(self._home):
            known = self._read()
            known.pop(_key(alias, verb, local, remote), None)
            known[_key(alias, verb, local, remote)] = inside
            kept = dict(list(known.items())[-_KEPT:])
            write_private(self._path, json.dumps(kept, indent=0).encode())

    def _read(self) -> dict[str, object]:
        raw = read_private(self._path)
        try:
            content = json.loads(raw) if raw is not None else {}
        except ValueError:
            content = {}  # only a memory: without it the target is looked at again
        return content if isinstance(content, dict) else {}


def _key(alias: str, verb: str, local: str, remote: str) -> str:
    return "\0".join((alias, verb, os.path.abspath(local), remote))
