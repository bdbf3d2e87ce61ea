"""Folders to work in, and an eye on leaked descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from towline.services.files.tree import Root


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def root(share: Path) -> Iterator[Root]:
    with Root.open(str(share)) as opened:
        yield opened


@pytest.fixture
def folder(share: Path) -> Iterator[int]:
    fd = os.open(share, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """What a test opened is closed at its end. (The module's own pipes and logs were there before.)"""
    before = open_descriptors()
    yield
    leaked = {fd: path for fd, path in open_descriptors().items() if fd not in before and "/share" in path}
    assert not leaked


def open_descriptors() -> dict[int, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # the listing's own
    return found


def dig(root: Root, name: str, levels: int, *, furnish: bool = False) -> None:
    """`levels` folders in each other; with `furnish` a file f and a symlink a beside each."""
    fd = root.folder("")
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        if furnish:
            os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            os.symlink("t", "a", dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody whom permission bits bind; root is not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
