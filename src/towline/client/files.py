"""The file verbs of a line: list, stat, get, put, mkdir, move, remove."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from towline.base.errors import IsADirectory, NotFound, PathRefused, TowlineError, UsageError
from towline.base.oserrors import oserrors
from towline.base.text import printable
from towline.client.events import Done, TransferEvent
from towline.client.placement import Placements
from towline.client.reach import Reach, ask
from towline.client.rows import ListedFile, Share, checked, listed
from towline.protocol.codec import Header
from towline.services.files.local import Local, local_source, local_target
from towline.services.files.messages import decode_rows
from towline.services.files.names import sort_key
from towline.services.files.tree import Root, Stat

# The engine is imported where a transfer begins: a short verb like `ls` is done before it would be loaded.
if TYPE_CHECKING:
    from towline.client.transfer import Options
    from towline.services.files.sinks import Sink

_LOOKING = ("stat", "shares")
_LOOKS = 4
_NOT_TAKEN = {
    "link": '"{}" is a symlink, and symlinks are not followed; --links keep fetches the symlink itself.',
    "other": '"{}" is neither a file nor a folder.',
}
Listener = Callable[[TransferEvent], None]


def _silent(_: TransferEvent) -> None:
    """Nobody listens."""


class FileVerbs(Reach):
    """What a line can do with files. Remote paths are `SHARE/PATH`; errors are those of `towline.base.errors`."""

    async def shares(self) -> list[tuple[str, bool]]:
        """The shares that we may see: (name, read-only)."""
        rows = checked(await _ask(self, {"op": "shares"}), list[Share])
        return [(printable(name), read_only) for name, read_only in rows]

    async def list(self, remote: str) -> AsyncIterator[Stat]:
        """The entries of a remote folder, in the order of their names' bytes; a file is listed as itself. After a cut
        it goes on behind the last one."""
        last: bytes | None = None
        tries = _LOOKS
        while tries:
            try:
                async with contextlib.aclosing(self._list_now(remote)) as entries:
                    async for entry in entries:
                        at = sort_key(entry.name)
                        if last is None or at > last:
                            last, tries = at, _LOOKS
                            yield entry
                return
            except TowlineError as error:
                tries -= 1
                if not (error.retryable and tries):
                    raise

    async def _list_now(self, remote: str) -> AsyncGenerator[Stat, None]:
        share, path = split_share(remote)
        channel = await self.channel(
            {"service": "files", "op": "list", "share": share, "path": path, "any_names": True}
        )
        try:
            await channel.accepted()
            async for body in channel:
                for row in checked(decode_rows(body), list[ListedFile]):
                    yield listed(row)
        except BaseException:  # also when whoever lists has seen enough
            channel.reset()
            raise
        channel.end()

    async def stat(self, remote: str) -> Stat:
        """What a remote path is: name, kind, size, mtime_ns, permission bits. Raises NotFound."""
        return listed(checked(await _ask(self, {**_at("stat", remote), "any_names": True}), ListedFile))

    async def mkdir(self, remote: str, *, parents: bool = False, any_names: bool = False) -> None:
        """Make a remote folder; with `parents` those on the way, too, and it may be there already."""
        await _ask(self, {**_at("mkdir", remote), "parents": parents, "any_names": any_names})

    async def move(self, remote: str, to: str, *, replace: bool = False, any_names: bool = False) -> None:
        """Rename within one share. An existing file is replaced only with `replace`."""
        share, path = split_share(to)
        request = _at("move", remote)
        if share != request["share"]:
            raise UsageError("A move stays within one share; get and put between two.")
        if path == "" or path.endswith("/") or await self._is_folder(to):
            path = f"{path.rstrip('/')}/{request['path'].rstrip('/').rpartition('/')[2]}".lstrip("/")
        await _ask(self, {**request, "to": path, "replace": replace, "any_names": any_names})

    async def remove(self, remote: str, *, recursive: bool = False) -> None:
        """Remove a remote file, or with `recursive` a folder with all that is in it."""
        await _ask(self, {**_at("remove", remote), "any_names": True, "recursive": recursive})

    async def put(
        self, local: str, remote: str, *, options: Options | None = None, on_event: Listener = _silent
    ) -> Done:
        """Upload a file or a folder, as cp(1) would place it; resumes, verifies.

        Failures of single files are in the result; what ends everything is raised.
        """
        from towline.client.put import Put, tree_source
        from towline.client.transfer import Options

        options = options or Options()
        source = await asyncio.to_thread(local_source, local, portable=not options.any_names)
        source.root.close()
        share, path = await self._place_put(source, local, remote)

        def open_root() -> tuple[Root, str]:
            again = local_source(local, portable=not options.any_names)
            return again.root, again.path

        return await Put(self, share, path, tree_source(open_root, options.links), options, on_event).run()

    async def put_stream(
        self, fd: int, remote: str, *, options: Options | None = None, on_event: Listener = _silent
    ) -> Done:
        """Upload what `fd` gives until its end, under the name SHARE/PATH."""
        from towline.client.put import Put
        from towline.client.transfer import Options
        from towline.services.files.sources import StreamSource

        share, path = split_share(remote)
        name = path.rstrip("/").rpartition("/")[2]
        if not name or path.endswith("/"):
            raise UsageError("Standard input needs a name at the target: ALIAS:SHARE/PATH.")
        source = StreamSource(fd, name, time.time_ns())
        return await Put(self, share, path, lambda: source, options or Options(), on_event).run()

    async def get(
        self, remote: str, local: str, *, options: Options | None = None, on_event: Listener = _silent
    ) -> Done:
        """Download a file or a folder, as cp(1) would place it; resumes, verifies."""
        from towline.client.get import Get
        from towline.client.transfer import Options
        from towline.services.files.digests import DigestCache
        from towline.services.files.sinks import OpenParts, TreeSink

        options = options or Options()
        share, path = split_share(remote)
        info = await self.stat(remote)
        check_fetchable(info, remote, options.links)
        name = path.rstrip("/").rpartition("/")[2] or share
        inside = await asyncio.to_thread(self._place_get, info.kind, local, remote)
        target = os.path.join(local, name) if inside else local.rstrip("/") or "/"
        parts, digests = OpenParts(), DigestCache()

        def open_sink(kind: str) -> Sink:
            if local.endswith("/"):
                with oserrors(local):
                    os.makedirs(local.rstrip("/") or "/", exist_ok=True)
            at = _exactly(target, name, portable=not options.any_names)
            if kind == "dir":
                try:
                    at.root.mkdir(at.path, parents=True, exist_ok=True)
                except BaseException:
                    at.root.close()
                    raise
            return TreeSink(at.root, at.path, kind=kind, owner="", parts=parts, digests=digests)

        return await Get(self, share, path, open_sink, options, on_event).run()

    async def get_stream(
        self, remote: str, fd: int, *, options: Options | None = None, on_event: Listener = _silent
    ) -> Done:
        """Download one file to `fd`, in order."""
        from towline.client.get import Get
        from towline.client.transfer import Options
        from towline.services.files.streamsink import StreamSink

        share, path = split_share(remote)
        if (await self.stat(remote)).kind != "file":
            raise IsADirectory("Only a file can be written to standard output.")
        options = options or Options()
        options.lanes = min(1, options.lanes if options.lanes is not None else 1)
        sink = StreamSink(fd)
        return await Get(self, share, path, lambda kind: sink, options, on_event).run()

    # --- where things go ---

    async def _place_put(self, source: Local, local: str, remote: str) -> tuple[str, str]:
        """SHARE and PATH of the target itself: a folder that is there takes the source inside, as with cp(1)."""
        share, path = split_share(remote)
        inside = path == "" or path.endswith("/")
        if not inside:
            memory = Placements(self.home)
            remembered = memory.find(self.target.alias, "put", local, remote)
            if remembered is None:
                remembered = await self._is_folder(remote)
                if source.kind == "dir":
                    memory.note(self.target.alias, "put", local, remote, remembered)
            inside = remembered
        return share, f"{path.rstrip('/')}/{source.name}".lstrip("/") if inside else path

    async def _is_folder(self, remote: str) -> bool:
        try:
            return (await self.stat(remote)).kind == "dir"
        except NotFound:
            return False

    def _place_get(self, kind: str, local: str, remote: str) -> bool:
        """Whether the target goes inside `local` under its own name."""
        if local.endswith("/"):
            return True
        memory = Placements(self.home)
        remembered = memory.find(self.target.alias, "get", local, remote)
        if remembered is None:
            remembered = os.path.isdir(local)
            if kind == "dir":
                memory.note(self.target.alias, "get", local, remote, remembered)
        return remembered


def split_share(remote: str) -> tuple[str, str]:
    """`SHARE/PATH` as its two parts. Raises PathRefused without a share."""
    share, _, path = remote.partition("/")
    if not share:
        raise PathRefused(f"{printable(remote, limit=80)!r} names no share; write SHARE/PATH.")
    return share, path


def check_fetchable(info: Stat, remote: str, links: str) -> None:
    """Raise PathRefused for what a get of just that does not take."""
    if info.kind == "other" or (info.kind == "link" and links != "keep"):
        raise PathRefused(_NOT_TAKEN[info.kind].format(printable(remote, limit=200)))


def _exactly(target: str, name: str, *, portable: bool) -> Local:
    """`target` under just that name, whether or not a folder is there."""
    folder, last = os.path.split(target)
    if not last or last in (".", ".."):
        return local_target(target, name, portable=portable)
    root = _open_folder(folder or ".", portable)
    return Local(root, last, last, "")


def _open_folder(folder: str, portable: bool) -> Root:
    try:
        return Root.open(folder, portable=portable)
    except NotFound:
        raise NotFound(f"There is no local folder {printable(folder, limit=200)!r} to put it into.") from None


def _at(op: str, remote: str) -> dict[str, str]:
    share, path = split_share(remote)
    return {"op": op, "share": share, "path": path}


async def _ask(line: Reach, request: Header) -> list[Any]:
    """One request, one answer. What only looks is asked again after a cut; what changes something is not."""
    tries = _LOOKS if request["op"] in _LOOKING else 1
    return decode_rows(await ask(line, {"service": "files", **request}, tries=tries))
