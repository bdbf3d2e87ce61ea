"""`tow serve` with a handshake deadline of SECONDS (the first argument): for tests that do not wait ten."""

from __future__ import annotations

import sys

from towline.cli import main
from towline.node import config

_SECONDS = float(sys.argv.pop(1))


def _impatient(*args: object, **kwargs: object) -> config.NodeConfig:
    return config.NodeConfig(*args, **{**kwargs, "handshake": _SECONDS})  # type: ignore[arg-type]


if __name__ == "__main__":
    import towline.node

    towline.node.NodeConfig = _impatient  # type: ignore[misc]
    sys.exit(main.main(["serve", *sys.argv[1:]]))
