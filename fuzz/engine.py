"""The loop around a target: seeds, mutations, a clock, and what to do with a finding."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable
from random import Random

Target = Callable[[bytes], None]
_MOST = 4096
_NUMBERS = (0, 1, 2, 7, 12, 127, 128, 255, 4096, 0xFFFF, 1 << 20, 0x7FFF_FFFF, 0xFFFF_FFFF)


def mutate(data: bytes, others: list[bytes], random: Random) -> bytes:
    """A few changes of the usual kinds."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at = random.randrange(len(out) + 1)
        match random.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1 if at < len(out):
                out[at] = random.randrange(256)
            case 2:
                out[at:at] = random.randbytes(random.choice((1, 2, 4, 12)))
            case 3:
                del out[at : at + random.choice((1, 2, 4, 12, 100))]
            case 4:
                size = random.choice((1, 2, 4))
                out[at : at + size] = (random.choice(_NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(size)
            case 5:
                piece = out[at : at + random.randrange(1, 64)]
                out[at:at] = piece * random.choice((1, 2, 20))
            case _:
                other = random.choice(others)
                start = random.randrange(len(other) + 1)
                out[at:at] = other[start : start + random.randrange(1, 200)]
    return bytes(out[:_MOST])


def slice_of(target: Target, seeds: list[bytes], rounds: int, seed: int = 0) -> int:
    """The seeds and `rounds` mutations of them, the same ones for the same seed. A finding is raised."""
    random = Random(seed)
    for each in seeds:
        _try(target, each)
    for _ in range(rounds):
        _try(target, mutate(random.choice(seeds), seeds, random))
    return len(seeds) + rounds


class Finding(Exception):
    """An input that made a target raise what it must not."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"input {data!r}")
        self.data = data


def _try(target: Target, data: bytes) -> None:
    try:
        target(data)
    except Exception as error:
        raise Finding(data) from error


def main(target: Target, seeds: list[bytes], name: str) -> int:
    """The command line of a target."""
    parser = argparse.ArgumentParser(prog=f"python -m fuzz.{name}")
    parser.add_argument("file", nargs="*", help="inputs to run once, instead of fuzzing")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0, help="another seed, another run")
    parser.add_argument("--atheris", action="store_true", help="let atheris drive (coverage-guided)")
    args, rest = parser.parse_known_args()
    if args.atheris:
        return _atheris(target, [sys.argv[0], *rest])
    for path in args.file:
        with open(path, "rb") as file:
            target(file.read())
    if args.file:
        return 0
    return _loop(target, seeds, name, args.seconds, args.seed)


def _loop(target: Target, seeds: list[bytes], name: str, seconds: float, seed: int) -> int:
    started, count = time.monotonic(), 0
    try:
        while time.monotonic() - started < seconds:
            count += slice_of(target, seeds, 500, seed + count)
    except Finding as finding:
        path = f"fuzz-{name}-{hashlib.sha256(finding.data).hexdigest()[:12]}.bin"
        with open(path, "wb") as file:
            file.write(finding.data)
        print(f"{name}: found something: {finding.__cause__!r}; run it again: python -m fuzz.{name} {path}")
        return 1
    print(f"{name}: {count} inputs in {time.monotonic() - started:.0f} s, nothing but documented errors")
    return 0


def _atheris(target: Target, argv: list[str]) -> int:
    try:
        import atheris
    except ImportError:
        print("atheris is not installed; without --atheris the mutation loop of this folder runs", file=sys.stderr)
        return 2
    atheris.instrument_all()
    atheris.Setup(argv, target)
    atheris.Fuzz()
    return 0
