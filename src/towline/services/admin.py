"""Who may come in: invites, people, revocation. For admins over the wire; a stopped node is served by the same."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

from towline.base.errors import BadMessage, UsageError
from towline.base.names import checked_name
from towline.runtime.channel import Channel
from towline.services import requests
from towline.services.answers import in_messages
from towline.store import Store
from towline.trust.grants import Grants
from towline.trust.invites import Code, encode_code, secret_hash

INVITE_SECONDS = 24 * 3600.0
OWNER = "owner"  # the node's own user, over the Unix socket
DEFAULT_GRANTS = "chat,read,write"


class Administration:
    """What an admin can do to a node's store. Blocking; thread-safe as far as the store is."""

    def __init__(self, store: Store, fingerprint: str, name: str, addresses: Callable[[], list[str]]) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._name = name
        self._addresses = addresses

    def invite(self, who: str, name: str, grants: str, lasts: float, address: str | None = None) -> str:
        """A code that lets one key in as `name` within `lasts` seconds. `who` is noted in the audit log."""
        if checked_name(name) == OWNER:
            raise UsageError(f"The name {OWNER!r} is the node's own user's; choose another.")
        parsed = str(Grants.parse(grants))
        secret = os.urandom(16)
        addresses = (address,) if address else tuple(self._addresses())
        code = encode_code(Code(addresses, self._fingerprint, self._name, secret))
        now = time.time()
        invite = self._store.invites.create(name, parsed, secret_hash(secret), now + lasts, now)
        self._store.audit.note(now, who, "invite", invite.name, f"{parsed}, for {lasts:.0f} s")
        return code

    def people(self) -> list[dict[str, Any]]:
        """Everybody who joined, and the open invites."""
        joined: list[dict[str, Any]] = [
            {
                "name": person.name,
                "grants": person.grants,
                "state": "revoked" if person.revoked else "joined",
                "keys": len(self._store.people.keys(person.name)),
                "created": person.created,
                "last_seen": person.last_seen,
            }
            for person in self._store.people.all()
        ]
        invited = [
            {"name": i.name, "grants": i.grants, "state": "invited", "created": i.created, "expires": i.expires}
            for i in self._store.invites.open(time.time())
        ]
        return joined + invited

    def revoke(self, who: str, name: str) -> str:
        """Shut a person out: keys and open invites; the name as the store has it. Raises NotFound."""
        name = checked_name(name)
        self._store.people.revoke(name)
        self._store.audit.note(time.time(), who, "revoke", name, "")
        return name

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """The latest rows of the audit log, oldest first."""
        return [
            {
                "id": row.id,
                "time": row.time,
                "person": row.person,
                "action": row.action,
                "subject": row.subject,
                "detail": row.detail,
            }
            for row in self._store.audit.latest(limit)
        ]


class AdminService:
    """The service `admin`: one request a stream, answered in the body of one message, a long list in several."""

    def __init__(self, administration: Administration, shut_out: Callable[[str], None]) -> None:
        self._administration = administration
        self._shut_out = shut_out

    async def __call__(self, channel: Channel) -> None:
        grants = channel.connection.grants
        assert isinstance(grants, Grants)
        grants.require("admin")
        result = await asyncio.to_thread(answer, self._administration, channel.header, channel.person)
        if channel.header.get("op") == "revoke":
            self._shut_out(str(result))
        channel.accept()
        for part in in_messages(result) if isinstance(result, list) else (json.dumps(result).encode(),):
            await channel.send(part)


def answer(do: Administration, header: dict[str, object], who: str) -> object:
    """Carry out one request; the same for a stream's header and for a stopped node. Blocking."""
    match header.get("op"):
        case "invite":
            return do.invite(
                who,
                requests.text(header, "name"),
                requests.text(header, "can", DEFAULT_GRANTS),
                requests.seconds(header, "for", INVITE_SECONDS),
                requests.text(header, "address", "") or None,
            )
        case "people":
            return do.people()
        case "revoke":
            return do.revoke(who, requests.text(header, "name"))
        case "audit":
            return do.audit(requests.number(header, "limit", 100, least=1, most=5_000))
        case other:
            raise BadMessage(f"The service admin has no operation {other!r}.")
