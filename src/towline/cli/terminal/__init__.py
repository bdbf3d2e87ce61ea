"""The screen of a terminal, rebuilt from what it was sent, so that a newcomer's terminal can be brought to the same.

In: the bytes that a job printed, with the sizes that its terminal had meanwhile. Out: bytes that paint the same
screen on a fresh terminal. May import: what any face may. Must not: touch a descriptor, or wait.
It runs at whoever attaches, once, over a bounded tail (docs/decisions); a terminal that is merely cut off needs none.

    pens.py       colours and looks (SGR)
    model.py      the screen: cells, cursor, margins, the alternate screen
    parsing.py    bytes to what they do to the screen
    painting.py   a screen to bytes
    joining.py    all of it, from what a node sends
"""
