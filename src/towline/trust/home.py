"""Where a client keeps its state."""

from __future__ import annotations

import os

from towline.trust.files import private_folder


def client_home() -> str:
    """The client's folder: $TOWLINE_HOME, else ~/.towline; created with mode 0700. Raises LaxPermissions."""
    chosen = os.environ.get("TOWLINE_HOME") or os.path.join(os.path.expanduser("~"), ".towline")
    return private_folder(os.path.expanduser(chosen))


def default_data_folder() -> str:
    """Where `tow serve` keeps a node's data unless `--data` says otherwise: `node` in the client's folder."""
    return os.path.join(client_home(), "node")
