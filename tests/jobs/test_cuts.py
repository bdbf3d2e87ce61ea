"""The cut: connections, clients, nodes and keepers that end while a command goes on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests import kit
from tests.jobs.kit import Place, alive, collect, gone, items
from tests.kit import TOW, environment, events, finished, joined, open_for_writing, run, serving, tow, until

from towline.base.errors import JobLost, JobUnreachable, TimedOut
from towline.client.connect import connect
from towline.client.line import Line
from towline.client.output import Chunk
from towline.lab.faults import FaultScript
from towline.node import Node
from towline.protocol.codec import Header
from towline.services.jobs import keeping, starting
from towline.services.jobs.messages import Spec
from towline.services.jobs.roster import Roster
from towline.store import Store

patient = kit.patient
KIB, MIB = 1024, 1024 * 1024
# Prints pseudo-random lines on both streams by turns, a number before each; 16 MiB or so.
NOISE = (
    "import sys,random\nr=random.Random(7)\n"
    "for i in range(240):\n"
    "    s=sys.stdout if i%3 else sys.stderr\n"
    "    s.buffer.write(b'%d ' % i + r.randbytes(70000)); s.buffer.flush()\n"
    "sys.exit(41)"
)


def noise() -> dict[str, bytes]:
    source, parts = random.Random(7), {"stdout": b"", "stderr": b""}
    for number in range(240):
        parts["stdout" if number % 3 else "stderr"] += b"%d " % number + source.randbytes(70000)
    return parts


@pytest.mark.parametrize("seed", [1, 2])
def test_output_is_exact_through_many_cuts(place: Place, seed: int) -> None:
    async def go(cuts: object) -> None:
        async with place.line() as line:
            job = await line.start(["python3", "-c", NOISE])
            got = await collect(job)
            assert {name: hashlib.sha256(each).hexdigest() for name, each in got.items()} == {
                name: hashlib.sha256(each).hexdigest() for name, each in noise().items()
            }
            assert job.ended is not None
            assert job.ended.status == 41
            assert line.cuts >= 10

    with place.faulty(FaultScript(seed=seed, cut_every=700_000, reset=bool(seed % 2), max_cuts=20)) as proxy:
        run(go(proxy))


def test_input_is_exact_through_many_cuts(place: Place) -> None:
    async def go() -> None:
        data = random.Random(3).randbytes(6 * MIB)
        async with place.line() as line:
            result = await line.run(["sha256sum"], input=data)
            assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
            assert line.cuts >= 5

    with place.faulty(FaultScript(seed=5, cut_every=500_000, max_cuts=12)):
        run(go())


def test_input_that_is_still_on_its_way_from_before_a_cut(place: Place, tmp_path: Path) -> None:
    """The command takes bytes of the stream that was cut while the next one sends the same bytes again."""
    data = random.Random(4).randbytes(900 * KIB)

    async def one(line: Line, number: int) -> None:
        os.mkfifo(tmp_path / str(number))
        job = await line.start(["sh", "-c", f"read a < {tmp_path}/{number}; exec sha256sum"], stdin=True)
        request: Header = {"service": "jobs", "op": "input", "job": job.id, "writer": job._feeding._writer}
        before = (await line.connection()).open(request)
        await before.accepted()
        for start in range(0, 500 * KIB, 50 * KIB):
            await before.send(data[start : start + 50 * KIB])
        await line.jobs()  # by now the node has it, and the command has not
        (tmp_path / str(number)).write_text("on\n")
        await job.write(data)
        await job.write_eof()
        assert (await collect(job))["stdout"].split()[0].decode() == hashlib.sha256(data).hexdigest()
        await job.close()
        before.reset()

    async def go() -> None:
        async with place.line() as line:
            for number in range(20):
                await one(line, number)

    run(go())


def test_a_retried_start_starts_one_process(place: Place, tmp_path: object) -> None:
    async def go() -> None:
        async with place.line() as line:
            for number in range(5):
                result = await line.run(["sh", "-c", f"echo x >> {tmp_path}/started-{number}; echo ok"])
                assert result.stdout == b"ok\n"

    # Each connection lives for about as long as a handshake and a start: answers are lost, requests come again.
    with place.faulty(FaultScript(seed=11, cut_every=4500, max_cuts=40)):
        run(go())
    for number in range(5):
        with open(f"{tmp_path}/started-{number}") as file:
            assert file.read() == "x\n"


def test_another_client_goes_on_where_a_killed_one_was(place: Place) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; read a; echo the end; exit 3"
    arguments = [*TOW, "run", "home", "--json", "--", "sh", "-c", script]
    client = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(place.home))
    assert client.stdout is not None
    assert client.stdin is not None
    first = events(client.stdout.readline().decode() + client.stdout.readline().decode())
    client.kill()
    client.communicate()
    job, seen = first[0]["job"], first[1]

    async def go() -> None:
        async with place.line() as line:
            rest = asyncio.ensure_future(collect(line.job(job), seen["seq"] + 1))
            other = line.job(job)
            await other.write(b"\n")
            whole = seen["data"].encode() + (await rest)["stdout"]
            assert whole == b"".join(b"line %d\n" % number for number in range(2000)) + b"the end\n"
            await other.close()

    run(go())
    done = tow("attach", "home", job, home=place.home, expect=3)
    assert done.stdout.endswith("line 1999\nthe end\n")
    assert done.stdout.startswith("line 0\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_jobs_outlive_the_node(own: Place, number: int) -> None:
    async def go() -> None:
        async with own.line() as line:
            await line.run(["echo", "before"])
            job = await line.start(["sh", "-c", "echo one; read a; echo two; exit 9"], stdin=True)
            reading = asyncio.ensure_future(collect(job))
            await until(lambda: (own.jobs_folder / job.id).exists())
            await asyncio.to_thread(own.restart, number)
            assert [row["state"] for row in await line.jobs()] == ["exited", "running"]
            await job.write(b"\n")
            assert (await reading)["stdout"] == b"one\ntwo\n"
            assert job.ended is not None
            assert job.ended.status == 9
            await job.close()

    run(go())


def test_the_end_of_input_that_an_earlier_node_brought_is_known(own: Place) -> None:
    async def feed(line: Line, job: str) -> dict[str, Any]:
        channel = await line.channel({"service": "jobs", "op": "input", "job": job, "writer": "w"})
        at = (await channel.accepted())["at"]
        await channel.send(b"abc"[int(str(at)) :])
        channel.end()
        async for _ in channel:
            pass
        return channel.trailer or {}

    async def go() -> None:
        async with own.line() as line:
            job = await line.start(["sh", "-c", "cat; exec sleep 600"], stdin=True)
            for _ in range(2):
                assert await finished(feed(line, job.id)) == {"at": 3, "eof": True, "over": False}
                await asyncio.to_thread(own.restart)
            await job.signal("KILL")
            await job.close()

    run(go())


def test_a_job_that_ends_while_there_is_no_node(own: Place, tmp_path: Path) -> None:
    async def go() -> None:
        async with own.line() as line:
            job = await line.start(["sh", "-c", f"echo start; read a <{fifo}; echo end; exit 4"])
            other = await line.start(["sleep", "60"])
            await until(lambda: len(own.keepers()) == 1)
            own.node.signal(signal.SIGKILL)
            await asyncio.to_thread(own.node.wait)
            with os.fdopen(await open_for_writing(fifo), "w") as file:
                file.write("\n")
            keeper = own.keepers()[0]
            assert alive(keeper)
            await asyncio.to_thread(own.restart)
            assert (await collect(job))["stdout"] == b"start\nend\n"
            assert job.ended is not None
            assert job.ended.status == 4
            assert own.keepers() == [keeper]
            await other.signal("KILL")
            await other.close()

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    run(go())


def test_a_dead_keeper_means_lost_and_never_an_exit_status(own: Place) -> None:
    async def go() -> None:
        async with own.line() as line:
            done = await line.run(["sh", "-c", "echo done; exit 5"])
            job = await line.start(["sh", "-c", "echo $$; exec sleep 60"])
            seen: list[bytes] = []
            with pytest.raises(JobLost, match="exit status is not known"):
                async for item in job.output():
                    assert isinstance(item, Chunk)
                    seen.append(item.data)
                    os.kill(own.keepers()[0], signal.SIGKILL)
            await gone(int(seen[0]))  # nobody holds it: it does not run on unseen
            states = {row["job"]: (row["state"], row["status"]) for row in await line.jobs()}
            assert states == {done.job: ("exited", 5), job.id: ("lost", None)}
            with pytest.raises(JobLost):
                await items(line.job(job.id))
            assert (await line.run(["echo", "again"])).stdout == b"again\n"  # a new keeper

    run(go())


def test_of_a_lost_job_nothing_runs_on(own: Place) -> None:
    """Not what its command has started either; also when nobody had the time to write its process down."""

    async def go() -> None:
        async with own.line() as line:
            job = await line.start(["sh", "-c", "sleep 60 & echo $$ $!; wait"])
            async for item in job.output():
                assert isinstance(item, Chunk)
                pids = [int(each) for each in item.data.split()]
                break
            await job.close()
        own.node.signal(signal.SIGKILL)
        own.node.wait()
        os.kill(own.keepers()[0], signal.SIGKILL)
        with Store.open(str(own.node.data)) as store:
            (row,) = store.jobs.all()
            store.jobs.update(replace(row, state="starting", pid=0))
        own.restart()
        for pid in pids:
            await gone(pid)
        async with own.line() as line:
            assert [each["state"] for each in await line.jobs()] == ["lost"]

    run(go())


def test_a_keeper_that_does_not_answer_is_said_to_and_starts_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            async with connect("home", home=home) as line:
                first = await line.start(["sleep", "60"], detach=True)
                keeper = int((await line.run(["sh", "-c", "echo $PPID"])).stdout)
                os.kill(keeper, signal.SIGSTOP)
                try:
                    monkeypatch.setattr(starting, "START_SECONDS", 0.5)  # not before: its own start takes longer
                    monkeypatch.setattr(keeping, "ANSWER_SECONDS", 0.5)
                    with pytest.raises(TimedOut, match="may start yet: tow jobs shows it"):
                        await line.start(["sh", "-c", f"echo $$ > {tmp_path}/late; exec sleep 60"])
                    with pytest.raises(TimedOut, match="does not answer"):
                        await first.signal("KILL")
                    late = next(row["job"] for row in await line.jobs() if "late" in row["argv"][-1])
                    assert not (tmp_path / "late").exists()
                finally:
                    monkeypatch.undo()
                    os.kill(keeper, signal.SIGCONT)
                ended = [await line.job(first.id).wait()]
                assert ended[0].signal == "KILL"  # it was asked for, and is done
                await until(lambda: (tmp_path / "late").exists() and (tmp_path / "late").read_text())
                assert await line.job(late).signal("KILL")
                assert (await line.job(late).wait()).signal == "KILL"
                assert (await line.run(["echo", "again"])).stdout == b"again\n"

    run(scenario())


def test_who_leaves_while_a_start_is_written_down_leaves_nothing_half_begun(tmp_path: Path) -> None:
    async def leave(jobs: Roster, spec: Spec) -> None:
        with jobs._store.database.transaction():  # until we are through, nobody else writes
            asking = asyncio.ensure_future(jobs.start("ann", spec))
            await until(lambda: jobs._starting._beginning._busy, "it is being written down")
            asking.cancel()
            await asyncio.wait([asking])

    async def scenario() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            async with connect("home", home=home) as line:
                jobs: Roster = node._services._handlers["jobs"]._roster  # type: ignore[attr-defined]
                spec = Spec(request="once", argv=["sh", "-c", f"echo x >> {tmp_path}/begun"])
                await leave(jobs, spec)
                again = await jobs.start("ann", spec)
                assert (await line.job(again.id).wait()).status == 0
                assert (tmp_path / "begun").read_text() == "x\n"
                left = Spec(request="left", argv=["true"])
                await leave(jobs, left)
                rows: list[dict[str, object]] = []
                while {row["state"] for row in rows} != {"exited"} or len(rows) != 2:
                    rows = await line.jobs()

    run(scenario())


def test_a_dead_keeper_is_noticed_by_the_next_node(own: Place) -> None:
    async def go() -> None:
        async with own.line() as line:
            job = await line.start(["sleep", "60"], detach=True)
            await until(lambda: own.keepers())
            own.node.signal(signal.SIGKILL)
            own.node.wait()
            os.kill(own.keepers()[0], signal.SIGKILL)
            await until(lambda: not own.keepers())
            await asyncio.to_thread(own.restart)
            assert [row["state"] for row in await line.jobs()] == ["lost"]
            with pytest.raises(JobLost):
                await job.wait()

    run(go())


def test_a_lost_connection_is_no_exit_status(own: Place, patient: None) -> None:
    async def go() -> None:
        async with own.line(give_up=0.3) as line:
            job = await line.start(["sh", "-c", "echo hi; sleep 60"])
            with pytest.raises(JobUnreachable, match=job.id):
                async for item in job.output():
                    assert isinstance(item, Chunk)
                    own.node.signal(signal.SIGKILL)
                    await asyncio.to_thread(own.node.wait)
            assert job.ended is None

    run(go())
    done = tow("attach", "home", "abcd-efgh", "--give-up", "100ms", home=own.home, expect=6)
    assert "cannot be reached" in done.stderr
    own.restart()


def test_what_happens_without_a_client(own: Place) -> None:
    async def go() -> None:
        async with own.line() as line:
            kept = await line.start(["sleep", "60"])
            killed = await line.start(["sleep", "60"], on_disconnect="kill")
            later = await line.start(["sleep", "60"], on_disconnect="kill", after=0.3)
            connection = await line.connection()
            connection.abort()

            async def states() -> list[str]:
                return [row["state"] for row in await line.jobs()]

            while await states() != ["running", "killed", "killed"]:
                pass
            await kept.signal("KILL")
            for job in (kept, killed, later):
                await job.close()

    run(go())


@pytest.mark.parametrize("goodbye", [True, False])
def test_who_said_goodbye_is_known_to_the_next_node(tmp_path: Path, goodbye: bool) -> None:
    """A command that is to end without a client does so, unless its client comes back to the node within a minute."""

    async def scenario() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            async with connect("home", home=home) as line:
                job = await line.start(["sleep", "60"], on_disconnect="kill")
                if goodbye:
                    await job.close()
                    await until(lambda: _roster(node).live[job.id].goodbye)
                await node.stop(drain=0)
        async with serving(tmp_path / "node") as node:
            live = _roster(node).live[job.id]
            assert live.alone is not None
            left = live.alone.when() - asyncio.get_running_loop().time()
            assert (left > 80_000) is goodbye
            assert goodbye or left < 61
            await _roster(node).signal("ann", live.row, signal.SIGKILL, None)
            await until(lambda: live.over)

    run(scenario())


def _roster(node: Node) -> Roster:
    return node._services._handlers["jobs"]._roster  # type: ignore[attr-defined,no-any-return]


def test_the_rows_of_jobs_survive_a_restart_that_comes_at_once(own: Place) -> None:
    async def go() -> None:
        async with own.line() as line:
            await line.run(["sh", "-c", "echo x; exit 3"])
            await asyncio.to_thread(own.restart)
            rows = await line.jobs()
            assert [(row["state"], row["status"]) for row in rows] == [("exited", 3)]

    run(go())
    own.node.signal()
    own.node.wait()
    with Store.open(str(own.node.data)) as store:
        assert [row.state for row in store.jobs.all()] == ["exited"]
