"""Serve or talk the plain dialects of the world's socket tutorials, to the byte. There is no encryption in them.

tow classic                                            the dialects, with a picture of their wire
tow classic serve upper --tcp 127.0.0.1:9000
tow classic serve reply --udp :9000 --template gun
tow classic serve chat --tcp :9000 --room              type to answer; `@2 text` to client 2; `q` ends
tow classic serve int32 --unix /tmp/i.sock --sink got.txt
tow classic serve shell-json --tcp :9000 --allow-run --allow ls,uname --secret-file key
tow classic serve files-json --tcp :9000 --root ~/public
tow classic talk upper 127.0.0.1:9000 --retry 10
echo hello | tow classic talk int32 127.0.0.1:9000
tow classic talk files-json 127.0.0.1:9000 --get a.bin -o copy.bin
tow classic talk files-json 127.0.0.1:9000 --put a.bin
"""

from __future__ import annotations

import argparse

from towline.base.errors import UsageError
from towline.classic.dialects import DIALECTS, SHELLS
from towline.cli.output import Output

SUMMARY = "serve or talk the tutorials' plain dialects"

_LENGTHS = ("int32", "ask")
_HEADED = ("int32", "shell-int32", "shell-json", "files-json")
# Options that only some dialects have; anywhere else they are refused rather than silently without effect.
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "template": ("reply",),
    "room": ("chat",),
    "sink": _LENGTHS,
    "endian": _HEADED,
    "ack": ("ask",),
    "root": ("files-json",),
    "overwrite": ("files-json",),
    "allow_run": SHELLS,
    "allow": SHELLS,
    "max_output": SHELLS,
    "no_answer": _LENGTHS,
    "get": ("files-json",),
    "put": ("files-json",),
    "output": ("files-json",),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs `serve` and `talk`; without one the dialects are listed."""
    verbs = parser.add_subparsers(dest="action", metavar="serve|talk")
    _configure_serve(_sub(verbs, "serve", "be the server of a dialect"))
    _configure_talk(_sub(verbs, "talk", "be the client of a dialect; lines from a person or a pipe"))


def run(args: argparse.Namespace, out: Output) -> int:
    """List, serve or talk; the exit status."""
    if args.action is None:
        return _list(out)
    _check(args)
    if args.action == "serve":
        from towline.cli.classic_serve import serve

        return serve(args, out)
    from towline.cli.classic_talk import talk

    return talk(args, out)


def _sub(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    # SUPPRESS: a default here would undo a --json that stood before the sub-verb
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object a line")
    parser.add_argument("dialect", choices=list(DIALECTS), metavar="DIALECT", help=", ".join(DIALECTS))
    parser.add_argument("--endian", choices=["little", "big"], help="byte order of int32 lengths (little)")
    parser.add_argument("--encoding", default="utf-8", help="of commands, names and text (utf-8), for example gbk")
    parser.add_argument(
        "--secret-file", metavar="F", help="the legitimacy check under the secret in F (keep it mode 600)"
    )
    parser.add_argument("--hmac", choices=["md5", "sha256"], default="sha256", help="of the check (sha256)")
    parser.add_argument("--ack", metavar="TEXT", help="the acknowledgement of `ask` (ok)")
    parser.add_argument("--overwrite", action="store_true", help="files: replace what exists")
    return parser


def _configure_serve(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--tcp", metavar="ADDR", help="HOST:PORT, [::1]:PORT, :PORT for loopback; port 0 is any")
    where.add_argument("--udp", metavar="ADDR", help="the same")
    where.add_argument("--unix", metavar="PATH", help="a Unix stream socket")
    parser.add_argument("--template", metavar="TEXT", help="reply: the answer; %%s is the text received")
    parser.add_argument("--room", action="store_true", help="chat: all clients hear each other")
    parser.add_argument(
        "--sink", nargs="?", const="-", metavar="FILE", help="collect: print messages or add them to FILE, no answer"
    )
    parser.add_argument("--root", metavar="DIR", help="files: the folder that names stay in")
    parser.add_argument("--allow-run", action="store_true", help="shells: yes, run what clients send")
    parser.add_argument("--allow", metavar="CMD,…", help="shells: only these commands, without a shell")
    parser.add_argument("--timeout", default=None, metavar="TIME", help="shells: the longest a command runs (10s)")
    parser.add_argument("--max-output", metavar="SIZE", help="shells: the most a command may print (16MiB)")


def _configure_talk(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDR", help="HOST:PORT, :PORT, or a path with --unix")
    over = parser.add_mutually_exclusive_group()
    for name in ("tcp", "udp", "unix"):
        over.add_argument(f"--{name}", dest="over", action="store_const", const=name, help=f"over {name}")
    parser.add_argument("--retry", type=int, default=0, metavar="N", help="connect up to N times more, once a second")
    parser.add_argument("--timeout", default=None, metavar="TIME", help="how long to wait for an answer (10s)")
    parser.add_argument("--no-answer", action="store_true", help="int32, ask: the server only collects")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--get", metavar="NAME", help="files: download NAME and end")
    one.add_argument("--put", metavar="FILE", help="files: upload FILE and end")
    parser.add_argument("-o", "--output", metavar="FILE", help="files: where --get puts it")


def _check(args: argparse.Namespace) -> None:
    """What argparse cannot see. Raises UsageError."""
    import codecs

    for option, dialects in _ONLY_FOR.items():
        if getattr(args, option, None) not in {None, False} and args.dialect not in dialects:
            shown = "-o" if option == "output" else "--" + option.replace("_", "-")
            raise UsageError(f"{shown} is for {', '.join(dialects)}, not for {args.dialect}.")
    try:
        codecs.lookup(args.encoding)
        "é".encode(args.encoding, "replace").decode(args.encoding, "replace")
    except (LookupError, UnicodeError):
        raise UsageError(f"There is no text encoding {args.encoding!r}.") from None
    args.endian = args.endian or "little"
    args.ack = "ok" if args.ack is None else args.ack
    if not args.ack:
        raise UsageError("An empty acknowledgement cannot be sent.")


def check_over(dialect: str, over: str) -> None:
    """Raises UsageError where the dialect does not run over that."""
    row = DIALECTS[dialect]
    if over not in row.over:
        raise UsageError(f"{dialect} runs over {', '.join(row.over)}; {over} keeps no stream of bytes.")


def _list(out: Output) -> int:
    for row in DIALECTS.values():
        out.event("dialect", name=row.name, over=list(row.over), wire=row.wire, summary=row.summary)
        out.line(f"{row.name:<12} {', '.join(row.over):<15} " + row.wire.replace("\n", f"\n{'':<29}"))
    out.note(
        "\n`>` the client sends, `<` the server answers. None of them is encrypted.\n`tow classic --help` says more."
    )
    return 0
