"""Runs `tow` with the given arguments; when the demo dies, even by force, the kernel ends it (prctl(2), on Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from towline.cli.main import main

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    demo = int(os.environ["TOWLINE_DEMO_PID"])
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    except (AttributeError, OSError):
        pass  # another system: the demo still ends what it started, unless it is killed by force
    if os.getppid() != demo:  # it died before the kernel knew
        sys.exit(1)
    sys.exit(main())
