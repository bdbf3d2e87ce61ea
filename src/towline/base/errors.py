"""Every failure a person or a peer can cause, as one tree.

Each class has a numeric wire `code` (RESET and GOAWAY carry it), a `name` for `--json`, the exit status of the
command line, whose `fault` it is, and whether trying again can help. The class docstring is the sentence that a
person reads when there is nothing more precise to say. `docs/reference/errors.md` is generated from this file.
"""

from __future__ import annotations

from towline.base.failure import BY_CODE
from towline.base.failure import Exit as Exit
from towline.base.failure import Fault as Fault
from towline.base.failure import TowlineError as TowlineError
from towline.base.failure import error_types as error_types


def error_from_wire(code: int, sentence: str, retryable: bool, retry_after: float | None = None) -> TowlineError:
    """The error that a peer named by number; an unknown number becomes `PeerError`, never a crash.

    `sentence` is the peer's text: it must already have passed the text gate.
    """
    cls = BY_CODE.get(code)
    if cls is None:
        return PeerError(f"{sentence} (error {code}, unknown to this version)")
    error = cls(sentence, retry_after=retry_after)
    if retryable != cls.retryable:
        error.retryable = retryable  # type: ignore[misc]  # the peer knows better for this one instance
    return error


# --- 1xx: the conversation itself ---


class ProtocolError(TowlineError, code=100, name="protocol", exit_status=Exit.PROTOCOL, fault=Fault.THEIRS):
    """The other side broke the protocol; the connection was closed."""


class NotTowline(ProtocolError, code=101, name="not-towline"):
    """The other side does not speak Towline; check the address and port."""


class VersionMismatch(ProtocolError, code=102, name="version"):
    """The other side speaks another version of the protocol; update the older of the two."""


class FrameTooLarge(ProtocolError, code=103, name="frame-too-large"):
    """A frame was larger than the announced limit."""


class UnexpectedFrame(ProtocolError, code=104, name="unexpected-frame"):
    """A frame arrived that is not allowed in this state."""


class MalformedFrame(ProtocolError, code=105, name="malformed-frame"):
    """A frame could not be understood."""


class CreditExceeded(ProtocolError, code=106, name="credit-exceeded"):
    """The other side sent more than it had credit for."""


class TooManyResets(ProtocolError, code=107, name="too-many-resets"):
    """The other side opened and cancelled too many streams."""


class ControlFlood(ProtocolError, code=108, name="control-flood"):
    """The other side forced too many replies without reading them."""


class StreamClosed(TowlineError, code=109, name="stream-closed", fault=Fault.OURS):
    """The stream was used after its end."""


class Cancelled(TowlineError, code=110, name="cancelled", exit_status=Exit.INTERRUPTED):
    """The operation was cancelled."""


class PeerError(TowlineError, code=111, name="peer-error", fault=Fault.THEIRS):
    """The other side reported an error."""


# --- 2xx: trust ---


class Refused(TowlineError, code=200, name="refused", exit_status=Exit.REFUSED, fault=Fault.THEIRS):
    """The node refused this."""


class NotJoined(Refused, code=201, name="not-joined"):
    """The node does not know this key; ask for an invite and join with `tow join`."""


class NoGrant(Refused, code=202, name="no-grant"):
    """The person behind this key may not do that; ask the node's admin for the grant."""


class BadInvite(Refused, code=203, name="bad-invite"):
    """The invite is not valid: it was mistyped, used before, or has expired. Ask for a new one."""


class WrongPin(Refused, code=204, name="wrong-pin"):
    """The node's key is not the one that was pinned when joining."""


class BadProof(Refused, code=205, name="bad-proof"):
    """The proof of the key does not fit this connection."""


class LaxPermissions(Refused, code=206, name="lax-permissions", fault=Fault.WORLD):
    """A key file or its folder can be read by others."""


class Revoked(Refused, code=207, name="revoked"):
    """Access to this node was revoked."""


class HandshakeTimeout(Refused, code=208, name="handshake-timeout", retryable=True):
    """The handshake was not finished in time."""


class BadTicket(Refused, code=209, name="bad-ticket", retryable=True):
    """The ticket for an extra connection is unknown, used or expired."""


# --- 3xx: requests and files ---


class UsageError(TowlineError, code=300, name="usage", exit_status=Exit.USAGE):
    """The command cannot be understood; see --help."""


class NotFound(TowlineError, code=301, name="not-found", exit_status=Exit.NOT_FOUND):
    """There is nothing with that name."""


class UnknownAlias(NotFound, code=302, name="unknown-alias"):
    """No node with that alias is known here; `tow nodes` lists them, `tow join` adds one."""


class UnknownService(NotFound, code=303, name="unknown-service"):
    """The node does not offer that service."""


class UnknownShare(NotFound, code=304, name="unknown-share"):
    """The node has no share with that name that you may see."""


class Conflict(TowlineError, code=310, name="conflict", exit_status=Exit.CONFLICT):
    """The target exists with other content; choose with --overwrite older|always."""


class SourceChanged(Conflict, code=311, name="source-changed"):
    """The source changed while it was being transferred; run the command again for the new content."""


class Superseded(Conflict, code=312, name="superseded"):
    """A newer writer took over; this one stopped."""


class NotADirectory(Conflict, code=313, name="not-a-directory"):
    """A folder was expected and something else is there."""


class IsADirectory(Conflict, code=314, name="is-a-directory"):
    """A file was expected and a folder is there; a tree needs --recursive where it is removed."""


class PathRefused(Refused, code=320, name="path-refused", fault=Fault.THEIRS):
    """The path leaves its share or is not a name that is safe everywhere."""


class ReadOnlyShare(Refused, code=321, name="read-only"):
    """The share is read-only."""


class PermissionDenied(Refused, code=322, name="permission-denied", fault=Fault.WORLD):
    """The operating system does not permit that."""


class VerificationFailed(TowlineError, code=330, name="verification-failed", exit_status=Exit.VERIFICATION):
    """The bytes that arrived are not the bytes that were sent; nothing was published."""


class LimitExceeded(TowlineError, code=340, name="limit", exit_status=Exit.LIMIT):
    """A limit was exceeded."""


class BadMessage(TowlineError, code=341, name="bad-message", exit_status=Exit.PROTOCOL, fault=Fault.THEIRS):
    """The request has a form that the service does not take."""


# --- 4xx: jobs ---


class CommandNotFound(NotFound, code=400, name="command-not-found", exit_status=Exit.NO_COMMAND):
    """The node has no such command."""


class NotExecutable(Refused, code=401, name="not-executable", exit_status=Exit.NOT_EXECUTABLE):
    """The command is there but cannot be executed."""


class UnknownJob(NotFound, code=402, name="unknown-job"):
    """There is no such job, or it is not yours."""


class JobLost(TowlineError, code=403, name="job-lost", exit_status=Exit.LOST):
    """The job's process did not survive and its exit status is not known."""


class Gap(TowlineError, code=404, name="gap", exit_status=Exit.LOST):
    """A part of what was asked for is no longer kept."""


class JournalFull(LimitExceeded, code=405, name="journal-full", retryable=True):
    """The log has no room left; its reader must acknowledge what it has read first."""


# --- 5xx: rooms ---


class UnknownRoom(NotFound, code=500, name="unknown-room"):
    """There is no such room, or you are not in it."""


class IdReused(Conflict, code=501, name="id-reused"):
    """That message id was used before with other content."""


class CursorFromFuture(Conflict, code=502, name="cursor-from-future"):
    """The position asked for is past the end of the log."""


class TooFast(LimitExceeded, code=503, name="too-fast", retryable=True):
    """Messages are coming faster than the node permits."""


class Muted(Refused, code=504, name="muted"):
    """An admin has muted you in this room."""


# --- 6xx: the world ---


class Unreachable(TowlineError, code=600, name="unreachable", exit_status=Exit.UNREACHABLE, retryable=True):
    """The node cannot be reached."""


class ConnectionLost(Unreachable, code=601, name="connection-lost"):
    """The connection was lost."""


class JobUnreachable(Unreachable, code=609, name="job-unreachable"):
    """The node cannot be reached; the job goes on there, and `tow attach` goes on with it."""


class NoSpace(TowlineError, code=602, name="no-space", exit_status=Exit.NO_SPACE):
    """The disk is full; make room and run the command again, it goes on where it stopped."""


class Draining(Unreachable, code=603, name="draining"):
    """The node is shutting down; it can be asked again later."""


class Busy(Unreachable, code=604, name="busy"):
    """The node has no room for another connection just now."""


class InUse(TowlineError, code=605, name="in-use", exit_status=Exit.CONFLICT):
    """Another process uses it already."""


class DiskError(TowlineError, code=606, name="disk"):
    """The disk reported an error."""


class TimedOut(TowlineError, code=607, name="timeout", exit_status=Exit.UNREACHABLE, retryable=True):
    """It was not done in the time that was given."""


class Interrupted(TowlineError, code=608, name="interrupted", exit_status=Exit.INTERRUPTED):
    """Interrupted; run the same command again to go on."""


# --- 7xx: the plain dialects and the lab ---


class DialectError(TowlineError, code=700, name="dialect", exit_status=Exit.PROTOCOL, fault=Fault.THEIRS):
    """The other side does not keep to the dialect."""


class NotLegitimate(Refused, code=701, name="not-legitimate"):
    """The other side does not know the shared secret."""


class ExhibitFailed(TowlineError, code=702, name="exhibit-failed"):
    """The recording does not show what the exhibit claims."""


class ClosedEarly(
    TowlineError, code=703, name="closed-early", exit_status=Exit.LOST, fault=Fault.THEIRS, retryable=True
):
    """The other side closed the connection in the middle of an answer."""


# --- 9xx: ours ---


class InternalError(TowlineError, code=900, name="internal", exit_status=Exit.INTERNAL, fault=Fault.OURS):
    """A bug in Towline; please report it with the line above."""
