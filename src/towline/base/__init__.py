"""The floor everything stands on.

In: plain values. Out: plain values, documented errors.
May import: the standard library's pure parts (no socket, ssl, asyncio, time, random, logging).
Must not: do I/O, read a clock, draw randomness, know about frames or services.
"""
