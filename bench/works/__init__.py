"""Works: one file for each thing that is measured, all with the same door: `SUMMARY` and `run(bench)`.

In: a bench. Out: rows, by `bench.measure`. A work names what is not there and goes on with what is.
"""

from __future__ import annotations

# In the order in which they run and are shown.
NAMES = ("files", "limit", "messages", "run", "rooms", "crowd", "idle", "fair", "cuts", "start", "scale")
