"""One node per data folder."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests import kit

from towline.base.errors import Conflict, InUse
from towline.store.lock import DataLock, is_running, lock_for_node, turn

_HOLDER = """
import sys
from towline.store.lock import DataLock
lock = DataLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_node_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    assert not is_running(folder)
    with DataLock(folder):
        assert is_running(folder)
        assert stat.S_IMODE(os.stat(tmp_path / "data" / "node.lock").st_mode) == 0o600
        with pytest.raises(InUse, match=rf"running on .*data already \(process {os.getpid()}\)"):
            DataLock(folder)
    assert not is_running(folder)
    again = DataLock(folder)
    again.release()
    again.release()
    again.acquire()
    assert is_running(folder)
    again.release()


def test_the_kernel_frees_the_lock_of_a_killed_node(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_running(str(tmp_path))
    with pytest.raises(InUse, match=f"process {holder.pid}"):
        DataLock(str(tmp_path))
    holder.kill()
    holder.communicate(timeout=30)
    assert not is_running(str(tmp_path))  # whatever its file says
    DataLock(str(tmp_path)).release()


def test_looking_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    folder = str(tmp_path)
    DataLock(folder).release()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_running(folder)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            DataLock(folder).release()
    finally:
        stop.set()
        for looker in lookers:
            looker.join(20)


def test_a_node_that_starts_waits_for_whoever_administers_the_stopped_one(tmp_path: Path) -> None:
    folder = str(tmp_path)
    taken: list[DataLock] = []
    starting = threading.Thread(target=lambda: taken.append(lock_for_node(folder)))
    with turn(folder), DataLock(folder):
        starting.start()
        while descriptors_of(os.getpid(), "turn.lock") < 2:
            assert starting.is_alive(), "it did not wait"
    starting.join(20)
    assert is_running(folder)
    taken[0].release()


def test_two_verbs_that_administer_a_stopped_node_take_turns(tmp_path: Path) -> None:
    """Neither takes the other for the node."""
    with kit.running_node(tmp_path) as node:
        pass
    data = str(node.data)
    with turn(data), DataLock(data):
        second = subprocess.Popen(
            [*kit.TOW, "invite", "ann", "--data", data],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=kit.environment(tmp_path),
            text=True,
        )
        while not descriptors_of(second.pid, "turn.lock"):
            assert second.poll() is None, second.communicate()
    said, _ = second.communicate(timeout=kit.DEADLINE)
    assert (second.returncode, said[:5]) == (0, "tow1-"), said


def descriptors_of(pid: int, name: str) -> int:
    """How many open files of that name a process has."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += Path(os.readlink(link)).name == name
    return found


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with DataLock(str(tmp_path)):
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
    assert not is_running(str(tmp_path))
    child.communicate(timeout=30)


def test_a_folder_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert not is_running(str(tmp_path / "data"))
    with pytest.raises(Conflict):
        DataLock(str(tmp_path / "data"))


def test_only_one_file_imports_sqlite3() -> None:
    import towline

    root = Path(towline.__file__).parent
    importers = [
        path.relative_to(root).as_posix() for path in root.rglob("*.py") if "import sqlite3" in path.read_text()
    ]
    assert importers == ["store/database.py"]
