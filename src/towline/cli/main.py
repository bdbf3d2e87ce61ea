"""The entry point `tow`: finds the verb's module, runs it, turns failures into a sentence and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from towline.base.errors import DiskError, Exit, InternalError, Interrupted, TowlineError
from towline.base.version import __version__
from towline.cli import cycles

if TYPE_CHECKING:
    from towline.cli.output import Output

# verb -> (module below towline.cli, summary). A table, so that help needs no import of the verbs.
VERBS: dict[str, tuple[str, str]] = {
    "serve": ("serve", "run a node"),
    "invite": ("invite", "let somebody in: print a code for one key"),
    "people": ("people", "who may use a node on this machine"),
    "revoke": ("revoke", "shut somebody out"),
    "audit": ("audit", "who did what on a node"),
    "join": ("join", "redeem a code; from then on the node has an alias here"),
    "nodes": ("nodes", "the nodes that are known here"),
    "ls": ("ls", "list a remote folder, or a node's shares"),
    "get": ("get", "download files and folders"),
    "put": ("put", "upload files and folders"),
    "rm": ("rm", "remove a remote file or folder"),
    "mv": ("mv", "rename a remote file or folder"),
    "mkdir": ("mkdir", "make a remote folder"),
    "stat": ("stat", "what a remote path is"),
    "chat": ("chat", "talk in the rooms of a node"),
    "say": ("say", "say something in a room"),
    "log": ("log", "what was said in a room"),
    "rooms": ("rooms", "the rooms of a node; make, describe, moderate them"),
    "who": ("who", "who is here"),
    "run": ("run", "run a command that outlives the connection"),
    "shell": ("shell", "a login shell, or a terminal program, that outlives the connection"),
    "jobs": ("jobs", "the commands that run on a node, and those that have ended"),
    "attach": ("attach", "go on with a command's output; exit with its status"),
    "logs": ("logs", "what a command has printed"),
    "kill": ("kill", "signal a command"),
    "forget": ("forget", "drop a finished command and its output"),
    "ping": ("ping", "is a node there, and how far away?"),
    "classic": ("classic", "serve or talk the tutorials' plain dialects"),
    "lab": ("lab", "see on real sockets what happens on the wire"),
}

_READER_LEFT = 128 + 13  # as a shell shows a death by SIGPIPE
LAST_SECONDS = 2.0

_INTRODUCTION = """\
usage: tow VERB [OPTIONS]

Files, commands and chat between machines; nothing is lost when the network drops.
"""


def main(argv: list[str] | None = None) -> int:
    """Run `tow` with `argv` and return the exit status. Without `argv` the process is ours, from start to end."""
    if argv is not None:
        return _main(argv)
    _hear_interrupts(False)
    _stand_in()
    cycles.seldom()
    try:
        status = _main(sys.argv[1:], ours=True)
        _end_anyway(status)
        return status
    finally:
        _settle()
        cycles.never_again()


def _end_anyway(status: int) -> None:
    """Everything has been said. The interpreter waits for threads that are still at work, perhaps on a disk that
    hangs; nobody wants what they bring, so it may wait for a moment only."""
    if "threading" not in sys.modules:
        return
    import threading

    if threading.active_count() > 1:
        timer = threading.Timer(LAST_SECONDS, os._exit, (status,))
        timer.daemon = True
        timer.start()


def _hear_interrupts(heard: bool) -> None:
    """For Ctrl-C Python raises wherever we are just then. Where nobody is prepared for that, while modules are loaded
    and when all has been said, it is to end the process as it ends any other."""
    handlers = (signal.SIG_DFL, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) in handlers:  # and is not ignored
        signal.signal(signal.SIGINT, handlers[heard])


def _main(arguments: list[str], *, ours: bool = False) -> int:
    if arguments[:1] == ["--version"]:
        return _said(f"tow {__version__}\n", Exit.OK)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        return _said(f"{_overview()}\n", Exit.OK if arguments else Exit.USAGE)
    verb = arguments[0]
    if verb not in VERBS:
        _complain(f"tow: there is no verb {verb!r}.{_suggestion(verb)} `tow --help` lists them.")
        return Exit.USAGE
    return _run_verb(verb, arguments[1:], ours)


def _run_verb(verb: str, arguments: list[str], ours: bool) -> int:
    from towline.cli.output import Output, give_up, parser_for, shown

    module = import_module(f"towline.cli.{VERBS[verb][0]}")
    parser = parser_for(verb, module.__doc__ or "", VERBS[verb][1])
    module.configure(parser)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has already said what is wrong, or what the options are
        return _said("", int(stop.code or 0))
    out = Output(json=args.json)
    try:
        try:
            if ours:
                _hear_interrupts(True)
            with _tap():
                status = int(module.run(args, out))
        finally:
            if ours:
                _hear_interrupts(False)
        with shown():
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail(out, verb, Interrupted())
    except TowlineError as error:
        return _fail(out, verb, error)
    except BrokenPipeError:  # the reader of our output left, as `head` does; nothing more to say
        give_up(sys.stdout)
        return _READER_LEFT
    except Exception as error:  # the last line of defence: a sentence, not a traceback
        if os.environ.get("TOWLINE_DEBUG"):
            raise
        return _fail(
            out,
            verb,
            InternalError(f"A bug in Towline: {type(error).__name__}: {error}. Set TOWLINE_DEBUG=1 to see where."),
        )
    return status


def _tap() -> AbstractContextManager[None]:
    """`tow lab record` names a file in the environment of what it runs; otherwise nothing is recorded."""
    if not os.environ.get("TOWLINE_TAP"):
        return nullcontext()
    from towline.lab.wiretap import tapping_as_told

    return tapping_as_told(os.environ)


def _fail(out: Output, verb: str, error: TowlineError) -> int:
    """Say what went wrong, if anybody can be told. The exit status says it in any case."""
    try:
        out.error(error, verb=verb)
    except (TowlineError, OSError, KeyboardInterrupt):  # the output cannot be written, or nobody reads it
        if out.json:
            _complain(f"tow {verb}: {error.sentence}")
    return error.exit_status


def _said(text: str, status: int) -> int:
    """Print a text that needs no verb; `status`, or what it is when that does not work."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        return _READER_LEFT
    except OSError as error:
        _complain(f"tow: The output cannot be written: {error.strerror}.")
        return DiskError.exit_status
    return status


def _complain(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, KeyboardInterrupt):
        pass  # nobody can be told


def _settle() -> None:
    """What a standard stream does not take goes nowhere, without another complaint from Python at the very end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, KeyboardInterrupt):
            from towline.cli.output import give_up

            give_up(stream)


def _stand_in() -> None:
    """For standard streams that were closed: else the first file that we open gets their number, and their bytes."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", closefd=False))


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join([_INTRODUCTION, *lines, "", "`tow VERB --help` shows the options of one verb, with examples."])


def _suggestion(verb: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(verb, VERBS, n=1)
    return f" Did you mean `tow {close[0]}`?" if close else ""


if __name__ == "__main__":
    sys.exit(main())
