"""Two people talk in a room while the line is cut under them, and each hears everything, once, in one order."""

from __future__ import annotations

from demo.acts.house import PATIENT, rough_line
from demo.screen import Check, Screen
from demo.stage import Stage

TITLE = "Chat: two people talk through cuts"
NEEDS = {"say", "log", "rooms"}

_TWICE = "And this one I say twice, in case it got lost."
_TALK = (
    ("laptop", "The upload is through. Is it whole?"),
    ("bob", "Every digest is equal. 一个字节都没丢。"),
    ("laptop", "The line was cut under that very message."),
    ("bob", "I saw nothing of it: one number after the other."),
    ("laptop", _TWICE),
    ("bob", "It is there once; each message has an id."),
)


def play(stage: Stage, screen: Screen) -> list[Check]:
    code = stage.tow("invite", "bob", "--data", f"{stage.folder}/node", who="admin")
    stage.tow("join", "--as", "home", "-", who="bob", stdin=code)
    proxy = rough_line(stage, screen, "laptop", "bob")
    stage.tow("rooms", "home", "lobby", "--make", *PATIENT)

    screen.command("tow log home lobby --follow     (bob listens all the while)")
    ear = stage.start("log", "home", "lobby", "--follow", *PATIENT, who="bob")
    hearing = ear.events()
    for number, (who, text) in enumerate(_TALK):
        name = f"line-{number}"
        for _ in range(2 if text == _TWICE else 1):
            stage.tow("say", "home", "lobby", text, "--id", name, *PATIENT, who=who)
        for event in hearing:
            if event["event"] == "message" and event["id"] == name:
                screen.say(f"{event['seq']:>3}  {event['from']}: {event['text']}")
                break
    stage.end(ear)
    # What was said twice would have come twice before the last one.
    heard = [(event["from"], event["text"]) for event in ear.said if event["event"] == "message"]
    cuts = sum(event["event"] == "reconnecting" and event["attempt"] == 1 for event in ear.said)
    stage.end(proxy)
    return [Check(f"Bob heard all {len(_TALK)} messages once and in order over {cuts} cuts.", heard == list(_TALK))]
