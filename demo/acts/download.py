"""Download through the cuts; in the middle the client is killed, and the same command is typed again."""

from __future__ import annotations

import signal
import time

from demo.following import follow
from demo.screen import Check, Screen, Trip
from demo.stage import Stage
from towline.base.quantity import format_size

TITLE = "Download: the network is cut, and the client dies once by force"
NEEDS = {"get"}


def play(stage: Stage, screen: Screen) -> list[Check]:
    screen.command("tow get home:files/luggage back")
    began = time.monotonic()
    first = stage.start("get", "home:files/luggage", "back")
    before = follow(first, screen, "downloading", until=lambda seen: seen.at > seen.bytes * 0.5)
    stage.end(first, signal.SIGKILL)
    spent = time.monotonic() - began
    screen.say(
        f"The client is killed (kill -9) at {format_size(before.at)}. The same command again:", style="bold yellow"
    )

    screen.command("tow get home:files/luggage back")
    after = follow(stage.start("get", "home:files/luggage", "back"), screen, "downloading")
    done = after.done
    assert done is not None
    lost = max(before.at - after.began_at, 0)
    cuts, seconds = before.cuts + done["cuts"], done["seconds"] + spent
    screen.trips.append(Trip("download", after.files, after.bytes, seconds, cuts, done["resent_bytes"], lost))
    text = f"The download was killed at {format_size(before.at)} and went on at {format_size(after.began_at)}"
    return [Check(f"{text} when the same command was typed again.", after.began_at > 0)]
