"""Measure Towline and its peers: `python -m bench [NAME…] [--rounds N] [--quick]`; without a name, everything.

`python -m bench report` writes the tables again from the newest results file of a whole run.
`python -m bench profile [get|put|roundtrips|pipeline]…` shows where the time goes (needs py-spy).
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import importlib.util
import os
import signal
import sys
import time

from bench import report
from bench.harness import Bench, Scale, tell
from bench.machine import Neighbours, describe
from bench.works import NAMES

ROUNDS = 5
QUICK_ROUNDS = 2
BUSY = 1.0  # load average before the start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; or report")
    parser.add_argument("--rounds", type=int, help=f"measured rounds (default {ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--quick", action="store_true", help="a quick look: 64 MiB, 500 files; writes no results")
    parser.add_argument("--keep", action="store_true", help="write the results file of a quick look, too")
    args = parser.parse_args()
    if args.names[:1] == ["profile"]:
        return importlib.import_module("bench.profile").main(args.names[1:])
    if args.names == ["report"]:
        return report.again()
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no work {unknown[0]!r}; there are {', '.join(NAMES)}")
    names = [name for name in NAMES if not args.names or name in args.names]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    return _run(names, Scale(args.quick, args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS)), args)


def _run(names: list[str], scale: Scale, args: argparse.Namespace) -> int:
    begun = time.monotonic()
    _compile()
    machine = describe()
    neighbours = Neighbours()
    if os.getloadavg()[0] > BUSY:
        tell(f"the load is {os.getloadavg()[0]:.1f}: others are at work here, and these numbers will be worth little")
    bench = Bench(scale, tell)
    status = 0
    try:
        for name in names:
            work = importlib.import_module(f"bench.works.{name}")
            tell(f"{name}: {work.SUMMARY}")
            try:
                work.run(bench)
            except Exception as error:  # the other works are still worth their time
                bench.leave_out(name, f"{type(error).__name__}: {error}")
        machine["others_percent"] = neighbours.percent()
        machine["versions"] = {peer.name: peer.version() for peer in bench.peers}
    except KeyboardInterrupt:
        tell("interrupted; ending what was started")
        status = 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # nothing may stop the tidying up
            signal.signal(number, signal.SIG_IGN)
        left = bench.close()
    if left:
        tell(f"still running: {', '.join(left)}")
        status = status or 1
    if bench.results and status != 130:
        results = report.results_of(bench, machine, names, time.monotonic() - begun)
        if scale.quick and not args.keep:
            print(report.table(results))
        else:
            report.publish(results)
    return status


def _compile() -> None:
    """As an installation does: a checkout's modules may not have been compiled, and a start would pay for it."""
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]
    for package in importlib.util.find_spec("towline").submodule_search_locations or ():  # type: ignore[union-attr]
        compileall.compile_dir(package, quiet=2)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
