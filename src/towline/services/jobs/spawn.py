"""How a job's process is started: its own session and group, nothing inherited but its three descriptors."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
import subprocess
import termios
from dataclasses import dataclass

from towline.base.errors import CommandNotFound, LimitExceeded, NotADirectory, NotExecutable, NotFound, TowlineError
from towline.base.text import printable

ORIGINAL_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)


@dataclass(slots=True)
class Spawned:
    """A process with our ends of its pipes (None: none), or the terminal's master in `stdin` and `stdout` both."""

    process: subprocess.Popen[bytes]
    pidfd: int
    stdin: int | None
    stdout: int
    stderr: int | None


def spawn(
    argv: list[str], *, program: str, cwd: str, env: dict[str, str], stdin: bool, size: tuple[int, int] | None
) -> Spawned:
    """Start `argv`; with `size` (rows, columns) on a terminal of its own.

    Raises CommandNotFound, NotExecutable, NotFound (the folder), LimitExceeded.
    """
    try:
        spawned = _on_terminal(argv, program, cwd, env, size) if size else _on_pipes(argv, program, cwd, env, stdin)
    except OSError as error:
        raise _said(error, argv[0], cwd)
    try:
        resource.prlimit(spawned.process.pid, resource.RLIMIT_NOFILE, ORIGINAL_FILES)
    except OSError:
        pass  # it has ended already
    return spawned


def resize(master: int, rows: int, columns: int) -> None:
    """Tell the terminal its size; the foreground group gets SIGWINCH (ioctl_tty(2))."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _on_pipes(argv: list[str], program: str, cwd: str, env: dict[str, str], stdin: bool) -> Spawned:
    process = subprocess.Popen(
        argv,
        executable=program or None,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    ends = [_own(process.stdin.fileno()) if process.stdin else None]
    ends += [_own(process.stdout.fileno()), _own(process.stderr.fileno())]
    for file in (process.stdin, process.stdout, process.stderr):
        if file is not None:
            file.close()
    process.stdin = process.stdout = process.stderr = None
    stdout = ends[1]
    assert stdout is not None
    return Spawned(process, os.pidfd_open(process.pid), ends[0], stdout, ends[2])


def _own(descriptor: int) -> int:
    """A descriptor that nobody closes behind our back, not blocking, not inherited."""
    own = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.set_blocking(own, False)
    return own


def _on_terminal(
    argv: list[str], program: str, cwd: str, env: dict[str, str], size: tuple[int, int] | None
) -> Spawned:
    master, slave = os.openpty()
    try:
        if size is not None:
            resize(master, *size)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        # The keeper has one thread, so that code may run between fork and exec.
        process = subprocess.Popen(
            argv,
            executable=program or None,
            cwd=cwd,
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509
        )
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    os.set_blocking(master, False)
    return Spawned(process, os.pidfd_open(process.pid), master, master, None)


def _said(error: OSError, command: str, cwd: str) -> TowlineError:
    shown = printable(command, limit=200)
    if error.filename == cwd and not os.path.isdir(cwd):
        kind = NotADirectory if isinstance(error, NotADirectoryError) else NotFound
        return kind(f"The folder {printable(cwd, limit=200)} to run in does not exist on the node.")
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return CommandNotFound(f"The node has no command {shown!r}.")
        case PermissionError():
            return NotExecutable(f"The node may not execute {shown!r}.")
        case BlockingIOError():
            return LimitExceeded("The node's system permits no more processes.")
        case _:
            return NotExecutable(f"{shown!r} cannot be executed: {error.strerror}.")
