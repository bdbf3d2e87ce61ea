"""Sources and touched memory. The first touch of memory in a virtual machine costs several times the second."""

from __future__ import annotations

import os

from bench.harness import MIB, Bench, remove

BIG = "big"
TREE = "tree"
SMALL_SIZE = 4096


def big_file(bench: Bench, name: str = BIG, size: int | None = None) -> str:
    """A file of random bytes in `source`; made once."""
    path = bench.path("source", name)
    wanted = bench.scale.bulk if size is None else size
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            left = wanted
            while left:
                file.write(os.urandom(min(left, MIB)))
                left -= min(left, MIB)
    return path


def small_tree(bench: Bench) -> str:
    """A folder of small files with different content, 100 a folder."""
    root = bench.path("source", TREE)
    if not os.path.exists(root):
        for number in range(bench.scale.files):
            folder = os.path.join(root, f"{number // 100:03d}")
            if number % 100 == 0:
                os.makedirs(folder)
            with open(os.path.join(folder, f"{number:05d}"), "wb") as file:
                file.write(os.urandom(SMALL_SIZE))
    return root


def touch_memory(bench: Bench, size: int) -> None:
    """Write and free as many bytes as targets will take, so that no contender pays for the machine's first touch."""
    path = bench.path("touched")
    block = b"\x5a" * MIB
    with open(path, "wb") as file:
        file.writelines(block for _ in range(size // MIB))
    remove(path)


def same_bytes(one: str, other: str) -> bool:
    """Whether two files, or two folders of files, are equal (checked once, outside of the timing)."""
    if os.path.isdir(one):
        names = sorted(os.listdir(one))
        return names == sorted(os.listdir(other)) and all(
            same_bytes(os.path.join(one, name), os.path.join(other, name)) for name in names
        )
    if os.path.getsize(one) != os.path.getsize(other):
        return False
    with open(one, "rb") as left, open(other, "rb") as right:
        while block := left.read(MIB):
            if block != right.read(MIB):
                return False
    return True
