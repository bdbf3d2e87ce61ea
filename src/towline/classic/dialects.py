"""The table of dialects: their names, what they run over, and a one-line picture of their wire."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Over = Literal["tcp", "udp", "unix"]
Endian = Literal["little", "big"]

OVERS: tuple[Over, ...] = ("tcp", "unix", "udp")
_STREAMS: tuple[Over, ...] = ("tcp", "unix")


class Dialect(Struct, frozen=True):
    """One row of the table.

    In `wire`, `>` is what the client sends and `<` what the server answers; each kind of request has a line.
    """

    name: str
    over: tuple[Over, ...]
    wire: str
    summary: str


DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect("upper", OVERS, "> text  < TEXT", "one read (or datagram) is answered in upper case"),
        Dialect("reply", OVERS, "> text  < template % text", "one read (or datagram) is answered with a template"),
        Dialect("chat", OVERS, "> text  < text  ('q' ends)", "people take turns; the operator types at the server"),
        Dialect("int32", _STREAMS, "> [int32 n][n bytes]  < [int32 n][n BYTES]", "a C int before each message"),
        Dialect("ask", _STREAMS, '> "n"  < ok  > [n bytes]', "length as text, wait for any ok, then the payload"),
        Dialect(
            "shell", _STREAMS, "> command  < stdout stderr", "a command's output, raw; nobody knows where it ends"
        ),
        Dialect("shell-int32", _STREAMS, "> command  < [int32 n][stdout stderr]", "the same behind its total length"),
        Dialect(
            "shell-json",
            _STREAMS,
            "> command  < [int32 h][JSON][total_size bytes]",
            "the same behind a JSON header with size and md5",
        ),
        Dialect(
            "files-json",
            _STREAMS,
            "> name  < [int32 h][JSON][lenth bytes]\n> [int32 h][JSON][lenth bytes]  < [int32 h][JSON]",
            "files both ways behind a JSON header with size and md5",
        ),
    )
}

SHELLS = ("shell", "shell-int32", "shell-json")
