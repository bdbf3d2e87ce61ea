"""A crowd in one room: what fifty people write in a second, one message to 2,000 readers, 5,000 who only listen."""

from __future__ import annotations

import math
import os
import tempfile
import time
from typing import Any

from bench.harness import HIGHER, LOWER, Bench, Case, Contender, Sample
from bench.peers.base import Helper
from bench.peers.towline import TowlineOnDisk, path
from bench.processes import cpu_seconds, resident_kib
from bench.works.idle import certificate
from towline.journal.core import Journal
from towline.services.rooms.messages import Post, entries_of, owner_key, parse_posts, said

SUMMARY = "fifty writers in one room; one message to 2,000 TLS readers; 5,000 idle ones joined to a room"
WRITERS, EACH, AT_ONCE = 50, 320, 64
FEWER = 16
ALONE = 300  # of the one writer who waits for each
READERS, IDLE = 2000, 5000
MESSAGES = 5  # one after the other, in each round of the fan-out
PROCESSES = 2  # of readers
RECORD_BYTES = 320


class _Node(TowlineOnDisk):
    """A node of its own: what others left in its memory would hide what a connection costs."""

    name = "towline with a crowd"


def run(bench: Bench) -> None:
    node = bench.peer(_Node)
    _writers(bench, node)
    crowd = _Readers(bench, node) if node else None
    others = _WebSockets(bench)
    try:
        _fan_out(bench, crowd, others)
        others.close()
        if crowd is not None:
            _idle(bench, crowd)
    finally:
        others.close()
        if crowd is not None:
            crowd.close()


# --- writing ---


def _writers(bench: Bench, node: _Node | None) -> None:
    count = bench.scale.count(EACH)
    contenders = []
    if node is not None:
        writers = _crowd(bench, node)
        writers.ask(do="people", count=WRITERS, name="writer")
        writers.ask(do="writers")

        def write(at_once: int) -> Sample:
            before = cpu_seconds(node.pid)
            answer = writers.ask(do="write", room="lobby", writers=WRITERS, count=count, at_once=at_once)
            total = WRITERS * count
            spent = cpu_seconds(node.pid) - before
            each = {"node's µs each": spent * 1e6 / total, "writers' µs each": answer["cpu"] * 1e6 / total}
            return Sample(total / answer["seconds"], each)

        def alone() -> Sample:
            few = bench.scale.count(ALONE)
            return Sample(few / writers.ask(do="write", room="lobby", writers=1, count=few, at_once=1)["seconds"])

        kept = "each on the disk before it is acknowledged; TLS"
        contenders.append(Contender("towline", lambda: write(AT_ONCE), kept))
        contenders.append(Contender(f"the same, {FEWER} at a time", lambda: write(FEWER), kept))
        contenders.append(Contender("one writer, one under way", alone, "the same room with nothing to group; TLS"))
    contenders.append(Contender("the journal alone", lambda: _journal(bench), "one process, no network: the floor"))
    contenders += [
        Contender("the journal, one fsync each", lambda: _journal_each(bench), "no group commit, and no network"),
        Contender(
            "the disk alone, one fsync each", lambda: _fsyncs(bench), "records written to a file, nothing else"
        ),
    ]
    note = f"each says {count} of 100 bytes, {AT_ONCE} at a time, without an outbox; a line and a key for each"
    case = Case("crowd", f"acknowledged, {WRITERS} writers in one room", "messages/s", HIGHER, contenders, note)
    case.key = "writers"
    bench.measure(case)
    if node is not None:
        writers.close()


def _journal(bench: Bench) -> Sample:
    """As many messages, decoded, numbered and kept in batches of the same size, as many of them under way."""
    count = bench.scale.count(EACH) * WRITERS // AT_ONCE
    person, owner = "writer", owner_key("writer")
    bodies = [
        said([Post("lobby", f"{os.urandom(8).hex()}.{number}", text="x" * 100) for number in range(AT_ONCE)])
        for _ in range(count)
    ]
    journal = Journal.open(os.path.join(bench.on_disk("journal"), "log"))
    try:
        begun, before = time.perf_counter(), journal.append_many(1, [])
        for number, body in enumerate(bodies, 1):
            posts, _ = parse_posts(body, AT_ONCE)
            last = number % (WRITERS // 2) == 0 or number == count  # one half is made while the other is written
            tickets = journal.append_many(1, entries_of(posts, person, owner), start=last)
            if last:
                journal.wait(before.done if number < count else tickets.done)
                before = tickets
        return Sample(count * AT_ONCE / (time.perf_counter() - begun))
    finally:
        journal.close()


def _journal_each(bench: Bench) -> Sample:
    """The same messages without group commit: each waits for its own, and the next begins then."""
    count, person, owner = bench.scale.count(EACH) * 5, "writer", owner_key("writer")
    posts = [Post("lobby", f"{os.urandom(8).hex()}.{number}", text="x" * 100) for number in range(count)]
    journal = Journal.open(os.path.join(bench.on_disk("journal-each"), "log"))
    try:
        begun = time.perf_counter()
        for id_, payload in entries_of(posts, person, owner):
            journal.append(1, payload, id=id_).result()
        return Sample(count / (time.perf_counter() - begun))
    finally:
        journal.close()


def _fsyncs(bench: Bench) -> Sample:
    """Records of that size into a file, fdatasync(2) for each, as a log without group commit does it."""
    count, record = bench.scale.count(5000), os.urandom(RECORD_BYTES)
    name = os.path.join(bench.on_disk("fsyncs"), "log")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        begun = time.perf_counter()
        for _ in range(count):
            os.write(descriptor, record)
            os.fdatasync(descriptor)
        return Sample(count / (time.perf_counter() - begun))
    finally:
        os.close(descriptor)
        os.unlink(name)


# --- reading ---


class _Readers:
    """Readers of a room in several processes, and one person who says something."""

    def __init__(self, bench: Bench, node: _Node) -> None:
        self.node, self.count = node, 0
        self.first = 0  # readers …
        self.before = 0  # … and the node's KiB when the counting began
        self.helpers = [_crowd(bench, node) for _ in range(PROCESSES)]
        self._speaker = _crowd(bench, node)
        for number, helper in enumerate(self.helpers):
            helper.ask(do="people", count=10, name=f"reader-{number}")
        self._speaker.ask(do="people", count=1, name="speaker")
        self._speaker.ask(do="writers")

    def grow(self, count: int) -> None:
        """Until there are that many."""
        _all(self.helpers, do="readers", room="lobby", count=(count - self.count) // PROCESSES)
        self.count = count

    def tell(self) -> list[float]:
        """One message to all: seconds until each of them had it, in order."""
        return _told(self.helpers, lambda: float(self._speaker.ask(do="publish", room="lobby")["at"]))

    def close(self) -> None:
        for helper in [*self.helpers, self._speaker]:
            helper.close()


class _WebSockets:
    """`websockets.broadcast` to as many readers of the same kind."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.server: Helper | None = None
        self.helpers: list[Helper] = []

    def start(self, count: int) -> None:
        files = certificate(self._bench, "crowd")
        self.server = Helper(self._bench, "bench.peers.websockets_crowd", "serve", *files)
        port = str(self.server.answer()["port"])
        self.helpers = [
            Helper(self._bench, "bench.peers.websockets_crowd", "readers", port) for _ in range(PROCESSES)
        ]
        _all(self.helpers, do="readers", count=count // PROCESSES)

    def tell(self) -> list[float]:
        assert self.server is not None
        server = self.server
        return _told(self.helpers, lambda: float(server.ask(do="broadcast")["at"]))

    def close(self) -> None:
        for helper in [*self.helpers, *([self.server] if self.server else [])]:
            helper.close()
        self.helpers, self.server = [], None


def _fan_out(bench: Bench, crowd: _Readers | None, others: _WebSockets) -> None:
    count = bench.scale.count(READERS)
    contenders = []
    if crowd is not None:
        crowd.grow(10 * PROCESSES)  # modules, keys and tables that the first ones bring in
        crowd.first, crowd.before = crowd.count, resident_kib(crowd.node.pid)
        crowd.grow(count)
        contenders.append(Contender("towline", lambda: _rate(crowd.tell, count), "on the disk first; TLS"))
    others.start(count)
    contenders.append(Contender("websockets.broadcast (TLS)", lambda: _rate(others.tell, count), "nothing kept; TLS"))
    note = f"{MESSAGES} messages one after the other, from the word to the last reader; nobody missed one"
    case = Case("crowd", f"one message to {count} readers", "deliveries/s", HIGHER, contenders, note, key="fan-out")
    bench.measure(case)


def _rate(tell: Any, count: int) -> Sample:
    last = [tell()[-1] for _ in range(MESSAGES)]
    return Sample(count * MESSAGES / sum(last), {"last has it after ms": 1000 * sum(last) / MESSAGES})


def _idle(bench: Bench, crowd: _Readers) -> None:
    count = bench.scale.count(IDLE)
    crowd.grow(count)

    def memory() -> Sample:
        return Sample((resident_kib(crowd.node.pid) - crowd.before) / (count - crowd.first))

    def among_them() -> Sample:
        times = [each for _ in range(MESSAGES) for each in crowd.tell()]
        times.sort()
        p99 = times[math.ceil(len(times) * 0.99) - 1]
        return Sample(1000 * p99, {"p50 ms": 1000 * times[len(times) // 2], "worst ms": 1000 * times[-1]})

    note = f"{count} TLS lines that have joined a room, over one without any"
    held = [Contender("towline", memory, "key proved, TLS 1.3, present in the room")]
    bench.measure(Case("crowd", "an idle reader of a room", "KiB", LOWER, held, note, rounds=1, key="idle reader"))
    told = [Contender("towline", among_them, "from the word to each of them, on the disk before")]
    note = f"{MESSAGES} messages to all {count} of them"
    bench.measure(Case("crowd", "a message among them, p99", "ms", LOWER, told, note, key="among them"))


# --- helpers ---


def _crowd(bench: Bench, node: _Node) -> Helper:
    env = node.env | {"PYTHONPATH": path()}
    return Helper(bench, "bench.peers.crowd", tempfile.mkdtemp(dir=bench.folder), node.unix, env=env)


def _all(helpers: list[Helper], **question: Any) -> list[dict[str, Any]]:
    """Ask all of them at once."""
    for helper in helpers:
        helper.send(**question)
    return [helper.answer() for helper in helpers]


def _told(helpers: list[Helper], tell: Any) -> list[float]:
    _all(helpers, do="expect")
    for helper in helpers:
        helper.send(do="heard_by_all")
    at = tell()
    return sorted(each - at for helper in helpers for each in helper.answer()["times"])
