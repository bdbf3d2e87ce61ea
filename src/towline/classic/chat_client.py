"""The client of `chat`: a person's lines out, whatever arrives in, both at any time; `q` or `Q` ends it.

From a pipe the lines take turns with the answers: after each one we wait a little for something to come.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable

from towline.base.errors import ClosedEarly
from towline.classic.chat import says_quit
from towline.classic.codecs import text_decoder
from towline.classic.talk import Wire


class ChatTalker:
    """One conversation. `source` is the descriptor the lines come from; `patience` the seconds that a line from a
    pipe waits for an answer to the one before it, None for a person, who decides alone."""

    def __init__(
        self,
        wire: Wire,
        source: int,
        show: Callable[[str], None],
        *,
        encoding: str = "utf-8",
        patience: float | None = None,
    ) -> None:
        self._wire = wire
        self._source = source
        self._show = show
        self._encoding = encoding
        self._patience = patience
        self._decoder = text_decoder(encoding)
        self._typed = text_decoder("utf-8")
        self._lines: deque[str] = deque()
        self._held = ""
        self._input_ended = False
        self._turn = 0.0  # the time from which the next line may go out

    def run(self) -> str:
        """Talk until an end; says whose it was: `our q`, `their q`, `closed`, `end of input`.

        Raises ClosedEarly when the server left while lines from a pipe were still unsent.
        """
        while True:
            heard, typed = self._wait()
            if heard and (end := self._receive()):
                return end
            if typed:
                self._read_lines()
            if self._lines and time.monotonic() >= self._turn:
                if self._send(self._lines.popleft()):
                    return "our q"
            elif self._input_ended and not self._lines and time.monotonic() >= self._turn:
                self._tell(self._wire.end_input())
                return "end of input"

    def _wait(self) -> tuple[bool, bool]:
        sources: list[Wire | int] = [self._wire]
        if not self._input_ended and not self._lines:
            sources.append(self._source)
        patience: float | None = None
        if self._lines or self._input_ended:
            patience = max(0.0, self._turn - time.monotonic())
        if self._wire.pending:
            patience = 0.0
        ready, _, _ = select.select(sources, [], [], patience)
        return self._wire in ready or self._wire.pending, self._source in ready

    def _receive(self) -> str:
        """Show what came; the reason if that was the end, else nothing."""
        data = self._wire.read()
        self._turn = 0.0
        if not data and not self._wire.datagrams:
            if self._lines and self._patience is not None:
                raise ClosedEarly(f"The server closed the conversation; {len(self._lines)} lines were not sent.")
            return "closed"
        return "their q" if says_quit(self._tell(data)) else ""

    def _tell(self, data: bytes) -> str:
        text = data.decode(self._encoding, "replace") if self._wire.datagrams else self._decoder.decode(data)
        if text:
            self._show(text)
        return text

    def _read_lines(self) -> None:
        data = os.read(self._source, 65536)
        if not data:
            self._input_ended = True
            text = self._held + "\n" if self._held else ""
        else:
            text = self._held + self._typed.decode(data)
        *lines, self._held = text.split("\n")
        self._lines.extend(line.rstrip("\r") for line in lines)

    def _send(self, line: str) -> bool:
        """Send one line; True when it was the end. An empty one cannot be sent: no bytes are no message."""
        if line:
            self._wire.send(line.encode(self._encoding, "replace"))
            if self._patience is not None:
                self._turn = time.monotonic() + self._patience
        return says_quit(line)
