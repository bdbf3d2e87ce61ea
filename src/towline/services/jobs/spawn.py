"""How a job's process is started: its own session and group, nothing inherited but its three descriptors."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import resource
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from towline.base.errors import (
    CommandNotFound,
    LimitExceeded,
    NotADirectory,
    NotExecutable,
    NotFound,
    PermissionDenied,
    TowlineError,
)
from towline.base.text import printable

_files = resource.getrlimit(resource.RLIMIT_NOFILE)  # that a command may have open: soft and hard limit


def permit_files(soft: int) -> None:
    """How many files a command may have open, until it asks for more (getrlimit(2))."""
    global _files  # one for the process, said once when it starts
    _files = (soft, _files[1])


@dataclass(slots=True)
class Spawned:
    """A process with our ends of its pipes (None: none), or the terminal's master in `stdin` and `stdout` both."""

    pid: int
    reap: Callable[[], object]
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
    if not argv[0]:
        raise CommandNotFound("The command's name is empty.")
    try:
        spawned = _on_terminal(argv, program, cwd, env, size) if size else _on_pipes(argv, program, cwd, env, stdin)
    except OSError as error:
        raise _said(error, argv[0], cwd)
    try:
        resource.prlimit(spawned.pid, resource.RLIMIT_NOFILE, _files)
    except OSError:
        pass  # it has ended already
    return spawned


def resize(master: int, rows: int, columns: int) -> None:
    """Tell the terminal its size; the foreground group gets SIGWINCH (ioctl_tty(2))."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _on_pipes(argv: list[str], program: str, cwd: str, env: dict[str, str], stdin: bool) -> Spawned:
    ours: list[int | None] = [None, None, None]
    theirs: list[int] = []
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    if not stdin:
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
    try:
        for number in (0, 1, 2) if stdin else (1, 2):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            own, other = (writing, reading) if number == 0 else (reading, writing)
            ours[number] = own
            theirs.append(other)
            os.set_blocking(own, False)
            actions.append((os.POSIX_SPAWN_DUP2, other, number))
        pid = _posix_spawn(program or argv[0], argv, cwd, env, actions)
    except BaseException:
        theirs += [own for own in ours if own is not None]
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    stdout = ours[1]
    assert stdout is not None
    return Spawned(pid, functools.partial(os.waitpid, pid, 0), os.pidfd_open(pid), ours[0], stdout, ours[2])


def _posix_spawn(program: str, argv: list[str], cwd: str, env: dict[str, str], actions: list[Any]) -> int:
    """The pid. What `subprocess` does, in half the time: nothing is left to be closed in the child, because all our
    descriptors are close-on-exec; the folder is changed here, because the keeper has one thread and needs none."""
    found = [program]
    if not os.path.dirname(program):
        found = [os.path.join(folder, program) for folder in os.get_exec_path(env)]
    problem: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    os.chdir(cwd)
    try:
        for path in found:
            if len(found) > 1 and not os.path.exists(path):
                continue
            try:
                return os.posix_spawn(
                    path, argv, env, file_actions=actions, setsid=True, setsigmask=(),
                    setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
                )  # fmt: skip
            except BlockingIOError:
                raise
            except OSError as error:
                problem = error
        raise problem
    finally:
        os.chdir("/")


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
    return Spawned(process.pid, process.wait, os.pidfd_open(process.pid), master, master, None)


def _said(error: OSError, command: str, cwd: str) -> TowlineError:
    shown = printable(command, limit=200)
    if error.filename == cwd and not os.path.isdir(cwd):
        if isinstance(error, NotADirectoryError):
            return NotADirectory(f"{printable(cwd, limit=200)} on the node is no folder to run in.")
        return NotFound(f"The folder {printable(cwd, limit=200)} to run in does not exist on the node.")
    if error.filename == cwd and not os.access(cwd, os.X_OK):
        return PermissionDenied(f"The node's user may not enter the folder {printable(cwd, limit=200)}.")
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return CommandNotFound(f"The node has no command {shown!r}.")
        case PermissionError():
            return NotExecutable(f"The node may not execute {shown!r}.")
        case BlockingIOError():
            return LimitExceeded("The node's system permits no more processes.")
        case _:
            return NotExecutable(f"{shown!r} cannot be executed: {error.strerror}.")
