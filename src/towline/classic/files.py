"""The server of `files-json`: files out by name, files in behind a header, many requests on one connection.

Nothing is held whole: chunks pass through a thread to or from the disk. A file that changes while it is on its way
loses its last chunk, so that no client takes a mixture for a whole file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

from towline.base.errors import (
    BadMessage,
    ClosedEarly,
    NotFound,
    SourceChanged,
    TowlineError,
    VerificationFailed,
)
from towline.base.text import printable
from towline.classic.codecs import (
    Chunk,
    End,
    FilesRequestDecoder,
    Header,
    Wanted,
    encode_header,
)
from towline.classic.dialects import Endian
from towline.classic.limits import CHUNK
from towline.classic.part import Part
from towline.classic.server import Peer
from towline.services.files.tree import Root

# One or two bytes may be a short name or the start of an upload's length; the rest of a length follows at once.
SETTLE_SECONDS = 0.05
_HASH_SLICE = 4 * 1024 * 1024  # one turn on a thread: a huge file must not keep the others from theirs


class Files:
    """The server; `root` stays open for as long as it serves."""

    def __init__(
        self, root: Root, *, overwrite: bool = False, endian: Endian = "little", encoding: str = "utf-8"
    ) -> None:
        self._root = root
        self._overwrite = overwrite
        self._endian: Endian = endian
        self._encoding = encoding

    async def converse(self, peer: Peer) -> None:
        """Serve requests until the client's end; a broken header is answered, then the connection ends."""
        requests = _Requests(self, peer, self._endian)
        try:
            await requests.serve()
        except ClosedEarly:
            raise
        except TowlineError as error:
            await peer.send(self._refusal(error))
            raise
        finally:
            await requests.abandon()

    async def download(self, peer: Peer, name: bytes) -> None:
        """Answer a file name: header and bytes, or `{}`."""
        text = name.decode(self._encoding, "replace")
        peer.say("request", name=text)
        try:
            descriptor, _ = await asyncio.to_thread(self._open, name)
        except TowlineError as error:
            if not isinstance(error, NotFound):
                peer.say("refused", code=error.code, name=error.name, message=error.sentence)
            await peer.send(encode_header({}, self._endian))
            return
        try:
            await self._send_file(peer, descriptor, text)
        finally:
            os.close(descriptor)

    def begin_upload(self, peer: Peer, header: Header) -> Upload:
        """An upload that will take the announced bytes, whether it is refused or not."""
        name = header.fields.get("filename")
        upload = Upload(self._root, header, overwrite=self._overwrite)
        peer.say("request", upload=name if isinstance(name, str) else "", bytes=header.size)
        return upload

    async def end_upload(self, peer: Peer, upload: Upload) -> None:
        """Check, publish and answer."""
        try:
            md5 = await asyncio.to_thread(upload.publish)
        except TowlineError as error:
            peer.say("refused", code=error.code, name=error.name, message=error.sentence)
            await peer.send(self._refusal(error))
            return
        peer.say("file", direction="received", name=upload.name, bytes=upload.size, md5=md5)
        await peer.send(encode_header({"ok": True}, self._endian))

    def _open(self, name: bytes) -> tuple[int, os.stat_result]:
        try:
            return self._root.open_file(name.decode(self._encoding))
        except UnicodeDecodeError:
            raise NotFound(f"The name is not {self._encoding} text.") from None

    async def _send_file(self, peer: Peer, descriptor: int, name: str) -> None:
        before = os.fstat(descriptor)
        size = before.st_size
        md5 = await _md5_of(descriptor, size)
        header = {"lenth": size, "md5": md5, "size(MB)": round(size / (1024 * 1024), 2)}
        await peer.send(encode_header(header, self._endian))
        sent = 0
        while sent < size:
            data = await asyncio.to_thread(os.pread, descriptor, min(CHUNK, size - sent), sent)
            last = sent + len(data) == size
            if not data or (last and _stamp(os.fstat(descriptor)) != _stamp(before)):
                raise SourceChanged(f"{printable(name)} changed while it was being sent; its end was withheld.")
            await peer.send(data)
            sent += len(data)
        peer.say("file", direction="sent", name=name, bytes=size, md5=md5)

    def _refusal(self, error: TowlineError) -> bytes:
        return encode_header({"ok": False, "error": printable(error.sentence, limit=500)}, self._endian)


class _Requests:
    """The requests of one connection, in turn."""

    def __init__(self, files: Files, peer: Peer, endian: Endian) -> None:
        self._files = files
        self._peer = peer
        self._decoder = FilesRequestDecoder(endian)
        self._upload: Upload | None = None

    async def serve(self) -> None:
        data: bytes | None = b"-"
        while data != b"":
            if self._decoder.undecided:
                data = await self._peer.read_within(SETTLE_SECONDS)
            else:
                data = await self._peer.read(CHUNK)
            if data is None:
                events = iter(self._decoder.settle())
            elif data:
                events = self._decoder.feed(data)
            else:
                events = iter(self._decoder.finish())
            for event in events:
                await self._handle(event)

    async def abandon(self) -> None:
        """Leave nothing of an upload that did not come to its end."""
        if self._upload is not None:
            self._upload.discard()

    async def _handle(self, event: Wanted | Header | Chunk | End) -> None:
        if isinstance(event, Wanted):
            await self._files.download(self._peer, event.name)
        elif isinstance(event, Header):
            self._upload = self._files.begin_upload(self._peer, event)
        elif isinstance(event, Chunk):
            assert self._upload is not None
            if self._upload.take(event.data):
                await asyncio.to_thread(self._upload.flush)
        else:
            assert self._upload is not None
            upload, self._upload = self._upload, None
            await self._files.end_upload(self._peer, upload)


class Upload:
    """One upload. After a refusal it still counts the bytes away, so that the next request is found."""

    def __init__(self, root: Root, header: Header, *, overwrite: bool) -> None:
        self.name = ""
        self.size = header.size
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._held = bytearray()
        self._part: Part | None = None
        self._refused: TowlineError | None = None
        try:
            self.name, self._announced = _checked(header.fields)
            self._part = Part(root, self.name, replace=overwrite)
            self._part.make_room(self.size)
        except TowlineError as error:
            self._refused = error
            self.discard()

    def take(self, data: bytes) -> bool:
        """Hold `data`; True when enough is held for a `flush`."""
        if self._refused is None:
            self._held += data
        return len(self._held) >= CHUNK

    def flush(self) -> None:
        """Hash and write what is held. Blocks on the disk: for a thread."""
        if self._part is None or self._refused is not None:
            return
        held, self._held = self._held, bytearray()
        self._md5.update(held)
        try:
            self._part.write(held)
        except TowlineError as error:
            self._refused = error

    def publish(self) -> str:
        """All bytes are here: check and give them their name; the md5. Blocks on the disk: for a thread.

        Raises what refused the upload; nothing of it remains then.
        """
        self.flush()
        try:
            if self._refused is not None:
                raise self._refused
            assert self._part is not None
            md5 = self._md5.hexdigest()
            if self._announced != md5:
                raise VerificationFailed(f"md5 of what arrived is {md5}, the header says {self._announced}.")
            self._part.publish()
        finally:
            self.discard()
        return md5

    def discard(self) -> None:
        """Leave nothing, unless it has been published."""
        if self._part is not None:
            self._part.discard()


def _checked(fields: dict[str, Any]) -> tuple[str, str]:
    """File name and md5 (lower case) of an upload's header."""
    name, md5 = fields.get("filename"), fields.get("md5")
    if not isinstance(name, str) or not isinstance(md5, str):
        raise BadMessage('An upload\'s header needs the texts "filename" and "md5" and the number "lenth".')
    return name, md5.strip().lower()


async def _md5_of(descriptor: int, size: int) -> str:
    """md5 of the first `size` bytes, hashed on a thread in slices."""
    digest = hashlib.md5(usedforsecurity=False)
    for start in range(0, size, _HASH_SLICE):
        await asyncio.to_thread(_hash_slice, digest, descriptor, start, min(start + _HASH_SLICE, size))
    return digest.hexdigest()


def _hash_slice(digest: Any, descriptor: int, start: int, end: int) -> None:
    while start < end and (data := os.pread(descriptor, min(CHUNK, end - start), start)):
        digest.update(data)
        start += len(data)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
