"""Draw a recording of live Towline traffic: one ladder a connection, runs of bulk frames as one line.

examples:
  tow lab show towline.tap
  tow lab show towline.tap --svg towline.svg
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from towline.base.errors import DiskError, Exit
from towline.base.text import printable

if TYPE_CHECKING:
    from towline.cli.output import Output

SUMMARY = "draw a recording of live Towline traffic"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="what `tow lab record` or `tow serve --tap` wrote")
    parser.add_argument("--svg", metavar="FILE", help="write the ladders as a picture too")
    parser.add_argument("--lang", choices=("en", "zh"), help="the language (default: by locale)")


def run(args: argparse.Namespace, out: Output) -> int:
    """Draw it, or tell it as events with --json."""
    from towline.lab.recording import event_to_json
    from towline.lab.tapped import load
    from towline.lab.texts import language, pick

    lang = args.lang or language(os.environ)
    recording = load(args.file)
    for scene in recording.scenes:
        out.event("scene", scene=scene.name, title=pick(scene.title, lang), facts=dict(scene.facts))
        for event in scene.events:
            out.event("call", scene=scene.name, **event_to_json(event))
    if not out.json:
        from towline.cli.output import shown
        from towline.lab import terminal

        with shown():
            terminal.paint_scenes(terminal.console(sys.stdout), recording, lang)
    if args.svg:
        from towline.lab import svg

        try:
            with open(args.svg, "w", encoding="utf-8") as file:
                file.write(svg.draw(recording, lang))
        except OSError as error:
            raise DiskError(f"{printable(args.svg)} could not be written: {error.strerror}.") from None
        out.event("svg", path=args.svg)
    return Exit.OK
