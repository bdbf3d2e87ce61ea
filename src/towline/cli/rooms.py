"""The rooms of a node that you may see; or make one, describe it, and (for admins) moderate it.

examples:
  tow rooms home
  tow rooms home ops --make --private --topic "production" --invite bob
  tow rooms home ops --keep-for 30d --keep-bytes 100MB
  tow rooms home lobby --mute eve --for 1h
  tow rooms home lobby --remove 118
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit, UsageError
from towline.base.text import printable
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.roomy import add_room
    from towline.cli.running import duration

    add_room(parser, optional=True)
    parser.add_argument("--make", action="store_true", help="make ROOM, if it is not there")
    parser.add_argument("--private", action="store_true", help="only who was invited sees it (made by you, or admin)")
    parser.add_argument("--public", action="store_true", help="everybody who may chat sees it")
    parser.add_argument("--topic", metavar="TEXT", help="what it is about")
    parser.add_argument("--invite", metavar="NAME", action="append", default=[], help="let NAME in; repeatable")
    parser.add_argument(
        "--keep-for", type=duration, metavar="TIME", help="how long messages are kept at least; 0: the node's default"
    )
    parser.add_argument("--keep-bytes", type=_size, metavar="SIZE", help="how many bytes at most; 0 likewise")
    parser.add_argument("--keep-records", type=int, metavar="N", help="how many messages at least; 0 likewise")
    parser.add_argument("--mute", metavar="NAME", help="admin: NAME may not write in ROOM")
    parser.add_argument("--for", dest="mute_for", type=duration, default=3600.0, metavar="TIME", help="(default: 1h)")
    parser.add_argument("--unmute", metavar="NAME", help="admin: NAME may write again")
    parser.add_argument("--remove", type=int, metavar="SEQ", action="append", default=[], help="admin: take it away")


def _size(text: str) -> int:
    from towline.base.quantity import parse_size

    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.sentence) from None


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    changes = [args.make, args.private, args.public, args.topic is not None, args.invite, args.mute, args.unmute]
    changes += [args.remove, _keeps(args)]
    if any(changes) and not args.room:
        raise UsageError("To change a room, name it: tow rooms ALIAS ROOM …")
    if args.private and args.public:
        raise UsageError("A room is private or public.")
    return run_async(_room(args, out) if args.room else _rooms(args, out))


def _keeps(args: argparse.Namespace) -> bool:
    """Whether one of the limits is named; 0 is a limit, too: the node's own."""
    return any(most is not None for most in (args.keep_for, args.keep_bytes, args.keep_records))


async def _rooms(args: argparse.Namespace, out: Output) -> int:
    from towline.base.quantity import format_count
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        rows = await line.rooms()
        if not rows:
            out.note("There are no rooms that you may see.")
        for row in rows:
            unread = max(int(row["last"]) - int(row["read"]), 0)
            out.event("room", **row, unread=unread)
            mark = " (private)" if row["private"] else ""
            name, topic = printable(str(row["room"])), printable(str(row["topic"]))
            out.line(
                f"{name}{mark}  {row['here']} here  {format_count(int(row['last']), 'message')}  {topic}".rstrip()
            )
    return Exit.OK


async def _room(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        room = line.room(args.room)
        if args.make:
            await room.join(private=args.private)
        elif args.private or args.public:
            await room.openness(private=args.private)
        if args.topic is not None:
            await room.topic(args.topic)
        for name in args.invite:
            await room.invite(name)
        if _keeps(args):
            await room.keep(seconds=args.keep_for, size=args.keep_bytes, records=args.keep_records)
        if args.mute:
            await room.mute(args.mute, args.mute_for)
        if args.unmute:
            await room.mute(args.unmute, 0)
        for seq in args.remove:
            await room.remove(seq)
        now = await room.describe()
        out.event("room", **now)
        mark = " (private)" if now["private"] else ""
        out.line(f"{printable(str(now['room']))}{mark}: {printable(str(now['topic'])) or '(no topic)'}")
        out.line(f"messages {now['first']} to {now['last']} are kept")
    return Exit.OK
