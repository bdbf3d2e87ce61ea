from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from towline.base.errors import ConnectionLost, SourceChanged
from towline.services.files.digest import FileDigest, digest_of

CONTENT = random.Random(7).randbytes(9_000_000)  # above what is hashed by several threads
WHOLE = blake3(CONTENT).hexdigest()


@pytest.fixture
def fd(tmp_path: Path) -> int:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    opened = os.open(file, os.O_RDONLY)
    os.unlink(file)
    return opened


def test_the_published_test_vector() -> None:
    # The BLAKE3 specification's empty input.
    assert FileDigest().hexdigest() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_bytes_in_order_are_hashed_in_passing() -> None:
    digest = FileDigest()
    for at in range(0, len(CONTENT), 70_000):
        assert digest.feed(at, memoryview(CONTENT)[at : at + 70_000])
    assert digest.position == len(CONTENT)
    assert digest.hexdigest() == WHOLE


def test_bytes_out_of_order_are_read_later(fd: int) -> None:
    digest = FileDigest()
    assert not digest.feed(10, CONTENT[10:20])
    assert digest.feed(0, CONTENT[:100])
    assert not digest.feed(0, CONTENT[:100])
    assert digest.feed(50, CONTENT[50:150])  # overlaps: only the new part counts
    assert not digest.feed(150, b"")
    digest.catch_up(fd, 100)
    assert digest.position == 150
    digest.catch_up(fd, 4_000_000)
    assert digest.feed(4_000_000, CONTENT[4_000_000:5_000_000])
    digest.catch_up(fd, len(CONTENT))
    assert digest.hexdigest() == WHOLE
    os.close(fd)


def test_a_whole_file_is_hashed_by_all_cores_to_the_same_digest(fd: int) -> None:
    digest = FileDigest()
    digest.catch_up(fd, len(CONTENT))
    assert digest.hexdigest() == digest_of(fd, len(CONTENT)) == WHOLE
    assert digest_of(fd, 0) == blake3(b"").hexdigest()
    assert digest_of(fd, 5000) == blake3(CONTENT[:5000]).hexdigest()
    os.close(fd)


def test_a_file_that_ends_early_is_said_to_have_changed(fd: int) -> None:
    for size in (len(CONTENT) + 1, 2 * len(CONTENT)):
        with pytest.raises(SourceChanged, match="9000000"):
            digest_of(fd, size)
    os.close(fd)


def test_nobody_waits_for_a_digest_that_nobody_wants(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.services.files.digest._LOOK_STEP", 1_000_000)
    looks = iter([False, True])
    digest = FileDigest()
    with pytest.raises(ConnectionLost):
        digest.catch_up(fd, len(CONTENT), lambda: next(looks))
    assert digest.position == 2_000_000, "what was done is kept"
    digest.catch_up(fd, len(CONTENT))
    assert digest.hexdigest() == WHOLE
    os.close(fd)


def test_a_digest_that_failed_half_way_begins_anew(fd: int) -> None:
    digest = FileDigest()
    with pytest.raises(SourceChanged):
        digest.catch_up(fd, len(CONTENT) + 1)
    digest.catch_up(fd, len(CONTENT))
    assert digest.hexdigest() == WHOLE
    os.close(fd)


def test_lanes_feed_at_once_and_the_rest_is_read(fd: int) -> None:
    digest = FileDigest()

    def lane(which: int) -> None:
        for at in range(which * 100_000, len(CONTENT), 300_000):
            digest.feed(at, memoryview(CONTENT)[at : at + 100_000])

    lanes = [threading.Thread(target=lane, args=(which,)) for which in range(3)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    digest.catch_up(fd, len(CONTENT))
    assert digest.hexdigest() == WHOLE
    os.close(fd)
