"""Towline beside everything a user would pick instead: one run, one machine, the same work for all.

In: names of works. Out: a table with ratios, `results/DATE.json` and charts. May import: the standard library and, in
`peers/` and `works/`, what a peer needs. Must not: be imported by towline; leave a process or a folder behind.
"""
