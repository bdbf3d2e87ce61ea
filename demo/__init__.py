"""What Towline promises, shown on this machine: `make demo`, or `python -m demo` in an environment that has Towline.

In: this working tree, and a temporary folder. Out: a report for a person, exit status 0 when every promise was kept,
and nothing left behind: no process, no file. All is done by real `tow` processes through the real fault proxy; the
demo only starts them, reads their `--json` and looks at the files.

    luggage.py   what travels: a copy of this working tree, and one large generated file
    stage.py     the processes and folders, and their end
    leash.py     how `tow` is started, so that it cannot outlive the demo
    screen.py    all output: live on a terminal, plain lines in a pipe
    following.py watches one transfer through its events
    acts/        one promise each, in order: TITLE, NEEDS (verbs of `tow`) and `play(stage, screen) -> checks`
"""
