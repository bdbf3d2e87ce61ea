"""Two people talk in a room while the line is cut under them, and each hears everything, once, in one order."""

from __future__ import annotations

from demo.acts.house import rough_line
from demo.screen import Check, Screen
from demo.stage import Stage

TITLE = "Chat: two people talk through cuts"
NEEDS = {"say", "log", "rooms"}

_TALK = (
    ("laptop", "The upload is through. Is it whole?"),
    ("bob", "Every digest is equal. 一个字节都没丢。"),
    ("laptop", "The line was cut under that very message."),
    ("bob", "I saw nothing of it: one number after the other."),
    ("laptop", "And if I had said it twice?"),
    ("bob", "Then it would still be there once; each message has an id."),
)


def play(stage: Stage, screen: Screen) -> list[Check]:
    code = stage.tow("invite", "bob", "--data", f"{stage.folder}/node", who="admin")
    stage.tow("join", "--as", "home", "-", who="bob", stdin=code)
    proxy = rough_line(stage, screen, "laptop", "bob")
    stage.tow("rooms", "home", "lobby", "--make")

    screen.command("tow log home lobby --follow     (bob listens all the while)")
    ear = stage.start("log", "home", "lobby", "--follow", who="bob")
    for number, (who, text) in enumerate(_TALK):
        last = f"line-{number}"
        for _ in range(2):  # as somebody does who is not sure that the first one arrived
            stage.tow("say", "home", "lobby", text, "--id", last, who=who)

    for event in ear.events():
        if event["event"] == "message" and event["kind"] == "message":
            screen.say(f"{event['seq']:>3}  {event['from']}: {event['text']}")
            if event["id"] == last:
                break
    stage.end(ear)  # and listens to what else came, if anything did
    heard = [(event["from"], event["text"]) for event in ear.said if event["event"] == "message"]
    cuts = sum(event["event"] == "reconnecting" and event["attempt"] == 1 for event in ear.said)
    stage.end(proxy)
    return [Check(f"Bob heard all {len(_TALK)} messages once and in order over {cuts} cuts.", heard == list(_TALK))]
