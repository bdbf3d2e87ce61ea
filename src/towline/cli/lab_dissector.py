"""Print a Wireshark dissector for Towline's frames, generated from the frame table.

Frames travel inside TLS. Set SSLKEYLOGFILE for the client or the node, capture, and give Wireshark both files.

examples:
  tow lab dissector > towline.lua
  SSLKEYLOGFILE=keys.log tow put model.bin home:files/
  tshark -r capture.pcapng -o tls.keylog_file:keys.log -X lua_script:towline.lua -Y towline
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from towline.base.errors import Exit

if TYPE_CHECKING:
    from towline.cli.output import Output

SUMMARY = "a Wireshark dissector for Towline's frames"


def configure(parser: argparse.ArgumentParser) -> None:
    """There are no options."""


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the Lua source."""
    from towline.lab.dissector import lua

    source = lua()
    out.event("dissector", lua=source)
    out.line(source.rstrip("\n"))
    return Exit.OK
