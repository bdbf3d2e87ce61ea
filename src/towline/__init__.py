"""Towline: files, commands and chat between machines over one framed protocol."""

from __future__ import annotations

__version__ = "0.1.0"
