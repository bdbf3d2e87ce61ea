"""Rooms: messages that are durable before they are acknowledged, and one message to many followers."""

from __future__ import annotations

import time

from bench.harness import HIGHER, Bench, Case, Contender, NotThereYet, Sample
from bench.peers.base import Helper
from bench.peers.redis import Redis
from bench.peers.towline import Towline

SUMMARY = "fsynced appends, one after another and 32 at once; fan-out to followers"
FOLLOWERS = 16
AT_ONCE = 32


def run(bench: Bench) -> None:
    towline, redis = bench.peer(Towline), bench.peer(Redis)
    ours = towline.client() if towline else None
    theirs = redis.client() if redis else None
    _appends(bench, ours, theirs)
    _many_appends(bench, ours)
    _fanout(bench, ours, theirs, towline)
    for helper in (ours, theirs):
        if helper:
            helper.close()


def _appends(bench: Bench, ours: Helper | None, theirs: Helper | None) -> None:
    count = bench.scale.count(2000)
    contenders = []
    if ours:
        contenders.append(
            Contender("towline", lambda: _said(ours, count, "appends"), "one fsync for each group of messages")
        )
    if theirs:
        contenders.append(
            Contender(
                "redis XADD, appendfsync always (plain)",
                lambda: Sample(count / theirs.ask(do="append", count=count)["seconds"]),
                "one fsync for each",
            )
        )
    note = "the run's folder is a tmpfs, where fsync costs nothing; what is measured is everything else"
    bench.measure(Case("rooms", "appends, one after another", "messages/s", HIGHER, contenders, note))


def _many_appends(bench: Bench, ours: Helper | None) -> None:
    if ours:
        count = bench.scale.count(10_000)
        contender = Contender("towline", lambda: _said(ours, count, "crowd", AT_ONCE), "group commit")
        bench.measure(Case("rooms", f"appends, {AT_ONCE} at once", "messages/s", HIGHER, [contender]))


def _said(helper: Helper, count: int, room: str, at_once: int = 1) -> Sample:
    answer = helper.ask(do="say", count=count, room=room, at_once=at_once)
    if "absent" in answer:
        raise NotThereYet(answer["absent"])
    return Sample(count / answer["seconds"])


def _fanout(bench: Bench, ours: Helper | None, theirs: Helper | None, towline: Towline | None) -> None:
    count = bench.scale.count(2000)
    contenders = []
    if ours and towline:

        def fan() -> Sample:
            listeners = towline.client()
            try:
                answer = listeners.ask(do="follow", room="fan", count=count, followers=FOLLOWERS)
                if "absent" in answer:
                    raise NotThereYet(answer["absent"])
                begun = time.time()
                said = ours.ask(do="say", count=count, room="fan", at_once=AT_ONCE)
                if "absent" in said:
                    raise NotThereYet(said["absent"])
                done = listeners.ask(do="followed")
                if "absent" in done:
                    raise NotThereYet(done["absent"])
                return Sample(count * FOLLOWERS / (done["at"] - begun))
            finally:
                listeners.close()

        contenders.append(Contender("towline", fan, "durable before it is said; TLS to each follower"))
    if theirs:
        contenders.append(
            Contender(
                "redis PUBLISH (plain, nothing kept)",
                lambda: Sample(
                    count * FOLLOWERS / theirs.ask(do="fanout", count=count, followers=FOLLOWERS)["seconds"]
                ),
            )
        )
    bench.measure(Case("rooms", f"fan-out to {FOLLOWERS} followers", "deliveries/s", HIGHER, contenders))
