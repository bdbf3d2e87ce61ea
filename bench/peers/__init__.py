"""Peers: one file for each. In: a bench. Out: a server on loopback with its own configuration in the run's temporary
folder, and the commands that use it. Must not: touch the machine's own configuration, ports or keys."""
