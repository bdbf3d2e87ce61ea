"""The plain dialects that the world's socket tutorials speak, served and spoken to the byte.

In: raw bytes of programs that know nothing of Towline (TCP, Unix stream and UDP sockets), lines from a person.
Out: the bytes that such programs expect, events about who came, spoke, was refused and left.
May import: base and services. Must not: speak Towline's own frames, import cli, lab, node or client; trust a length,
a name, a digest or a character from a peer; print (events go to a callback, faces print them).

`codecs` is pure. `server` and `talk` are the two skeletons (many clients on asyncio; one blocking connection); each
dialect family is one file that plugs into both: `text`, `chat`, `lengths`, `shell`, `files` with `files_client` and
`part`. Folders are confined by `services.files.tree.Root`.
"""
