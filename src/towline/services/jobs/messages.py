"""What a person asks of the service, type-checked at the edge; and the limits of it."""

from __future__ import annotations

import functools
import json
import os
import pwd
import signal
from typing import Any

from msgspec import Struct, field

from towline.base.errors import BadMessage, NoGrant, UsageError
from towline.base.limits import GIB, MIB, Limit
from towline.base.text import printable
from towline.trust.grants import Grants

RUNNING_PER_PERSON = Limit("jobs_running", 256, "jobs", "processes of one person; the system's own table is finite")
TERMINALS_PER_PERSON = Limit("job_terminals", 32, "terminals", "the system has a few thousand ptys for everybody")
SPOOL_PER_PERSON = Limit("job_spool_person", 1 * GIB, "bytes", "kept output of one person, half of a node's")
SPOOL_PER_JOB = Limit(
    "job_spool", 256 * MIB, "bytes", "kept output of one command; then it waits, or the oldest goes"
)
SPOOL = Limit("job_spool_node", 2 * GIB, "bytes", "kept output of all commands of a node")
LEAST_SPOOL = 1 * MIB
ARGUMENTS = Limit("job_arguments", 4096, "words", "arguments and variables of a command; the system takes 2 MiB")
KEEP_SECONDS = 24 * 3600.0
KILL_GRACE = 5.0
OVERFLOW = ("block", "drop-oldest")
ON_DISCONNECT = ("keep", "kill")


class Spec(Struct, frozen=True):
    """A command to start. `on_disconnect` is what happens `after` seconds without a client: `kill` ends it (at once
    with 0); `keep` is the same with a long time. `size` (rows, columns): on a terminal."""

    request: str
    argv: list[str]
    shell: bool = False
    login: bool = False
    cwd: str = ""
    env: dict[str, str] = field(default_factory=dict)
    stdin: bool = False
    size: tuple[int, int] | None = None
    term: str = "xterm-256color"
    timeout: float = 0.0
    on_disconnect: str = "keep"
    after: float = KEEP_SECONDS
    overflow: str = "block"
    spool: int = 0

    @property
    def shown(self) -> str:
        """The command for a list or a log."""
        return printable(" ".join(self.argv) if not self.login else "(login shell)", limit=300)

    def encode(self) -> bytes:
        """As it travels: what is not said is empty, 0 or false."""
        names = ("request", "argv", "shell", "login", "cwd", "env", "stdin", "size", "term", "timeout",
                 "on_disconnect", "after", "overflow", "spool")  # fmt: skip
        return json.dumps({name: value for name in names if (value := getattr(self, name))}).encode()


def parse_spec(data: bytes) -> Spec:
    """The first message of a start. Raises BadMessage, LimitExceeded."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        raise BadMessage("The command is not JSON.") from None
    if not isinstance(raw, dict):
        raise BadMessage("The command is not a JSON object.")
    argv, env = raw.get("argv", []), raw.get("env", {})
    _check_words(argv)
    if not isinstance(env, dict):
        raise BadMessage("The environment is not an object.")
    if env:
        _check_words([*env, *env.values()])
    if any(not name or "=" in name for name in env):
        raise BadMessage("A variable's name is empty or has '=' in it.")
    login = raw.get("login") is True
    if not login and (not argv or (raw.get("shell") is True and len(argv) != 1)):
        raise BadMessage("The command is empty.")
    return Spec(
        request=_text(raw, "request", 64),
        argv=argv,
        shell=raw.get("shell") is True,
        login=login,
        cwd=_text(raw, "cwd", 4096),
        env=env,
        stdin=raw.get("stdin") is True,
        size=_size(raw.get("size")),
        term=_text(raw, "term", 64) or "dumb",
        timeout=_seconds(raw, "timeout"),
        on_disconnect=_choice(raw, "on_disconnect", ON_DISCONNECT),
        after=_seconds(raw, "after"),
        overflow=_choice(raw, "overflow", OVERFLOW),
        spool=int(_seconds(raw, "spool")),
    )


def check_grants(grants: Grants, spec: Spec) -> None:
    """Raise NoGrant unless the person may run that.

    Whoever has a list of commands has exactly those: no shell, no path of their own, no variables that would change
    what a name stands for (PATH, LD_PRELOAD).
    """
    allowed = grants.restricted("run")
    if allowed is None:
        return
    if not allowed:
        grants.require("run")
    names = ", ".join(sorted(allowed))
    if spec.shell or spec.login or spec.size is not None:
        raise NoGrant(f"You may run these commands alone, without a shell: {printable(names, limit=300)}.")
    if spec.argv[0] not in allowed:
        grants.require("run", spec.argv[0])
    if spec.env:
        raise NoGrant("With a list of commands no variables may be set.")


def order_for(job: str, spec: Spec, spool: int) -> bytes:
    """What the keeper is told: everything resolved; of the variables those that come on top of `surroundings`."""
    base = surroundings()
    env = ({"TERM": spec.term} if spec.size else {}) | spec.env | {"TOWLINE_JOB": job}
    argv, program = spec.argv, ""
    if spec.login:
        argv, program = ["-" + os.path.basename(base["SHELL"])], base["SHELL"]
    elif spec.shell:
        argv = ["/bin/sh", "-c", spec.argv[0]]
    cwd = os.path.join(base["HOME"], spec.cwd) if spec.cwd else base["HOME"]
    order = {
        "job": job, "argv": argv, "program": program, "cwd": cwd, "env": env,
        "stdin": spec.stdin, "size": spec.size, "timeout": spec.timeout, "grace": KILL_GRACE,
        "overflow": spec.overflow, "spool": spool,
    }  # fmt: skip
    return json.dumps(order).encode()


@functools.cache
def surroundings() -> dict[str, str]:
    """The variables of every command: the node's own, without what is about the node or its terminal."""
    account = pwd.getpwuid(os.getuid())
    ours = ("TOWLINE", "PYTHON", "PYTEST")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    for name in ("TERM", "LINES", "COLUMNS"):
        env.pop(name, None)
    env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    home = account.pw_dir if os.path.isdir(account.pw_dir) else "/"
    return env | {
        "HOME": home, "USER": account.pw_name, "LOGNAME": account.pw_name, "SHELL": account.pw_shell or "/bin/sh",
    }  # fmt: skip


def signal_number(name: str) -> int:
    """`TERM`, `SIGTERM` or `15`. Raises UsageError."""
    text = name.strip().upper().removeprefix("SIG")
    numbers = {member.name.removeprefix("SIG"): int(member) for member in signal.Signals}
    number = numbers.get(text, int(text) if text.isdigit() and len(text) < 4 else 0)
    if number not in set(signal.Signals):
        raise UsageError(f"'{printable(name, limit=40)}' is no signal; TERM, INT, HUP, KILL, USR1 … are.")
    return number


def signal_name(number: int) -> str:
    """`TERM` for 15."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _check_words(words: object) -> None:
    if not isinstance(words, list) or not all(map(_is_word, words)):
        raise BadMessage("The command's words are not texts, or have what no word of a command can have.")
    ARGUMENTS.check(len(words))


def _is_word(value: object) -> bool:
    """Whether the system takes it: without a NUL, and in the node's encoding (bytes that are in none come as lone
    surrogates, as PEP 383 has it, but other ones are no bytes)."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _text(raw: dict[str, Any], name: str, most: int) -> str:
    value = raw.get(name, "")
    if not isinstance(value, str) or len(value) > most or not _is_word(value):
        raise BadMessage(f"The command's {name!r} is no text of at most {most} characters.")
    return value


def _seconds(raw: dict[str, Any], name: str) -> float:
    value = raw.get(name, 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e11:
        raise BadMessage(f"The command's {name!r} is no number from 0 to 1e11.")
    return float(value)


def _choice(raw: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = raw.get(name, choices[0])
    if value not in choices:
        raise BadMessage(f"The command's {name!r} is none of {', '.join(choices)}.")
    return str(value)


def _size(value: object) -> tuple[int, int] | None:
    match value:
        case None:
            return None
        case [int(rows), int(columns)] if 0 < rows < 10_000 and 0 < columns < 10_000:
            return rows, columns
        case _:
            raise BadMessage("The terminal's size is not [rows, columns].")
