"""What a node can do for a person: one room per service (files, …), with the same doors in each.

In: channels that the runtime hands over, and requests that passed the frame gate. Out: replies, streams, documented
errors. May import: runtime, transports, journal, store, trust, protocol, base. Must not: import node, client, lab or
cli, nor reach into a sister room (what two services share belongs below them).
"""
