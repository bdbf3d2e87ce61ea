"""Processes that a run starts: each is ended with the run, with everything that it started itself.

The run becomes a child subreaper (prctl(2)), so that daemons that forked away from their parents come back to it as
orphans and are found: at the end every descendant of this process is ended, and none may be left.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 3.0  # seconds that a process has between SIGTERM and SIGKILL


class Failed(Exception):
    """A command of a contender failed; the text says which and what it said."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended: wall-clock and processor seconds, its largest resident set in KiB, what it printed."""

    seconds: float
    cpu: float
    resident: int
    output: bytes


class Processes:
    """What this run has started."""

    def __init__(self) -> None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start something that runs until the end of the run, or until `stop`."""
        process = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (one call of prctl, and no lock that a thread could hold)
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None,
        output: bool = False, timeout: float = 300.0, stdin: bytes = b"", ok: tuple[int, ...] = (0,),
    ) -> Finished:  # fmt: skip
        """Run a command to its end and measure it. Raises Failed, with the last words of its standard error."""
        read_fd = os.memfd_create("stdout")
        error_fd = os.memfd_create("stderr")
        in_fd = os.memfd_create("stdin")
        os.write(in_fd, stdin)
        os.lseek(in_fd, 0, os.SEEK_SET)
        try:
            with open(os.devnull, "wb") as nothing:
                begun = time.perf_counter()
                process = subprocess.Popen(
                    argv, env=env, cwd=cwd, stdin=in_fd, stdout=read_fd if output else nothing, stderr=error_fd,
                    process_group=0,
                )  # fmt: skip
                self._started.append(process)
                status, usage = self._reap(process, begun + timeout)
                seconds = time.perf_counter() - begun
            if status not in ok:
                words = os.pread(error_fd, 2000, 0).decode(errors="replace").strip()
                raise Failed(f"{os.path.basename(argv[0])} ended with {status}: {words[-400:]}")
            size = os.fstat(read_fd).st_size
            return Finished(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.pread(read_fd, size, 0))
        finally:
            for fd in (read_fd, error_fd, in_fd):
                os.close(fd)

    def _reap(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[int, resource.struct_rusage]:
        """Wait for the end with its usage; a poll would cost precision, so a pidfd says when."""
        fd = os.pidfd_open(process.pid)
        try:
            if not select.select([fd], [], [], max(deadline - time.perf_counter(), 0.0))[0]:
                self.stop(process)
                raise Failed(f"{os.path.basename(str(process.args[0]))} did not end in time")
        finally:
            os.close(fd)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._started.remove(process)
        return process.returncode, usage

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End one process and its group."""
        if process in self._started:
            self._started.remove(process)
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGTERM)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                _signal_group(process.pid, signal.SIGKILL)
                process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass  # what it was still to be told goes with it

    def end_all(self) -> list[str]:
        """End whatever is left; the names of those that would not go (there should be none)."""
        for process in list(self._started):
            if process.poll() is None:
                _signal_group(process.pid, signal.SIGTERM)
        for process in list(self._started):
            self.stop(process)
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _PATIENCE
            while (left := descendants(os.getpid())) and time.monotonic() < deadline:
                for pid in left:
                    _signal(pid, number)
                _collect()
                time.sleep(0.02)
        _collect()
        return [_name(pid) for pid in descendants(os.getpid())]


def descendants(root: int) -> list[int]:
    """The pids below `root`, zombies left out."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def cpu_seconds(root: int) -> float:
    """Processor seconds of a process, of all below it, and of those that it has reaped."""
    total = 0
    for pid in [root, *descendants(root)]:
        if fields := _stat(pid):
            total += sum(int(field) for field in fields[11:15])  # utime stime cutime cstime, proc_pid_stat(5)
    return total / _TICKS


def words_of(pid: int) -> list[bytes]:
    """What a process was started with; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def resident_kib(pid: int, field: str = "VmRSS") -> int:
    """VmRSS or VmHWM of a process in KiB (proc_pid_status(5))."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def proportional_kib(pid: int) -> int:
    """Pss of a process in KiB: shared pages count for each sharer only in part; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass  # sshd's children come and go
    return 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return f"{file.read().strip()} ({pid})"
    except OSError:
        return str(pid)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it went by itself


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass


def _collect() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
