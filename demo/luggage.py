"""What travels: a copy of this working tree, and one large generated file. The same tree, the same luggage."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator

from blake3 import blake3

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LARGE = "generated.bin"
_CHUNK = 4 << 20
_CACHES = {".git", ".venv", "__pycache__", "build", "dist", "node_modules"}


def pack(folder: str, size: int, seed: int) -> dict[str, str]:
    """Fill `folder`; the BLAKE3 digest of every file in it by its path. A copy, because people work on the tree."""
    for path in working_tree():
        source, target = os.path.join(ROOT, path), os.path.join(folder, "tree", path)
        try:
            if stat.S_ISREG(os.lstat(source).st_mode):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        except FileNotFoundError:
            continue  # listed and removed meanwhile
    generate(os.path.join(folder, LARGE), size, seed)
    return digests(folder)


def working_tree() -> list[str]:
    """The files of this working tree as git sees them; without git all but caches."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        listed = b""  # no git, or an unpacked copy
    found = sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})
    return found or sorted(os.path.relpath(path, ROOT) for path in _walk(ROOT))


def generate(path: str, size: int, seed: int) -> None:
    """A file that nothing can compress: the output of BLAKE3 for a seed."""
    source = blake3(f"towline demo {seed}".encode())
    with open(path, "wb") as file:
        file.writelines(source.digest(length=min(_CHUNK, size - at), seek=at) for at in range(0, size, _CHUNK))


def digests(folder: str) -> dict[str, str]:
    """The BLAKE3 digest of every file below `folder` by its relative path."""
    found = {}
    for path in _walk(folder):
        content = blake3()
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        found[os.path.relpath(path, folder)] = content.hexdigest()
    return found


def _walk(folder: str) -> Iterator[str]:
    for at, folders, files in os.walk(folder):
        if folder == ROOT:
            folders[:] = [
                each for each in folders if each not in _CACHES and not each.endswith(("_cache", ".egg-info"))
            ]
        yield from (os.path.join(at, each) for each in files)
