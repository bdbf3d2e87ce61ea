"""The lab: see on real sockets what happens on the wire.

In: sockets (tapped), an exhibit's name, a recording. Out: recordings (JSON), ladders (terminal, SVG), verdicts.
May import: everything below (node, client, classic, services, runtime, transports, protocol, base), and `rich`
late, in `terminal.py` alone. Must not: own any part of the wire; be imported by what it shows; need root (what only
an administrator may see is shown where possible and otherwise said to be missing); leave loopback.

    recording.py   what was seen, as plain values          filters.py     a socket made deaf; a filter on ports
    recorder.py, tap.py   plain sockets, every call noted  exhibit.py     the doors of an exhibit, and running one
    kernel.py      what the kernel says about a socket     exhibits/      one file each
    capture.py     segments from a packet socket           ladder.py      which bytes of which send came in which recv
    headers.py     the bytes of a frame, named             terminal.py, svg.py   a ladder, painted
    wiretap.py     a tap on Towline's own frames           tapped.py      its events, as a recording
    dissector.py   the frame table for Wireshark           faults.py …    a relay that fails on purpose
"""
