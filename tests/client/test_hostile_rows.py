"""A node that answers with rows of wrong types: a numbered error with a sentence, never a traceback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.kit import TOW, complaints, environment, joined, run, serving

import towline

ROOM = {"room": "lobby", "topic": "", "private": False, "here": 1, "last": 1, "read": 0}
PERSON = {"who": "ann", "state": "here", "nick": "", "since": 1.0}
DESCRIBED = {"room": "lobby", "topic": "", "private": False, "epoch": 1, "first": 1, "last": 0}
JOB = {
    "job": "a",
    "person": "b",
    "state": "running",
    "argv": ["c"],
    "age": 1.0,
    "bytes": 0,
    "on_disconnect": ["keep", 1],
}
AUDIT = {"time": 1.0, "person": "a", "action": "b", "subject": "c", "detail": "d"}
MESSAGE = {"epoch": 1, "seq": 1, "time": 1.0, "id": "a", "from": "b", "kind": "message", "text": "c"}

# The service, what it answers when it is honest, the verb, and fields that a hostile one sends instead.
CASES = [
    ("rooms", [ROOM], ["rooms", "home"], [{"last": "x"}, {"read": None}]),
    ("rooms", [PERSON], ["who", "home"], [{"since": 1e300}, {"rooms": 7}]),
    ("rooms", DESCRIBED, ["rooms", "home", "lobby"], [{"topic": 7}]),
    ("rooms", MESSAGE, ["log", "home", "lobby"], [{"time": 1e300}]),
    ("jobs", [JOB], ["jobs", "home"], [{"age": "x"}, {"argv": 7}, {"on_disconnect": [1]}]),
    ("admin", [AUDIT], ["audit", "home"], [{"time": 1e300}]),
    ("files", [["files", True]], ["ls", "home"], [[["files"]]]),
    ("files", [["a", "file", 1, 1, 0o644]], ["ls", "home:files"], [[["a", "file", 1, 1 << 100, 0]]]),
]  # fmt: skip


def _changed(right: object, wrong: object) -> object:
    if isinstance(wrong, list):
        return wrong
    assert isinstance(wrong, dict)
    return [right[0] | wrong] if isinstance(right, list) else right | wrong  # type: ignore[operator]


@pytest.mark.parametrize(("service", "right", "words", "wrong"), CASES, ids=[" ".join(case[2]) for case in CASES])
def test_rows_of_another_type_end_in_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    service: str,
    right: object,
    words: list[str],
    wrong: list[object],
) -> None:
    answer: object = None

    async def liar(channel: towline.Channel) -> None:
        channel.accept({"epoch": 1, "seq": 1})
        await channel.send(json.dumps(answer).encode())
        channel.end()

    async def work() -> None:
        nonlocal answer
        async with serving(tmp_path / "data") as node:
            await joined(node, tmp_path / "ann", "ann", "admin")
            node._services._handlers[service] = liar
            for answer in [right, *(_changed(right, each) for each in wrong)]:
                process = await asyncio.create_subprocess_exec(
                    *TOW, *words, env=environment(tmp_path / "ann"), stdout=-1, stderr=-1
                )
                out, err = (each.decode() for each in await process.communicate())
                assert not complaints(err), err
                if answer is right:
                    assert (process.returncode, err) == (0, ""), err
                else:
                    assert (process.returncode, out, err.count("\n")) == (1, "", 1), (answer, out, err)
                    assert "cannot be understood" in err, answer

    run(work())
