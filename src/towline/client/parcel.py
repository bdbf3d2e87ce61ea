"""Messages that are said together, from the word to the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from towline.base.errors import TowlineError
from towline.client.outbox import Unsent
from towline.journal import Cursor

Outcome: TypeAlias = Cursor | TowlineError
Told: TypeAlias = Callable[[list[Outcome] | TowlineError], bool]


class Parcel:
    """Messages for one room: their ids, and the request that says them, a line each.

    `told` is given the outcomes, in the order of the ids, or the one error for which there are none; what it returns
    is whether somebody was there to hear it.
    """

    __slots__ = ("_answers", "_body", "ids", "room", "told")

    def __init__(self, room: str, ids: Sequence[str], body: bytes, told: Told) -> None:
        self.room, self.ids, self.told = room, list(ids), told
        self._body = body
        self._answers: dict[str, Outcome] = {}

    def __repr__(self) -> str:
        return f"<Parcel {len(self.ids)} for {self.room}, {len(self._answers)} answered>"

    @property
    def answered(self) -> bool:
        """All of them are."""
        return len(self._answers) == len(self.ids)

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of each, once all are answered."""
        return [self._answers[id_] for id_ in self.ids]

    def messages(self) -> list[Unsent]:
        """Each by itself."""
        lines = self._body.split(b"\n")
        return [Unsent(id_, self.room, line) for id_, line in zip(self.ids, lines, strict=True)]

    @property
    def untouched(self) -> bool:
        """None of them is."""
        return not self._answers

    @property
    def waiting(self) -> list[str]:
        """The ids that have no answer yet."""
        return [id_ for id_ in self.ids if id_ not in self._answers]

    def body_of(self, id_: str) -> bytes:
        """The request that says one of them."""
        return self._body.split(b"\n")[self.ids.index(id_)]

    def rest(self) -> bytes:
        """The request for those that have no answer yet."""
        if not self._answers:
            return self._body
        return b"\n".join(each.body for each in self.messages() if each.id not in self._answers)

    def answer(self, id_: str, outcome: Outcome) -> None:
        """What the node says to one of them."""
        self._answers[id_] = outcome

    def keep_all(self, epoch: int, seq: int) -> None:
        """The node has all of them, in a row."""
        self._answers = {id_: Cursor(epoch, number) for number, id_ in enumerate(self.ids, seq)}


def unheard(_: list[Outcome] | TowlineError) -> bool:
    """Nobody waits for these: an earlier process said them."""
    return False
