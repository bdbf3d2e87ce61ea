"""What became of a job: as its keeper says, as its spool says, or `lost`. Blocking."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from towline.journal import Record
from towline.journal.spool import SpoolReader, last_record, spool_size
from towline.protocol.codec import Header
from towline.store.jobs import EXITED, KILLED, LOST, JobRow

CONTROL = 3  # the kind of records that are about the job, not from it
GONE = "The process that held it ended."
EXEC_TRIES = 10  # a millisecond each


def last_known(row: JobRow, folder: str) -> JobRow:
    """A job that nobody holds: its spool has the last word. Without one it is lost, and what is left of it ended."""
    last = last_record(folder)
    size = spool_size(folder)
    if last is not None and last.kind == CONTROL:
        with contextlib.suppress(ValueError, AttributeError):
            ending = json.loads(last.payload).get("exit")
            if isinstance(ending, dict):
                return ended(row, ending, size, row.pid)
    pid = row.pid or _pid_in(folder)
    end_orphan(row.id, pid)
    return row.ending(LOST, reason=GONE, ended=time.time(), size=size, pid=pid)


def ended(row: JobRow, ending: Header, size: int, pid: int) -> JobRow:
    """The row of a job whose keeper says how it ended."""
    status, number = ending.get("status"), ending.get("signal")
    reason = "timed out" if ending.get("timed_out") else "output left open" if ending.get("left_open") else ""
    moment, printed = ending.get("time"), ending.get("bytes")
    return row.ending(
        KILLED if isinstance(number, int) else EXITED,
        status=status if isinstance(status, int) else None,
        signal=number if isinstance(number, int) else None,
        reason=reason,
        pid=pid,
        ended=moment if isinstance(moment, float) else time.time(),
        bytes=printed if isinstance(printed, int) else 0,
        size=size,
    )


def _pid_in(folder: str) -> int:
    """As its first record has it: the keeper, or the node, may have ended before it was in the books. 0 without."""
    reader = SpoolReader(folder)
    try:
        for item in reader.read(1):
            if isinstance(item, Record) and item.kind == CONTROL:
                pid = json.loads(item.payload)["start"]["pid"]
                return pid if isinstance(pid, int) and pid > 0 else 0
    except (OSError, ValueError, TypeError, KeyError):
        pass  # there is none; or a spool of an older keeper, or a damaged one
    finally:
        reader.close()
    return 0


def end_orphan(job: str, pid: int) -> None:
    """A process that nobody holds is ended with its group, if it is still the one that we started: its environment
    says so. It is stopped before that, because a group's number is its own as long as its leader has not ended."""
    if not pid:
        return
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if f"TOWLINE_JOB={job}".encode() in _environment(pid).split(b"\0"):
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            signal.pidfd_send_signal(pidfd, 0)  # it is there still
            os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # it has ended meanwhile
    finally:
        os.close(pidfd)


def _environment(pid: int) -> bytes:
    """Of a running process. In the middle of execve(2) it has none for a moment, and a zombie never has one."""
    for _ in range(EXEC_TRIES):
        with open(f"/proc/{pid}/environ", "rb") as file:
            if environment := file.read():
                return environment
        time.sleep(0.001)
    return b""
