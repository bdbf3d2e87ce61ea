"""A client: the house put together for reaching nodes.

In: an alias (or an invite), what a person or a program wants. Out: typed results, events, documented errors.
May import: services (their client halves), runtime, transports, journal, store, trust, protocol, base.
Must not: import node, lab or cli; print anything.
"""
