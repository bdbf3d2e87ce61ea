"""kill -9 in the middle of everything: what is left can be resumed, and the final name is never partial."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from towline.services.files import rangelist
from towline.services.files.names import is_partial
from towline.services.files.part import Part, Pin

SIZE = 2 << 20
CONTENT = random.Random(3).randbytes(SIZE)

# Writes the file from where it stands, in small steps and with many checkpoints, says each durable list, publishes,
# and does it again under the next name.
WRITER = """
import os, random, sys
from towline.services.files.part import Part, Pin
size = int(sys.argv[2]); content = random.Random(3).randbytes(size)
folder = os.open(sys.argv[1], os.O_RDONLY)
for turn in range(1000):
    part = Part.open(folder, f"file{turn}", owner="me", pin=Pin(size, 1, "x"))
    gaps = [at for a, b in part.ranges.missing(size) for at in range(a, b, 16384)]
    random.shuffle(gaps)
    for count, at in enumerate(gaps):
        part.write(at, content[at : min(at + 16384, size)])
        if count % 5 == 0:
            print(turn, part.checkpoint().to_list(), flush=True)
    part.publish(final_size=size, replace=False, mtime_ns=1)
    print(turn, "published", flush=True)
"""

SMALL = """
import sys
from towline.services.files.small import SmallFiles
from towline.services.files.tree import Root
root = Root.open(sys.argv[1])
small = SmallFiles(root)
for turn in range(1000):
    batch = [(f"{turn}/{i}", bytes([i]) * 5000, 0o644, 1, False) for i in range(100)]
    assert not any(small.publish(batch))
    print(turn, flush=True)
"""


def killed_after(script: str, lines: int, *args: str) -> list[str]:
    """What the script said before it was killed, at whatever it did right after its nth line."""
    process = subprocess.Popen([sys.executable, "-c", script, *args], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as out:
        said = [out.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        said += out.readlines()
    assert process.wait(30) == -signal.SIGKILL
    return [line for line in said if line.endswith("\n")]


@pytest.mark.parametrize("lines", [1, 2, 13, 26, 27, 28, 41])
def test_a_killed_writer_leaves_what_it_said_to_be_durable(share: Path, lines: int) -> None:
    said = killed_after(WRITER, lines, str(share), str(SIZE))
    turn, _, durable = said[-1].strip().partition(" ")
    for file in share.iterdir():
        assert is_partial(file.name) or file.read_bytes() == CONTENT, "a partial has a final name"
    folder = os.open(share, os.O_RDONLY)
    if not (share / f"file{turn}").exists():
        part = Part.open(folder, f"file{turn}", owner="me", pin=Pin(SIZE, 1, "x"))
        assert part.restarted_because is None
        assert durable != "published"
        for a, b in eval(durable):
            assert part.ranges.has(a, b)
        for a, b in part.ranges:
            assert os.pread(part.fd, b - a, a) == CONTENT[a:b]
        for a, b in part.ranges.missing(SIZE):
            part.write(a, CONTENT[a:b])
        part.publish(final_size=SIZE, replace=False)
        assert (share / f"file{turn}").read_bytes() == CONTENT
    os.close(folder)


@pytest.mark.parametrize("lines", [1, 3, 7])
def test_small_files_are_whole_or_not_there(share: Path, lines: int) -> None:
    said = killed_after(SMALL, lines, str(share))
    for turn in range(len(said)):
        assert len(list((share / str(turn)).iterdir())) == 100
    for file in share.rglob("*"):
        if file.is_file() and not is_partial(file.name):
            assert file.read_bytes() == bytes([int(file.name)]) * 5000


UNFLUSHED = """
import os, random, sys
from towline.services.files.part import Part, Pin
size = int(sys.argv[2]); content = random.Random(3).randbytes(size)
part = Part.open(os.open(sys.argv[1], os.O_RDONLY), "file", owner="me", pin=Pin(size, 1, "x"))
part.write(0, content[:4096])
part.checkpoint()
for at in range(4096, size - 4096, 16384):
    part.write(at, content[at : min(at + 16384, size - 4096)])
print(part.durable.to_list(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("same_boot", [True, False])
def test_what_a_killed_writer_had_not_flushed_counts_until_the_machine_stops(
    share: Path, monkeypatch: pytest.MonkeyPatch, same_boot: bool
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UNFLUSHED, str(share), str(SIZE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"[[0, 4096]]\n"
    process.kill()
    process.communicate(timeout=30)
    if not same_boot:
        monkeypatch.setattr(rangelist, "_boot", lambda: "another")
    folder = os.open(share, os.O_RDONLY)
    part = Part.open(folder, "file", owner="me", pin=Pin(SIZE, 1, "x"))
    assert part.durable.to_list() == [[0, 4096]]
    assert part.ranges.contiguous() >= (SIZE - (1 << 20) if same_boot else 4096)
    assert same_boot or part.ranges == part.durable
    for a, b in part.ranges:
        assert os.pread(part.fd, b - a, a) == CONTENT[a:b]
    part.invalidate([(0, SIZE)])
    part.close()
    again = Part.open(folder, "file", owner="me", pin=Pin(SIZE, 1, "x"))
    assert not again.ranges, "what was taken back came back with the note"
    again.close()
    os.close(folder)
