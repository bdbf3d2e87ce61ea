"""A command on the node survives the line and the client that started it; nothing of its output is lost."""

from __future__ import annotations

import signal

from demo.acts.house import PATIENT, rough_line
from demo.screen import Check, Screen
from demo.stage import DemoFailed, Event, Stage

TITLE = "A command survives the line, and the client that started it"
NEEDS = {"run", "attach"}

_LINES, _STATUS = 24, 7
_SCRIPT = f"for i in $(seq {_LINES}); do echo line $i; sleep 0.15; done; exit {_STATUS}"


def play(stage: Stage, screen: Screen) -> list[Check]:
    proxy = rough_line(stage, screen, "laptop")
    screen.command(f"tow run home --shell '{_SCRIPT}'")
    first = stage.start("run", "home", *PATIENT, "--shell", _SCRIPT)
    job, seen = "", 0
    for event in first.events():
        job = event["job"] if event["event"] == "started" else job
        seen += _text(event).count("\n")
        if seen >= _LINES // 2:
            break
    stage.end(first, signal.SIGKILL)
    if not job or not seen:
        raise DemoFailed(f"tow run ended before it printed half of its lines: {first.trouble()}")
    screen.say(f"The client is killed (kill -9) after {seen} lines; the command goes on.", style="bold yellow")

    screen.command(f"tow attach home {job}")
    second = stage.start("attach", "home", job, *PATIENT)
    output = "".join(_text(event) for event in second.events())
    status = second.process.wait()
    stage.end(proxy)
    cuts = sum(event["event"] == "reconnecting" and event["attempt"] == 1 for event in [*first.said, *second.said])
    whole = output == "".join(f"line {number}\n" for number in range(1, _LINES + 1))
    screen.say(f"{output.count(chr(10))} lines, exit status {status}.")
    return [
        Check(f"A command gave all its {_LINES} lines, once, over {cuts} cuts and the death of its client.", whole),
        Check(f"Its exit status {_STATUS} came back as {status}.", status == _STATUS),
    ]


def _text(event: Event) -> str:
    return str(event.get("data", "")) if event["event"] == "output" and event["stream"] == "stdout" else ""
