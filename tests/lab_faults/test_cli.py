"""`tow lab faults` as a process."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.kit import complaints

MAIN = (
    "import sys\nfrom towline.cli import lab_faults\nfrom towline.cli.output import Output, parser_for\n"
    "parser = parser_for('lab faults', lab_faults.__doc__, lab_faults.SUMMARY)\nlab_faults.configure(parser)\n"
    "args = parser.parse_args()\nsys.exit(lab_faults.run(args, Output(json=args.json)))"
)


@contextmanager
def started(*options: str) -> Iterator[subprocess.Popen[str]]:
    """The process, for the length of the block; whatever it does, it does not outlive it."""
    command = [sys.executable, "-c", MAIN, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def connected(process: subprocess.Popen[str]) -> Callable[[], socket.socket]:
    assert process.stdout is not None
    host, port = json.loads(process.stdout.readline())["address"].split(":")
    return lambda: socket.create_connection((host, int(port)), timeout=20)


def all_of(served: socket.socket) -> bytes:
    served.settimeout(20)
    return b"".join(iter(lambda: served.recv(100), b""))


def ended_well(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not complaints(process.stderr.read())


def test_json_events_from_listening_to_done() -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        to = "{}:{}".format(*target.getsockname())
        with started("--to", to, "--cut-after", "5", "--json") as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            assert (first["v"], first["event"]) == (1, "listening")
            host, port = first["address"].split(":")
            with socket.create_connection((host, int(port)), timeout=20) as client:
                served, _ = target.accept()
                client.sendall(b"0123456789")
                with served:
                    assert all_of(served) == b"01234"
            cut = json.loads(process.stdout.readline())
            assert (cut["event"], cut["n"], cut["at"], cut["connections"]) == ("cut", 1, 5, 1)
            process.send_signal(signal.SIGTERM)
            done = json.loads(process.stdout.readline())
            assert done == {"v": 1, "event": "done", "bytes_up": 5, "bytes_down": 0, "cuts": 1, "connections": 1}
            assert process.wait(20) == 0


def test_text_for_people_and_interrupt() -> None:
    with started("--to", "127.0.0.1:1", "--cut-every", "20MB", "--seed", "7") as process:
        assert process.stdout is not None
        assert "planned: cut at " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().startswith("done: ")
        assert process.wait(20) == 0


def test_the_relay_goes_on_when_nobody_reads_what_it_tells() -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(20)
        with started("--to", "{}:{}".format(*target.getsockname()), "--cut-every", "5", "--json") as process:
            connect = connected(process)
            assert process.stdout is not None
            process.stdout.close()  # as `| head -1` does
            for _ in range(3):
                with connect() as client:
                    served, _ = target.accept()
                    client.sendall(b"0123456789")
                    with served:
                        assert b"0123456".startswith(all_of(served))
            ended_well(process)


def test_a_relay_that_is_out_of_descriptors_goes_on_when_some_have_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(20)
        to = "{}:{}".format(*target.getsockname())
        with started("--to", to, "--json") as process:
            connect = connected(process)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (32, 32))
            crowd = [connect() for _ in range(40)]
            for each in crowd:
                each.close()
            with connect() as client:
                client.sendall(b"!")
                said = b""
                while said != b"!":  # the crowd's relays say nothing
                    served, _ = target.accept()
                    with served:
                        served.settimeout(20)
                        said = served.recv(1)
            ended_well(process)
