"""`python -m demo`: play the acts, report, leave nothing behind. Exit status 0 when every promise was kept."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from types import ModuleType

from demo.acts import ACTS, house
from demo.screen import Check, Screen
from demo.stage import MIB, DemoFailed, Stage
from towline.base.quantity import format_size, parse_size

LONGEST_SECONDS = 110
_INTRODUCTION = """\
Towline: files between machines; nothing is lost when the network drops.
A real node and a real client on this machine, and a proxy between them that
cuts the connection again and again. Ctrl-C ends it; nothing is left behind."""


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST_SECONDS)
    screen, started = Screen(), time.monotonic()
    screen.introduce(_INTRODUCTION)
    checks: list[Check] = []
    wire = ""
    try:
        # Sent, kept by the node, come back; and what is under way.
        with Stage(size=args.size, seed=args.seed, room=4 * args.size + 64 * MIB) as stage:
            acts = [act for act in ACTS if stage.verbs() >= act.NEEDS and _wanted(act, args.act)]
            for number, act in enumerate(acts, 1):
                screen.title(number, act.TITLE)
                checks += act.play(stage, screen)
            wire = _wire(stage)
    except KeyboardInterrupt:
        screen.say("Interrupted; all processes are ended, the folder is gone.", style="yellow")
        return 130
    except DemoFailed as failure:
        screen.check(Check(str(failure), kept=False))
        return 1
    screen.report(checks, time.monotonic() - started, wire)
    return 0 if all(check.kept for check in checks) else 1


def _wanted(act: ModuleType, names: list[str]) -> bool:
    return not names or act is house or act.__name__.rpartition(".")[2] in names


def _wire(stage: Stage) -> str:
    """What crossed the network by the proxy's own count."""
    if stage.proxy is None:
        return ""
    stage.end(stage.proxy)
    done = next((event for event in stage.proxy.said if event["event"] == "done"), None)
    if done is None:
        return ""
    up, down = format_size(done["bytes_up"]), format_size(done["bytes_down"])
    return f"By the proxy's count {up} went up and {down} down, TLS and frames included; {done['cuts']} cuts."


def _too_long(*_: object) -> None:
    raise DemoFailed(f"It took longer than {LONGEST_SECONDS} s; some promise was not kept in time.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--size", type=parse_size, default=256 * MIB, help="of the generated file (default: 256MiB)")
    parser.add_argument("--seed", type=int, default=7, help="draws the cuts and the generated file (default: 7)")
    names = [act.__name__.rpartition(".")[2] for act in ACTS]
    parser.add_argument("--act", action="append", default=[], choices=names, help="only these (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
