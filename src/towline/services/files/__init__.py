"""Files: list, stat, get, put, mkdir, move and remove, verified and resumable.

In: paths and bytes from a peer, trusted in nothing. Out: files that are whole as soon as they have a name.

Two halves. The disk half (`names`, `disk`, `trail`, `tree`, `plan`, `ranges`, `part`, `small`, `digest`, `local`) is
blocking code that knows no connection: both sides of a transfer stand on it, the node inside its shares, the client
inside the folder that its user named. It may import `towline.base` alone: no asyncio, no sockets, no protocol. The
transfer engine is built on top of it: `conversation` talks, `sender` (with `planned`, `outgoing`) and `receiver`
(with `unsettled`, `incoming`) decide, `packs` carries small files, `sources` and `sinks` read and write. The disk
half must not: follow a symlink, use a path string after it was checked (everything is done on descriptors), leave a
partial under a final name, or let an OSError out.
"""
