"""Who is who, and who may do what: keys, pins, the node's certificate, grants, invites.

In: folders on disk, bytes to sign or check, text that a person typed. Out: identities, TLS contexts, verdicts, and
documented errors with a sentence that says how to mend it.
May import: base, the standard library (ssl, os, fcntl), cryptography. Must not: import store or protocol, open a
connection, run an event loop, read a clock (times are arguments). Everything here blocks; callers use threads.
"""
