"""Upload through the cuts; in the middle the node itself dies and comes back."""

from __future__ import annotations

import signal

from demo.acts.house import start_node
from demo.following import Journey, follow
from demo.screen import Check, Screen, Trip
from demo.stage import Stage

TITLE = "Upload: the network is cut, and the node dies once by force"
NEEDS = {"put"}


def play(stage: Stage, screen: Screen) -> list[Check]:
    killed = False

    def kill_the_node_once(seen: Journey) -> bool:
        nonlocal killed
        if not killed and seen.at > seen.bytes * 0.6:
            killed, seen.killed_at = True, seen.at
            assert stage.node is not None
            stage.end(stage.node, signal.SIGKILL)
            screen.say("The node is killed (kill -9) and started again …", style="bold yellow")
            start_node(stage, stage.node_address)
        return False

    screen.command("tow put luggage home:files/luggage")
    seen = follow(stage.start("put", "luggage", "home:files/luggage"), screen, "uploading", until=kill_the_node_once)
    done = seen.done
    assert done is not None
    # The one who counts what arrives in vain died with its count; what it could not keep is told apart.
    screen.trips.append(
        Trip("upload", done["files"], done["bytes"], done["seconds"], done["cuts"], done["resent_bytes"], seen.lost)
    )
    text = f"The upload survived {done['cuts']} cuts and the death of the node, by one command."
    return [Check(text, seen.cuts > 1)]
