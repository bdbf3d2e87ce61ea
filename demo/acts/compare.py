"""Is what came back what was sent?"""

from __future__ import annotations

import os

from demo.luggage import digests
from demo.screen import Check, Screen
from demo.stage import Stage

TITLE = "Compare"
NEEDS = {"get"}


def play(stage: Stage, screen: Screen) -> list[Check]:
    back = digests(os.path.join(stage.desk, "back"))
    held = digests(os.path.join(stage.folder, "node", "files", "luggage"))
    wrong = sorted(path for path, digest in stage.packed.items() if not digest == back.get(path) == held.get(path))
    strange = sorted((set(back) | set(held)) - set(stage.packed))
    screen.say(f"BLAKE3 of {len(stage.packed)} files in three places: sent, kept by the node, come back.")
    for path in (wrong + strange)[:10]:
        screen.say(f"different: {path}", style="red")
    equal = f"All {len(stage.packed)} files are equal in all three places; nothing half-done lies about."
    if wrong or strange:
        equal = f"{len(wrong)} files differ, {len(strange)} should not be there."
    return [Check(equal, not wrong and not strange)]
