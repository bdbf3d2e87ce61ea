"""What a person may do, as text that people write: `chat,read=docs,music,run=uptime`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from msgspec import Struct

from towline.base.errors import NoGrant, UsageError
from towline.base.limits import KIB, Limit
from towline.base.text import printable

# verb -> what its list names, in the order in which grants are written
VERBS = {"chat": "room", "read": "share", "write": "share", "run": "command", "admin": ""}
GRANTS_TEXT = Limit("grants_text", 4 * KIB, "characters", "it is parsed for each connection and kept per person")


class Grants(Struct, frozen=True):
    """A set of grants. `entries`: each granted verb once, with the subjects it is restricted to, None for all."""

    entries: tuple[tuple[str, frozenset[str] | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Grants from comma-separated words; raises UsageError that names the offending word.

        A word that is a verb or has `=` starts a grant; any other word continues the list before it, so that in
        `chat=lobby,ops,run` the rooms are lobby and ops. A verb given twice adds up; without a list it means
        everything. Empty text is no grant at all.
        """
        GRANTS_TEXT.check(len(text))
        granted: dict[str, set[str] | None] = {}
        current: set[str] | None = None
        for word in (part.strip() for part in text.split(",")) if text.strip() else ():
            verb, equals, subject = word.partition("=")
            verb, subject = verb.strip(), subject.strip()
            if verb not in VERBS and (equals or current is None):
                raise UsageError(_unknown(word, verb, granted))
            if verb not in VERBS:
                current = _with(current, _checked(word, word))
            elif not equals:
                granted[verb] = current = None
            else:
                current = _start(granted, verb, _checked(subject, word))
        return cls(tuple((verb, _frozen(granted[verb])) for verb in VERBS if verb in granted))

    def allows(self, verb: str, subject: str | None = None) -> bool:
        """Whether `verb` is granted for `subject`; without a subject, whether it is granted for anything."""
        subjects = self.restricted(verb)
        return subjects is None or (bool(subjects) if subject is None else subject in subjects)

    def restricted(self, verb: str) -> frozenset[str] | None:
        """The subjects that `verb` is restricted to: None for no restriction, empty when it is not granted."""
        if verb not in VERBS:
            raise ValueError(f"{verb!r} is no grant")  # a bug of the caller: nobody could ever be granted it
        granted = dict(self.entries)
        return None if "admin" in granted else granted.get(verb, frozenset())

    def require(self, verb: str, subject: str | None = None) -> None:
        """Raise NoGrant, naming the grant that is missing."""
        if not self.allows(verb, subject):
            missing = verb if subject is None else f"{verb}={subject}"
            raise NoGrant(
                f"You do not have the grant '{printable(missing, limit=200)}' on this node; ask its admin for it."
            )

    def __str__(self) -> str:
        """Canonical text; `Grants.parse` of it gives the same grants."""
        return ",".join(_written(verb, subjects) for verb, subjects in self.entries)


def _start(granted: dict[str, set[str] | None], verb: str, subject: str) -> set[str] | None:
    if verb == "admin":
        raise UsageError("The grant 'admin' means everything; it takes no list.")
    if verb in granted and granted[verb] is None:
        return set()  # everything was granted before; the list adds nothing, but its further words belong to it
    subjects = granted.setdefault(verb, set())
    return _with(subjects, subject)


def _with(subjects: set[str] | None, subject: str) -> set[str] | None:
    if subjects is not None:
        subjects.add(subject)
    return subjects


def _checked(subject: str, word: str) -> str:
    if not subject:
        raise UsageError(
            f"'{printable(word)}' has an empty name in its list; leave out '=' and ',' to grant it for all."
        )
    if printable(subject) != subject:
        raise UsageError(f"'{printable(word)}' has characters that cannot be shown.")
    return subject


def _unknown(word: str, verb: str, granted: Iterable[str]) -> str:
    from difflib import get_close_matches  # for mistakes only

    shown = printable(word, limit=80)
    close = get_close_matches(verb, VERBS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    last = list(granted)[-1:]
    if not hint and word and last and last[0] != "admin":
        hint = f" To grant {last[0]} for one {VERBS[last[0]]} alone, write {last[0]}={shown}."
    return f"'{shown}' is not a grant; known are {', '.join(VERBS)}.{hint}"


def _frozen(subjects: set[str] | None) -> frozenset[str] | None:
    return None if subjects is None else frozenset(subjects)


def _written(verb: str, subjects: frozenset[str] | None) -> str:
    if subjects is None:
        return verb
    # A subject that would itself start a grant stands behind a verb of its own: chat=read,chat=lobby.
    alone = sorted(subject for subject in subjects if "=" in subject or subject in VERBS)
    listed = ",".join(sorted(subjects.difference(alone)))
    return ",".join([*(f"{verb}={subject}" for subject in alone), *([f"{verb}={listed}"] if listed else [])])
