"""The service `jobs`: commands and shells that belong to the node, not to the connection that started them.

In: requests of people with the grant `run`. Out: streams of output that are opened at a position, input that is
numbered and acknowledged, exit statuses that somebody really saw. May import: what any service may. Must not: see
another service.

    messages.py   what is asked for, type-checked; limits
    link.py       frames between the node and its keeper
    keeper.py     the keeper: a process of its own that holds all jobs of a node and outlives it (`python -m`)
    held.py       one job in the keeper: process, pipes or terminal, spool
    taps.py       where its output comes out, and when that is read
    spawn.py      how its process is started
    modes.py      what a terminal program has switched on
    tail.py       which of a terminal's output a newcomer needs; replay.py sends it
    keeping.py    the node's end: finds or starts the keeper
    roster.py     the node's books: which jobs there are, what became of them
    starting.py   how one is started
    beginning.py  … written down first, and the keeper told
    live.py       a job that has not ended, and who looks at it
    aftermath.py  … and what did when nobody was there to see it
    service.py    the service itself
    output.py     a stream of output, input.py one of input

The keeper imports neither the service nor the store: it starts quickly and stays small.
"""
