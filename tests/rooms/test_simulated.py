"""The cut, in a simulated world: many seeds of cuts, kills and power failures, each in a fraction of a second."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.rooms.kit import Listener
from tests.rooms.simulated import SimulatedLine, World, simulate

from towline.base.errors import TowlineError
from towline.journal import Cursor
from towline.services.rooms.messages import Entry, Item

CLIENTS = 4
MESSAGES = 12
BLOWS = 12


class Person:
    """Says numbered things, whatever happens to their line. Killed clients start again, with the same outbox."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.line: SimulatedLine = world.line(name)
        self.said: dict[str, asyncio.Future[Cursor]] = {}
        self.unheard: set[str] = set()  # said by a client that was killed before it heard

    async def talk(self) -> None:
        for number in range(MESSAGES):
            text = f"{self.name} {number}"
            self.said[text] = self.line.room("lobby").post(text)
            await asyncio.sleep(self.world.random.choice((0.0, 0.01, 0.2)))

    async def killed(self) -> None:
        self.unheard |= {text for text, future in self.said.items() if not future.done()}
        await self.line.die()
        self.line = self.world.line(self.name)

    async def all_sent(self) -> None:
        await self.line.mailing.wait_sent()

    def acknowledged(self) -> dict[str, int]:
        """What the node said it has."""
        return {
            text: future.result().seq
            for text, future in self.said.items()
            if text not in self.unheard and future.exception() is None
        }


async def _live(folder: Path, seed: int) -> None:
    world = World(folder, seed)
    with world.running():
        await world.start()
        people = [Person(world, f"p{number}") for number in range(CLIENTS)]
        ears = [world.line(f"ear{number}") for number in range(CLIENTS)]
        listeners = [Listener(line.room("lobby"), 0) for line in ears]
        talking = [asyncio.ensure_future(person.talk()) for person in people]
        for _ in range(BLOWS):
            await asyncio.sleep(world.random.uniform(0.0, 0.3))
            await _blow(world, people)
        await asyncio.gather(*talking)
        await world.kill()
        await world.start()
        for person in people:
            await person.all_sent()
        log = [item async for item in ears[0].room("lobby").history()]
        for listener in listeners:
            await listener.until(lambda each=listener: len(each.items) >= len(log))
            assert listener.items == log
        _judge(log, people)
        for listener in listeners:
            await listener.stop()
        for line in [*ears, *(person.line for person in people)]:
            await line.close()
        assert world.node is not None
        await world.node.stop()


async def _blow(world: World, people: list[Person]) -> None:
    """Something bad happens."""
    match world.random.randrange(6):
        case 0 | 1 | 2:
            world.cut()
        case 3:
            await world.random.choice(people).killed()
        case 4:
            await world.kill()
        case 5:
            await world.kill_in_fsync()
    if world.node is None:
        await asyncio.sleep(world.random.uniform(0.0, 2.0))
        await world.start()


def _judge(log: list[Item], people: list[Person]) -> None:
    """One sequence without a gap; what was acknowledged is there once, where it was said to be; nobody is left in
    the dark: what is not there was refused to its sender, or its sender did not live to be told."""
    assert all(isinstance(item, Entry) for item in log)
    assert [item.seq for item in log if isinstance(item, Entry)] == list(range(1, len(log) + 1))
    there = {item.text: item.seq for item in log if isinstance(item, Entry)}
    assert len(there) == len(log)
    for person in people:
        acknowledged = person.acknowledged()
        assert {text: there.get(text) for text in acknowledged} == acknowledged
        for text, future in person.said.items():
            if text not in acknowledged and text not in person.unheard:
                assert isinstance(future.exception(), TowlineError)
                assert text not in there
        mine = [int(text.split()[1]) for text in there if text.startswith(f"{person.name} ")]
        assert person.unheard or mine == sorted(mine)


# The last three: a node killed between write and fsync is started, and then the power goes.
@pytest.mark.parametrize("seed", [*range(24), 1752, 1890, 1936])
def test_cuts_kills_and_power_failures(tmp_path: Path, seed: int) -> None:
    simulate(_live(tmp_path, seed))


@pytest.mark.soak
@pytest.mark.parametrize("hundred", range(10))
def test_many_more(tmp_path: Path, hundred: int) -> None:
    for seed in range(1000 + 100 * hundred, 1100 + 100 * hundred):
        simulate(_live(tmp_path / str(seed), seed))
