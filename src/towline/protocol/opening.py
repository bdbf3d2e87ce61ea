"""The opening of a connection: prefaces, both HELLOs, the transcript, and how much may be said to a stranger.

In: the first bytes from the peer. Out: the bytes that answer them, the peer's HELLO, the bytes to sign. Which state
follows is not decided here but in the table.
"""

from __future__ import annotations

from towline.base.errors import NotTowline, ProtocolError, TowlineError, VersionMismatch
from towline.protocol.codec import Frame, encode
from towline.protocol.handshake import last_words, padding, stranger, transcript, undecided
from towline.protocol.records import Hello, fault_header
from towline.protocol.table import PREFACE, Kind, Role


class Opening:
    """One side's handshake. `room`: how many bytes a node may still send to a client that has not proved itself."""

    __slots__ = ("_early", "_fingerprint", "_hello", "_role", "_theirs", "lane", "ours", "preface_seen", "room")

    def __init__(self, role: Role, hello: Hello, fingerprint: str) -> None:
        self._role = role
        self._hello = hello
        self._fingerprint = fingerprint
        self.lane = hello.lane is not None  # whether the client asks for a lane
        self.preface_seen = self.lane  # a node answers a lane's HELLO without a preface
        self.ours = b""  # our preface and HELLO as they were sent
        self.room = 0
        self._early: bytes | None = None if self.lane else b""  # the peer's preface and HELLO, until HELLO is there
        self._theirs = b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes before the peer has proved itself; returns what is for the decoder.

        Raises NotTowline or VersionMismatch once it is certain; what a peer is called does not depend on how its
        bytes were cut.
        """
        self.room += len(data)
        if self._early is None:
            return data
        self._early += data
        if self.preface_seen:
            return data
        if self._early.startswith(PREFACE):
            self.preface_seen = True
            return self._early[len(PREFACE) :]
        if not undecided(self._early):
            raise stranger(self._early)
        return b""

    def say_hello(self) -> bytes:
        """Our preface and HELLO. Raises ProtocolError when a node would have to say more than it heard."""
        header = self._hello.to_header()
        if self._role is Role.CLIENT:
            header = padding(header, len(encode(Frame(Kind.HELLO, header=header))))
        self.ours = PREFACE + encode(Frame(Kind.HELLO, header=header))
        if self._role is Role.NODE:
            if len(self.ours) > self.room:
                self.ours = b""
                raise ProtocolError("The HELLO is too short for an answer of at most its size.")
            self.room -= len(self.ours)
        return self.ours

    def hear_hello(self, frame: Frame, span: int) -> Hello:
        """The peer's HELLO, which took `span` bytes."""
        assert frame.header is not None
        assert self._early is not None
        self._theirs = self._early[: len(PREFACE) + span]
        self._early = None
        hello = Hello.from_header(frame.header)
        self.lane = hello.lane is not None
        return hello

    def transcript(self) -> bytes:
        """What the client's key signs."""
        client, node = (self.ours, self._theirs) if self._role is Role.CLIENT else (self._theirs, self.ours)
        return transcript(client, node, self._fingerprint)

    def farewell(self, error: TowlineError) -> bytes:
        """What is left to say to a peer that is not let in: a GOAWAY, a line for strangers, or nothing."""
        if self._role is Role.CLIENT:
            strange = isinstance(error, NotTowline | VersionMismatch)
            return b"" if strange else encode(Frame(Kind.GOAWAY, header=fault_header(error)))
        if not self.preface_seen:
            return last_words(error, self.room)
        preface = b"" if self.ours or self.lane else PREFACE
        words = preface + encode(Frame(Kind.GOAWAY, header=fault_header(error)))
        return words if len(words) <= self.room else b""
