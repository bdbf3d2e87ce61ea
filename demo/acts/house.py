"""A node, a client with a key of its own, and a bad network between them."""

from __future__ import annotations

from demo.luggage import LARGE, pack
from demo.screen import Check, Screen
from demo.stage import MIB, Actor, Stage
from towline.base.quantity import format_size

TITLE = "A node, a client, and a bad network between them"
NEEDS = {"serve", "invite", "join", "nodes", "lab"}

RATE = 80 * MIB  # a second; slow enough to see something
# For verbs over the rough line: on a busy machine even a first connection is cut several times before it is up.
PATIENT = ("--give-up", "30s")


def play(stage: Stage, screen: Screen) -> list[Check]:
    screen.command("tow serve")
    start_node(stage, "127.0.0.1:0")
    screen.say(f"listening on {stage.node_address}")

    screen.command("tow invite laptop --can chat,read,write,run | tow join --as home -")
    code = stage.tow(
        "invite", "laptop", "--can", "chat,read,write,run", "--data", f"{stage.folder}/node", who="admin"
    )
    screen.say(stage.tow("join", "--as", "home", "-", stdin=code).splitlines()[0])

    every, rate = stage.size // (7 if stage.size > 64 * MIB else 3), min(RATE, stage.size)
    faults = ["--cut-every", str(every), "--seed", str(stage.seed), "--throttle", str(rate), "--refuse", "300ms"]
    typed = f"--cut-every {_typed(every)} --throttle {_typed(rate)} --refuse 300ms"
    screen.command(f"tow lab faults --to {stage.node_address} {typed}")
    stage.proxy = stage.start("lab", "faults", "--to", stage.node_address, *faults, who="weather")
    address = stage.proxy.wait_for("listening")["address"]
    screen.command(f"tow nodes set home --address {address}")
    stage.tow("nodes", "set", "home", "--address", address)
    screen.say(f"From here on the line is cut after each {_typed(every)} or so, and refused for 0.3 s after that.")

    luggage = stage.make("desk/luggage")
    stage.packed = pack(luggage, stage.size, stage.seed)
    screen.say(
        f"To travel: this working tree ({len(stage.packed) - 1} files) and {LARGE} ({format_size(stage.size)})."
    )
    return []


def start_node(stage: Stage, address: str) -> None:
    """Start the node, or start it again on its folder and address."""
    stage.node = stage.start("serve", "--data", f"{stage.folder}/node", "--listen", address, who="admin")
    stage.node_address = stage.node.wait_for("listening")["address"]


def rough_line(stage: Stage, screen: Screen, *people: str) -> Actor:
    """Put another proxy between these people and the node: it cuts by the clock, for what sends few bytes."""
    faults = ["--cut-each-seconds", "500ms", "--refuse", "150ms"]
    screen.command(f"tow lab faults --to {stage.node_address} {' '.join(faults)}")
    proxy = stage.start(
        "lab", "faults", "--to", stage.node_address, *faults, "--seed", str(stage.seed), who="weather"
    )
    address = proxy.wait_for("listening")["address"]
    for who in people:
        stage.tow("nodes", "set", "home", "--address", address, who=who)
    return proxy


def _typed(size: int) -> str:
    return f"{size / MIB:.0f}MiB"
