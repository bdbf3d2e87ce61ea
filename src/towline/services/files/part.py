"""An unfinished file beside its target: the data so far, and the durable list of the ranges in it.

    .towline-<id>.part     the bytes, at their places, readable for its owner only
    .towline-<id>.ranges   what of them is durably there, and what is written (see `rangelist`)

`<id>` stands for the target's name and an owner key, so that two people never write into one part. The part gets the
final name when all is there, verified by the caller, and synced; never before. It is deleted by an explicit order
(`abandon`) or after its expiry (`sweep`), not by an error, a cut or an interrupt.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from towline.base.errors import (
    BadMessage,
    Conflict,
    IsADirectory,
    LimitExceeded,
    NoSpace,
    StreamClosed,
    Superseded,
    TowlineError,
    VerificationFailed,
)
from towline.base.limits import MIB
from towline.base.oserrors import disk_error, oserrors
from towline.base.quantity import format_size
from towline.services.files.disk import PERMISSIONS, lstat_at
from towline.services.files.lockedpart import open_locked, part_name, unlock
from towline.services.files.names import quoted
from towline.services.files.rangelist import Listed, Pin, RangeList
from towline.services.files.ranges import LARGEST_FILE, RANGES, Ranges
from towline.services.files.small import SmallFile, SmallFiles, publish_small
from towline.services.files.sweep import EXPIRY_NS, sweep, sweep_now_and_then
from towline.services.files.tree import put_in_place

__all__ = ["EXPIRY_NS", "Part", "Pin", "SmallFile", "SmallFiles", "part_name", "publish_small", "sweep"]


_ZEROS = memoryview(bytes(1 << 20))
_NOTE_EVERY = 1 * MIB  # so much is sent again when the receiver is killed; a note costs about 20 µs


class Part:
    """One unfinished file. Thread-safe: lanes write at once; `checkpoint`, `invalidate` and the ends take turns.

    All methods raise documented errors. After `fence` every use raises Superseded, after `publish`, `abandon` or
    `close` StreamClosed; descriptors are closed only when no call is inside one.
    """

    def __init__(self, folder: int, fd: int, name: str, base: str, pin: Pin, mode: int) -> None:
        self._folder = folder
        self._fd = fd
        self._file = base + ".part"
        self._list = RangeList(folder, base + ".ranges")
        self._mode = mode
        self._there = Ranges()  # written; a crash of this machine may lose what is not in _durable
        self._durable = Ranges()
        self._ever = Ranges()  # where anything other than a hole may be
        self._turn = threading.Condition()  # guards everything below and the ranges
        self._unnoted = 0  # bytes
        self._inside = 0
        self._exclusive = False  # an end is at work
        self._ended: Callable[[], TowlineError] | None = None
        self._sync = threading.Lock()  # one checkpoint or invalidation at a time
        self.name = name
        self.pin = pin
        self.restarted_because: str | None = None

    @classmethod
    def open(cls, dir_fd: int, name: str, *, owner: str, pin: Pin, mode_hint: int = 0o644) -> Part:
        """Open or begin the part of `name` (from `Root.parent`) in the folder `dir_fd`, which stays the caller's.

        A part of another pin, or without a sound range list, is begun anew and `restarted_because` says why. Raises
        InUse while another process (or a part of this one that was not fenced) has it. `mode_hint` are the permission
        bits if `publish` names none; until then the file is its owner's alone.
        """
        base = part_name(name, owner)
        with oserrors(name):
            folder = os.dup(dir_fd)
            fd = -1
            try:
                fd, fresh = open_locked(folder, base + ".part", name)
                part = cls(folder, fd, name, base, pin, mode_hint)
                part._load(fresh)
                if fresh is not None:
                    sweep_now_and_then(folder)
            except BaseException:
                if fd >= 0:
                    os.close(fd)
                os.close(folder)
                raise
        return part

    # --- looking ---

    @property
    def ranges(self) -> Ranges:
        """What is there (a copy)."""
        with self._turn:
            return self._there.copy()

    @property
    def durable(self) -> Ranges:
        """What is durably there (a copy): this may be acknowledged."""
        with self._turn:
            return self._durable.copy()

    @property
    def fd(self) -> int:
        """The descriptor, borrowed: use it under `reading()` when another thread may end the part."""
        with self._turn:
            self._check()
            return self._fd

    @contextmanager
    def reading(self) -> Iterator[int]:
        """The descriptor, safe against `fence` and the other ends, which wait for the block."""
        with self._using() as fd:
            yield fd

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<Part of {quoted(self.name)}: {state}, {self._there.covered} of {self.pin.size} bytes>"

    # --- filling ---

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at `offset`. NoSpace and DiskError keep what went in before them. BadMessage beyond the size."""
        view = memoryview(data)
        end = offset + len(view)
        self._check_bounds(offset, end)
        at = offset
        fd = self._enter()
        try:
            while at < end:
                at += os.pwrite(fd, view[at - offset :] if at > offset else view, at)
        except OSError as error:
            raise disk_error(error, self.name) from error
        finally:
            with self._turn:
                if at > offset:
                    self._there.add(offset, at)
                    self._ever.add(offset, at)
                self._unnoted += at - offset
                due = self._unnoted >= _NOTE_EVERY
            if due:
                self._note()
            self._leave()

    def write_zeros(self, offset: int, length: int) -> None:
        """Zeros at `offset`: a hole where nothing was written before, so that sparse files stay sparse."""
        end = offset + length
        self._check_bounds(offset, end)
        with self._turn:
            written = self._ever.overlaps(offset, end)
        if written:
            for at in range(offset, end, len(_ZEROS)):
                self.write(at, _ZEROS[: end - at])
        elif length:
            with self._using() as fd, oserrors(self.name):
                if os.fstat(fd).st_size < end:
                    os.pwrite(fd, b"\0", end - 1)  # unlike ftruncate it can't cut off what another lane wrote behind
                with self._turn:
                    self._there.add(offset, end)

    def check_room(self) -> None:
        """Raise NoSpace now if what is missing cannot fit. Nothing is reserved: holes stay holes."""
        if self.pin.size < 0:
            return
        with self._using() as fd, oserrors(self.name):
            room = os.fstatvfs(fd)
            free = room.f_bavail * room.f_frsize
            with self._turn:
                missing = self.pin.size - self._there.covered
            if missing > free:
                raise NoSpace(
                    f"{quoted(self.name)} needs {format_size(missing)} more, the disk has {format_size(free)} free; "
                    "make room and run the command again, it goes on where it stopped."
                )

    def checkpoint(self) -> Ranges:
        """Make what was written before this call durable, data first, then the list; returns the durable ranges."""
        with self._sync, self._using() as fd, oserrors(self.name):
            return self._make_durable(fd).copy()

    def invalidate(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take ranges out that turned out wrong; durably, before this returns."""
        bad = list(ranges)
        with self._sync, self._using(), oserrors(self.name):
            with self._turn:
                durable = self._durable.copy()
                for a, b in bad:
                    self._there.discard(a, b)
                    durable.discard(a, b)
            self._list.write(self.pin, durable)
            with self._turn:
                self._durable = durable

    # --- ending ---

    def publish(
        self, *, final_size: int, replace: bool, mode: int | None = None, mtime_ns: int | None = None
    ) -> None:
        """Give the part its permission bits and time, sync it and put it under its final name; then it is ended.

        Raises VerificationFailed when not exactly [0, final_size) is there; Conflict when the target exists and not
        `replace`; IsADirectory when it is a folder. After an error the part is as it was. The bytes are the caller's
        to verify before.
        """
        with self._alone(lambda: StreamClosed("The file was published.")) as fd, oserrors(self.name):
            size = os.fstat(fd).st_size
            if size != final_size or self._there.missing(final_size) or self._there.end > final_size:
                raise VerificationFailed(
                    f"{quoted(self.name)} should have {final_size} bytes; {self._there.covered} are there, "
                    f"in a file of {size}."
                )
            try:
                os.fchmod(fd, (self._mode if mode is None else mode) & PERMISSIONS)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.fsync(fd)
                self._rename(replace)
            except BaseException:
                os.fchmod(fd, 0o600)
                raise
            try:
                self._list.remove()
                os.fsync(self._folder)
            finally:
                self._close()

    def fence(self) -> None:
        """A newer writer takes over: keep what is there durably, close, and refuse every later use (Superseded)."""
        self._end(Superseded)

    def close(self) -> None:
        """Stop for now: keep what is there durably; the part stays to be resumed. Twice is fine."""
        self._end(lambda: StreamClosed("The unfinished file was closed."))

    def abandon(self) -> None:
        """Delete part and list. Only on an explicit order."""
        with self._alone(lambda: StreamClosed("The unfinished file was abandoned.")), oserrors(self.name):
            try:
                self._list.remove()
                os.unlink(self._file, dir_fd=self._folder)
            finally:
                self._close()

    # --- inside ---

    def _load(self, fresh: str | None) -> None:
        """Take over what an earlier part holds durably, or begin anew. `fresh`: the file is new, and why ("")."""
        size = os.fstat(self._fd).st_size
        room = size if self.pin.size < 0 else min(size, self.pin.size)
        durable, written, why = Listed(None, why=fresh) if fresh is not None else self._list.load(self.pin)
        if durable is not None and durable.end > room:
            durable, why = None, "its partial file is shorter than the list of what is durably there"
        if durable is None:
            self.restarted_because = why or ("it has no list of what is durably there" if size else None)
            # The list goes first and durably: it must never speak about bytes that are being written anew.
            if self._list.remove():
                os.fsync(self._folder)
            os.ftruncate(self._fd, 0)
            self._list.prepare()
            return
        if written is None or written.end > room:
            written = durable
        self._there = written.copy()
        self._durable = durable
        self._ever.add(0, size)
        try:
            self._list.write(self.pin, durable)
            if written != durable:
                self._list.note(self.pin, written)
        except OSError:
            pass  # no room for a fresh list: the old one holds

    def _note(self) -> None:
        """Leave word of what is written, for whoever goes on when this process is killed. It is no loss if not."""
        if not self._sync.acquire(blocking=False):
            return  # a checkpoint is at work, which says it better
        try:
            with self._turn:
                self._unnoted = 0
                now = self._there.copy()
            with suppress(OSError):
                self._list.note(self.pin, now)
        finally:
            self._sync.release()

    def _make_durable(self, fd: int) -> Ranges:
        with self._turn:
            now = self._there.copy()
            if now == self._durable:
                return now
        try:
            os.fdatasync(fd)
        except OSError:
            # The kernel may have dropped the dirty pages and will not say so again (fsync(2), EIO).
            with self._turn:
                self._there = self._durable.copy()
            with suppress(OSError):
                self._list.take_back()
            raise
        self._list.write(self.pin, now)
        with self._turn:
            self._durable = now
        return now

    def _rename(self, replace: bool) -> None:
        try:
            put_in_place(self._folder, self._file, self.name, replace=replace)
        except FileExistsError:
            if stat.S_ISDIR(lstat_at(self._folder, self.name).st_mode):
                raise IsADirectory(f"{quoted(self.name)} is a folder; a file does not replace it.")
            raise Conflict(f"{quoted(self.name)} exists already; choose with --overwrite older|always.")

    def _check_bounds(self, offset: int, end: int) -> None:
        """Before `_enter`: what is refused here was never begun."""
        limit = self.pin.size if self.pin.size >= 0 else LARGEST_FILE
        if not 0 <= offset <= end <= limit:
            raise BadMessage(f"The range [{offset}, {end}) is not inside a file of {limit} bytes.")
        pieces = len(self._there)
        # Half the limit, so that writers who are under way at once cannot make a list that is not read back.
        if pieces >= RANGES.value // 2 and not self._there.overlaps(max(offset - 1, 0), end + 1):
            raise LimitExceeded(f"{quoted(self.name)} arrives in more than {pieces} separate pieces.")

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended()

    def _enter(self) -> int:
        with self._turn:
            self._check()
            self._inside += 1
            return self._fd

    def _leave(self) -> None:
        with self._turn:
            self._inside -= 1
            if not self._inside:
                self._turn.notify_all()

    @contextmanager
    def _using(self) -> Iterator[int]:
        fd = self._enter()
        try:
            yield fd
        finally:
            self._leave()

    @contextmanager
    def _alone(self, ended: Callable[[], TowlineError]) -> Iterator[int]:
        """Ended for everybody else, and nobody inside; open again if the block fails before closing."""
        with self._turn:
            self._turn.wait_for(lambda: not self._exclusive)
            self._check()
            self._ended = ended
            self._exclusive = True
            self._turn.wait_for(lambda: not self._inside)
        try:
            yield self._fd
        finally:
            with self._turn:
                self._exclusive = False
                if self._fd >= 0:
                    self._ended = None
                self._turn.notify_all()

    def _end(self, ended: Callable[[], TowlineError]) -> None:
        with self._turn:
            self._turn.wait_for(lambda: not self._exclusive)
            if self._fd < 0:
                return
        try:
            with self._alone(ended) as fd:
                try:
                    self._make_durable(fd)
                except OSError:
                    pass  # the list still says what was durable before; no more is lost than after a crash
                finally:
                    self._close()
        except (Superseded, StreamClosed):
            pass  # another thread ended it meanwhile

    def _close(self) -> None:
        self._list.close()
        fd, self._fd = self._fd, -1
        folder, self._folder = self._folder, -1
        if fd >= 0:
            unlock(fd)
            os.close(fd)
            os.close(folder)
