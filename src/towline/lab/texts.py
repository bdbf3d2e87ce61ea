"""Texts in the two languages of the lab, and which one a person gets."""

from __future__ import annotations

from collections.abc import Mapping

# One text in every language of the lab: {"en": ..., "zh": ...}.
Text = Mapping[str, str]
LANGUAGES = ("en", "zh")


def pick(text: Text, lang: str) -> str:
    """The text in `lang`, on one line: an exhibit writes its texts over several."""
    return " ".join(text[lang].split()) if lang == "en" else "".join(text[lang].split("\n"))


def language(environment: Mapping[str, str]) -> str:
    """The language that the locale asks for: the first of LC_ALL, LC_MESSAGES, LANG that is set decides (POSIX)."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"
