"""When Python's collector looks for cycles of garbage: not while modules are loaded, and not at the end.

What modules make stays: looking through it again and again is in vain, and took a sixth of a short command's time.
"""

from __future__ import annotations

import gc
import sys

_USUAL = gc.get_threshold()
_SELDOM = 100_000  # new objects; loading a verb makes fewer that can be in a cycle


def seldom() -> None:
    """While the process starts."""
    gc.set_threshold(_SELDOM)


def as_usual() -> None:
    """From when there is work that lasts."""
    gc.set_threshold(*_USUAL)


def never_again() -> None:
    """The process ends, and its memory with it. Objects outside of cycles still end one by one, files flushed."""
    if not sys.warnoptions:  # whoever asked for warnings is to hear what was left open
        gc.freeze()
