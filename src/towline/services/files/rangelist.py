"""The durable list of the ranges that an unfinished file holds: a checksummed JSON line per state; the last counts.

    <32 hex digits of BLAKE3 over the JSON> {"v":1,"pin":[size,mtime_ns,ident],"ranges":[[a,b],…]}

Appending a line and fdatasync costs one flush; a torn last line leaves the one before it, which is still true,
since ranges only grow (taking one out waits until its line is durable). A list that grew long is written anew.
"""

from __future__ import annotations

import json
import os
import stat
from typing import NamedTuple

from blake3 import blake3

from towline.base.errors import BadMessage
from towline.base.limits import KIB, MIB, Limit
from towline.services.files.ranges import Ranges

LIST_BYTES = Limit("range_list_bytes", 8 * MIB, "bytes", "a list is read whole; an honest one has a few KiB")
_COMPACT_BYTES = 64 * KIB
_DIGITS = 32


class Pin(NamedTuple):
    """What a source was: bytes (-1: unknown, as from a pipe), nanoseconds since 1970, an identity (the inode)."""

    size: int
    mtime_ns: int
    ident: str

    @classmethod
    def of(cls, info: os.stat_result) -> Pin:
        """The pin of an open file. The device number is left out: it may be another one after a reboot."""
        return cls(info.st_size, info.st_mtime_ns, f"{info.st_ino:x}")


class RangeList:
    """One list file in a folder (a borrowed descriptor). Not thread-safe; all methods raise OSError."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self._name = name
        self._fd = -1
        self._length = 0

    def load(self, pin: Pin) -> tuple[Ranges | None, str]:
        """The last durable ranges, or None and why they are not to be used (no word when there is no list)."""
        try:
            fd = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return None, ""
        except OSError:
            return None, "the list of what is durably there cannot be read"
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_size > LIST_BYTES.value or info.st_uid != os.geteuid():
                return None, "the list of what is durably there is not one of ours"
            lines = os.pread(fd, LIST_BYTES.value, 0).splitlines()
        finally:
            os.close(fd)
        for line in reversed(lines):
            state = _parsed(line)
            if state is not None:
                was, ranges = state
                return (ranges, "") if was == pin else (None, _difference(was, pin))
        return None, "the list of what is durably there is damaged"

    def write(self, pin: Pin, ranges: Ranges) -> None:
        """Make `ranges` durable. The first write of this object starts a new file: nobody else's is appended to."""
        body = json.dumps({"v": 1, "pin": list(pin), "ranges": ranges.to_list()}, separators=(",", ":")).encode()
        line = _checksum(body) + b" " + body + b"\n"
        if self._fd < 0 or self._length + len(line) > max(_COMPACT_BYTES, 4 * len(line)):
            self._start_anew(line)
            return
        _write_all(self._fd, line, self._length)
        os.fdatasync(self._fd)
        self._length += len(line)

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

    def _start_anew(self, line: bytes) -> None:
        fresh = self._name.removesuffix(".ranges") + ".tmp"
        try:
            os.unlink(fresh, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        try:
            _write_all(fd, line, 0)
            os.fsync(fd)
            os.rename(fresh, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd = fd
        self._length = len(line)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def _checksum(body: bytes) -> bytes:
    return blake3(body).hexdigest()[:_DIGITS].encode()


def _parsed(line: bytes) -> tuple[Pin, Ranges] | None:
    checksum, _, body = line.partition(b" ")
    if len(checksum) != _DIGITS or checksum != _checksum(body):
        return None
    try:
        state = json.loads(body)
        if state["v"] != 1:
            return None
        size, mtime_ns, ident = state["pin"]
        return Pin(size, mtime_ns, ident), Ranges.from_list(state["ranges"])
    except (ValueError, TypeError, KeyError, RecursionError, BadMessage):
        return None


def _difference(was: Pin, now: Pin) -> str:
    if was.size != now.size:
        return f"the source changed: it had {was.size} bytes and has {now.size}"
    if was.mtime_ns != now.mtime_ns:
        return "the source changed: it was modified"
    return "the source changed: another file has its name"
