"""Write the gallery: every exhibit run once on this machine, its ladders as pictures, in English and in Chinese.

    python -m tools.gallery            writes docs/gallery/

Times differ from run to run, so the result is committed when an exhibit changes and not checked for being current.
Run it where segments may be seen (as root), so that the pictures have them.
"""

from __future__ import annotations

import os
import sys

from msgspec.structs import replace

from towline.lab import svg
from towline.lab.exhibit import exhibit, play
from towline.lab.exhibits import NAMES
from towline.lab.recording import Recording
from towline.lab.texts import Text, pick

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "gallery")
PAGES = {"en": "README.md", "zh": "README.zh.md"}

_HEAD: dict[str, str] = {
    "en": """# The gallery: see it happen

Each exhibit runs real sockets on loopback, writes down every call of both ends, and proves what it says from that
recording. `tow lab` lists them, `tow lab NAME` runs one on your machine, `--code` shows the code that ran, `--json`
gives the recording. Time runs downwards, in milliseconds; a chip is a piece of a message, and a ribbon leads from
each send to the recv that got its bytes.

[中文](README.zh.md)
""",
    "zh": """# 展览：亲眼看见

每个展品都在本机回环上使用真实的套接字，记下两端的每一次调用，并用这份记录证明它所说的。
`tow lab` 列出展品，`tow lab 名称` 在你的机器上运行一个，`--code` 显示运行的代码，`--json` 给出记录。
时间自上而下，单位毫秒；一个色块是消息的一段，一条色带从每次 send 通到取得这些字节的 recv。

[English](README.md)
""",
}
_WORDS: dict[str, dict[str, str]] = {
    "en": {"setup": "Set-up", "look": "Look at", "verdict": "Shown", "try": "Try it"},
    "zh": {"setup": "做法", "look": "看点", "verdict": "结论", "try": "自己试试"},
}


def main() -> int:
    """Run every exhibit, write pages and pictures."""
    os.makedirs(FOLDER, exist_ok=True)
    pages = {lang: [_HEAD[lang], _contents(lang)] for lang in PAGES}
    for name in NAMES:
        recording, verdict = play(name)
        shown = _public(recording)
        for lang, page in pages.items():
            picture = f"{name}.{lang}.svg"
            _write(picture, svg.draw(shown, lang))
            page.append(_section(name, picture, verdict, lang))
        print(name)
    for lang, page in pages.items():
        _write(PAGES[lang], "\n".join(page))
    return 0


def _public(recording: Recording) -> Recording:
    # This machine's own addresses are nobody's business; what is computed from them is.
    scenes = tuple(scene for scene in recording.scenes if scene.name != "machine")
    return replace(recording, scenes=scenes)


def _contents(lang: str) -> str:
    rows = [f"- [`{name}`](#{name}) {pick(exhibit(name).TITLE, lang)}" for name in NAMES]
    return "\n".join([*rows, ""])


def _section(name: str, picture: str, verdict: Text, lang: str) -> str:
    shown, words = exhibit(name), _WORDS[lang]
    colon = ": " if lang == "en" else "："
    return "\n".join(
        [
            f"## {name}",
            "",
            f"**{pick(shown.QUESTION, lang)}**",
            "",
            f"{words['setup']}{colon}{pick(shown.SETUP, lang)}",
            "",
            f"![{pick(shown.TITLE, lang)}]({picture})",
            "",
            f"{words['look']}{colon}{pick(shown.LOOK, lang)}",
            "",
            f"✓ {words['verdict']}{colon}{pick(verdict, lang)}",
            "",
            f"{words['try']}{colon}`tow lab {name}`",
            "",
        ]
    )


def _write(name: str, text: str) -> None:
    with open(os.path.join(FOLDER, name), "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
