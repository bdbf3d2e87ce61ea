"""Run a command and record every frame that its Towline connections say.

The command is a verb of `tow` or a program that calls `tow`. Frames are written as they are said inside TLS, with
kind, stream, size and time; payload and names are left out unless --payload asks for them. `tow lab show FILE` draws
the recording. A node is recorded with `tow serve --tap FILE`.

examples:
  tow lab record -- put model.bin home:files/
  tow lab record --out slow.tap -- tow get home:files/model.bin .
  tow lab show slow.tap
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.base.errors import DiskError, NotFound, UsageError
from towline.base.text import printable

if TYPE_CHECKING:
    from towline.cli.output import Output

SUMMARY = "record every frame that a command's Towline connections say"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", metavar="FILE", default="towline.tap", help="default: towline.tap")
    parser.add_argument("--payload", action="store_true", help="keep payload and names too: they may be private")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND…", help="what to run")


def run(args: argparse.Namespace, out: Output) -> int:
    """The command's own exit status."""
    from towline.lab.wiretap import ENVIRONMENT, PAYLOAD_ENVIRONMENT

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("Which command? For example: tow lab record -- put model.bin home:files/")
    path = os.path.abspath(args.out)
    try:
        if os.path.lexists(path):
            os.unlink(path)
    except OSError as error:
        raise DiskError(f"The recording {printable(path)} cannot be written: {error.strerror}.") from None
    environment = os.environ | {ENVIRONMENT: path, PAYLOAD_ENVIRONMENT: "1" if args.payload else ""}
    try:
        with _waiting_for_it():
            status = subprocess.run(_argv(command), env=environment, check=False).returncode
    except FileNotFoundError:
        raise NotFound(f"There is no command {printable(command[0])!r}.") from None
    except PermissionError:
        raise NotFound(f"{printable(command[0])!r} cannot be executed.") from None
    except OSError as error:
        raise NotFound(f"{printable(command[0], limit=200)!r} cannot be executed: {error.strerror}.") from None
    recorded = os.path.exists(path)
    out.event("recorded", path=path if recorded else None, status=status)
    if recorded:
        out.note(f"recorded: {printable(args.out)}; `tow lab show {printable(args.out)}` draws it")
    else:
        out.note("Nothing was recorded: the command made no Towline connection, or did not call `tow`.")
    return status if status >= 0 else 128 - status


@contextmanager
def _waiting_for_it() -> Iterator[None]:
    """Ctrl-C is the command's, which gets it from the terminal, too; how it ends is for us to wait for and to say."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)  # a handler is not inherited, as to ignore it would be
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _argv(command: list[str]) -> list[str]:
    from towline.cli.main import VERBS

    return [sys.executable, "-m", "towline.cli.main", *command] if command[0] in VERBS else command
