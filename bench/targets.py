"""What Towline is to reach beside its peers in one run: a table, looked up in the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

Rows = dict[str, dict[str, Any]]


class Verdict(NamedTuple):
    """One target: what it says, what was measured; `met` is None when it was not measured."""

    what: str
    target: str
    measured: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Ahead:
    """Towline is at least `least` times as good as `peer` in that row."""

    what: str
    key: str
    peer: str
    least: float

    def judge(self, rows: Rows) -> Verdict:
        found = _contender(rows, self.key, self.peer)
        target = f"≥ {self.least:g} × {self.peer}"
        if found is None or "ratio" not in found:
            return Verdict(self.what, target, "not measured", None)
        return Verdict(self.what, target, f"{found['ratio']:.2f} ×", found["ratio"] >= self.least)


@dataclass(frozen=True, slots=True)
class Most:
    """Towline's own value, or one of its extras, is at most `most`."""

    what: str
    key: str
    most: float
    unit: str
    extra: str = ""

    def judge(self, rows: Rows) -> Verdict:
        found = _contender(rows, self.key, "towline")
        target = f"≤ {self.most:g} {self.unit}"
        value = None if found is None else found["extras"].get(self.extra) if self.extra else found["median"]
        if value is None:
            return Verdict(self.what, target, "not measured", None)
        return Verdict(self.what, target, f"{value:.3g} {self.unit}", value <= self.most)


@dataclass(frozen=True, slots=True)
class Unslowed:
    """The total rate with 16 clients is not below the rate of one, and each is within 2 × of the mean."""

    what: str = "16 downloads at once, total rate"

    def judge(self, rows: Rows) -> Verdict:
        one, many = (_contender(rows, f"scale/{count} at once", "towline") for count in (1, 16))
        target = "≥ 1.0 × one download; each client within 2 × of the mean"
        if one is None or many is None:
            return Verdict(self.what, target, "not measured", None)
        ratio = many["median"] / one["median"]
        slowest, fastest = many["extras"]["slowest / mean"], many["extras"]["fastest / mean"]
        measured = f"{ratio:.2f} ×; {slowest:.2f} to {fastest:.2f} of the mean"
        return Verdict(self.what, target, measured, ratio >= 1.0 and slowest >= 0.5 and fastest <= 2.0)


@dataclass(frozen=True, slots=True)
class Thrifty:
    """The node's processor time for the large get is not above sshd's for the same."""

    what: str = "CPU per GB on the serving side, get"

    def judge(self, rows: Rows) -> Verdict:
        ours, theirs = (_contender(rows, "files/large get", name) for name in ("towline", "scp (aes128-gcm)"))
        if ours is None or theirs is None:
            return Verdict(self.what, "≤ sshd's", "not measured", None)
        mine, other = ours["extras"]["server CPU s"], theirs["extras"]["server CPU s"]
        return Verdict(self.what, "≤ sshd's", f"{mine:.2f} s, sshd {other:.2f} s", mine <= other)


TARGETS: tuple[Ahead | Most | Unslowed | Thrifty, ...] = (
    Ahead("1 GiB get, verified", "files/large get", "scp (aes128-gcm)", 2.0),
    Ahead("1 GiB get, verified", "files/large get", "nginx https + curl", 1.3),
    Ahead("1 GiB get, verified", "files/large get", "asyncssh", 3.0),
    Ahead("1 GiB get, verified", "files/large get", "bare TLS pump", 0.7),
    Ahead("1 GiB put, verified", "files/large put", "scp (aes128-gcm)", 2.0),
    Ahead("1 GiB put, verified", "files/large put", "bare TLS pump", 0.7),
    *(
        Ahead(f"10,000 × 4 KiB {verb}", f"files/small {verb}", peer, least)
        for verb in ("get", "put")
        for peer, least in (("scp -r (aes128-gcm)", 10.0), ("tar through ssh", 1.0), ("rsync daemon (plain)", 0.5))
    ),
    Unslowed(),
    Ahead("round trips, 100 bytes, TLS", "messages/roundtrips", "pyzmq (plain)", 1.2),
    Ahead("round trips, 100 bytes, TLS", "messages/roundtrips", "websockets (plain)", 1.3),
    Ahead("round trips, 100 bytes, TLS", "messages/roundtrips", "raw blocking sockets (plain)", 0.6),
    Ahead("pipelined messages, 100 bytes, TLS", "messages/pipeline", "websockets (plain)", 2.0),
    Ahead("pipelined messages, 100 bytes, TLS", "messages/pipeline", "pyzmq (plain)", 0.5),
    Ahead("run true, live", "run/live", "local subprocess.run", 0.33),
    Ahead("run true, live", "run/live", "ssh over a ControlMaster", 1.0),
    Ahead("run true, live", "run/live", "asyncssh", 1.0),
    Ahead("run true, fresh start", "run/fresh", "ssh", 1.0),
    Ahead("1 GiB of output", "run/output", "ssh (aes128-gcm)", 1.2),
    Most("longest echo beside flowing output", "run/stall", 50, "ms"),
    Most("memory of the node, 200 commands at once", "run/many", 200, "MiB", "node MiB"),
    Ahead("acknowledged, 50 writers in one room", "crowd/writers", "the journal, one fsync each", 20.0),
    Ahead("acknowledged, 50 writers in one room", "crowd/writers", "the disk alone, one fsync each", 20.0),
    Ahead("one message to 2,000 TLS readers", "crowd/fan-out", "websockets.broadcast (TLS)", 1.0),
    Most("idle TLS reader of a room, 5,000 of them", "crowd/idle reader", 40, "KiB"),
    Most("a message among 5,000 readers, p99", "crowd/among them", 250, "ms"),
    Most("chat p99 under bulk", "fair/chat", 20, "ms"),
    Most("idle TLS connection", "idle/idle", 32, "KiB"),
    Most("keystroke p99 under bulk", "fair/keys", 10, "ms"),
    Thrifty(),
    Most("memory of the node, 1 GiB get", "files/large get", 120, "MiB", "node MiB"),
    Most("memory of the client, 1 GiB get", "files/large get", 120, "MiB", "client MiB"),
    Most("re-sent with a cut every 20 MiB", "cuts/resent %", 0.5, "%"),
    Most("from a cut to the first new byte", "cuts/cut to first byte ms", 300, "ms"),
    Most("tow --version", "start/version", 120, "ms"),
    Most("tow ls, live node", "start/ls", 350, "ms"),
)


def judge(results: dict[str, Any]) -> list[Verdict]:
    """All targets of the works that were run."""
    rows: Rows = {row["key"]: row for row in results["rows"]}
    return [target.judge(rows) for target in TARGETS]


def _contender(rows: Rows, key: str, name: str) -> dict[str, Any] | None:
    row = rows.get(key)
    if row is None:
        return None
    return next((each for each in row["contenders"] if each["name"] == name), None)
