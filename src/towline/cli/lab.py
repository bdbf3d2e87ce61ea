"""See on real sockets what happens on the wire.

`tow lab` lists the exhibits. `tow lab NAME` runs one on loopback: the question, the set-up, a ladder of what
both ends did and which bytes of which send arrived in which recv, and what that proves. Needs no root; segments and
flags are shown where the process may open a packet socket.

examples:
  tow lab                                  the exhibits, one line each
  tow lab sticky-send                      two sends, one recv
  tow lab sticky-send --lang zh --code     in Chinese, with the code that ran
  tow lab close --svg close.svg            the ladder as a picture too
  tow lab all                              every exhibit, one after the other
  tow lab record -- put a.bin home:files/  every frame that a command says; `tow lab show` draws it
  tow lab faults --help                    a relay that cuts, delays and loses on purpose
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from towline.base.errors import DiskError, Exit, TowlineError
from towline.base.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from towline.cli.output import Output
    from towline.lab.recording import Recording
    from towline.lab.texts import Text

SUMMARY = "see on real sockets what happens on the wire"

# Further doors of the lab, each a module of its own: word → (module below towline.cli, what the list says).
_ROOMS: dict[str, tuple[str, dict[str, str]]] = {
    "record": ("lab_record", {"en": "record what a command says on the wire", "zh": "录下一条命令在线上说的每一帧"}),
    "show": ("lab_show", {"en": "draw a recording", "zh": "画出一份录制"}),
    "dissector": ("lab_dissector", {"en": "a dissector for Wireshark", "zh": "给 Wireshark 用的解析脚本"}),
    "faults": (
        "lab_faults",
        {"en": "a relay that cuts, delays and loses on purpose", "zh": "一个故意切断、延迟、丢失数据的中继"},
    ),
}


def configure(parser: argparse.ArgumentParser) -> None:
    _options(parser)
    parser.add_argument("name", nargs="?", metavar="NAME", help="an exhibit, `all`, or a room of the lab")
    # All that follows the name belongs to it: a room has options of its own.
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.output import Output as Fresh
    from towline.cli.output import parser_for

    room = args.name in _ROOMS
    parser = parser_for(f"lab {args.name}" if room else "lab", __doc__ or "", SUMMARY)
    module = import_module(f"towline.cli.{_ROOMS[args.name][0]}") if room else None
    if module:
        parser.description = (module.__doc__ or "").strip()
    (module.configure if module else _options)(parser)
    try:
        parser.set_defaults(**({"json": args.json} if room else vars(args)))
        inner = parser.parse_args(args.rest)
    except SystemExit as stop:  # argparse has already said what is wrong
        return int(stop.code or 0)
    out = Fresh(json=inner.json)
    return int(module.run(inner, out)) if module else _visit(inner, out)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--svg", metavar="FILE", help="write the ladders as a picture (with `all`: a folder)")
    parser.add_argument("--lang", choices=("en", "zh"), help="the language (default: by locale)")
    parser.add_argument("--code", action="store_true", help="show the code that the exhibit ran")


def _visit(args: argparse.Namespace, out: Output) -> int:
    from towline.lab.texts import language

    lang = args.lang or language(os.environ)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a failure
    if args.name is None:
        return _list(out, lang)
    if args.name == "all":
        return _all(args, out, lang)
    _one(args.name, args.svg, args, out, lang)
    return Exit.OK


def _list(out: Output, lang: str) -> int:
    from towline.lab.exhibit import exhibit
    from towline.lab.exhibits import NAMES
    from towline.lab.texts import pick

    width = max(map(len, NAMES))
    heading = {"en": "The exhibits; `tow lab NAME` runs one.", "zh": "展品一览；`tow lab 名称` 运行其中一个。"}
    out.line(heading[lang])
    out.line()
    for name in NAMES:
        title = pick(exhibit(name).TITLE, lang)
        out.event("exhibit", name=name, title=title)
        out.line(f"  {name:<{width}}  {title}")
    out.line()
    for room, (_, title_of) in _ROOMS.items():
        out.line(f"  {room:<{width}}  {title_of[lang]}")
    return Exit.OK


def _all(args: argparse.Namespace, out: Output, lang: str) -> int:
    from towline.lab.exhibits import NAMES

    if args.svg:
        try:
            os.makedirs(args.svg, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{printable(args.svg)} could not be made: {error.strerror}.") from None
    failures: list[tuple[str, TowlineError]] = []
    for name in NAMES:
        try:
            _one(name, os.path.join(args.svg, f"{name}.svg") if args.svg else None, args, out, lang)
        except TowlineError as error:
            out.error(error, verb=f"lab {name}")
            failures.append((name, error))
        out.line()
    out.event("summary", exhibits=len(NAMES), failed=[name for name, _ in failures])
    shown = len(NAMES) - len(failures)
    out.line(
        {"en": f"{shown} of {len(NAMES)} exhibits showed it.", "zh": f"{len(NAMES)} 个展品，{shown} 个成立。"}[lang]
    )
    return failures[0][1].exit_status if failures else Exit.OK


def _one(name: str, svg: str | None, args: argparse.Namespace, out: Output, lang: str) -> None:
    from towline.lab.exhibit import exhibit, play, source

    exhibit(name)  # NotFound before anything else is made
    screen = None if out.json else _screen()
    recording, verdict = play(name)
    if screen is None:
        _events(out, recording, verdict, lang, source(name) if args.code else "")
    else:
        from towline.cli.output import shown
        from towline.lab import terminal

        with shown():
            terminal.paint(screen, exhibit(name), recording, lang)
            terminal.paint_verdict(screen, verdict, lang)
            if args.code:
                terminal.paint_code(screen, source(name), lang)
    if svg:
        _write_svg(svg, recording, lang)
        out.event("svg", name=name, path=svg)
        out.note({"en": f"written: {svg}", "zh": f"已写入：{svg}"}[lang])


def _screen() -> Console:
    from towline.lab import terminal

    return terminal.console(sys.stdout)


def _write_svg(path: str, recording: Recording, lang: str) -> None:
    from towline.lab import svg

    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(svg.draw(recording, lang))
    except OSError as error:
        raise DiskError(f"{printable(path)} could not be written: {error.strerror}.") from None


def _events(out: Output, recording: Recording, verdict: Text, lang: str, code: str) -> None:
    from towline.lab.exhibit import exhibit
    from towline.lab.recording import event_to_json, to_json
    from towline.lab.texts import pick

    shown = exhibit(recording.name)
    out.event(
        "exhibit",
        name=recording.name,
        title=pick(shown.TITLE, lang),
        question=pick(shown.QUESTION, lang),
        setup=pick(shown.SETUP, lang),
        look=pick(shown.LOOK, lang),
        system=recording.system,
        segments_shown=recording.segments_shown,
    )
    for scene, plain in zip(recording.scenes, to_json(recording).get("scenes", ()), strict=True):
        bare = {key: value for key, value in plain.items() if key not in {"events", "name"}}
        out.event("scene", exhibit=recording.name, scene=scene.name, **bare)
        for event in scene.events:
            out.event("call", exhibit=recording.name, scene=scene.name, **event_to_json(event))
    if code:
        out.event("code", exhibit=recording.name, source=code)
    out.event("verdict", exhibit=recording.name, holds=True, text=pick(verdict, lang))
