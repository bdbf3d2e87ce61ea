"""The protocol, pure: bytes ⇄ frames ⇄ streams.

In: bytes from a peer, calls from a driver, `now` (seconds, monotonic) and random bytes as arguments.
Out: events, bytes to send, deadlines. Only documented errors leave, whatever bytes come in.
May import: base, and the standard library's pure parts.
Must not: touch sockets, event loops, clocks, randomness or logging.

`table` is the source of truth: the codec, the state checks, the explainer and docs/reference/protocol.md derive
from it. `session` is the hub; the other modules are its spokes and do not import it or each other's state.
"""
