"""Relay TCP connections and lose them on purpose: cuts, stalls, delays, refusals, one byte at a time.

Point a client at --listen and it reaches --to through the faults. The positions of recurring faults are drawn from
--seed: the same seed and the same bytes give the same run. A cut closes all relayed connections at once.

examples:
  tow lab faults --listen 127.0.0.1:7441 --to 127.0.0.1:7440 --cut-every 20MB --seed 7
  tow lab faults --listen 127.0.0.1:0 --to 127.0.0.1:7440 --cut-each-seconds 3s --refuse 500ms --reset
  tow lab faults --listen 127.0.0.1:0 --to 127.0.0.1:7440 --throttle 10MB --delay 50ms --dribble-bytes 200
  tow lab faults --listen 127.0.0.1:0 --to 127.0.0.1:7440 --script steps.json

A script is a JSON list: [{"at": "20MB", "do": "cut"}, {"after": "5s", "do": "stall", "for": "2s"},
{"at": "30MB", "do": "throttle", "rate": "1MB"}, {"at": "31MB", "do": "refuse", "for": "1s"}].
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from towline.base.errors import Exit, NotFound, UsageError
from towline.base.quantity import format_count, format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from towline.cli.output import Output
    from towline.lab.faults import FaultProxy
    from towline.lab.faults_script import FaultScript

SUMMARY = "a relay that cuts, stalls and slows connections by a seeded script"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:0", help="port 0: any free one")
    parser.add_argument("--to", metavar="HOST:PORT", required=True, help="where connections are relayed to")
    parser.add_argument("--seed", type=int, default=0, help="draws the positions of recurring faults")
    parser.add_argument(
        "--jitter", type=float, default=0.2, metavar="SHARE", help="how far distances vary (0.2: ±20 %%)"
    )
    parser.add_argument("--cut-every", metavar="SIZE", help="cut again and again after about SIZE bytes")
    parser.add_argument("--cut-after", metavar="SIZE", help="cut once, exactly after SIZE bytes")
    parser.add_argument("--cut-each-seconds", metavar="T", help="cut again and again after about T")
    parser.add_argument("--max-cuts", type=int, metavar="N", help="cut no more than N times")
    parser.add_argument("--reset", action="store_true", help="cut by RST instead of FIN")
    parser.add_argument("--refuse", metavar="T", default="0", help="after each cut refuse new connections for T")
    parser.add_argument("--stall-every", metavar="SIZE", help="stall after about each SIZE bytes")
    parser.add_argument("--stall", metavar="T", default="1s", help="how long a stall lasts (default 1s)")
    parser.add_argument("--dribble", action="store_true", help="deliver one byte per read")
    parser.add_argument("--dribble-bytes", metavar="SIZE", default="0", help="... for the first SIZE bytes each way")
    parser.add_argument("--throttle", metavar="SIZE", default="0", help="bytes a second, all connections together")
    parser.add_argument("--delay", metavar="T", default="0", help="each way; the throughput stays")
    parser.add_argument("--script", metavar="FILE", help="a JSON list of steps, see above")


def run(args: argparse.Namespace, out: Output) -> int:
    """Relay until SIGINT or SIGTERM."""
    from towline.lab.faults import FaultProxy, new_event_loop

    told = _Told(out)
    proxy = FaultProxy(args.to, listen=args.listen, script=_script(args), on_event=told)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_relay(proxy))
    stats = proxy.stats
    told(
        "done",
        {
            "bytes_up": stats.bytes_up,
            "bytes_down": stats.bytes_down,
            "cuts": stats.cuts,
            "connections": stats.connections,
        },
    )
    return Exit.OK


async def _relay(proxy: FaultProxy) -> None:
    from towline.cli.signals import on_ending

    stop = asyncio.Event()
    on_ending(stop.set)
    async with proxy:
        await stop.wait()


class _Told:
    """Prints what the proxy tells; the relay goes on where that cannot be done."""

    def __init__(self, out: Output) -> None:
        from towline.cli.output import lasting

        self._out = out
        self._lasting = lasting("lab")

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        with self._lasting:
            self._out.event(name, **fields)
            self._out.line(self._line(name, fields))

    @staticmethod
    def _line(name: str, fields: dict[str, Any]) -> str:
        if name == "listening":
            planned = [f"{step['do']} at {step['at']}" for step in fields["schedule"]]
            more = f"; planned: {', '.join(planned[:8])}" if planned else ""
            return f"listening on {fields['address']}, relaying to {fields['to']}{more}"
        if name == "cut":
            return (
                f"cut {fields['n']} after {fields['at']} bytes: {format_count(fields['connections'], 'connection')}"
            )
        if "seconds" in fields and name in {"stall", "refusing"}:
            return f"{name} for {format_duration(fields['seconds'])}"
        if name == "unreachable":
            return f"the target cannot be reached ({fields['reason']})"
        if name == "done":
            return (
                f"done: {format_size(fields['bytes_up'])} up, {format_size(fields['bytes_down'])} down, "
                f"{format_count(fields['cuts'], 'cut')}, {format_count(fields['connections'], 'connection')}"
            )
        return name if name == "accepting" else f"{name}: {fields}"


def _script(args: argparse.Namespace) -> FaultScript:
    from towline.lab.faults_script import FaultScript, parse_steps

    def size(text: str | None) -> int | None:
        return None if text is None else parse_size(text)

    at_bytes, at_seconds = parse_steps(_text_of(args.script)) if args.script else ((), ())
    return FaultScript(
        seed=args.seed,
        jitter=args.jitter,
        cut_after=size(args.cut_after),
        cut_every=size(args.cut_every),
        cut_each_seconds=None if args.cut_each_seconds is None else parse_duration(args.cut_each_seconds),
        stall_every=size(args.stall_every),
        stall=parse_duration(args.stall),
        refuse=parse_duration(args.refuse),
        reset=args.reset,
        max_cuts=args.max_cuts,
        dribble=args.dribble,
        dribble_bytes=parse_size(args.dribble_bytes),
        throttle=parse_size(args.throttle),
        delay=parse_duration(args.delay),
        at_bytes=at_bytes,
        at_seconds=at_seconds,
    )


def _text_of(path: str) -> str:
    from towline.lab.faults_script import SCRIPT_BYTES

    try:
        with open(path, encoding="utf-8") as file:
            return file.read(SCRIPT_BYTES.value + 1)
    except OSError as error:
        raise NotFound(f"The fault script {path} cannot be read: {error.strerror}.")
    except UnicodeDecodeError:
        raise UsageError(f"The fault script {path} is not UTF-8.")
