"""The walk over what is to be transferred: the same order every time, so that a position in it can be resumed from.

Depth first, a folder before its content, names in the order of their bytes. What cannot be taken along is named,
never passed over in silence. Memory grows with the depth and the widest folder, not with the tree.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

from towline.base.errors import BadMessage, DiskError, PathRefused, PermissionDenied, SourceChanged
from towline.base.limits import MIB, Limit
from towline.base.oserrors import disk_error, oserrors
from towline.services.files.disk import FARTHEST_NS, PERMISSIONS, kind_of, lstat_at, what_other
from towline.services.files.names import (
    PATH_BYTES,
    are_everyday,
    check_component,
    is_partial,
    quoted,
    sort_key,
    sorted_names,
    split_path,
)
from towline.services.files.ranges import LARGEST_FILE
from towline.services.files.trail import Trail
from towline.services.files.tree import Root, Stat

BATCH_ENTRIES = Limit("batch_entries", 4096, "entries", "a batch is decoded whole, in one turn")
BATCH_BYTES = Limit("batch_bytes", 1 * MIB, "bytes", "a batch is one message")
LINK_BYTES = Limit("link_bytes", 4095, "bytes", "no system in use keeps a longer symlink (PATH_MAX)")

_KINDS = {"f": "file", "d": "dir", "l": "link"}
_PLAIN = {"f": "file", "d": "dir"}
_FULL_TABLES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # would hit every following entry, too
_PATH_MAX_SURE = PATH_BYTES.value // 4  # so many characters cannot be more bytes than the limit


class Entry(NamedTuple):
    """One thing to transfer: path (relative, `/`-joined), kind (`file`, `dir`, `link`), bytes, ns, permission bits.

    `target` is what a link says. A single file's path is its own name.
    """

    path: str
    kind: str
    size: int
    mtime_ns: int
    mode: int
    target: str = ""


class Skipped(NamedTuple):
    """One thing that is not transferred, and why, in a person's words.

    `code` is the number of the error that it is (`towline.base.errors`), 0 where leaving it out was asked for.
    """

    path: str
    reason: str
    code: int = 0


def walk(root: Root, path: str, *, links: str, after: str | None = None) -> Generator[Entry | Skipped, None, None]:
    """All that is below the folder `path` (itself not included), or the one file there. Blocking.

    `links`: `keep` yields symlinks as entries, `skip` as Skipped; they are never followed. `after`: go on behind that
    path without descending into folders that were finished before it; it need not exist any more. A tree that changes
    meanwhile gives what was there when it was looked at. Raises documented errors for `path` itself, PathRefused for
    a senseless `after`, and LimitExceeded when descriptors run out.
    """
    way = split_path(after, portable=False) if after else []
    info = root.stat(path)
    if info.kind != "dir":
        if not way:
            yield _single(root, path, info, links)
        return
    walker = _Walker(root.folder(path), root.portable, links == "keep", way)
    try:
        yield from walker.run()
    finally:
        walker.trail.close()


def encode_batch(entries: Iterable[Entry]) -> bytes:
    """Entries as a compact JSON array of arrays, ASCII only: undecodable bytes survive as `\\udcXX`.

    Raises LimitExceeded above BATCH_ENTRIES or BATCH_BYTES.
    """
    rows = [
        [e.path, e.kind[0], e.size, e.mtime_ns, e.mode] + ([e.target] if e.kind == "link" else []) for e in entries
    ]
    return _encoded(rows)


def decode_batch(data: bytes, *, portable: bool = True) -> list[Entry]:
    """The inverse of `encode_batch` for data from a peer: every type, bound and path component is checked.

    Raises BadMessage.
    """
    rows = _decoded(data)
    entries = _plain_entries(rows)
    return [_entry(row, portable) for row in rows] if entries is None else entries


def encode_skipped(skipped: Iterable[Skipped]) -> bytes:
    """Skipped entries in the form of `encode_batch`."""
    return _encoded([list(one) for one in skipped])


def decode_skipped(data: bytes) -> list[Skipped]:
    """The inverse of `encode_skipped`. These paths are for people to read, nothing else. Raises BadMessage."""
    found = []
    for row in _decoded(data):
        match row:
            case [str(path), str(reason), int(code)]:
                found.append(Skipped(path, reason, code))
            case _:
                raise BadMessage("A skipped entry is not a path, a reason and an error's number.")
    return found


def totals(entries: Iterable[Entry | Skipped]) -> tuple[int, int]:
    """How many files (and symlinks) a walk gives, and their bytes. Blocking."""
    files = size = 0
    for entry in entries:
        if type(entry) is Entry and entry.kind != "dir":
            files += 1
            size += entry.size
    return files, size


def position(path: str) -> list[bytes]:
    """What paths are ordered by in a walk."""
    return [sort_key(component) for component in path.split("/")]


def row_bytes(entry: Entry | Skipped) -> int:
    """At most so many bytes does one entry take in a batch; for filling batches up to a bound."""
    if isinstance(entry, Skipped):
        return 6 * (len(entry.path) + len(entry.reason)) + 8
    return (len(entry.path) if entry.path.isascii() else 12 * len(entry.path)) + 12 * len(entry.target) + 64


class _Walker:
    """The state of one walk: the open folders, what is left in each, the rest of the way to the resume position."""

    def __init__(self, base: int, portable: bool, keep_links: bool, way: list[str]) -> None:
        self.trail = Trail(base)
        self._portable = portable
        self._keep_links = keep_links
        self._way = way  # components still to go, relative to the lowest folder
        self._prefixes = [""]
        with oserrors("."):
            self._pending = [self._names()]

    def run(self) -> Iterator[Entry | Skipped]:
        pending, prefixes, trail = self._pending, self._prefixes, self.trail
        folder = trail.top
        while pending:
            names = pending[-1]
            if not names:
                pending.pop()
                done = prefixes.pop()
                if not pending:
                    return
                trail.pop()
                try:
                    folder = trail.top
                except OSError:
                    pending[-1].clear()
                    reason = "the rest of it: it was moved while it was being read"
                    yield Skipped(prefixes[-1] or done, reason, SourceChanged.code)
                continue
            name = names.pop()
            new = True
            if self._way:
                new = name != self._way[0]
                self._way = [] if new else self._way[1:]
            depth = len(pending)
            found = self._look(folder, name, prefixes[-1] + name)
            if len(pending) > depth:
                folder = trail.top
            else:
                self._way = []
            if new and not (type(found) is Skipped and is_partial(name)):
                yield found

    def _look(self, folder: int, name: str, path: str) -> Entry | Skipped:
        """The entry of one name. A folder is entered, too."""
        try:
            if refusal := self._refusal(name, path):
                return Skipped(path, refusal, PathRefused.code)
            info = lstat_at(folder, name)
            mode = info.st_mode
            if stat.S_ISREG(mode):
                return Entry(path, "file", info.st_size, info.st_mtime_ns, mode & PERMISSIONS)
            if stat.S_ISDIR(mode):
                info = self.trail.push(name)
                self._prefixes.append(path + "/")
                self._pending.append([])
                self._pending[-1] = self._names()
                return Entry(path, "dir", 0, info.st_mtime_ns, info.st_mode & PERMISSIONS)
            return _special(folder, name, path, info, self._keep_links)
        except OSError as error:
            if self._prefixes[-1] == path + "/":  # entered, but not to be listed
                self._prefixes.pop()
                self._pending.pop()
                self.trail.pop()
            if error.errno in _FULL_TABLES:
                raise disk_error(error, path) from error
            return Skipped(path, *_why(error))

    def _refusal(self, name: str, path: str) -> str:
        try:
            check_component(name, portable=self._portable)
        except PathRefused as refused:
            return refused.sentence
        if len(path) > _PATH_MAX_SURE and len(sort_key(path)) > PATH_BYTES.value:
            return f"its path is longer than {PATH_BYTES.value} bytes"
        return ""

    def _names(self) -> list[str]:
        """The names in the lowest folder from the resume position on, last one first."""
        names = os.listdir(self.trail.top)
        if self._way:
            floor = sort_key(self._way[0])
            names = [name for name in names if sort_key(name) >= floor]
        names = sorted_names(names)
        names.reverse()
        return names


def _single(root: Root, path: str, info: Stat, links: str) -> Entry | Skipped:
    if info.kind == "file":
        return Entry(info.name, "file", info.size, info.mtime_ns, info.mode)
    folder, name = root.parent(path)
    try:
        with oserrors(path):
            return _special(folder, name, name, lstat_at(folder, name), links == "keep")
    finally:
        os.close(folder)


def _special(folder: int, name: str, path: str, info: os.stat_result, keep_links: bool) -> Entry | Skipped:
    if kind_of(info.st_mode) != "link":
        return Skipped(path, f"it is {what_other(info.st_mode)}")
    if not keep_links:
        return Skipped(path, "it is a symlink; --links keep takes symlinks along")
    target = os.readlink(name, dir_fd=folder)
    return Entry(path, "link", 0, info.st_mtime_ns, info.st_mode & PERMISSIONS, target)


def _why(error: OSError) -> tuple[str, int]:
    """A person's words, and the error's number."""
    if isinstance(error, FileNotFoundError):
        return "it vanished while the tree was being read", SourceChanged.code
    if isinstance(error, PermissionError):
        return "the operating system does not permit reading it", PermissionDenied.code
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "it was replaced while the tree was being read", SourceChanged.code
    return f"the disk reported: {error.strerror}", DiskError.code


def _encoded(rows: list[list[object]]) -> bytes:
    BATCH_ENTRIES.check(len(rows))
    data = json.dumps(rows, separators=(",", ":")).encode("ascii")
    BATCH_BYTES.check(len(data))
    return data


def _decoded(data: bytes) -> list[list[Any]]:
    if len(data) > BATCH_BYTES.value:
        raise BadMessage(f"A batch of {len(data)} bytes is longer than {BATCH_BYTES.value}.")
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError):
        raise BadMessage("A batch is not JSON.")
    if not isinstance(rows, list) or len(rows) > BATCH_ENTRIES.value:
        raise BadMessage(f"A batch is not a list of at most {BATCH_ENTRIES.value} entries.")
    for row in rows:
        if not isinstance(row, list):
            raise BadMessage("A batch holds something that is no entry.")
    return rows


def _plain_entries(rows: list[list[Any]]) -> list[Entry] | None:
    """Files and folders with everyday names, which most batches have alone, judged column by column; else None."""
    if set(map(len, rows)) != {5}:
        return None
    paths, letters, sizes, times, modes = zip(*rows, strict=True)
    if set(map(type, paths)) != {str} or set(map(type, sizes + times + modes)) != {int}:
        return None
    try:
        kinds = [_PLAIN[letter] for letter in letters]
    except (KeyError, TypeError):
        return None
    if min(sizes) < 0 or max(sizes) > LARGEST_FILE or min(modes) < 0 or max(modes) > PERMISSIONS:
        return None
    if min(times) < -FARTHEST_NS or max(times) > FARTHEST_NS or max(map(len, paths)) > _PATH_MAX_SURE:
        return None
    if any(size and kind == "dir" for size, kind in zip(sizes, kinds, strict=True)):
        return None
    return None if not are_everyday(paths) else list(map(Entry, paths, kinds, sizes, times, modes))


def _entry(row: list[object], portable: bool) -> Entry:
    target: object = ""
    if len(row) == 6:
        target = row.pop()
    if len(row) != 5:
        raise BadMessage("An entry has not five parts, nor six.")
    path, letter, size, mtime_ns, mode = row
    kind = _KINDS.get(letter) if isinstance(letter, str) else None
    if kind is None or not isinstance(path, str) or not isinstance(target, str):
        raise BadMessage("An entry's kind, path or link target has the wrong type.")
    if type(size) is not int or type(mtime_ns) is not int or type(mode) is not int:
        raise BadMessage("An entry's size, time or mode is not a whole number.")
    least = -1 if kind == "file" else 0  # a stream does not know its size before its end
    if not (least <= size <= LARGEST_FILE and abs(mtime_ns) <= FARTHEST_NS and 0 <= mode <= PERMISSIONS):
        raise BadMessage(f"The entry {quoted(path)} has a size, time or mode that no file has.")
    if (kind != "file" and size) or (kind == "link") != bool(target):
        raise BadMessage(f"The entry {quoted(path)} contradicts itself.")
    _check_path(path, portable)
    _check_target(path, target)
    return Entry(path, kind, size, mtime_ns, mode, target)


def _check_path(path: str, portable: bool) -> None:
    try:
        for component in path.split("/"):
            check_component(component, portable=portable)
    except PathRefused as refused:
        raise BadMessage(refused.sentence)
    if len(path) > _PATH_MAX_SURE and len(sort_key(path)) > PATH_BYTES.value:
        raise BadMessage(f"The path {quoted(path)} is longer than {PATH_BYTES.value} bytes.")


def _check_target(path: str, target: str) -> None:
    try:
        length = len(sort_key(target))
    except UnicodeEncodeError:
        length = -1
    if "\0" in target or not 0 <= length <= LINK_BYTES.value:
        raise BadMessage(f"The symlink {quoted(path)} says something that no symlink can.")
