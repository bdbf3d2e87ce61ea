"""The keeper: a process of its own that holds all jobs of one node, and outlives it.

    python -m towline.services.jobs.keeper FOLDER READY_FD FILES

It owns what must not die with the node: processes, pipes, terminals, spools. One node at a time talks to it over a
Unix socket in FOLDER (0700; the kernel says who the peer is); a newer one takes over. Without a job and without a
node it ends by itself. FILES: how many files a command may have open at first, which is what the node was started
with; the node's own limit is higher by now, and so is ours.

A command comes in two messages: `prepare` while the node still writes down that it is to be started, `go` once that
is durable. Of one that is prepared there is neither a process nor a folder nor a descriptor, so that nothing is left
of it when the node never says `go`. Both come over a connection of their own, which only the present node can have.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from typing import Any

from towline.base.errors import InternalError, TowlineError, UnknownJob
from towline.base.limits import KIB
from towline.base.oserrors import disk_error
from towline.journal.spool import SpoolWriter, remove_spool
from towline.protocol.codec import Header
from towline.runtime.descriptors import raise_descriptor_limit
from towline.runtime.loops import new_event_loop
from towline.runtime.memory import keep_freed_memory
from towline.services.jobs import spawn
from towline.services.jobs.held import Held
from towline.services.jobs.link import SOCKET_NAME, VERSION, Link
from towline.services.jobs.modes import Modes
from towline.transports.unix import short_path

FIRST_NODE_SECONDS = 10.0  # nobody came
ANSWER_SECONDS = 0.003  # that a start waits for company
GROWN_SECONDS = 0.001  # between two words about more output: a keystroke's echo comes alone, what follows together
FLOOD_SECONDS = 0.005  # … and where so much has come between two that nobody waits for the next line
FLOOD_BYTES = 256 * KIB
SHORT_BYTES = 1024 * KIB  # room for a few records
ENDING_GRACE = 5.0  # between SIGTERM and SIGKILL for jobs when the keeper itself is told to end


class Keeper:
    """The `House` of all held jobs."""

    def __init__(self, folder: str, loop: asyncio.AbstractEventLoop) -> None:
        self.folder, self.loop = folder, loop
        self.over = asyncio.Event()
        self._jobs: dict[str, Held] = {}
        self._links: set[Link] = set()
        self._node: Link | None = None
        self._grown: dict[str, asyncio.TimerHandle] = {}  # of which the node is to hear, and when
        self._orders: Link | None = None  # over which the node has commands started
        self._token = ""
        self._prepared: dict[str, dict[str, Any]] = {}  # what may be told to go
        self._env: dict[str, str] = {}  # of every command
        self._started: dict[str, Held] = {}  # told with what comes next, or by and by
        self._by_and_by: asyncio.TimerHandle | None = None
        self._spool_max = 1 << 62
        self._elsewhere = 0  # bytes that spools of finished jobs take

    # --- House ---

    def room(self, asking: Held) -> int:
        """Bytes that all spools together may still grow by. When there are hardly any, what was read of the others'
        output goes: nobody waits for it, and the one who asks would wait for a reader."""
        left = self._left()
        if left < SHORT_BYTES:
            for held in self._jobs.values():
                if held is not asking:
                    held.spool.drop_released()
            left = self._left()
        return max(left, 0)

    def _left(self) -> int:
        return self._spool_max - self._elsewhere - sum(held.spool.size for held in self._jobs.values())

    def grown(self, held: Held) -> None:
        """Tell the node: the first at once, what follows shortly after that together, however much there is."""
        if self._node is not None and held.id not in self._grown:
            wait = max(held.tell_at - self.loop.time(), 0.0)
            self._grown[held.id] = self.loop.call_later(wait, self._tell_grown, held)

    def _tell_grown(self, held: Held) -> None:
        del self._grown[held.id]
        size, before = sum(held.bytes), held.told
        held.told = size
        held.tell_at = self.loop.time() + (FLOOD_SECONDS if size - before >= FLOOD_BYTES else GROWN_SECONDS)
        self._say({"t": "grown", "job": held.id, "end": held.spool.next_seq, "bytes": size})

    def input_moved(self, held: Held, writer: str) -> None:
        """Tell the node how far a writer's input has got."""
        at = held.written.get(writer, 0)
        self._say({"t": "input", "job": held.id, "writer": writer, "at": at, "eof": held.eof})

    def ended(self, held: Held, ending: Header) -> None:
        """Its spool has the last word; the node hears it, too, if there is one."""
        self._jobs.pop(held.id, None)
        if (telling := self._grown.pop(held.id, None)) is not None:
            telling.cancel()
        if self._started.pop(held.id, None) is not None and not self._started:  # its end says it, too
            self._forget_timer()
        self._elsewhere += held.spool.size
        end = held.spool.next_seq
        size = held.spool.size
        self._say({"t": "exited", "job": held.id, "pid": held.pid, "end": end, "size": size, "exit": ending})
        self._rest()

    # --- nodes ---

    def link(self) -> Link:
        """For the socket's server: a newcomer."""
        link = Link(self._hear, self._gone)
        self._links.add(link)
        return link

    def _gone(self, link: Link) -> None:
        self._links.discard(link)
        if self._node is link:
            self._node = None
        if self._orders is link:
            self._orders = None
            self._prepared.clear()
        self._rest()

    def _rest(self) -> None:
        if not self._jobs and not self._links:
            self.over.set()

    def leave_if_idle(self) -> None:
        """Nobody came in time."""
        self._rest()

    def end_all(self) -> None:
        """The machine is going down: end the jobs in order, then ourselves."""
        for held in list(self._jobs.values()):
            held.signal(signal.SIGTERM, ENDING_GRACE)
        for link in list(self._links):
            if not self._jobs:
                link.close()

    def _say(self, header: Header, body: bytes = b"") -> None:
        if self._started:
            self._tell_started()
        if self._node is not None:
            self._node.say(header, body)

    def _hear(self, link: Link, header: Header, body: bytes) -> None:
        if link.peer_uid not in {os.getuid(), -1}:
            link.close()
            return
        number = header.get("r")
        try:
            answer, payload = self._obey(link, header, body)
        except Exception as error:  # noqa: BLE001  # one bad request must not cost all jobs
            answer, payload = {"t": "error", **self._refusal(error)}, b""
        if number is None:
            return
        link.say({"t": "ok", **answer, "r": number}, payload)

    def _refusal(self, error: Exception) -> Header:
        match error:
            case TowlineError():
                documented = error
            case OSError():
                documented = disk_error(error, self.folder)
            case _:
                documented = InternalError(f"A bug in the keeper: {type(error).__name__}: {error}.")
                print(documented.sentence, file=sys.stderr, flush=True)
        return {"code": documented.code, "message": documented.sentence}

    def _started_soon(self, held: Held) -> None:
        """It has started; most have also ended, or printed something, before anybody could do anything with that."""
        if self._by_and_by is None:
            self._by_and_by = self.loop.call_later(ANSWER_SECONDS, self._tell_started)
        self._started[held.id] = held

    def _tell_started(self) -> None:
        self._forget_timer()
        started, self._started = self._started, {}
        for held in started.values():
            if self._node is not None:
                self._node.say({"t": "started", "job": held.id, "pid": held.pid})

    def _forget_timer(self) -> None:
        if self._by_and_by is not None:  # or it would part the next start from its end
            self._by_and_by.cancel()
            self._by_and_by = None

    def _obey(self, link: Link, header: Header, body: bytes) -> tuple[Header, bytes]:
        fields: dict[str, Any] = dict(header)
        held = self._jobs.get(str(fields.get("job", "")))
        match fields.get("t"):
            case "hello":
                return self._take_over(link, fields, json.loads(body))
            case "orders" if fields.get("token") == self._token:
                self._orders = link
            case "prepare" if link is self._orders:
                spec = json.loads(body)
                self._prepared[str(fields["job"])] = spec | {"env": self._env | spec["env"]}
            case "drop" if link is self._orders:
                self._prepared.pop(str(fields["job"]), None)
            case "go" if link is self._orders:
                self._go(str(fields["job"]))
            case "elsewhere":
                self._elsewhere = max(self._elsewhere + int(fields["change"]), 0)
                self._stir()
            case "input" if held is not None:
                held.input(str(fields["writer"]), int(fields["at"]), body, end=bool(fields.get("end")))
            case "position":
                writer = str(fields["writer"])
                at = held.position(writer) if held else 0
                return {"at": at, "eof": held is not None and held.modes is None and held.eof}, b""
            case "resize" if held is not None:
                held.resize(int(fields["rows"]), int(fields["columns"]))
            case "signal":
                after = fields.get("kill_after")
                done = held is not None and held.signal(
                    int(fields["number"]), None if after is None else float(after)
                )
                return {"done": done}, b""
            case "release" if held is not None:
                held.release(int(fields["upto"]))
                self._stir()
            case "goodbye" if held is not None:
                held.goodbye = bool(fields["said"])
            case "stalled":
                return {}, json.dumps([held.id for held in self._jobs.values() if held.stalled]).encode()
            case "screen" if held is not None and held.modes is not None:
                return _screen(held, held.modes)
            case "repaint" if held is not None:
                held.nudge()
            case _:
                pass  # about a job that has just ended
        return {}, b""

    def _take_over(self, link: Link, fields: dict[str, Any], env: dict[str, str]) -> tuple[Header, bytes]:
        before, self._node, self._env = self._node, link, env
        if before is not None:
            before.close()
        if self._orders is not None:
            self._orders.close()
        self._orders, self._token = None, os.urandom(12).hex()
        self._prepared.clear()
        self._spool_max, self._elsewhere = int(fields["spool"]), int(fields["elsewhere"])
        self._stir()
        rows = [held.describe() for held in self._jobs.values()]
        return {"v": VERSION, "pid": os.getpid(), "token": self._token}, json.dumps(rows).encode()

    def _go(self, job: str) -> None:
        """Start what was prepared. Once: it is taken out, and a folder that is there is another start's. Whatever
        goes wrong is told, or the node would take it for running for ever."""
        try:
            held = self._jobs.get(job) or self._start(job)
        except Exception as error:  # noqa: BLE001  # a bug is one more reason not to start it
            self._say({"t": "refused", "job": job, **self._refusal(error)})
        else:
            self._started_soon(held)

    def _start(self, job: str) -> Held:
        spec = self._prepared.pop(job, None)
        if spec is None:
            raise UnknownJob("The process that holds jobs was told to start what it had not been told of.")
        folder = os.path.join(self.folder, job)
        spool = SpoolWriter(folder, int(spec["spool"]), drop=spec.get("overflow") == "drop-oldest")
        try:
            held = self._jobs[job] = Held(self, spool, spec)
        except Exception:
            spool.close()
            remove_spool(folder)
            raise
        return held

    def _stir(self) -> None:
        """There may be room in the spools again."""
        for held in list(self._jobs.values()):
            if held.stalled:
                held.resume()


def _screen(held: Held, modes: Modes) -> tuple[Header, bytes]:
    """What a newcomer's terminal needs: positions in the spool, with sizes, and the modes."""
    spans = [[span.first, span.last, *span.size] for span in held.tail.spans()]
    answer: Header = {"end": held.spool.next_seq, "size": list(held.size), "exact": held.tail.exact}
    return answer, json.dumps({"spans": spans, "modes": modes.restore().decode("ascii")}).encode()


async def keep(folder: str, ready: int) -> None:
    """Hold jobs until there are none and nobody asks."""
    loop = asyncio.get_running_loop()
    keeper = Keeper(folder, loop)
    path = os.path.join(folder, SOCKET_NAME)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # we hold the lock, so nobody listens there
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    with short_path(path) as short:
        listener.bind(short)
    server = await loop.create_unix_server(keeper.link, sock=listener, backlog=16)
    for number in (signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, _not_for_us)  # SIG_IGN would be inherited by every command
    loop.add_signal_handler(signal.SIGTERM, keeper.end_all)
    os.write(ready, b"1")
    os.close(ready)
    waiting = loop.call_later(FIRST_NODE_SECONDS, keeper.leave_if_idle)
    await keeper.over.wait()
    waiting.cancel()
    os.unlink(path)
    server.close()


def _not_for_us() -> None:
    """A terminal's signals are for those who sit before it."""


def main(arguments: list[str]) -> int:
    """Take the folder's lock (so that there is one keeper), then hold jobs."""
    folder, ready = arguments[0], int(arguments[1])
    spawn.permit_files(int(arguments[2]))
    if os.fork():
        os._exit(0)  # whoever started us waits for this; from now on we are nobody's child
    lock = os.open(os.path.join(folder, "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1
    os.set_inheritable(ready, False)
    raise_descriptor_limit()
    keep_freed_memory()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(keep(folder, ready))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
