"""The version, where every floor can say it."""

from __future__ import annotations

__version__ = "0.1.0"
