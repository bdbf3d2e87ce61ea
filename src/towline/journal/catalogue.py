"""The small file beside the segments: which epochs there were and where each began, and the salt of the id keys.

Written whole, by rename. A damaged or missing one is rebuilt from the segment headers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

NAME = "catalogue.json"
EPOCHS_KEPT = 64  # restores of one log that are remembered; a reader from before them gets `unknown-epoch`


@dataclass(slots=True)
class Catalogue:
    """`epochs` are `(epoch, first seq)`, oldest first."""

    salt: bytes
    epochs: list[tuple[int, int]] = field(default_factory=list)

    def store(self, folder: str) -> None:
        """Make it durable."""
        document = {
            "v": 1,
            "salt": self.salt.hex(),
            "epochs": [[f"{epoch:016x}", first] for epoch, first in self.epochs],
        }
        write_whole(os.path.join(folder, NAME), json.dumps(document).encode())

    @classmethod
    def load(cls, folder: str) -> Catalogue | None:
        """The stored one, or None."""
        try:
            with open(os.path.join(folder, NAME), "rb") as file:
                document = json.loads(file.read(1 << 20))
            epochs = [(int(epoch, 16), int(first)) for epoch, first in document["epochs"]]
            return cls(bytes.fromhex(document["salt"]), epochs)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None


def write_whole(path: str, data: bytes) -> None:
    """Create or replace a file so that after a crash it is the old or the new one. Mode 0600."""
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
