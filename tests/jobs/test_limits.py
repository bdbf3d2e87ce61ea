"""What one person may have at a time, refused by name; and what all together may keep."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.jobs.kit import Made, collect, items
from tests.kit import DEADLINE, TOW, joined, run, running_node, serving, tow

from towline.base.errors import LimitExceeded, UnknownJob
from towline.base.limits import Limit
from towline.client.connect import connect
from towline.client.jobs import Job
from towline.client.line import Line
from towline.client.output import Chunk, Missing
from towline.journal.spool import spool_size
from towline.services.jobs import messages
from towline.services.jobs.roster import Roster


async def held(line: Line, **options: object) -> Job | LimitExceeded:
    """A command that waits for its input; or why not."""
    try:
        return await line.start(["cat"], stdin=True, **options)  # type: ignore[arg-type]
    except LimitExceeded as error:
        return error


async def started(line: Line, request: str) -> str:
    """A command by its request's id."""
    channel = (await line.connection()).open({"service": "jobs", "op": "start", "follow": False})
    channel.send_nowait(messages.Spec(request=request, argv=["cat"], stdin=True).encode())
    job = str((await channel.accepted())["job"])
    channel.end()
    return job


async def read_all(job: Job, most: int) -> bytes:
    """So many bytes of standard output, and what else came until then."""
    said = {"stdout": b"", "stderr": b""}
    async for item in job.output():
        assert isinstance(item, Chunk), item
        said[item.stream] += item.data
        if len(said["stdout"]) >= most and said["stderr"]:
            break
    return said["stdout"] + said["stderr"]


@asynccontextmanager
async def killed_at_the_end(*lines: Line) -> AsyncIterator[None]:
    """Their jobs; a keeper that holds one goes on, also when the test has failed."""
    try:
        yield
    finally:
        for line in lines:
            for row in await line.jobs():
                await line.job(str(row["job"])).signal("KILL")


def test_commands_and_terminals_of_a_person_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "RUNNING_PER_PERSON", Limit("jobs_running", 4, "jobs", "a test"))
    monkeypatch.setattr(messages, "TERMINALS_PER_PERSON", Limit("job_terminals", 2, "terminals", "a test"))

    async def scenario() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            other = await joined(node, tmp_path / "bob", "bob", can="run")
            async with (
                connect("home", home=home) as line,
                connect("home", home=other) as theirs,
                killed_at_the_end(line, theirs),
            ):
                shells = await asyncio.gather(*(held(line, size=(24, 80)) for _ in range(5)))
                assert sum(isinstance(each, Job) for each in shells) == 2  # also when all come at once
                refused = next(each for each in shells if isinstance(each, LimitExceeded))
                assert "Limit job_terminals is 2 terminals; 3 was asked for" in str(refused)
                first = await started(line, "once")
                jobs = await asyncio.gather(*(held(line) for _ in range(5)))
                assert sum(isinstance(each, Job) for each in jobs) == 1
                assert await started(line, "once") == first  # a retry of what has started is none too many
                refused = next(each for each in jobs if isinstance(each, LimitExceeded))
                assert "Limit jobs_running is 4 jobs; 5 was asked for" in str(refused)
                mine = [each for each in [*shells, *jobs] if isinstance(each, Job)]
                assert isinstance(await held(theirs), Job)  # each person on their own
                await mine[-1].signal("KILL")
                await mine[-1].wait()
                assert isinstance(await held(line), Job)

    run(scenario())


def test_kept_output_of_a_person_is_counted(make_place: Made) -> None:
    """Half of a node's spool at the most, in commands that have ended; reading or forgetting makes room."""
    place = make_place("--spool", "4MiB", "--spool-per-job", "2MiB")

    async def big(line: Line) -> Job:
        job = await line.start(["head", "-c", "1200000", "/dev/zero"], detach=True)
        await job.wait()  # for its end; that acknowledges nothing
        return job

    async def scenario() -> None:
        async with place.line() as line:
            first, second = await big(line), await big(line)
            with pytest.raises(LimitExceeded, match=r"job_spool_person is 2097152 bytes.*tow forget ALIAS JOB"):
                await big(line)
            await first.forget()
            await big(line)
            with pytest.raises(LimitExceeded):
                await big(line)
            await collect(second)  # what was read goes when its room is needed
            await big(line)
            with pytest.raises(UnknownJob):
                await collect(second)

    run(scenario())


def test_output_on_its_way_into_the_books_while_they_are_read_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "SPOOL_PER_PERSON", Limit("job_spool_person", 1000, "bytes", "a test"))

    async def scenario() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            roster: Roster = node._services._handlers["jobs"]._roster  # type: ignore[attr-defined]
            books = roster._store.jobs
            late, read, pause = threading.Event(), books.kept_bytes, threading.Event()

            def kept_bytes(person: str | None = None) -> int:
                found = read(person)
                deadline = time.monotonic() + DEADLINE
                while not late.is_set() and roster.live:  # its answer comes when the job has got there
                    assert time.monotonic() < deadline
                    pause.wait(0.001)
                late.set()
                return found

            monkeypatch.setattr(books, "kept_bytes", kept_bytes)
            async with connect("home", home=home) as line:
                job = await line.start(["head", "-c", "2000", "/dev/zero"], detach=True)
                await job.wait()
                with pytest.raises(LimitExceeded):
                    await line.start(["true"])
                assert late.is_set()

    run(scenario())


def test_when_all_together_keep_too_much_commands_wait_and_readers_get_on(make_place: Made) -> None:
    place = make_place("--spool", "4MiB", "--spool-per-job", "2MiB")

    async def scenario() -> None:
        async with place.line() as line:
            script = "head -c 1500000 /dev/zero; echo done >&2; exec sleep 60"
            waiting = [await line.start(["sh", "-c", script], detach=True) for _ in range(4)]

            async def full() -> set[str]:
                return {str(row["job"]) for row in await line.jobs() if row["full"]}

            while len(await full()) < 2:  # 4 MiB have room for two, and for parts of a third
                pass
            assert sum(spool_size(str(place.jobs_folder / job.id)) for job in waiting) < 5_000_000  # of 6,000,000
            assert "running, output full" in (await asyncio.to_thread(tow, "jobs", "home", home=place.home)).stdout
            everything = b"".join(b"%d\n" % number for number in range(1, 500_001))
            assert (await line.run(["seq", "500000"])).stdout == everything  # whoever reads gets on
            dropping = await line.start(["seq", "500000"], overflow="drop-oldest", detach=True)
            assert (await line.job(dropping.id).wait()).status == 0  # waits for nobody
            found = await items(line.job(dropping.id))
            assert isinstance(found[0], Missing)
            for job in waiting:
                assert await read_all(line.job(job.id), 1_500_000) == bytes(1_500_000) + b"done\n"
            assert not await full()
            folder, rows = str(place.jobs_folder), await line.jobs()
            total = sum(spool_size(f"{folder}/{row['job']}") for row in rows)  # without the limit, about 10 MB
            # One record more for each who has read everything, with how it began and ended.
            assert total <= 4 * 1024 * 1024 + len(rows) * (256 + 4) * 1024
            for job in waiting:
                await job.signal("KILL")

    run(scenario())


def test_what_was_read_of_one_command_makes_room_for_another(make_place: Made) -> None:
    place = make_place("--spool", "4MiB", "--spool-per-job", "3MiB")

    async def scenario() -> None:
        async with place.line() as line:
            read = await line.start(["sh", "-c", "head -c 2500000 /dev/zero; echo done >&2; exec sleep 60"])
            assert await read_all(read, 2_500_000) == bytes(2_500_000) + b"done\n"
            unread = await line.start(["head", "-c", "2500000", "/dev/zero"], detach=True)
            await unread.wait()  # for its end; that acknowledges nothing
            assert (await collect(line.job(unread.id)))["stdout"] == bytes(2_500_000)
            found = await items(line.job(read.id), follow=False)
            assert isinstance(found[0], Missing)
            await line.job(read.id).signal("KILL")

    run(scenario())


STARVED = """
import os, resource
from towline.base.errors import TowlineError
from towline.services.jobs.spawn import spawn
os.set_inheritable(1, True)
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
open_before = set(os.listdir("/proc/self/fd"))
refused = 0
for size in (None, (24, 80)):
    for limit in range(len(open_before), len(open_before) + 12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        try:
            spawned = spawn(["sleep", "60"], program="", cwd="/", env=dict(os.environ), stdin=True, size=size)
        except (TowlineError, OSError):
            refused += 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
        else:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
            os.killpg(spawned.pid, 9)
            spawned.reap()
            for own in {spawned.pidfd, spawned.stdin, spawned.stdout, spawned.stderr} - {None}:
                os.close(own)
        assert set(os.listdir("/proc/self/fd")) == open_before, (limit, os.listdir("/proc/self/fd"))
        try:
            raise SystemExit(f"a child is left: {os.waitpid(-1, os.WNOHANG)}, {limit}")
        except ChildProcessError:
            pass
print(refused)
"""


def test_a_start_for_want_of_descriptors_leaves_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 6


def test_a_command_may_have_as_many_files_open_as_the_node_was_started_with(tmp_path: Path) -> None:
    """… though the node, and the keeper, have raised their own limit: select(2) knows no more than 1,024."""
    command = ("sh", "-c", 'ulimit -Sn 200; exec "$@"', "sh", *TOW, "serve")
    with running_node(tmp_path, command=command) as node:
        node.join(tmp_path / "ann", "ann", "home", "--can", "run")
        words = ("run", "home", "--shell", "read go; ulimit -Sn; ulimit -Hn")
        soft, hard = tow(*words, home=tmp_path / "ann", stdin="go\n").stdout.split()
        assert soft == "200"
        assert hard == "unlimited" or int(hard) > 200
