"""The durable list of the ranges that an unfinished file holds: checksummed JSON lines; the highest number counts.

    <32 hex digits of BLAKE3 over the JSON> {"v":1,"n":7,"pin":[size,mtime_ns,ident],"ranges":[[a,b],…]}

The file is a ring of fixed length: a new line goes behind the last one or, at the end, over the oldest. So a new
state costs one flush and never room on a disk that has just become full; a torn line leaves the one before it, which
is still true, since ranges only grow (taking one out waits until its line is durable).

Behind the ring is room for one note: what has been written since the state of that number, with nothing flushed. A
program that is killed leaves its writes to the kernel, so the note holds until this machine stops; it names the boot
(random(4), boot_id) and counts in no other. Nothing is published on its word alone: the digest of the whole decides.
"""

from __future__ import annotations

import json
import os
import stat
from functools import cache
from typing import NamedTuple

from blake3 import blake3

from towline.base.errors import BadMessage
from towline.base.limits import KIB, MIB, Limit
from towline.services.files.ranges import Ranges

LIST_BYTES = Limit("range_list_bytes", 8 * MIB, "bytes", "a list is read whole; an honest one has a few KiB")
_RING_BYTES = 16 * KIB  # a hundred states of the usual length
_NOTE_BYTES = 4 * KIB  # a longer note is not written: one that is older says less, but nothing wrong
_DIGITS = 32


class Pin(NamedTuple):
    """What a source was: bytes (-1: unknown, as from a pipe), nanoseconds since 1970, an identity (the inode)."""

    size: int
    mtime_ns: int
    ident: str


class Listed(NamedTuple):
    """What a list says: the ranges that are durable, those that are written, or None and why there are none."""

    durable: Ranges | None
    written: Ranges | None = None
    why: str = ""  # no word when there is no list


class _State(NamedTuple):
    number: int
    pin: Pin
    ranges: Ranges
    boot: str | None  # of a note


class RangeList:
    """One list file in a folder (a borrowed descriptor). Not thread-safe; all methods raise OSError."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self._name = name
        self._fd = -1
        self._ring = 0  # length
        self._at = 0
        self._number = 0
        self._named = False  # durably: the file's own name and length

    def load(self, pin: Pin) -> Listed:
        """What was said last about a source with this pin."""
        try:
            fd = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return Listed(None)
        except OSError:
            return Listed(None, why="the list of what is durably there cannot be read")
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_size > LIST_BYTES.value or info.st_uid != os.geteuid():
                return Listed(None, why="the list of what is durably there is not one of ours")
            lines = os.pread(fd, LIST_BYTES.value, 0).splitlines()
        finally:
            os.close(fd)
        said = [state for line in lines if line and (state := _parsed(line)) is not None]
        last = max((state for state in said if state.boot is None), key=lambda state: state.number, default=None)
        self._number = last.number if last else 0
        note = next((state for state in said if state.boot == _boot() and state.number == self._number), None)
        if (newest := note or last) is None:
            return Listed(None, why="the list of what is durably there is damaged" if any(lines) else "")
        if newest.pin != pin:
            return Listed(None, why=_difference(newest.pin, pin))
        return Listed(last.ranges if last else Ranges(), note.ranges if note else None)

    def prepare(self) -> None:
        """Take the room for a list of nothing now, while there is some. Not durable, nor need it be."""
        self._start_anew(b"", durably=False)

    def write(self, pin: Pin, ranges: Ranges) -> None:
        """Make `ranges` durable. The first write of this object starts a new file: nobody else's is written to."""
        self._number += 1
        line = self._line(pin, ranges)
        if self._fd < 0 or 4 * len(line) > self._ring:
            self._start_anew(line, durably=True)
            return
        start = self._at if self._at + len(line) <= self._ring else 0
        _write_all(self._fd, line, start)
        self._at = start + len(line)
        if self._named:
            os.fdatasync(self._fd)
        else:
            os.fsync(self._fd)
            os.fsync(self._folder)
            self._named = True

    def note(self, pin: Pin, ranges: Ranges) -> None:
        """Say what is written beyond the last durable state, for whoever comes after this process on this boot."""
        if self._fd < 0 or not _boot():
            return
        line = self._line(pin, ranges, boot=_boot())
        if len(line) <= _NOTE_BYTES:
            _write_all(self._fd, line.ljust(_NOTE_BYTES, b"\n"), self._ring)

    def take_back(self) -> None:
        """The note is no longer true."""
        if self._fd >= 0:
            _write_all(self._fd, bytes(_NOTE_BYTES).replace(b"\0", b"\n"), self._ring)

    def remove(self) -> bool:
        """Delete the list; whether there was one."""
        self.close()
        try:
            os.unlink(self._name, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _line(self, pin: Pin, ranges: Ranges, **more: str) -> bytes:
        state = {"v": 1, "n": self._number, "pin": list(pin), "ranges": ranges.to_list(), **more}
        body = json.dumps(state, separators=(",", ":")).encode()
        return _checksum(body) + b" " + body + b"\n"

    def _start_anew(self, line: bytes, *, durably: bool) -> None:
        ring = max(_RING_BYTES, 8 * len(line))
        fresh = self._name.removesuffix(".ranges") + ".tmp"
        try:
            os.unlink(fresh, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        try:
            _write_all(fd, line.ljust(ring + _NOTE_BYTES, b"\n"), 0)
            if durably:
                os.fsync(fd)
            os.rename(fresh, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            os.close(fd)
            os.unlink(fresh, dir_fd=self._folder)
            raise
        self.close()
        self._fd, self._ring, self._at, self._named = fd, ring, len(line), False
        if durably:
            os.fsync(self._folder)
            self._named = True


def _write_all(fd: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def _checksum(body: bytes) -> bytes:
    return blake3(body).hexdigest()[:_DIGITS].encode()


def _parsed(line: bytes) -> _State | None:
    checksum, _, body = line.partition(b" ")
    if len(checksum) != _DIGITS or checksum != _checksum(body):
        return None
    try:
        state = json.loads(body)
        if state["v"] != 1 or type(state["n"]) is not int:
            return None
        size, mtime_ns, ident = state["pin"]
        return _State(state["n"], Pin(size, mtime_ns, ident), Ranges.from_list(state["ranges"]), state.get("boot"))
    except (ValueError, TypeError, KeyError, RecursionError, BadMessage):
        return None


@cache
def _boot() -> str:
    """The identity of this run of the kernel; empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _difference(was: Pin, now: Pin) -> str:
    if was.size != now.size:
        return f"the source changed: it had {was.size} bytes and has {now.size}"
    if was.mtime_ns != now.mtime_ns:
        return "the source changed: it was modified"
    return "the source changed: another file has its name"
