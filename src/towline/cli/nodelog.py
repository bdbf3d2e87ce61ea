"""What a running node says of who comes and goes, written beside the event loop.

A log may stop being read: a terminal is paused with Ctrl-S, a pager or a pipe has had enough. Then a thread waits for
the reader, and nobody else does; what has no room meanwhile is counted.
"""

from __future__ import annotations

import logging
import os
import queue
import threading

_WAITING = 1000  # lines
_LAST_SECONDS = 1.0  # for the last ones, at the end


class NodeLog(logging.Handler):
    """Writes to a descriptor, past the streams of the program: nobody has to wait for their locks, either."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._lost = 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._write, name="towline-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            with self._counting:
                self._lost += 1

    def close(self) -> None:
        """Wait a moment for what is queued. Lines that come later are lost."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass
        else:
            self._thread.join(_LAST_SECONDS)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            with self._counting:
                lost, self._lost = self._lost, 0
            if lost:
                line += f"\n({lost} lines were left out: nobody read them.)"
            data = f"{line}\n".encode(errors="backslashreplace")
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                pass  # a full disk may have room again; whoever read a pipe has left
