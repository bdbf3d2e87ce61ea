"""The command line: a person (or a script) wants something.

In: arguments, standard input. Out: text for people or one JSON object a line (`--json`), an exit status.
May import: everything below (client, node, lab, classic, services, base); imports inside a verb come late, so that
`tow --version` stays quick. Must not: hold logic that a Python program would want too; that belongs to the client.
A verb is one module with the same three doors: `SUMMARY`, `configure(parser)`, `run(args, out) -> exit status`.
"""
