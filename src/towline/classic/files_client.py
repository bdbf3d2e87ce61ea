"""The client of `files-json`: `fetch` and `put`. What arrives is verified before it gets a name."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable

from msgspec import Struct

from towline.base.errors import (
    ClosedEarly,
    DialectError,
    IsADirectory,
    NotFound,
    PermissionDenied,
    Refused,
    SourceChanged,
    TowlineError,
    UsageError,
)
from towline.base.text import printable
from towline.classic.codecs import Chunk, Header, encode_header
from towline.classic.dialects import Endian
from towline.classic.limits import CHUNK, FILE
from towline.classic.part import Part
from towline.classic.shell import check_md5
from towline.classic.talk import Wire
from towline.services.files.tree import Root

OnProgress = Callable[[int, int], None]  # bytes done, bytes in all


class Moved(Struct, frozen=True):
    """A file that is now whole on the other side: its name there (put) or path here (fetch), bytes, md5 in hex."""

    name: str
    size: int
    md5: str


class FilesTalker:
    """The client; one wire takes many calls in turn.

    `in_step` is False when a failure left the connection in the middle of a payload: then nothing more can be asked.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        endian: Endian = "little",
        encoding: str = "utf-8",
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.in_step = True
        self._wire = wire
        self._endian: Endian = endian
        self._encoding = encoding
        self._overwrite = overwrite
        self._progress: OnProgress = on_progress or (lambda done, total: None)

    def fetch(self, name: str, target: str | None = None) -> Moved:
        """Download `name` to the path `target`, or into it if that is a folder (default: its last part, here).

        Raises NotFound, Conflict (the target exists), VerificationFailed, ClosedEarly, DialectError, LimitExceeded,
        NoSpace; in each case nothing stands under the target's name that was not there before.
        """
        request = self._encoded(name)
        local = name.rpartition("/")[2]
        if target is not None:
            target = os.path.join(target, local) if os.path.isdir(target) else target
        folder, local = os.path.split(target or local)
        with Root.open(folder or ".", portable=False) as root:
            part = Part(root, local, replace=self._overwrite)
            try:
                self._check_quiet()
                self.in_step = False
                self._wire.send(request)
                md5 = hashlib.md5(usedforsecurity=False)
                header, done = Header({}, 0), 0
                for event in self._wire.headered("lenth", self._endian, FILE):
                    if isinstance(event, Header):
                        header = event
                        part.make_room(header.size)
                        self._progress(0, header.size)
                    elif isinstance(event, Chunk):
                        md5.update(event.data)
                        part.write(event.data)
                        done += len(event.data)
                        self._progress(done, header.size)
                self.in_step = True
                if not header.fields:
                    raise NotFound(f"The server has no file {printable(name)}.")
                check_md5(header.fields, md5.hexdigest())
                part.publish()
            finally:
                part.discard()
        return Moved(os.path.join(folder, local), header.size, md5.hexdigest())

    def put(self, path: str, name: str | None = None) -> Moved:
        """Upload the file at `path` as `name` (default: its last part).

        Raises NotFound, Refused with the server's sentence, SourceChanged when the file shrinks meanwhile.
        """
        remote = name or os.path.basename(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"{printable(path)} does not exist.") from None
        except OSError as error:
            raise PermissionDenied(f"{printable(path)} cannot be opened: {error.strerror}.") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IsADirectory(f"{printable(path)} is not a regular file.")
            md5 = _md5_of(descriptor, status.st_size)
            self._check_quiet()
            self.in_step = False
            self._send_upload(descriptor, status.st_size, {"filename": remote, "lenth": status.st_size, "md5": md5})
        finally:
            os.close(descriptor)
        answer = self._wire.header(self._endian).fields
        self.in_step = True
        if answer.get("ok") is not True:
            raise Refused(f"The server refused {printable(remote)}: {_reason(answer)}")
        return Moved(remote, status.st_size, md5)

    def _send_upload(self, descriptor: int, size: int, header: dict[str, object]) -> None:
        try:
            self._wire.send(encode_header(header, self._endian))
            self._progress(0, size)
            sent = 0
            while sent < size and not self._wire.pending:
                data = os.pread(descriptor, min(CHUNK, size - sent), sent)
                if not data:
                    raise SourceChanged
                self._wire.send(data)
                sent += len(data)
                self._progress(sent, size)
        except ClosedEarly:
            if not self._answer_waits():  # it may have said why before it closed
                raise
            sent = -1
        if sent < size:
            answer = self._wire.header(self._endian).fields
            raise Refused(f"The server stopped the upload: {_reason(answer)}")

    def _answer_waits(self) -> bool:
        try:
            return self._wire.pending
        except TowlineError:
            return False

    def _check_quiet(self) -> None:
        if self._wire.pending:
            self.in_step = False
            raise DialectError("The server sent bytes that belong to no request.")

    def _encoded(self, name: str) -> bytes:
        try:
            request = name.encode(self._encoding)
        except UnicodeEncodeError:
            raise UsageError(f"The name {printable(name)!r} cannot be written in {self._encoding}.") from None
        if not request.strip() or b"\0" in request:
            raise UsageError("A file name is needed.")
        return request


def _reason(answer: dict[str, object]) -> str:
    error = answer.get("error")
    return printable(error, limit=500) if isinstance(error, str) else "it gave no reason."


def _md5_of(descriptor: int, size: int) -> str:
    digest, start = hashlib.md5(usedforsecurity=False), 0
    while start < size and (data := os.pread(descriptor, min(CHUNK, size - start), start)):
        digest.update(data)
        start += len(data)
    return digest.hexdigest()
