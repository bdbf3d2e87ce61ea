"""Every exhibit, run for real: its verdict holds, and its texts are whole in both languages."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from towline.base.errors import ExhibitFailed, NotFound
from towline.lab import exhibit as exhibits
from towline.lab import filters, ladder, svg, terminal
from towline.lab.exhibits import NAMES
from towline.lab.recording import Recording, from_json, to_json
from towline.lab.texts import Text, pick


@cache
def played(name: str) -> tuple[Recording, Text]:
    """Each exhibit runs once in this suite; several tests look at what it recorded."""
    return exhibits.play(name)


def texts_of(recording: Recording) -> list[Text]:
    found = [text for scene in recording.scenes for text in (scene.title, scene.note) if text is not None]
    found += [event.text for scene in recording.scenes for event in scene.events if event.text is not None]
    tables = [table for scene in recording.scenes for table in scene.tables]
    found += [text for table in tables for text in (table.title, *table.columns)]
    found += [cell for table in tables for row in table.rows for cell in row if not isinstance(cell, str)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_holds(name: str) -> None:
    recording, verdict = played(name)
    assert recording.name == name
    assert set(verdict) == {"en", "zh"}


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_comes_from_the_recording(name: str) -> None:
    """With every measured fact and call taken away there is nothing that a verdict could hold on to."""
    recording, _ = played(name)
    emptied = tuple(replace(scene, events=(), facts={}) for scene in recording.scenes)
    with pytest.raises((ExhibitFailed, KeyError, IndexError, ValueError)):
        exhibits.exhibit(name).verdict(replace(recording, scenes=emptied))


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_survives_json_and_still_proves_it(name: str) -> None:
    recording, verdict = played(name)
    again = from_json(json.loads(json.dumps(to_json(recording))))
    assert exhibits.exhibit(name).verdict(again) == verdict
    assert to_json(again) == to_json(recording)


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_whole_in_both_languages(name: str) -> None:
    shown = exhibits.exhibit(name)
    recording, verdict = played(name)
    prose = [shown.TITLE, shown.QUESTION, shown.SETUP, shown.LOOK, verdict]
    for text in prose:
        assert any("\u4e00" <= char <= "\u9fff" for char in text["zh"]), text
        assert not any("\u4e00" <= char <= "\u9fff" for char in text["en"].replace("你好", "")), text
    for text in prose + texts_of(recording):
        assert set(text) == {"en", "zh"}, text
        assert bool(text["en"]) == bool(text["zh"]), text
    assert len(pick(shown.TITLE, "en")) <= 60, "one line of the list at 80 columns"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_it_fits_80_columns_and_is_plain_in_a_pipe(name: str, lang: str) -> None:
    from io import StringIO

    page = StringIO()
    screen = terminal.console(page, width=80)
    recording, verdict = played(name)
    terminal.paint(screen, exhibits.exhibit(name), recording, lang)
    terminal.paint_verdict(screen, verdict, lang)
    lines = page.getvalue().splitlines()
    wide = [line for line in lines if sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) > 80]
    assert wide == []
    assert "\x1b" not in page.getvalue()
    assert not [line for line in lines if line != line.rstrip()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_picture_is_well_formed_and_stands_alone(name: str, lang: str) -> None:
    recording, _ = played(name)
    picture = svg.draw(recording, lang)
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    width = float(root.attrib["width"])
    assert [node for node in root.iter() if node.tag.endswith("script")] == []
    assert "href" not in picture
    for node in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(node.attrib.get("x", 0)) + float(node.attrib["width"]) <= width + 1, node.attrib
    for scene in recording.scenes:
        title = pick(scene.title, lang)
        assert any(node.text == title for node in root.iter() if node.text), title


@pytest.mark.parametrize("name", NAMES)
def test_its_code_is_shown(name: str) -> None:
    source = exhibits.source(name)
    assert source.count("def ") >= 1
    compile(source, name, "exec")


def test_every_recv_with_bytes_shows_whose_bytes_they_are() -> None:
    for name in ("sticky-send", "sticky-recv", "boundary", "families"):
        for scene in played(name)[0].scenes:
            for line in ladder.build(scene, "en").lines:
                if line.kind == "call" and line.head.startswith("recv(") and "→ 0" not in line.head:
                    failed_or_empty = line.failed or line.head.endswith("→ 0")
                    assert line.pieces or failed_or_empty, line


def test_an_unknown_exhibit_is_not_found_and_the_nearest_is_named() -> None:
    with pytest.raises(NotFound, match="sticky-send"):
        exhibits.exhibit("sticky-sent")


@pytest.mark.parametrize("name", ["handshake", "close", "vanish", "udp-loss", "layers"])
def test_without_privileges_the_verdict_still_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No filter on sockets, no packet socket: what cannot be shown is said, and the rest is proved."""
    from towline.lab.capture import Capture

    monkeypatch.setattr(filters, "can_deafen", lambda: False)
    monkeypatch.setattr(Capture, "open", classmethod(lambda cls: "Operation not permitted"))
    recording, verdict = exhibits.play(name)
    assert not recording.segments_shown
    assert verdict["zh"]
    assert any(scene.note for scene in recording.scenes), "it says what is not shown"
    assert not any(scene.calls("segment") for scene in recording.scenes)
