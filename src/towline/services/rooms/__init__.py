"""Rooms: a room is a journal and a cursor.

In: streams of people who say something or follow a room. Out: records from any position, acknowledgements after
fsync, named gaps, and ephemeral signals (presence, typing) that are in no log.
May import: runtime, journal, store, trust, protocol, base. Must not: see another service, know of a terminal.

    limits.py     every number that somebody may push on
    names.py      PURE: names of rooms; the room of two people
    messages.py   PURE: what is in a record and on the wire, both ways
    pace.py       PURE: how fast one person may write
    access.py     PURE: who may see a room
    restored.py   whether the data folder is still the one that was written to
    presence.py   who is here, who is away, without noise at short cuts
    fanout.py     one record, encoded once, to all who follow; the slow read from the journal
    room.py       one room: its log, what was removed, who is muted, who read what
    house.py      all rooms: opening, access, books in SQLite
    posting.py    the operation `say`
    asking.py     operations with one answer
    service.py    the doors

Live delivery, history, catch-up and resume are all `read(from)`. A follower has a position and nothing else; one that
falls behind is taken off the live list and reads from the journal until it is at the end again.
"""
