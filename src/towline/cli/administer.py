"""Reaching a node's administration: through its Unix socket when it runs, in its store when it does not."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from towline.base.errors import NotFound, PeerError, Unreachable
from towline.base.text import printable
from towline.cli.output import Output

if TYPE_CHECKING:
    from towline.client.line import Line

_MOST_ROWS = 100_000  # far more than a node has


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data`, for all verbs that administer a node on this machine."""
    parser.add_argument("--data", metavar="DIR", help="the node's data folder (default: TOWLINE_HOME/node)")
    parser.add_argument(
        "--unix", metavar="PATH", help="the running node's Unix socket, if it is not DATA/run/tow.sock"
    )


def administer(args: argparse.Namespace, request: dict[str, Any]) -> Any:
    """Do `request` (see services.admin) on the node of `--data`; what it answers."""
    from towline.node.config import default_unix_path
    from towline.store import DATABASE_FILE
    from towline.store.lock import is_running, turn
    from towline.trust.home import default_data_folder

    data = os.path.abspath(args.data) if args.data else default_data_folder()
    if not os.path.exists(os.path.join(data, DATABASE_FILE)):
        raise NotFound(
            f"There is no node in {printable(data)}; start one with `tow serve`, or name its folder with --data."
        )
    if not args.unix:
        with turn(data):
            if not is_running(data):
                return _do_stopped(data, request)
    from towline.cli.running import run_async
    from towline.client.connect import local_line

    return run_async(_ask(local_line(args.unix or _socket_of(data, default_unix_path(data))), request))


def _socket_of(data: str, default: str) -> str:
    from towline.store import Store

    with Store.open(data) as store:
        return store.settings.get("unix") or default


def administer_at(alias: str, request: dict[str, Any], give_up: float | None, out: Output) -> Any:
    """Do `request` on a node that this client has joined, by the grant `admin`."""
    from towline.cli.running import run_async, tell_line_events
    from towline.client.connect import connect

    return run_async(_ask(connect(alias, give_up=give_up, on_event=tell_line_events(out)), request))


async def _ask(reach: Line, request: dict[str, Any]) -> Any:
    from towline.client.rows import Audited, ListedPerson, parsed

    kind: Any = {"people": list[ListedPerson], "audit": list[Audited]}.get(str(request["op"]), str)
    rows: list[Any] = []
    async with reach as line:
        channel = await line.channel({"service": "admin", **request})
        if (message := await channel.receive()) is None:
            raise Unreachable("The node gave no answer.")
        first = parsed(message.body, kind)
        if not isinstance(first, list):
            return first
        rows += first
        async for body in channel:  # a long list comes in several messages
            rows += parsed(body, kind)
            if len(rows) > _MOST_ROWS:
                raise PeerError("The node's answer has no end.")
    return rows


def _do_stopped(data: str, request: dict[str, Any]) -> Any:
    from towline.node.config import DEFAULT_LISTEN, NodeConfig, default_name
    from towline.services.admin import Administration, answer
    from towline.store import Store
    from towline.store.lock import DataLock
    from towline.trust.certificate import node_certificate
    from towline.trust.keys import Identity

    config = NodeConfig(data=data)
    with DataLock(data), Store.open(data) as store:
        name = store.settings.get("name") or default_name()
        store.settings.set("name", name)
        identity = Identity.load_or_create(config.keys_folder, "node")
        fingerprint = node_certificate(identity, config.keys_folder, name)[2]
        addresses = (store.settings.get("addresses") or DEFAULT_LISTEN).split("\n")
        administration = Administration(store, fingerprint, name, lambda: addresses)
        return answer(administration, request, "owner")
