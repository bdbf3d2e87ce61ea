"""One job in the keeper: its process, pipes or terminal, numbered input, and the spool that its output goes to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from towline.base.errors import BadMessage, JournalFull
from towline.base.limits import Limit
from towline.journal.spool import SpoolWriter
from towline.protocol.codec import Header
from towline.services.jobs import spawn
from towline.services.jobs.modes import Modes
from towline.services.jobs.tail import Tail
from towline.services.jobs.taps import LARGE_PIPE, READ_BYTES, Taps

STDOUT, STDERR, CONTROL = 1, 2, 3
DRAIN_SECONDS = 0.5  # for pipes that somebody else still holds when the command has ended
# What is in the pipes of a command that has ended is kept over the limit: nobody may ever come to make room for it.
LAST_WORDS = 2 * LARGE_PIPE + 2 * READ_BYTES
NUDGE_SECONDS = 0.1  # long enough for a program to notice the one size before the other
RETRY_SECONDS = 1.0  # after a disk error
WRITERS = Limit("job_writers", 1000, "writers", "how far each one's input has got is remembered")
WRITER_SECONDS = 24 * 3600.0  # in which whoever lost the connection comes back, or is a writer no more
_END_OF_TRANSMISSION = b"\x04"


class House(Protocol):
    """What a job tells, and asks, the keeper."""

    loop: asyncio.AbstractEventLoop

    def room(self, asking: Held) -> int:
        """Bytes that all spools together may still grow by, now that this one is about to."""

    def grown(self, held: Held) -> None:
        """There is more output."""

    def input_moved(self, held: Held, writer: str) -> None:
        """Input was passed on to the command."""

    def ended(self, held: Held, ending: Header) -> None:
        """It is over, and the spool says so."""


class Held:
    """A running job. `spec` is what the node asked for, already checked by it; `spool` is new."""

    def __init__(self, house: House, spool: SpoolWriter, spec: dict[str, Any]) -> None:
        self.id = str(spec["job"])
        self.house = house
        self.bytes = [0, 0, 0]
        self.told = 0  # of them, in the last word to the node
        self.tell_at = 0.0  # when the next one may follow
        self.exit: tuple[int | None, int | None] | None = None  # (status, signal)
        self.written: dict[str, int] = {}  # per writer: bytes of input that the command's pipe has taken
        self.eof = False  # its input is ended
        self.goodbye = True  # as the node says: it need not be asked when another one takes over
        self.modes = Modes() if spec.get("size") else None
        self.tail = Tail((0, 0))
        self.spool = spool
        self._queued: dict[str, int] = {}  # per writer: bytes that have come
        self._heard: dict[str, float] = {}  # … and when the last ones did
        self._input: deque[tuple[str, memoryview]] = deque()
        self._ending_input = self._writing = False
        self._stalled: tuple[int, bytes] | None = None
        self._last_words = 0  # bytes that the spool takes though it is full
        self._timers: list[asyncio.TimerHandle] = []
        self._timed_out = self._left_open = self._given_up = self._over = False
        self._size: tuple[int, int] | None = None
        # The spool's folder is there before the process, so that nobody takes it for one that never began; what is
        # written into it can wait until the process is on its way.
        self._spawn(spec)
        started = {"start": {"argv": spec["argv"], "time": time.time(), "pid": self.pid}}
        try:
            self.spool.release(self.spool.append(CONTROL, json.dumps(started).encode(), always=True))
        except OSError:
            self._undo()
            raise

    def __repr__(self) -> str:
        return f"<Held {self.id} pid={self.pid} exit={self.exit} stalled={self._stalled is not None}>"

    def _spawn(self, spec: dict[str, Any]) -> None:
        size = spec.get("size")
        self._size = (int(size[0]), int(size[1])) if size else None
        self.tail.size = self._size or (0, 0)
        spawned = spawn.spawn(
            spec["argv"],
            program=str(spec.get("program", "")),
            cwd=str(spec["cwd"]),
            env=spec["env"],
            stdin=bool(spec.get("stdin")),
            size=self._size,
        )
        self.pid, self._reap, self._pidfd, self._stdin = spawned.pid, spawned.reap, spawned.pidfd, spawned.stdin
        outputs = {STDOUT: spawned.stdout}
        if spawned.stderr is not None:
            outputs[STDERR] = spawned.stderr
        self._taps = Taps(self.house.loop, outputs, self._keep, self._closed, terminal=self.modes is not None)
        self._taps.listen()
        self.house.loop.add_reader(self._pidfd, self._on_exit)
        if spec.get("timeout"):
            self._later(float(spec["timeout"]), self._on_timeout, float(spec.get("grace", 5.0)))

    def _undo(self) -> None:
        """There is no room for a word about it: then it does not run either."""
        os.killpg(self.pid, signal.SIGKILL)
        self._reap()
        self._over = True
        self._taps.pause()
        if self._stdin in self._taps.open.values():  # a terminal has one descriptor for both
            self._forget_input()
        self._close_input()
        self.house.loop.remove_reader(self._pidfd)
        for descriptor in {*self._taps.open.values(), self._pidfd}:
            os.close(descriptor)
        self.spool.close()

    def describe(self) -> Header:
        """What a node that comes back must know."""
        end, size = self.spool.next_seq, sum(self.bytes)
        return {"job": self.id, "pid": self.pid, "end": end, "bytes": size, "goodbye": self.goodbye}

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of its terminal."""
        return self._size or (0, 0)

    # --- output ---

    def _keep(self, kind: int, data: memoryview | bytes) -> None:
        """`data` is of use only during this call."""
        try:
            seq = self._append(kind, data)
        except JournalFull:
            self._stall(kind, bytes(data))
            return
        except OSError:
            self._stall(kind, bytes(data))
            self._later(RETRY_SECONDS, self.resume)
            return
        self.bytes[kind] += len(data)
        if self.modes is not None:
            before = self.modes.alternate > 0
            self.modes.feed(bytes(data))
            self.tail.note(seq, len(data), before=before, after=self.modes.alternate > 0)
        self.house.grown(self)

    def _append(self, kind: int, data: memoryview | bytes) -> int:
        try:
            return self.spool.append(kind, data, limit=self.spool.size + self.house.room(self))
        except JournalFull:
            if len(data) > self._last_words:
                raise
            self._last_words -= len(data)
            return self.spool.append(kind, data, always=True)

    def _stall(self, kind: int, data: bytes) -> None:
        self._stalled = (kind, data)
        self._taps.pause()

    @property
    def stalled(self) -> bool:
        """Whether the command waits for room in the spool."""
        return self._stalled is not None

    def resume(self) -> None:
        """There may be room again."""
        if self._stalled is None or self._over:
            return
        kind, data = self._stalled
        self._stalled = None
        self._keep(kind, data)
        if self._stalled is None:
            self._taps.listen()
            if self.exit is not None:
                self._drain()

    def release(self, upto: int) -> None:
        """Nobody needs the output up to and including `upto`."""
        self.spool.release(upto)
        self.resume()

    def _closed(self, kind: int, descriptor: int) -> None:
        if descriptor == self._stdin:  # a terminal has one descriptor for both
            self._forget_input()
        os.close(descriptor)
        if not self._taps.open and self.exit is not None:
            self._finish()

    # --- input ---

    def position(self, writer: str) -> int:
        """How much of a writer's input the command has taken; that is remembered now. Raises LimitExceeded.

        To forget one would be to take its bytes twice when it comes back. So only those go that were silent for very
        long, and have nothing on its way; whoever is one too many is refused.
        """
        now = self.house.loop.time()
        if writer not in self._queued:
            if len(self._queued) >= WRITERS.value:
                silent = [each for each, at in self._heard.items() if at < now - WRITER_SECONDS]
                for each in silent:
                    if self._queued[each] == self.written.get(each, 0):
                        del self._queued[each], self._heard[each]
                        self.written.pop(each, None)
            WRITERS.check(len(self._queued) + 1)
            self._queued[writer] = 0
        self._heard[writer] = now
        return self.written.get(writer, 0)

    def input(self, writer: str, at: int, data: bytes, *, end: bool) -> None:
        """Bytes of a writer from its position `at` on; what was taken before is skipped. Raises BadMessage."""
        if writer not in self._queued:  # forgotten since we told where it is: it is there still
            self._queued[writer] = self.written[writer] = at
        queued = self._queued[writer]
        if at > queued:
            raise BadMessage(f"Input from {at} on was sent; {queued} is next.")
        fresh = memoryview(data)[queued - at :]
        self._queued[writer] = queued + len(fresh)
        self._heard[writer] = self.house.loop.time()
        if len(fresh):
            self._input.append((writer, fresh))
        self._ending_input = self._ending_input or end
        self._write()

    def resize(self, rows: int, columns: int) -> None:
        """The terminal has another size. The same one again is a wish to be painted anew."""
        if self._size == (rows, columns):
            self.nudge()
            return
        self._size = (rows, columns)
        self._apply_size()

    def nudge(self) -> None:
        """Have a full-screen program repaint itself: it does so for a new size, not for the one it has."""
        if self._size is not None and self.modes is not None and self._stdin is not None:
            rows, columns = self._size
            self._apply((rows, columns - 1 if columns > 1 else 2))
            self._later(NUDGE_SECONDS, self._apply_size)

    def _apply_size(self) -> None:
        if self._size is not None:
            self._apply(self._size)

    def _apply(self, size: tuple[int, int]) -> None:
        if self.modes is not None and self._stdin is not None:
            spawn.resize(self._stdin, *size)
            self.tail.size = size

    def _write(self) -> None:
        while self._input:
            writer, data = self._input[0]
            taken = self._write_some(data)
            if not taken:
                return
            self.written[writer] = self.written.get(writer, 0) + taken
            self._input.popleft()
            if taken < len(data):
                self._input.appendleft((writer, data[taken:]))
            self.house.input_moved(self, writer)
        self._stop_writing()
        if self._ending_input and not self.eof:
            self._end_input()

    def _write_some(self, data: memoryview) -> int:
        if self._stdin is None:
            return len(data)  # the command does not read any more; its input goes nowhere, as in a shell's pipe
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self.house.loop.add_writer(self._stdin, self._write)
            return 0
        except OSError:  # EPIPE, or a terminal that is gone
            if self.modes is None:
                self._close_input()
            return len(data)

    def _stop_writing(self) -> None:
        if self._writing and self._stdin is not None:
            self._writing = False
            self.house.loop.remove_writer(self._stdin)

    def _end_input(self) -> None:
        if self.modes is None:
            self._close_input()
        elif not self._write_some(memoryview(_END_OF_TRANSMISSION)):
            return  # the terminal is full of what was typed: `_write` comes back here
        self.eof = True
        for writer in self._queued:
            self.house.input_moved(self, writer)

    def _close_input(self) -> None:
        if self._stdin is not None:
            descriptor = self._stdin
            self._forget_input()
            os.close(descriptor)

    def _forget_input(self) -> None:
        self._stop_writing()
        self._stdin = None

    # --- the end ---

    def signal(self, number: int, kill_after: float | None) -> bool:
        """Signal the process group; SIGKILL after `kill_after` seconds. False when it has ended.

        The leader is not reaped before `_finish`, so its group's number belongs to nobody else (pid recycling).
        """
        if self._over:
            return False
        try:
            os.killpg(self.pid, number)
            if number in {signal.SIGTERM, signal.SIGHUP, signal.SIGKILL}:
                os.killpg(self.pid, signal.SIGCONT)  # a stopped one must be able to die
        except (ProcessLookupError, PermissionError):
            pass  # none of the group is left, or it has become somebody else
        if kill_after is not None and number != signal.SIGKILL:
            self._later(kill_after, self.signal, int(signal.SIGKILL), None)
        return True

    def _on_timeout(self, grace: float) -> None:
        if self.exit is None:
            self._timed_out = True
            self.signal(signal.SIGTERM, grace)

    def _on_exit(self) -> None:
        info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is None:
            return
        self.house.loop.remove_reader(self._pidfd)
        exited = info.si_code == os.CLD_EXITED
        self.exit = (info.si_status, None) if exited else (None, info.si_status)
        self._drain()

    def _drain(self) -> None:
        """It has ended: take what is in its pipes; who else holds them gets a moment."""
        self._taps.take_all()
        if not self._taps.open:
            self._finish()
        elif not self._over:
            self._later(DRAIN_SECONDS, self._let_go)

    def _let_go(self) -> None:
        self._taps.take_all()
        if self._over:
            return
        if self._stalled is not None and not self._given_up:
            self._given_up, self._last_words = True, LAST_WORDS
            self.resume()
            return  # `resume` comes back here
        if self._stalled is not None and len(self._stalled[1]) <= self._last_words:
            return  # the disk has failed: `resume` tries again
        self._stalled = None  # the command's own output is in; this is of somebody who prints on
        self._left_open = bool(self._taps.open)
        for kind in list(self._taps.open):
            self._taps.close(kind)

    def _finish(self) -> None:
        if self._over or self.exit is None:
            return
        self._over = True
        for timer in self._timers:
            timer.cancel()
        self._close_input()
        status, number = self.exit
        ending: Header = {"status": status, "signal": number, "bytes": sum(self.bytes), "time": time.time()}
        if self._timed_out:
            ending["timed_out"] = True
        if self._left_open:
            ending["left_open"] = True
        try:
            self.spool.append(CONTROL, json.dumps({"exit": ending}).encode(), always=True)
        except OSError as error:
            ending["unwritten"] = error.strerror or "disk error"
        self.spool.close()
        self.house.ended(self, ending)
        self._reap()  # reaped only now; it has ended, so this does not wait
        os.close(self._pidfd)

    def _later(self, seconds: float, act: Callable[..., object], *args: object) -> None:
        self._timers.append(self.house.loop.call_later(seconds, act, *args))
