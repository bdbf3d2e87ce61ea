"""Commands from start to exit status."""

from __future__ import annotations

import asyncio
import hashlib
import os
import select
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.kit import Made, Place, alive, collect, descriptors, gone, items
from tests.kit import DEADLINE, TOW, environment, joined, run, serving, until

from towline.base.errors import (
    BadMessage,
    CommandNotFound,
    Conflict,
    LimitExceeded,
    NoGrant,
    NotExecutable,
    NotFound,
    UnknownJob,
)
from towline.cli.jobbing import write
from towline.client.connect import connect
from towline.client.output import Chunk
from towline.runtime.channel import Channel


def test_streams_apart_and_the_own_status(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            result = await line.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
            assert (result.stdout, result.stderr, result.status, result.truncated) == (b"out\n", b"err\n", 7, False)
            result = await line.run(["sh", "-c", "kill -TERM $$"])
            assert (result.status, result.signal, result.ended.exit_status) == (None, "TERM", 143)

    run(go())


def test_the_order_of_the_two_streams_is_the_order_they_came_in(place: Place) -> None:
    async def go() -> None:
        script = "echo 1; read a; echo 2 >&2; read a; echo 3; read a; echo 4 >&2"
        async with place.line() as line:
            job = await line.start(["sh", "-c", script], stdin=True)
            seen: list[tuple[str, bytes]] = []
            async for item in job.output():
                assert isinstance(item, Chunk)
                seen.append((item.stream, item.data))
                await job.write(b"\n")
            await job.close()
        assert seen == [("stdout", b"1\n"), ("stderr", b"2\n"), ("stdout", b"3\n"), ("stderr", b"4\n")]

    run(go())


def test_words_never_meet_a_shell_and_a_shell_line_does(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            words = ["printf", "[%s]", "a b", "$HOME", "*", "", "\udcff"]
            assert (await line.run(words)).stdout == b"[a b][$HOME][*][][\xff]"
            assert (await line.run(["echo a | tr a b"], shell=True)).stdout == b"b\n"
            above = await line.run(["sh", "-c", "cd ..; pwd"])
            assert (await line.run(["pwd"], cwd="..")).stdout == above.stdout  # from the home folder on
            result = await line.run(["sh", "-c", "pwd; echo $WHO"], cwd="/usr", env={"WHO": "ann"})
            assert result.stdout == b"/usr\nann\n"

    run(go())


# A lone surrogate that stands for no byte; more seconds than the list could show.
_UNHEARD_OF: list[tuple[list[str], dict[str, Any]]] = [
    (["here", "\ud800"], {}),
    (["here"], {"env": {"A": "\ud800"}}),
    (["here"], {"cwd": "\ud800"}),
    (["here"], {"on_disconnect": "kill", "after": 2e11}),
]


def test_what_cannot_be_run_says_why(place: Place, tmp_path: object) -> None:
    async def go() -> None:
        async with place.line() as line:
            await line.run(["true"])  # the folder is there with the first one
            before = {each.name for each in place.jobs_folder.iterdir()}
            with pytest.raises(CommandNotFound, match="no command 'nosuch'"):
                await line.run(["nosuch"])
            with pytest.raises(NotExecutable, match="passwd"):
                await line.run(["/etc/passwd"])
            with pytest.raises(NotFound, match="/no/where"):
                await line.run(["true"], cwd="/no/where")
            for size in (None, (24, 80)):
                with pytest.raises(CommandNotFound, match="name is empty"):
                    await line.run([""], size=size)
            for argv, options in _UNHEARD_OF:
                with pytest.raises(BadMessage):
                    await line.run(argv, **options)
            with pytest.raises(UnknownJob):
                await collect(line.job("none-such"))
            assert not [row for row in await line.jobs() if row["argv"][0] in {"nosuch", "/etc/passwd", "", "here"}]
            after = {each.name for each in place.jobs_folder.iterdir() if each.is_dir()}
            assert after <= before  # what never ran leaves nothing behind

    run(go())


def test_a_command_that_is_nested_without_end_is_no_bug(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            channel = await line.channel({"service": "jobs", "op": "start"})
            channel.send_nowait(b"[" * 200_000)
            with pytest.raises(BadMessage, match="not JSON"):
                await channel.accepted()

    run(go())


def test_the_beginning_of_the_output_is_kept_and_nothing_behind_what_is_not(place: Place) -> None:
    async def go() -> None:
        script = "printf abc; read a; head -c 100000 /dev/zero; read a; printf xyz; printf err >&2"
        async with place.line() as line:
            result = await line.run(["sh", "-c", script], keep=5, input=b"\n\n")
            assert (result.stdout, result.stderr, result.truncated) == (b"abc\0\0", b"err", True)
            result = await line.run(["printf", "abc"], keep=3)
            assert (result.stdout, result.truncated) == (b"abc", False)

    run(go())


def test_long_words_do_not_spoil_the_list(own: Place) -> None:
    async def go() -> None:
        words = ["true", *(["\U0001f600" * 600] * 49)]  # each character is twelve bytes in JSON
        async with own.line() as line:
            done = [await line.run(words) for _ in range(6)]
            assert [row["job"] for row in await line.jobs()] == [each.job for each in done]

    run(go())


def test_input_is_exact_and_its_end_is_told(place: Place) -> None:
    async def go() -> None:
        data = bytes(range(256)) * 20_000
        async with place.line() as line:
            result = await line.run(["sha256sum"], input=data)
            assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
            result = await line.run(["head", "-c", "3"], input=data)  # it stops reading: nobody hangs
            assert (result.stdout, result.status) == (data[:3], 0)

    run(go())


def test_input_that_cannot_be_brought_ends_the_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            handlers = node._services._handlers
            honest = handlers["jobs"]

            async def refusing(channel: Channel) -> None:
                if channel.header["op"] == "input":
                    raise BadMessage("Not today.")
                await honest(channel)

            handlers["jobs"] = refusing
            async with connect("home", home=home) as line:
                with pytest.raises(BadMessage, match="Not today"):
                    await line.run(["cat"], input=b"never read")
                job = line.job(str((await line.jobs())[0]["job"]))
                assert (await job.wait()).signal == "TERM", "it would wait for its input for ever"
                client = await asyncio.create_subprocess_exec(
                    *TOW, "run", "home", "--", "cat", stdin=-1, stdout=-1, stderr=-1, env=environment(home)
                )
                _, said = await client.communicate(b"never read")
                assert b"Not today. The job" in said
                assert client.returncode == BadMessage.exit_status
                await line.job(str((await line.jobs())[1]["job"])).signal("KILL")

    run(scenario())


def test_a_grandchild_that_holds_the_output_does_not_hold_the_client(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            result = await line.run(["sh", "-c", "sleep 60 & echo $!"])
            assert result.status == 0
            assert result.ended.left_open
            assert alive(int(result.stdout))
            await line.run(["kill", result.stdout.decode().strip()])

    run(go())


def test_timeout_and_kill_reach_those_who_ignore_term(place: Place) -> None:
    async def go() -> None:
        stubborn = "trap '' TERM; echo $$; while :; do sleep 60; done"
        async with place.line() as line:
            result = await line.run(["sleep", "60"], timeout=0.2)
            assert result.ended.timed_out
            assert result.ended.exit_status == 124
            job = await line.start(["sh", "-c", stubborn])
            async for item in job.output():
                assert isinstance(item, Chunk)
                pid = int(item.data)
                assert await job.signal("TERM", kill_after=0.2)
            assert job.ended is not None
            assert job.ended.signal == "KILL"
            await gone(pid)
            assert not await job.signal("TERM")  # it has ended: nobody else gets it

    run(go())


def test_the_list_tells_everything_and_forget_forgets(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            job = await line.start(["cat"], stdin=True, on_disconnect="kill", after=60.0)
            rows = [row for row in await line.jobs() if row["job"] == job.id]
            assert [(row["state"], row["person"], row["argv"], row["clients"], row["status"]) for row in rows] == [
                ("running", "ann", ["cat"], 1, None)
            ]
            assert rows[0]["on_disconnect"] == ["kill", 60.0]
            with pytest.raises(Conflict):
                await job.forget()
            feeding = asyncio.ensure_future(_feed(line.job(job.id), b"abc"))
            assert (await collect(job))["stdout"] == b"abc"
            await feeding
            row = next(row for row in await line.jobs() if row["job"] == job.id)
            assert (row["state"], row["status"], row["bytes"]) == ("exited", 0, 3)
            assert (await collect(line.job(job.id)))["stdout"] == b"abc"  # again, from the beginning
            await job.forget()
            assert job.id not in {row["job"] for row in await line.jobs()}
            assert not (place.jobs_folder / job.id).exists()

    async def _feed(job: object, data: bytes) -> None:
        await job.write(data)  # type: ignore[attr-defined]
        await job.write_eof()  # type: ignore[attr-defined]

    run(go())


def test_a_position_is_gone_on_from(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            job = await line.start(["sh", "-c", "for i in 1 2 3; do echo $i; read a; done"], stdin=True)
            seen = []
            async for item in job.output():
                assert isinstance(item, Chunk)
                seen.append(item)
                await job.write(b"\n")
            assert [each.data for each in seen] == [b"1\n", b"2\n", b"3\n"]
            again = await items(line.job(job.id), seen[0].seq + 1)
            assert b"".join(each.data for each in again if isinstance(each, Chunk)) == b"2\n3\n"
            await job.close()

    run(go())


def test_with_a_list_of_commands_only_those(make_place: Made) -> None:
    place = make_place(can="run=uptime,echo")

    async def go() -> None:
        async with place.line() as line:
            assert (await line.run(["echo", "hi"])).stdout == b"hi\n"
            refused = ({"argv": ["sh"]}, {"argv": ["/bin/echo"]}, {"argv": ["echo hi"], "shell": True},
                       {"argv": ["echo"], "env": {"PATH": "/tmp"}}, {"argv": [], "login": True})  # fmt: skip
            for options in refused:
                with pytest.raises(NoGrant):
                    await line.start(**options)  # type: ignore[arg-type]

    run(go())


def test_without_the_grant_nothing_of_it(make_place: Made) -> None:
    place = make_place(can="read")

    async def go() -> None:
        async with place.line() as line:
            with pytest.raises(NoGrant, match="run"):
                await line.run(["true"])
            with pytest.raises(NoGrant, match="run"):
                await line.jobs()

    run(go())


def test_starts_signals_and_attachments_are_in_the_audit_log(place: Place) -> None:
    async def go() -> str:
        async with place.line() as line:
            job = await line.start(["sleep", "60"])
            await job.signal("TERM")
            await collect(job)
            await collect(line.job(job.id), note=True)
            return job.id

    job = run(go())
    audit = place.node.tow("audit").stdout
    assert f"ann  run  {job}  sleep 60" in audit
    assert f"ann  signal  {job}  TERM" in audit
    assert f"ann  attach  {job}" in audit


def test_a_thousand_jobs_leave_no_process_and_no_descriptor(place: Place) -> None:
    async def first() -> list[int]:
        async with place.line() as line:
            await line.run(["true"])
            return [*place.keepers(), place.node.process.pid]

    async def some(number: int) -> None:
        async with place.line() as line:

            async def few() -> None:
                for _ in range(number):
                    assert (await line.run(["echo", "x"])).stdout == b"x\n"

            await asyncio.gather(*(few() for _ in range(10)))
            for _ in range(number):
                job = await line.start(["echo", "t"], size=(24, 80))
                assert (await collect(job))["stdout"] == b"t\r\n"

    async def left() -> None:
        async with place.line() as line:
            children = await line.run(["ps", "-o", "stat=", "--ppid", str(processes[0])])
            assert "Z" not in children.stdout.decode()
        await until(lambda: all(descriptors(pid) <= count for pid, count in before.items()), "descriptors are closed")

    processes = run(first())
    run(some(1))  # what is opened once and kept
    before = {pid: descriptors(pid) for pid in processes}
    for _ in range(5):
        run(some(18))
    run(left())


def test_a_person_may_run_so_many_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with place.line() as line:
            with pytest.raises(LimitExceeded, match="job_arguments"):
                await line.run(["echo"] * 5000)

    run(go())


def test_output_that_is_forgotten_while_it_is_read_is_no_exit_status(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            done = await line.run(["head", "-c", "30000000", "/dev/zero"])
            reading = line.job(done.job).output()
            await anext(reading)  # no more than the windows hold is on its way
            await line.job(done.job).forget()
            with pytest.raises(UnknownJob, match="forgotten while it was read"):
                async for _ in reading:
                    pass

    run(go())


def test_output_that_does_not_block_is_waited_for() -> None:
    async def go() -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)  # as a parent that shares it with us may have made it
        data = os.urandom(300_000)
        writes = asyncio.ensure_future(write(writing, data))
        writes.add_done_callback(lambda _: os.close(writing))
        read = b""

        def more() -> bytes:
            assert select.select([reading], [], [], DEADLINE)[0], "the rest never comes"
            return os.read(reading, 50_000)

        while piece := await asyncio.to_thread(more):
            read += piece
        await writes
        assert read == data
        os.close(reading)

    run(go())
