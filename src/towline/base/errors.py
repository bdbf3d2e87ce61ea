"""Every failure a person or a peer can cause, as one tree.

Each class has a numeric wire `code` (RESET and GOAWAY carry it), a `name` for `--json`, the exit status of the
command line, whose `fault` it is, and whether trying again can help. The class docstring is the sentence that a
person reads when there is nothing more precise to say. `docs/reference/errors.md` is generated from this file.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Fault(Enum):
    """Whose fault a failure is; decides the tone of the sentence and who should act."""

    OURS = "ours"
    THEIRS = "theirs"
    WORLD = "the world's"


class Exit:
    """Exit statuses of `tow`. 64 to 78 and above 128 are left to the commands that `tow run` passes on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNREACHABLE = 6
    VERIFICATION = 7
    NO_SPACE = 8
    PROTOCOL = 9
    LIMIT = 10
    LOST = 11
    INTERNAL = 12
    NOT_EXECUTABLE = 126
    NO_COMMAND = 127
    INTERRUPTED = 130


_BY_CODE: dict[int, type[TowlineError]] = {}


class TowlineError(Exception):
    """Something went wrong."""

    code: ClassVar[int] = 0
    name: ClassVar[str] = "error"
    exit_status: ClassVar[int] = Exit.FAILED
    fault: ClassVar[Fault] = Fault.WORLD
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail or self.default_sentence())
        self.retry_after = retry_after

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            return
        if cls.code in _BY_CODE:
            raise AssertionError(f"error code {cls.code} is taken by {_BY_CODE[cls.code].__name__}")
        _BY_CODE[cls.code] = cls

    @classmethod
    def default_sentence(cls) -> str:
        """The docstring's first paragraph, on one line."""
        paragraph = (cls.__doc__ or "Something went wrong.").strip().split("\n\n")[0]
        return " ".join(paragraph.split())

    @property
    def sentence(self) -> str:
        """What a person reads."""
        return str(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code} {self.name}: {self.sentence}>"


def error_types() -> list[type[TowlineError]]:
    """All numbered errors in the order of their codes (for documentation and tests)."""
    return [_BY_CODE[code] for code in sorted(_BY_CODE)]


def error_from_wire(code: int, sentence: str, retryable: bool, retry_after: float | None = None) -> TowlineError:
    """The error that a peer named by number; an unknown number becomes `PeerError`, never a crash.

    `sentence` is the peer's text: it must already have passed the text gate.
    """
    cls = _BY_CODE.get(code)
    if cls is None:
        return PeerError(f"{sentence} (error {code}, unknown to this version)")
    error = cls(sentence, retry_after=retry_after)
    if retryable != cls.retryable:
        error.retryable = retryable  # type: ignore[misc]  # the peer knows better for this one instance
    return error


# --- 1xx: the conversation itself ---


class ProtocolError(TowlineError):
    """The other side broke the protocol; the connection was closed."""

    code = 100
    name = "protocol"
    exit_status = Exit.PROTOCOL
    fault = Fault.THEIRS


class NotTowline(ProtocolError):
    """The other side does not speak Towline; check the address and port."""

    code = 101
    name = "not-towline"


class VersionMismatch(ProtocolError):
    """The other side speaks another version of the protocol; update the older of the two."""

    code = 102
    name = "version"


class FrameTooLarge(ProtocolError):
    """A frame was larger than the announced limit."""

    code = 103
    name = "frame-too-large"


class UnexpectedFrame(ProtocolError):
    """A frame arrived that is not allowed in this state."""

    code = 104
    name = "unexpected-frame"


class MalformedFrame(ProtocolError):
    """A frame could not be understood."""

    code = 105
    name = "malformed-frame"


class CreditExceeded(ProtocolError):
    """The other side sent more than it had credit for."""

    code = 106
    name = "credit-exceeded"


class TooManyResets(ProtocolError):
    """The other side opened and cancelled too many streams."""

    code = 107
    name = "too-many-resets"


class ControlFlood(ProtocolError):
    """The other side forced too many replies without reading them."""

    code = 108
    name = "control-flood"


class StreamClosed(TowlineError):
    """The stream was used after its end."""

    code = 109
    name = "stream-closed"
    fault = Fault.OURS


class Cancelled(TowlineError):
    """The operation was cancelled."""

    code = 110
    name = "cancelled"
    exit_status = Exit.INTERRUPTED


class PeerError(TowlineError):
    """The other side reported an error."""

    code = 111
    name = "peer-error"
    fault = Fault.THEIRS


# --- 2xx: trust ---


class Refused(TowlineError):
    """The node refused this."""

    code = 200
    name = "refused"
    exit_status = Exit.REFUSED
    fault = Fault.THEIRS


class NotJoined(Refused):
    """The node does not know this key; ask for an invite and join with `tow join`."""

    code = 201
    name = "not-joined"


class NoGrant(Refused):
    """The person behind this key may not do that; ask the node's admin for the grant."""

    code = 202
    name = "no-grant"


class BadInvite(Refused):
    """The invite is not valid: it was mistyped, used before, or has expired. Ask for a new one."""

    code = 203
    name = "bad-invite"


class WrongPin(Refused):
    """The node's key is not the one that was pinned when joining."""

    code = 204
    name = "wrong-pin"


class BadProof(Refused):
    """The proof of the key does not fit this connection."""

    code = 205
    name = "bad-proof"


class LaxPermissions(Refused):
    """A key file or its folder can be read by others."""

    code = 206
    name = "lax-permissions"
    fault = Fault.WORLD


class Revoked(Refused):
    """Access to this node was revoked."""

    code = 207
    name = "revoked"


class HandshakeTimeout(Refused):
    """The handshake was not finished in time."""

    code = 208
    name = "handshake-timeout"
    retryable = True


class BadTicket(Refused):
    """The ticket for an extra connection is unknown, used or expired."""

    code = 209
    name = "bad-ticket"
    retryable = True


# --- 3xx: requests and files ---


class UsageError(TowlineError):
    """The command cannot be understood; see --help."""

    code = 300
    name = "usage"
    exit_status = Exit.USAGE


class NotFound(TowlineError):
    """There is nothing with that name."""

    code = 301
    name = "not-found"
    exit_status = Exit.NOT_FOUND


class UnknownAlias(NotFound):
    """No node with that alias is known here; `tow nodes` lists them, `tow join` adds one."""

    code = 302
    name = "unknown-alias"


class UnknownService(NotFound):
    """The node does not offer that service."""

    code = 303
    name = "unknown-service"


class UnknownShare(NotFound):
    """The node has no share with that name that you may see."""

    code = 304
    name = "unknown-share"


class Conflict(TowlineError):
    """The target exists with other content; choose with --overwrite older|always."""

    code = 310
    name = "conflict"
    exit_status = Exit.CONFLICT


class SourceChanged(Conflict):
    """The source changed while it was being transferred; run the command again for the new content."""

    code = 311
    name = "source-changed"


class Superseded(Conflict):
    """A newer writer took over; this one stopped."""

    code = 312
    name = "superseded"


class NotADirectory(Conflict):
    """A folder was expected and something else is there."""

    code = 313
    name = "not-a-directory"


class IsADirectory(Conflict):
    """A file was expected and a folder is there; a tree needs --recursive where it is removed."""

    code = 314
    name = "is-a-directory"


class PathRefused(Refused):
    """The path leaves its share or is not a name that is safe everywhere."""

    code = 320
    name = "path-refused"
    fault = Fault.THEIRS


class ReadOnlyShare(Refused):
    """The share is read-only."""

    code = 321
    name = "read-only"


class PermissionDenied(Refused):
    """The operating system does not permit that."""

    code = 322
    name = "permission-denied"
    fault = Fault.WORLD


class VerificationFailed(TowlineError):
    """The bytes that arrived are not the bytes that were sent; nothing was published."""

    code = 330
    name = "verification-failed"
    exit_status = Exit.VERIFICATION


class LimitExceeded(TowlineError):
    """A limit was exceeded."""

    code = 340
    name = "limit"
    exit_status = Exit.LIMIT


class BadMessage(TowlineError):
    """The request has a form that the service does not take."""

    code = 341
    name = "bad-message"
    exit_status = Exit.PROTOCOL
    fault = Fault.THEIRS


# --- 4xx: jobs ---


class CommandNotFound(NotFound):
    """The node has no such command."""

    code = 400
    name = "command-not-found"
    exit_status = Exit.NO_COMMAND


class NotExecutable(Refused):
    """The command is there but cannot be executed."""

    code = 401
    name = "not-executable"
    exit_status = Exit.NOT_EXECUTABLE


class UnknownJob(NotFound):
    """There is no such job, or it is not yours."""

    code = 402
    name = "unknown-job"


class JobLost(TowlineError):
    """The job's process did not survive and its exit status is not known."""

    code = 403
    name = "job-lost"
    exit_status = Exit.LOST


class Gap(TowlineError):
    """A part of what was asked for is no longer kept."""

    code = 404
    name = "gap"
    exit_status = Exit.LOST


class JournalFull(LimitExceeded):
    """The log has no room left; its reader must acknowledge what it has read first."""

    code = 405
    name = "journal-full"
    retryable = True


# --- 5xx: rooms ---


class UnknownRoom(NotFound):
    """There is no such room, or you are not in it."""

    code = 500
    name = "unknown-room"


class IdReused(Conflict):
    """That message id was used before with other content."""

    code = 501
    name = "id-reused"


class CursorFromFuture(Conflict):
    """The position asked for is past the end of the log."""

    code = 502
    name = "cursor-from-future"


class TooFast(LimitExceeded):
    """Messages are coming faster than the node permits."""

    code = 503
    name = "too-fast"
    retryable = True


class Muted(Refused):
    """An admin has muted you in this room."""

    code = 504
    name = "muted"


# --- 6xx: the world ---


class Unreachable(TowlineError):
    """The node cannot be reached."""

    code = 600
    name = "unreachable"
    exit_status = Exit.UNREACHABLE
    retryable = True


class ConnectionLost(Unreachable):
    """The connection was lost."""

    code = 601
    name = "connection-lost"


class JobUnreachable(Unreachable):
    """The node cannot be reached; the job goes on there, and `tow attach` goes on with it."""

    code = 609
    name = "job-unreachable"


class NoSpace(TowlineError):
    """The disk is full; make room and run the command again, it goes on where it stopped."""

    code = 602
    name = "no-space"
    exit_status = Exit.NO_SPACE


class Draining(Unreachable):
    """The node is shutting down; it can be asked again later."""

    code = 603
    name = "draining"


class Busy(Unreachable):
    """The node has no room for another connection just now."""

    code = 604
    name = "busy"


class InUse(TowlineError):
    """Another process uses it already."""

    code = 605
    name = "in-use"
    exit_status = Exit.CONFLICT


class DiskError(TowlineError):
    """The disk reported an error."""

    code = 606
    name = "disk"


class TimedOut(TowlineError):
    """It was not done in the time that was given."""

    code = 607
    name = "timeout"
    exit_status = Exit.UNREACHABLE
    retryable = True


class Interrupted(TowlineError):
    """Interrupted; run the same command again to go on."""

    code = 608
    name = "interrupted"
    exit_status = Exit.INTERRUPTED


# --- 7xx: the plain dialects and the lab ---


class DialectError(TowlineError):
    """The other side does not keep to the dialect."""

    code = 700
    name = "dialect"
    exit_status = Exit.PROTOCOL
    fault = Fault.THEIRS


class NotLegitimate(Refused):
    """The other side does not know the shared secret."""

    code = 701
    name = "not-legitimate"


class ExhibitFailed(TowlineError):
    """The recording does not show what the exhibit claims."""

    code = 702
    name = "exhibit-failed"


class ClosedEarly(TowlineError):
    """The other side closed the connection in the middle of an answer."""

    code = 703
    name = "closed-early"
    exit_status = Exit.LOST
    fault = Fault.THEIRS
    retryable = True


# --- 9xx: ours ---


class InternalError(TowlineError):
    """A bug in Towline; please report it with the line above."""

    code = 900
    name = "internal"
    exit_status = Exit.INTERNAL
    fault = Fault.OURS
