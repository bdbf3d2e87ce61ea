"""Both ends of the asyncssh peer: `serve FOLDER PORT`, `live FOLDER PORT`, `get FOLDER PORT SOURCE TARGET`, `put …`.

A script, not a module of a package, so that its start costs the imports of asyncssh and nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
import time

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
        process_factory=answer, encoding=None,
        authorized_client_keys=os.path.join(folder, "authorized_keys"), encryption_algs=[CIPHER],
    )  # fmt: skip
    await server.wait_closed()


async def answer(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run what was asked for."""
    child = await asyncio.create_subprocess_exec(
        *shlex.split(process.command or ""),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await process.redirect(stdout=child.stdout, stderr=child.stderr)
    process.exit(await child.wait())


async def live(folder: str, port: int) -> None:
    """A connection that is up: a command and a number on each line; run it so often, tell the seconds."""
    options = {"known_hosts": os.path.join(folder, "known_hosts"), "client_keys": [os.path.join(folder, "client")]}
    loop = asyncio.get_running_loop()
    async with asyncssh.connect(
        HOST, port, username="bench", encryption_algs=[CIPHER], config=None, **options
    ) as connection:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, times = json.loads(line)
            begun = time.perf_counter()
            for _ in range(times):
                await connection.run(command, check=True)
            print(time.perf_counter() - begun, flush=True)


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
    work = {"serve": serve, "live": live}.get(verb)
    asyncio.run(work(folder, int(port)) if work else transfer(verb, folder, int(port), *rest))
