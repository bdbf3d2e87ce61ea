"""Both ends of the asyncssh peer: `serve FOLDER PORT`, `get FOLDER PORT SOURCE TARGET`, `put …`.

A script, not a module of a package, so that its start costs the imports of asyncssh and nothing of ours.
"""

from __future__ import annotations

import asyncio
import os
import sys

sys.path.pop(0)  # this folder has a file named asyncssh.py, too

import asyncssh

HOST, CIPHER = "127.0.0.1", "aes128-gcm@openssh.com"


async def serve(folder: str, port: int) -> None:
    host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    host.write_private_key(os.path.join(folder, "host"))
    client.write_private_key(os.path.join(folder, "client"))
    os.chmod(os.path.join(folder, "client"), 0o600)
    client.write_public_key(os.path.join(folder, "authorized_keys"))
    host.write_public_key(os.path.join(folder, "host.pub"))
    with open(os.path.join(folder, "host.pub")) as file:
        known = f"[{HOST}]:{port} {file.read()}"
    with open(os.path.join(folder, "known_hosts"), "w") as file:
        file.write(known)
    server = await asyncssh.listen(
        HOST, port, server_host_keys=[os.path.join(folder, "host")], sftp_factory=True, allow_scp=True,
        authorized_client_keys=os.path.join(folder, "authorized_keys"), encryption_algs=[CIPHER],
    )  # fmt: skip
    await server.wait_closed()


async def transfer(verb: str, folder: str, port: int, source: str, target: str) -> None:
    options = {"known_hosts": os.path.join(folder, "known_hosts"), "client_keys": [os.path.join(folder, "client")]}
    async with (
        asyncssh.connect(
            HOST, port, username="bench", encryption_algs=[CIPHER], config=None, **options
        ) as connection,
        connection.start_sftp_client() as sftp,
    ):
        await (sftp.get if verb == "get" else sftp.put)(source, target, recurse=os.path.isdir(source))


if __name__ == "__main__":
    verb, folder, port, *rest = sys.argv[1:]
    asyncio.run(serve(folder, int(port)) if verb == "serve" else transfer(verb, folder, int(port), *rest))
