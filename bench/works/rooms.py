"""Rooms: messages that are durable before they are acknowledged, and one message to many followers.

A person may say 1,000 messages a second for long and 2,000 at once (room_rate, room_burst), so a crowd is made of
several people, and each round stays below the burst.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from bench.harness import HIGHER, Bench, Case, Contender, NotThereYet, Sample
from bench.peers.base import Helper
from bench.peers.redis import Redis
from bench.peers.towline import TowlineOnDisk

SUMMARY = "appends with fsync on a real disk, one after another and in a crowd; fan-out to followers"
FOLLOWERS = 16
PEOPLE = 8
AT_ONCE = 16


def run(bench: Bench) -> None:
    towline, redis = bench.peer(TowlineOnDisk), bench.peer(Redis)
    ours = [towline.client(f"person-{number}") for number in range(PEOPLE)] if towline else []
    theirs = [redis.client() for _ in range(PEOPLE)] if redis else []
    try:
        _appends(bench, ours, theirs, bench.scale.count(500), 1, 1, "appends, one after another")
        _appends(bench, ours, theirs, bench.scale.count(500), PEOPLE, AT_ONCE, f"appends, {PEOPLE} people at once")
        _fanout(bench, ours, theirs[:1], towline)
    finally:
        for helper in [*ours, *theirs]:
            helper.close()


def _appends(
    bench: Bench, ours: list[Helper], theirs: list[Helper], count: int, people: int, at_once: int, name: str
) -> None:
    contenders = []
    if ours:
        question = {"do": "say", "count": count, "room": "appends", "at_once": at_once}
        contenders.append(
            Contender("towline", lambda: _all(ours[:people], question), "client's outbox and node's journal on disk")
        )
    if theirs:
        append = {"do": "append", "count": count}
        contenders.append(
            Contender("redis XADD, appendfsync always (plain)", lambda: _all(theirs[:people], append), "server's log")
        )
    note = f"each says {count}; towline: up to {at_once} under way for each; redis: one under way for each"
    bench.measure(Case("rooms", name, "messages/s", HIGHER, contenders, note))


def _all(helpers: list[Helper], question: dict[str, Any]) -> Sample:
    """Ask all at once; the messages of all in a second."""
    problems: list[Exception] = []
    begun = time.perf_counter()

    def ask(helper: Helper) -> None:
        try:
            _present(helper.ask(**question))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=ask, args=(helper,)) for helper in helpers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return Sample(len(helpers) * question["count"] / (time.perf_counter() - begun))


def _present(answer: dict[str, Any]) -> dict[str, Any]:
    if "absent" in answer:
        raise NotThereYet(answer["absent"])
    return answer


def _fanout(bench: Bench, ours: list[Helper], theirs: list[Helper], towline: TowlineOnDisk | None) -> None:
    count = bench.scale.count(1000)
    contenders = []
    if ours and towline:
        listeners = towline.client("listener")
        speakers = itertools.cycle(ours)  # one alone would be at the limit of a person's rate after two rounds

        def fan() -> Sample:
            _present(listeners.ask(do="follow", room="fan", count=count, followers=FOLLOWERS))
            begun = time.time()
            _present(next(speakers).ask(do="say", count=count, room="fan", at_once=64))
            return Sample(count * FOLLOWERS / (_present(listeners.ask(do="followed"))["at"] - begun))

        contenders.append(Contender("towline", fan, "durable before it is told; TLS to each follower"))
    if theirs:

        def publish() -> Sample:
            seconds = theirs[0].ask(do="fanout", count=count, followers=FOLLOWERS)["seconds"]
            return Sample(count * FOLLOWERS / seconds)

        contenders.append(Contender("redis PUBLISH (plain, nothing kept)", publish))
    bench.measure(Case("rooms", f"fan-out to {FOLLOWERS} followers", "deliveries/s", HIGHER, contenders))
    if ours and towline:
        listeners.close()
