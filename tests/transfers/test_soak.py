"""What takes long: a tree of 200,000 files within 120 MiB on both sides."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.kit import TOW, environment, running_node
from tests.transfers.kit import MIB

FILES = 200_000
PEAK = 120 * MIB


def peak(process: int) -> int:
    """The most bytes that were ever resident (proc_pid_status(5), VmHWM)."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


# Between us and the client: a process begins with the peak of the one that started it (getrusage(2), ru_maxrss).
SMALL = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def transfer(home: Path, *arguments: str) -> int:
    """Run it as a process; its peak of resident bytes."""
    command = [sys.executable, "-S", "-c", SMALL, *TOW, *arguments]
    env = environment(home, PYTHONDEVMODE="", PYTHONWARNINGS="")
    return int(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout) * 1024


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_memory_stays_flat_with_very_many_files() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        share = folder / "share"
        share.mkdir()
        for number in range(FILES):
            where = folder / "many" / f"{number // 1000:03}"
            if number % 1000 == 0:
                where.mkdir(parents=True)
            (where / f"{number:06}").write_bytes(b"%d" % number)
        with running_node(folder, "--share", f"files={share}") as node:
            node.join(folder / "home")
            put = transfer(folder / "home", "put", "--quiet", str(folder / "many"), "home:files/many")
            get = transfer(folder / "home", "get", "--quiet", "home:files/many", str(folder / "back"))
            same = transfer(folder / "home", "put", "--quiet", str(folder / "many"), "home:files/many")
            peaks = {"put": put, "get": get, "same": same, "node": peak(node.process.pid)}
        assert sum(len(files) for _, _, files in os.walk(folder / "back")) == FILES
        assert all(value < PEAK for value in peaks.values()), {name: value // MIB for name, value in peaks.items()}
        print({name: value // MIB for name, value in peaks.items()})
