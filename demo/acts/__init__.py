"""The acts, in the order in which they are played. An act whose verbs this `tow` does not have is left out."""

from __future__ import annotations

from types import ModuleType

from demo.acts import compare, download, house, jobs, rooms, upload

ACTS: list[ModuleType] = [house, upload, download, compare, jobs, rooms]
