"""The exhibits, one file each, with the same doors (see `towline.lab.exhibit`).

In: a recorder. Out: a recording, and a verdict that is asserted from it.
May import: the lab's other modules; only `frames` imports the house itself (node, client). Must not: import one
another, leave loopback, take longer than a few seconds, wait for luck (every cause is made certain first).
"""

from __future__ import annotations

# In the order in which they are best visited.
NAMES = (
    "sticky-send",
    "sticky-recv",
    "boundary",
    "museum",
    "handshake",
    "close",
    "reuse",
    "backlog",
    "vanish",
    "udp-boundary",
    "udp-loss",
    "nagle",
    "nonblocking",
    "families",
    "layers",
    "addresses",
    "frames",
)
