"""Say something in a room, and print its number (seq) once the node has it on its disk.

`-` takes the text from standard input. When the node cannot be reached the message stays in the outbox and is sent,
once, when `tow say` or `tow chat` next reaches that node. A script that may be run twice gives its own --id.

examples:
  tow say home lobby "the build is green"
  uname -a | tow say home lobby -
  tow say home @bob "only for you"
  tow say home lobby "deployed 42" --id deploy-42
"""

from __future__ import annotations

import argparse
import sys

from towline.base.errors import BadMessage, Exit
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.roomy import add_room

    add_room(parser)
    parser.add_argument("text", metavar="TEXT", help="what to say, or - for standard input")
    parser.add_argument("--id", help="the message's id: the same one again is not said again")
    parser.add_argument("--me", action="store_true", help="what you do, instead of what you say")


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    text = _standard_input() if args.text == "-" else args.text
    return run_async(_say(args, out, text))


def _standard_input() -> str:
    from towline.services.rooms.limits import ROOM_TEXT

    data = sys.stdin.buffer.read(ROOM_TEXT.value + 2)
    if data.endswith(b"\n"):
        data = data[:-1]
    ROOM_TEXT.check(len(data), what="text of one message, at least")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadMessage("Standard input is not UTF-8; nothing was said.") from None


async def _say(args: argparse.Namespace, out: Output, text: str) -> int:
    from towline.cli.roomy import tell_refused
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    line = connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out))
    line.on_refused = tell_refused(out)
    try:  # the outbox first, the connection after: what was said is kept even if the node is down
        waiting = line.room(args.room).post(text, kind="me" if args.me else "message", id=args.id)
        cursor = await waiting
        out.event("accepted", room=args.room, epoch=cursor.epoch, seq=cursor.seq)
        out.line(str(cursor.seq))
    finally:
        await line.close()
    return Exit.OK
