"""Rooms over real connections: saying, following, looking back, and every named refusal."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import force_setattr
from tests.kit import finished, joined, run, serving, until
from tests.rooms.kit import Listener, listening, texts_of

import towline
from towline.base.errors import (
    BadMessage,
    CursorFromFuture,
    IdReused,
    LimitExceeded,
    Muted,
    NoGrant,
    NotFound,
    PeerError,
    TooFast,
    UnknownRoom,
    UsageError,
)
from towline.client.since import parse_since
from towline.journal import Cursor
from towline.services.rooms.limits import ROOM_TEXT
from towline.services.rooms.messages import (
    Entry,
    Missed,
    Post,
    entries_of,
    parse_answers,
    parse_lines,
    parse_posts,
    said,
)


def test_what_is_said_comes_in_order_to_all_and_stays(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            ann, bob = await joined(node, tmp_path / "ann"), await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=ann) as one, towline.connect("home", home=bob) as two:
                async with listening(one.room("lobby")) as first, listening(two.room("lobby")) as second:
                    assert await one.room("lobby").say("hello") == 1
                    assert await two.room("lobby").me("waves") == 2
                    await first.until(lambda: len(first.items) == 2)
                    await second.until(lambda: len(second.items) == 2)
                    assert first.items == second.items
                    entry = first.items[1]
                    assert isinstance(entry, Entry)
                    assert (entry.sender, entry.kind, entry.text, entry.seq) == ("bob", "me", "waves", 2)
                assert await texts_of(one, "lobby") == ["hello", "waves"]
        async with serving(tmp_path / "data") as node:  # and it stays
            async with _again(node, ann) as one:
                assert await texts_of(one, "lobby") == ["hello", "waves"]
                assert await one.room("lobby").say("third") == 3

    run(work())


def _again(node: towline.Node, home: str) -> towline.Line:
    line = towline.connect("home", home=home)
    force_setattr(line.target, "addresses", (node.listening.address,))
    return line


def test_an_id_is_said_once_and_reused_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            bobs = await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=home) as line, towline.connect("home", home=bobs) as other:
                room = line.room("lobby")
                assert await room.say("once", id="x") == 1
                assert await room.say("once", id="x") == 1
                with pytest.raises(IdReused):
                    await room.say("other words", id="x")
                assert await other.room("lobby").say("once", id="x") == 2  # somebody else's x is another
                assert await room.say("next") == 3
                assert line.cuts == 0

    run(work())


def test_refusals_are_named_and_the_connection_lives(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann", "ann", "chat=lobby")
            async with towline.connect("home", home=home) as line:
                with pytest.raises(NoGrant):
                    await line.room("ops").say("x")
                with pytest.raises(NoGrant):
                    await line.room("ops").join()
                with pytest.raises(LimitExceeded, match="room_text"):
                    await line.room("lobby").say("x" * (ROOM_TEXT.value + 1))
                with pytest.raises(UsageError):
                    await line.room("no/room").say("x")
                with pytest.raises(CursorFromFuture):
                    await finished(anext(line.room("lobby").follow(99)))
                with pytest.raises(BadMessage):
                    await line.room("lobby").say("half a pair: \ud83d")
                assert await line.room("lobby").say("x" * ROOM_TEXT.value) == 1
                assert line.cuts == 0
            home = await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=home) as line:
                with pytest.raises(UnknownRoom):
                    await line.room("ops").say("x")
                with pytest.raises(UnknownRoom):
                    await texts_of(line, "ops")
                with pytest.raises(NoGrant):
                    await line.room("lobby").mute("ann", 60)
                with pytest.raises(NotFound):
                    await line.room("@nobody").say("x")
                assert line.cuts == 0
            home = await joined(node, tmp_path / "cyd", "cyd", "read")
            async with towline.connect("home", home=home) as line:
                with pytest.raises(NoGrant):
                    await line.room("lobby").say("x")
                with pytest.raises(NoGrant):
                    await line.rooms()

    run(work())


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"\xff\xfe", "bad-message"),
        (b"[1]", "bad-message"),
        (b"[" * 100_000, "bad-message"),
        (b'{"room":"lobby","id":"a","text":"\\ud800"}', "bad-message"),
        (b'{"room":"lobby","id":"","text":"x"}', "bad-message"),
        (b'{"room":"lobby","id":"a","text":""}', "bad-message"),
        (b'{"room":"lobby","id":"a","text":"x","ref":1}', "bad-message"),
        (b'{"room":"lobby","id":"a","kind":"topic","text":"x"}', "bad-message"),
        (b'{"room":"lobby","id":"a","kind":"delete","ref":77}', "not-found"),
        (b'{"room":"lobby","id":"a","text":"x","file":{"name":1}}', "bad-message"),
        (json.dumps({"room": "lobby", "id": "a" * 49, "text": "x"}).encode(), "limit"),
        (json.dumps({"room": "lobby", "id": "a", "text": "\0" * 65537}).encode(), "limit"),
    ],
)
def test_bad_messages_on_the_wire_are_refused_one_by_one(tmp_path: Path, body: bytes, name: str) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line:
                channel = await line.channel({"service": "rooms", "op": "say"})
                assert (await channel.accepted())["limits"]["room_text"] == 65536  # type: ignore[index]
                await channel.send(body)
                message = await channel.receive()
                assert message is not None
                assert json.loads(message.body)["name"] == name
                await channel.send(b'{"room":"lobby","id":"good","text":"x"}')
                message = await channel.receive()
                assert message is not None
                assert json.loads(message.body).keys() == {"epoch", "seq", "ids"}
                assert json.loads(message.body)["ids"] == ["good"]
                channel.end()
                assert await channel.receive() is None

    run(work())


def test_a_body_of_many_messages_has_an_answer_for_each(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "text": "1"}, {"id": "b", "text": "2"}, {"id": "a", "text": "1"}, {"id": "a", "text": "other"}, 7,
        {"id": "c", "text": ""}, {"id": "d", "text": "4", "room": "nowhere"}, {"id": "e", "text": "é\n\u2028"},
        {"id": "f", "kind": "edit", "ref": 1, "text": "one"}, {"id": "g", "text": "6"},
    ]  # fmt: skip

    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line:
                await line.room("lobby").say("0")
                for _ in range(2):  # and the same when it is said again
                    channel = await line.channel({"service": "rooms", "op": "say"})
                    body = [{"room": "lobby", **each} if isinstance(each, dict) else each for each in lines]
                    await channel.send("\n".join(json.dumps(each, ensure_ascii=False) for each in body).encode())
                    channel.end()
                    kept, refused = [], []
                    async for answer in channel:
                        for fields in map(json.loads, answer.split(b"\n")):
                            kept += [(id_, fields["seq"] + i) for i, id_ in enumerate(fields.get("ids", ()))]
                            refused += [(fields["id"], fields["name"])] if "error" in fields else []
                    assert sorted(kept) == [("a", 2), ("a", 2), ("b", 3), ("e", 4), ("f", 5), ("g", 6)]
                    assert sorted(refused) == [
                        ("", "bad-message"), ("a", "id-reused"), ("c", "bad-message"), ("d", "unknown-room"),
                    ]  # fmt: skip
                assert await texts_of(line, "lobby") == ["0", "1", "2", "é\n\u2028", "one", "6"]

    run(work())


@given(
    text=st.text(min_size=1), id_=st.text(min_size=1, max_size=12), nick=st.text(max_size=20), ref=st.integers(0, 9)
)
def test_a_record_is_the_same_bytes_whoever_makes_them(text: str, id_: str, nick: str, ref: int) -> None:
    """What older versions wrote is recognised when it is said again."""
    post = Post("lobby", id_, "edit" if ref else "message", text, ref, nick, {"name": "n", "path": "p/é", "bytes": 7})
    fields = {"id": id_, "from": "ann", "kind": post.kind, "text": text}
    fields |= ({"ref": ref} if ref else {}) | ({"nick": nick} if nick else {}) | {"file": post.file}
    ((key, payload),) = entries_of([post], "ann", b"owner")
    assert payload == json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    assert key == b"owner" + id_.encode()
    posts, refused = parse_posts(said([post]), 1)
    assert (posts, refused) == ([post], [])


_GOOD = b'{"room":"lobby","id":"a","text":"x"}'
_LINES = st.one_of(
    st.sampled_from([_GOOD, _GOOD[:-1], b"", b"{}", b"[]", b"7", _GOOD[:-1] + b',"ref":1}', _GOOD + b",", b"\xff"]),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
)


@given(lines=st.lists(_LINES, min_size=1, max_size=8))
def test_whatever_a_body_holds_each_line_is_taken_or_refused(lines: list[bytes]) -> None:
    posts, refused = parse_posts(b"\n".join(lines), len(lines))
    assert len(posts) + len(refused) == len(lines)
    assert len(posts) == lines.count(_GOOD)
    try:
        parse_answers(b"\n".join(lines))
    except PeerError:
        pass


def test_many_said_at_once_are_kept_together_and_refused_one_by_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_rate=1e6, room_burst=1e6) as node:
            home = await joined(node, tmp_path / "ann")
            for outbox in (True, False):
                async with towline.connect("home", home=home, outbox=outbox) as line:
                    room = line.room("lobby" if outbox else "@ann")
                    assert await room.say_all([]) == []
                    assert await room.say_all([str(number) for number in range(600)]) == list(range(1, 601))
                    outcomes = await room.say_all(["x", "", "y" * ROOM_TEXT.value, "z"], ids=["a", "b", "c", "d"])
                    assert isinstance(outcomes[1], BadMessage)
                    assert [outcomes[0], *outcomes[2:]] == [601, 602, 603]
                    again = await room.say_all(["new", "other", "x"], ids=["n", "d", "a"])
                    assert isinstance(again[1], IdReused)
                    assert (again[0], again[2]) == (604, 601)
                    with pytest.raises(LimitExceeded, match="room_text"):
                        await room.say_all(["fits", "x" * (ROOM_TEXT.value + 1)])
                    with pytest.raises(UsageError):
                        await room.say_all(["x", "y"], ids=["one", "one"])
                    assert (await room.describe())["last"] == 604
                    assert line.mailing.pending == 0
                    assert (await room.say_all(["n"], kind="topic"))[0].__class__ is BadMessage

    run(work())


def test_positions(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line:
                room = line.room("lobby")
                await asyncio.gather(*(room.say(str(number)) for number in range(1, 11)))
                assert await texts_of(line, "lobby", since=0) == [str(number) for number in range(1, 11)]
                assert await texts_of(line, "lobby", since=9) == ["9", "10"]
                assert await texts_of(line, "lobby", since=11) == []
                assert await texts_of(line, "lobby", last=3, until=10) == ["8", "9"]
                assert await texts_of(line, "lobby", search="1") == ["1", "10"]
                items = [item async for item in room.history(4)]
                assert isinstance(items[0], Entry)
                at = datetime.fromtimestamp(items[0].time).astimezone()
                assert (await texts_of(line, "lobby", since=at))[-7:] == [str(number) for number in range(4, 11)]
                assert await texts_of(line, "lobby", since=at + timedelta(days=1)) == []
                assert len(await texts_of(line, "lobby", since=at - timedelta(days=1))) == 10
                epoch = items[0].epoch
                assert await texts_of(line, "lobby", since=Cursor(epoch, 10)) == ["10"]
                other = [item async for item in room.history(Cursor(epoch ^ 1, 3))]
                assert isinstance(other[0], Missed)
                assert other[0].reason == "unknown-epoch"

    run(work())


def test_edits_and_deletions_are_records_and_deleted_text_is_not_given_out(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            ann, bob = await joined(node, tmp_path / "ann"), await joined(node, tmp_path / "bob", "bob")
            boss = await joined(node, tmp_path / "boss", "boss", "admin")
            async with (
                towline.connect("home", home=ann) as one,
                towline.connect("home", home=bob) as two,
                towline.connect("home", home=boss) as three,
            ):
                room = one.room("lobby")
                for text in ("first", "secret", "rude"):
                    await room.say(text)
                assert await room.edit(1, "First.") == 4
                with pytest.raises(NoGrant):
                    await two.room("lobby").edit(1, "mine now")
                with pytest.raises(NoGrant):
                    await two.room("lobby").delete(1)
                assert await room.delete(2) == 5
                await three.room("lobby").remove(3)
                entries = [item async for item in room.history()]
                assert [(item.kind, item.text) for item in entries] == [
                    ("message", "first"),
                    ("message", ""),
                    ("message", ""),
                    ("edit", "First."),
                    ("delete", ""),
                    ("delete", ""),
                ]
                assert [isinstance(item, Entry) and item.removed for item in entries[:3]] == [False, True, True]
                assert await texts_of(two, "lobby", search="secret") == []
                await room.delete(1)  # and with it what it was edited to
                assert [text for text in await texts_of(two, "lobby") if text] == []
                assert await texts_of(two, "lobby", search="first") == []

    run(work())


def test_muted_private_invited_and_topic(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            ann, bob = await joined(node, tmp_path / "ann"), await joined(node, tmp_path / "bob", "bob")
            boss = await joined(node, tmp_path / "boss", "boss", "admin")
            async with (
                towline.connect("home", home=ann) as one,
                towline.connect("home", home=bob) as two,
                towline.connect("home", home=boss) as three,
            ):
                await three.room("lobby").mute("bob", 60)
                with pytest.raises(Muted, match="boss"):
                    await two.room("lobby").say("x")
                with pytest.raises(Muted):
                    await two.room("lobby").topic("x")
                await three.room("lobby").mute("bob", 0)
                await two.room("lobby").say("x")
                with pytest.raises(NotFound):  # a slip of the pen is not "done"
                    await three.room("lobby").mute("bbo", 60)
                with pytest.raises(BadMessage):
                    await three.room("lobby").keep(seconds=-1)

                await one.room("den").join(private=True)
                with pytest.raises(UnknownRoom):
                    await two.room("den").say("x")
                assert "den" not in [row["room"] for row in await two.rooms()]
                assert "den" in [row["room"] for row in await one.rooms()]
                with pytest.raises(NotFound):
                    await one.room("den").invite("nobody")
                await one.room("den").invite("bob")
                assert await two.room("den").say("thanks") == 1
                await two.room("den").topic("quiet")
                assert (await one.room("den").describe())["topic"] == "quiet"
                with pytest.raises(NoGrant):
                    await two.room("den").openness(private=False)

                await one.room("open").join()
                other = Listener(two.room("open"))
                await other.ready()
                await one.room("open").openness(private=True)
                with pytest.raises(UnknownRoom):
                    await finished(other.task)

                await one.room("@bob").say("only you")
                assert await texts_of(two, "@ann") == ["only you"]
                with pytest.raises(UnknownRoom) as hidden:
                    await texts_of(three, "@ann+bob")  # not even an admin
                with pytest.raises(UnknownRoom) as absent:
                    await texts_of(three, "@ann+bib")
                assert hidden.value.sentence == absent.value.sentence.replace("bib", "bob"), (
                    "that it is there is theirs"
                )

    run(work())


def test_too_fast_is_refused_by_name_and_nothing_is_lost_or_reordered(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_rate=200.0, room_burst=20.0) as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line:
                room = line.room("lobby")
                futures = [room.post(str(number)) for number in range(100)]
                seqs = [(await future).seq for future in futures]
                assert seqs == list(range(1, 101))
                together = await room.say_all([f"all {number}" for number in range(100)])
                assert together == list(range(101, 201))
                channel = await line.channel({"service": "rooms", "op": "say"})
                for number in range(100):
                    await channel.send(b'{"room":"lobby","id":"%d","text":"x"}' % number)
                with pytest.raises(TooFast, match="room_rate"):
                    await _read_out(channel)
                assert line.cuts == 0

    run(work())


def test_lines_that_say_nothing_are_paid_for_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_rate=1.0, room_burst=20.0) as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line:
                channel = await line.channel({"service": "rooms", "op": "say"})
                await channel.send(b"\n" * 100_000)
                answers = 0
                with pytest.raises(TooFast, match="room_rate"):
                    async for body in channel:
                        answers += len(body.split(b"\n"))
                assert answers <= 20

    run(work())


def _line(**changed: object) -> bytes:
    right = {"epoch": 1, "seq": 1, "time": 1, "id": "a", "from": "b", "kind": "message", "text": "c"}
    return json.dumps(right | changed).encode()


def test_a_line_with_more_than_we_know_is_read() -> None:
    assert [each.text for each in parse_lines(_line(time=1.5, later=[1]))] == ["c"]  # type: ignore[union-attr]
    assert [each.signal for each in parse_lines(b'{"signal":"later","who":7}')] == ["later"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "line",
    [
        b'{"epoch":Infinity,"seq":1,"time":1,"id":"a","from":"b","kind":"message","text":"c"}',
        b'{"epoch":1,"seq":1,"time":1' + b"0" * 400 + b',"id":"a","from":"b","kind":"message","text":"c"}',
        b"[" * 100_000,
        b"7",
        b"{}",
        _line(time=1e300),
        _line(time=-1),
        _line(seq="1"),
        _line(seq=1 << 80),
        _line(text=None),
        _line(nick=7),
        _line(ref=[]),
        _line(file={"name": "a", "path": "b", "bytes": 10**400}),
        _line(file={"name": 1, "path": "b", "bytes": 1}),
        _line(**{"from": "\udc80"}),
        b'{"gap":"x","from":[1],"to":[1,2]}',
        b'{"gap":["x"],"from":[1,1],"to":[1,2]}',
        b'{"signal":"people","people":[{"who":[]}]}',
        b'{"signal":"people"}',
        b'{"signal":"presence","who":{}}',
        b'{"signal":"typing","who":7}',
        b'{"signal":7}',
    ],
)
def test_a_node_that_sends_nonsense_is_said_to(line: bytes) -> None:
    with pytest.raises(PeerError):
        list(parse_lines(line))


async def _read_out(channel: towline.Channel) -> None:
    async for _ in channel:
        pass


def test_presence_comes_goes_and_outlives_a_short_cut(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_grace=0.0) as node:
            ann, bob = await joined(node, tmp_path / "ann"), await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=ann) as one, towline.connect("home", home=bob) as two:
                async with listening(one.room("lobby")) as seen:
                    async with listening(two.room("lobby")) as other:
                        await seen.until(lambda: _presence(seen) == [("bob", "here")])
                        other.room.away(True)
                        await seen.until(lambda: _presence(seen)[1:] == [("bob", "away")])
                        other.room.typing()
                        await seen.until(lambda: seen.signals[-1].signal == "typing")
                        assert [row["who"] for row in await one.room("lobby").who()] == ["ann", "bob"]
                        assert [row["state"] for row in await one.who()] == ["here", "away"]
                    await seen.until(lambda: _presence(seen)[2:] == [("bob", "left")])
                    assert await texts_of(one, "lobby") == []  # none of it is in the log

    run(work())


def test_a_cut_is_no_coming_and_going(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            ann, bob = await joined(node, tmp_path / "ann"), await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=ann) as one, towline.connect("home", home=bob) as two:
                async with listening(one.room("lobby")) as seen, listening(two.room("lobby")) as other:
                    before = len(seen.signals)
                    for connection in list(two._connections):
                        connection.abort()
                    await other.until(lambda: other.opened == 2)
                    await two.room("lobby").say("back")
                    await seen.until(lambda: seen.texts == ["back"])
                    assert _presence(seen)[before:] == []
                    assert [row["who"] for row in await one.room("lobby").who()] == ["ann", "bob"]

    run(work())


def _presence(listener: Listener) -> list[tuple[str, str]]:
    return [(s.fields["who"], s.fields["state"]) for s in listener.signals if s.signal == "presence"]


def test_receipts_and_unread(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            ann, bob = await joined(node, tmp_path / "ann"), await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=ann) as one, towline.connect("home", home=bob) as two:
                room = one.room("lobby")
                seq = await room.say("hello")
                assert await room.receipts(seq) == {"seq": 1, "accepted": True, "delivered": 0, "read": []}
                with pytest.raises(NotFound):
                    await room.receipts(9)
                async with listening(two.room("lobby"), 0) as seen:
                    await seen.until(lambda: seen.texts == ["hello"])
                    assert (await two.rooms())[0]["read"] == 0
                    seen.room.mark_read(99)  # more than there is
                    while (await room.receipts(seq))["read"] != ["bob"]:
                        pass
                    assert (await room.receipts(seq))["delivered"] == 1
                    assert (await two.rooms())[0] | {"here": 0} == {
                        "room": "lobby",
                        "topic": "",
                        "private": False,
                        "here": 0,
                        "last": 1,
                        "read": 1,
                    }

    run(work())


def test_retention_is_a_named_gap_and_followers_go_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann", "ann", "admin")
            async with towline.connect("home", home=home) as line:
                room = line.room("lobby")
                async with listening(line.room("lobby")) as seen:
                    await room.keep(records=8)
                    for number in range(50):
                        await room.say(str(number))
                    await seen.until(lambda: seen.texts == [str(number) for number in range(50)])
                first = (await room.describe())["first"]
                assert 30 < first <= 43
                items = [item async for item in room.history()]
                assert isinstance(items[0], Missed)
                assert (items[0].reason, items[0].next.seq) == ("retention", first)
                assert items[-1].text == "49"
                found = [item async for item in room.history(search="49")]
                assert found == [items[0], items[-1]], "a search tells of what it could not look at"
                assert await room.say("0", id="again") == 51
                assert await room.say("0", id="again") == 51

    run(work())


def test_a_stopped_reader_holds_up_nobody_and_misses_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_rate=1e6, room_burst=1e6) as node:
            ann, bob = await joined(node, tmp_path / "ann"), await joined(node, tmp_path / "bob", "bob")
            async with towline.connect("home", home=ann) as one, towline.connect("home", home=bob) as two:
                stopped = await two.channel({"service": "rooms", "op": "follow", "room": "lobby"})
                await stopped.accepted()
                async with listening(one.room("lobby")) as quick:
                    text = "x" * 8000
                    count = 0
                    for _ in range(20):
                        await asyncio.gather(*(one.room("lobby").say(text) for _ in range(30)))
                        count += 30
                    await quick.until(lambda: len(quick.items) == count)
                    assert node._rooms is not None
                    (fanout,) = [room.fanout for room in node._rooms._house._rooms.values()]
                    assert fanout.behind == 1
                    assert fanout.demoted >= 1
                    (slow,) = fanout._catching
                    assert slow.channel.stream.queued < 256 * 1024
                got = 0
                while got < count:
                    message = await stopped.receive()
                    assert message is not None
                    got += message.body.count(b"\n") + 1
                await until(lambda: fanout.behind == 0, "it is live again")
                await one.room("lobby").say("live")
                message = await stopped.receive()
                assert message is not None
                assert json.loads(message.body)["text"] == "live"
                stopped.end()

    run(work())


def test_retention_changes_amid_the_talk_without_a_loss(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann", "ann", "admin")
            async with towline.connect("home", home=home) as line, listening(line.room("lobby")) as seen:
                futures = []
                for size in range(5):
                    futures += [line.room("lobby").post(f"{size} {number}") for number in range(100)]
                    await line.room("lobby").keep(size=(size + 1) * 1_000_000)
                assert [(await future).seq for future in futures] == list(range(1, 501))
                await seen.until(lambda: len(seen.items) == 500)
                assert [item.next.seq for item in seen.items] == list(range(2, 502))

    run(work())


def test_a_look_back_goes_on_when_the_retention_changes_amid_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_rate=1e6, room_burst=1e6) as node:
            home = await joined(node, tmp_path / "ann", "ann", "admin")
            async with towline.connect("home", home=home) as line:
                room, count = line.room("lobby"), 100
                await room.keep(size=8_000_000)
                await room.say_all(["x" * 30_000] * count)
                items = []
                async for item in room.history():
                    if not items:  # far more is to come than is on its way already
                        await room.keep(records=1)
                    items.append(item)
                (gap,) = [item for item in items if isinstance(item, Missed)]
                assert gap.reason == "retention"
                assert items[-1].next.seq == count + 1

    run(work())


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "25:00", "", "1x"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_since(text, datetime.now().astimezone())


def test_times() -> None:
    now = datetime(2026, 11, 21, 15, 0, 0).astimezone()
    assert parse_since("17", now) == 17
    assert parse_since("14:30", now) == now.replace(hour=14, minute=30)
    assert parse_since("2h", now) == now - timedelta(hours=2)
    assert parse_since("2026-11-20", now) == datetime(2026, 11, 20).astimezone()
    assert parse_since("2026-11-20 14:30", now) == datetime(2026, 11, 20, 14, 30).astimezone()
