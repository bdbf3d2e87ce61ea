"""Talk in the rooms of a node.

On a terminal: a full screen with rooms, messages, who is here and a line to write in; /help lists the commands.
Otherwise plain lines: each line of standard input is said, what others say is printed, and it ends when standard
input has ended and all is acknowledged. A line with q or Q alone leaves, too.

examples:
  tow chat home
  tow chat home ops --since 2h
  tow chat home @bob
  tow chat home lobby < lines
"""

from __future__ import annotations

import argparse
import sys

from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.roomy import add_room, since

    add_room(parser, optional=True)
    parser.add_argument("--since", type=since, metavar="SEQ|TIME", help="begin there (plain mode: with what is new)")
    parser.add_argument("--plain", action="store_true", help="plain lines also on a terminal")
    parser.add_argument("--nick", default="", help="shown beside your name")
    parser.add_argument("--light", action="store_true", help="for a light terminal")


def run(args: argparse.Namespace, out: Output) -> int:
    args.room = args.room or "lobby"
    # Standard error, too: that is where the screen is painted.
    if args.json or args.plain or not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        from towline.cli.chat.plain import run_plain

        return run_plain(args, out)
    from towline.cli.chat.screen import run_screen

    return run_screen(args)
