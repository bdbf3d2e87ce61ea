"""The full-screen client, driven by Textual's Pilot, against a real node."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from rich.cells import cell_len
from tests import kit
from tests.kit import DEADLINE, joined, run, serving, until
from tests.rooms.kit import Listener
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

import towline
from towline.base.errors import NoGrant
from towline.cli.chat.model import RoomModel
from towline.cli.chat.screen import ChatApp
from towline.cli.chat.view import MessageView
from towline.node import Node
from towline.services.rooms.messages import Entry

address = kit.address


def shown(app: ChatApp) -> str:
    """The messages as they stand on the screen."""
    view = app.query_one(MessageView)
    return "\n".join(view.render_line(y).text.rstrip() for y in range(view.size.height))


def text_of(app: ChatApp, selector: str) -> str:
    return str(app.query_one(selector, Static).visual)


async def write(pilot: Pilot[None], text: str) -> None:
    pilot.app.query_one("#words", Input).value = text
    await pilot.press("enter")


@asynccontextmanager
async def screen(
    node: Node, home: Path, name: str, room: str = "lobby", **options: object
) -> AsyncIterator[tuple[ChatApp, Pilot[None]]]:
    if not (home / "nodes.json").exists():
        await joined(node, home, name, str(options.pop("can", "chat,read,write")))
    async with towline.connect("home", home=str(home)) as line:
        app = ChatApp(line, room, light=bool(options.get("light")))
        async with app.run_test(size=(80, 24)) as pilot:
            await until(lambda: app.models[room].people, "it is open")
            yield app, pilot


def type_ahead(app: ChatApp, text: str) -> None:
    """As a terminal gives it when the app was busy for a moment: all at once."""
    names = {"\n": "enter", "\x7f": "backspace", "\x0e": "ctrl+n"}
    for char in text:
        app.post_message(events.Key(names.get(char, char), None if char in names else char))


async def sees(app: ChatApp, pilot: Pilot[None], *texts: str) -> None:
    deadline = time.monotonic() + DEADLINE
    for text in texts:
        while text not in shown(app):
            assert time.monotonic() < deadline, f"{text!r} in\n{shown(app)}"
            await pilot.pause()


def test_two_people_talk_at_80_by_24(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_grace=0.0) as node:
            await joined(node, tmp_path / "bob", "bob")
            async with (
                screen(node, tmp_path / "ann", "ann") as (app, pilot),
                towline.connect("home", home=str(tmp_path / "bob")) as bob,
            ):
                other = Listener(bob.room("lobby"))
                await other.ready()
                await write(pilot, "hello from the screen")
                await other.until(lambda: other.texts == ["hello from the screen"])
                await sees(app, pilot, "ann: hello from the screen ✓")
                await bob.room("lobby").say("你好，世界 🎉 שלום")
                await bob.room("lobby").say("\x1b[2Jgone\x07 \u202eevil")
                await bob.room("lobby").me("waves")
                await sees(app, pilot, "你好，世界 🎉 שלום", r"\x1b[2Jgone\x07 \u202eevil", "* bob waves")
                assert "\x1b" not in shown(app)
                assert "● ann" in text_of(app, "#people")
                assert "● bob" in text_of(app, "#people")
                assert text_of(app, "#status").startswith("connected")
                await bob.room("lobby").edit(3, "better")
                await bob.room("lobby").delete(2)
                await sees(app, pilot, "bob: better (edited)", "bob: (removed)")
                other.room.away(True)
                await until(lambda: "○ bob" in text_of(app, "#people"))
                await other.stop()
                await until(lambda: "bob" not in text_of(app, "#people"))
                for y in range(24):
                    line = "".join(segment.text for segment in app.screen._compositor.render_strips()[y])
                    assert cell_len(line) == 80

    run(work())


def test_a_bug_does_not_leave_a_room_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    async def go() -> None:
        async with serving(tmp_path / "node") as node, screen(node, tmp_path / "ann", "ann") as (app, pilot):
            await write(pilot, "the first")
            await sees(app, pilot, "ann: the first ✓")
            monkeypatch.setattr(RoomModel, "add", broken)
            await write(pilot, "the second")
            await until(lambda: app.ended_by is not None, "the chat ends")
            assert isinstance(app.ended_by, RuntimeError)

    run(go())


def test_a_room_that_cannot_be_had_is_said_and_no_other_is_opened_instead(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann", "ann", "chat=lobby")
            async with towline.connect("home", home=home) as line:
                app = ChatApp(line, "ops")
                app.models["@bob"] = RoomModel("@bob")  # the list of rooms has come already
                async with app.run_test(size=(80, 24)):
                    await until(lambda: app.ended_by is not None or app.current != "ops")
                assert isinstance(app.ended_by, NoGrant)

    run(work())


def test_every_slash_command_answers(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            async with screen(node, tmp_path / "ann", "ann", can="admin") as (app, pilot):
                await joined(node, tmp_path / "bob", "bob")
                await write(pilot, "/nonsense")
                await sees(app, pilot, "There is no command /nonsense")
                await write(pilot, "/me looks around")
                await sees(app, pilot, "* ann looks around")
                await write(pilot, "/nick Annie")
                await write(pilot, "now with a nick")
                await sees(app, pilot, "Annie (ann): now with a nick")
                await write(pilot, "/edit 2 changed")
                await sees(app, pilot, "changed (edited)")
                await write(pilot, "//not a command")
                await sees(app, pilot, "/not a command")
                await write(pilot, "/search looks")
                await sees(app, pilot, "1 found")
                await write(pilot, "/receipts 1")
                await sees(app, pilot, "1: accepted, delivered to 0")
                await write(pilot, "/topic what it is about")
                await until(lambda: "what it is about" in text_of(app, "#topic"), "topic")
                await write(pilot, "/topic")
                await sees(app, pilot, "This room is about: what it is about")
                await write(pilot, "/mute bob 1h")
                await sees(app, pilot, "bob was muted by ann")
                await write(pilot, "/unmute bob")
                await sees(app, pilot, "bob may write again")
                await write(pilot, "/remove 1")
                await sees(app, pilot, "ann: (removed)")
                await write(pilot, "/who")
                await sees(app, pilot, "ann (here)")
                await write(pilot, "/away")
                await until(lambda: "○ ann" in text_of(app, "#people"), "away")
                await write(pilot, "/keep 30d")
                await sees(app, pilot, "are kept for 30")
                await write(pilot, "/help")
                await sees(app, pilot, "/quit")
                await write(pilot, "/msg bob psst")
                await sees(app, pilot, "psst ✓")
                assert app.current == "@bob"
                await write(pilot, "/join the den")
                await sees(app, pilot, "one word")
                assert "the" not in app.models, "no room is made by a slip of the pen"
                await write(pilot, "/join den private")
                await until(lambda: app.current == "den" and app.models["den"].people, "den")
                await write(pilot, "/invite bob")
                await sees(app, pilot, "bob may see this")
                await write(pilot, "/private off")
                await sees(app, pilot, "From now on everybody")
                await write(pilot, "/invite nobody")
                await sees(app, pilot, "Nobody with the name 'nobody'")
                assert app.query_one("#rooms", OptionList).option_count == 3
                await write(pilot, "/leave")
                assert app.current != "den"
                await pilot.press("ctrl+n")
                await pilot.press("ctrl+t")
                assert app.theme == "textual-light"
                await write(pilot, "/quit")

    run(work())


def test_what_is_typed_ahead_and_pasted_is_said_whole_in_order_and_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with (
            serving(tmp_path / "data") as node,
            screen(node, tmp_path / "ann", "ann") as (app, pilot),
        ):
            await write(pilot, "/join aside")
            await until(lambda: app.current == "aside")
            type_ahead(app, "one\ntwo3\x7f\n/me three\n")
            await sees(app, pilot, "ann: one", "ann: two ", "* ann three")
            type_ahead(app, "still here\n\x0eback in the lobby\n")
            await sees(app, pilot, "ann: back in the lobby")
            app.post_message(events.Paste("first line\nsecond line\n"))
            type_ahead(app, "!\n")
            await sees(app, pilot, "ann: first line second line!")
            room = app.line.room("aside")
            assert [item.text async for item in room.history()] == ["one", "two", "three", "still here"]

    run(work())


def test_who_is_away_is_so_in_every_room_and_after_a_restart_of_the_node(tmp_path: Path, address: str) -> None:
    async def work() -> None:
        first = AsyncExitStack()
        node = await first.enter_async_context(serving(tmp_path / "data", listen=address))
        home = await joined(node, tmp_path / "ann")
        async with first, towline.connect("home", home=home) as line:
            app = ChatApp(line, "lobby")
            async with app.run_test(size=(80, 24)) as pilot:
                await until(lambda: app.models["lobby"].people)
                await write(pilot, "/away")
                await write(pilot, "/join aside")
                await until(lambda: _state(app, "aside") == "away", "also where we came later")
                await first.aclose()
                app.models["lobby"].people.clear()
                async with serving(tmp_path / "data", listen=address):
                    await until(lambda: _state(app, "lobby") == "away", "also for a node that knows nothing")

    run(work())


def _state(app: ChatApp, room: str) -> object:
    return app.models[room].people.get("ann", {}).get("state")


def test_unread_counts_and_history_by_scrolling(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=home) as bob:
                futures = [bob.room("lobby").post(f"number {each}") for each in range(450)]
                await futures[-1]
                async with screen(node, tmp_path / "ann", "ann") as (app, pilot):
                    await sees(app, pilot, "number 449")
                    assert app.model.oldest == 251
                    for _ in range(60):
                        await pilot.press("pageup")
                        if app.model.oldest == 1 and "number 0" in shown(app):
                            break
                        await pilot.pause()
                    await sees(app, pilot, "number 0")
                    assert [row.seq for row in app.model.rows] == list(range(1, 451))
                    await write(pilot, "/join other")
                    await until(lambda: app.current == "other" and app.models["other"].people)
                    await bob.room("lobby").say("one")
                    await bob.room("lobby").say("two")
                    await until(lambda: app.models["lobby"].unread == 2)
                    await pilot.pause()
                    prompts = [str(option.prompt) for option in app.query_one("#rooms", OptionList).options]
                    assert prompts == ["lobby 2", "other"]
                    app.open_room("lobby")
                    await sees(app, pilot, "two")
                    assert app.models["lobby"].unread == 0

    run(work())


def test_who_looks_back_keeps_their_place_when_the_terminal_gets_another_size(tmp_path: Path) -> None:
    async def work() -> None:
        async with (
            serving(tmp_path / "data") as node,
            screen(node, tmp_path / "ann", "ann") as (app, pilot),
        ):
            await app.line.room("lobby").say_all([f"{number}. " + "word " * 30 for number in range(120)])
            await sees(app, pilot, " 119.")
            for _ in range(12):
                await pilot.press("pageup")
            view = app.query_one(MessageView)
            (number,) = re.findall(r" (\d+)\.", shown(app))[:1]
            for size in ((46, 12), (150, 50), (80, 24)):
                await pilot.resize_terminal(*size)
                await sees(app, pilot, f" {number}.")
                assert not view.sticks

    run(work())


def test_a_long_talk_keeps_its_newest_rows_and_the_log_has_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.cli.chat.screen.KEPT_ROWS", 50)

    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "bob", "bob")
            async with (
                towline.connect("home", home=home) as bob,
                screen(node, tmp_path / "ann", "ann") as (app, pilot),
            ):
                room = bob.room("lobby")
                await room.say("number 1")
                await sees(app, pilot, "number 1")
                await room.edit(1, "was changed")
                await sees(app, pilot, "was changed (edited)")
                futures = [room.post(f"number {each}") for each in range(3, 451)]
                await futures[-1]
                await sees(app, pilot, "number 450")
                assert len(app.model.rows) <= 50 + 250
                assert 150 < app.model.oldest < app.model.last == 450
                laid_out = app.query_one(MessageView)._wrapped.copy()
                await room.say("one more")
                await sees(app, pilot, "one more")
                now = app.query_one(MessageView)._wrapped
                assert sum(laid_out.get(key) is not strips for key, strips in now.items()) == 1
                for _ in range(60):
                    await pilot.press("pageup")
                    if "was changed" in shown(app):
                        break
                    await pilot.pause()
                await sees(app, pilot, "was changed (edited)")
                assert [row.seq for row in app.model.rows] == [1, *range(3, 452)]
                before = shown(app)
                await room.say("unseen, below")
                await until(lambda: app.model.last == 452)
                await pilot.pause()
                assert shown(app) == before, "who looks back is not moved"

    run(work())


def test_what_an_edit_made_of_a_row_comes_back_with_it() -> None:
    def entry(seq: int, text: str, kind: str = "message", ref: int = 0) -> Entry:
        return Entry(1, seq, 0.0, "", "bob", kind, text, ref)

    model = RoomModel("lobby", "ann")
    first = [entry(seq, f"number {seq}") for seq in range(1, 301)]
    for each in first:
        model.add(each, seen=True)
    model.add(entry(301, "changed", "edit", ref=7), seen=True)
    for seq in range(302, 560):
        model.add(entry(seq, f"number {seq}"), seen=True)
        model.trim(280)
    assert model.oldest > 7
    assert model.find(7) is None
    model.prepend([each for each in first if each.seq < model.oldest])
    row = model.find(7)
    assert row is not None
    assert (row.item.text, row.edited) == ("changed", True)
    model.add(entry(561, "again", "edit", ref=7), seen=True)
    assert row.item.text == "again"


def test_files_go_by_send_and_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            source = tmp_path / "report.txt"
            source.write_text("contents" * 1000)
            async with screen(node, tmp_path / "ann", "ann") as (app, pilot):
                await write(pilot, "/send /no/such/file")
                await sees(app, pilot, "There is no file")
                await write(pilot, f"/send {source}")
                await sees(app, pilot, "report.txt [7.8 KiB; /get 1]")
            async with screen(node, tmp_path / "bob", "bob") as (app, pilot):
                await sees(app, pilot, "/get 1")
                await write(pilot, "/get 1")
                await sees(app, pilot, "report.txt is here")
                assert (tmp_path / "work" / "report.txt").read_text() == source.read_text()
                line = app.line
                await line.room("lobby").say("x", file={"name": "x", "path": "files/chat/..", "bytes": 1})
                await sees(app, pilot, "/get 2")
                await write(pilot, "/get 2")
                await sees(app, pilot, "no name to keep a file under")

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run(work())


def test_a_cut_is_seen_and_what_is_pending_too(tmp_path: Path, address: str) -> None:
    async def work() -> None:
        node = Node(towline.NodeConfig(str(tmp_path / "data"), listen=address))
        await node.start()
        async with screen(node, tmp_path / "ann", "ann") as (app, pilot):
            await node.stop(drain=0)
            await until(lambda: "reconnecting" in text_of(app, "#status"))
            await write(pilot, "said in the dark")
            await sees(app, pilot, "said in the dark ⧗")
            node = Node(towline.NodeConfig(str(tmp_path / "data"), listen=address))
            await node.start()
            await sees(app, pilot, "said in the dark ✓")
            await until(lambda: text_of(app, "#status").startswith("connected"))
        await node.stop(drain=0)

    run(work())


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_pictures_for_the_readme(tmp_path: Path, theme: str) -> None:
    """`TOWLINE_PICTURES=docs/images` keeps them."""

    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            await joined(node, tmp_path / "bob", "bob")
            await joined(node, tmp_path / "mei", "mei")
            async with (
                towline.connect("home", home=str(tmp_path / "bob")) as bob,
                towline.connect("home", home=str(tmp_path / "mei")) as mei,
                screen(node, tmp_path / "ann", "ann", light=theme == "light") as (app, pilot),
            ):
                others = [Listener(bob.room("lobby")), Listener(mei.room("lobby"))]
                for other in others:
                    await other.ready()
                await bob.room("ops").join()
                await bob.room("lobby").topic("The release goes out today")
                await bob.room("lobby").say("The build is green. 🎉")
                await mei.room("lobby").say("太好了！我来发布。")
                await write(pilot, "Nothing was lost when my train went into the tunnel.")
                await bob.room("lobby").me("pours coffee")
                await mei.room("lobby").say("release-notes.md", file={
                    "name": "release-notes.md", "path": "files/chat/x/release-notes.md", "bytes": 4213,
                })  # fmt: skip
                await bob.room("lobby").say("\x1b[31mnot red\x1b[0m")
                others[1].room.away(True)
                await bob.room("ops").say("deploying")
                await sees(app, pilot, "not red", "✓")
                await app._look_at_rooms()
                await until(lambda: "○ mei" in text_of(app, "#people"))
                await pilot.pause()
                picture = app.export_screenshot(title=f"tow chat home ({theme})")
                assert "太好了" in picture
                if folder := os.environ.get("TOWLINE_PICTURES"):
                    Path(folder, f"chat-{theme}.svg").write_text(picture)
                for other in others:
                    await other.stop()

    run(work())
