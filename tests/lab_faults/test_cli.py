"""`tow lab faults` as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MAIN = (
    "import sys\nfrom towline.cli import lab_faults\nfrom towline.cli.output import Output, parser_for\n"
    "parser = parser_for('lab faults', lab_faults.__doc__, lab_faults.SUMMARY)\nlab_faults.configure(parser)\n"
    "args = parser.parse_args()\nsys.exit(lab_faults.run(args, Output(json=args.json)))"
)


@contextmanager
def started(*options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", MAIN, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # when the test has failed: else its end would be waited for


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
                    assert b"".join(iter(lambda: served.recv(100), b"")) == b"01234"
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
