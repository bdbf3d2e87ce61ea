"""The page about the conversation says what the code says."""

from __future__ import annotations

import json
import re
import struct
from importlib import import_module
from pathlib import Path

from blake3 import blake3

from towline.base.limits import Limit
from towline.services.files.messages import Outcome, decode_outcomes, numbers_of
from towline.services.files.plan import decode_batch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "files-conversation.md").read_text(encoding="utf-8")
CODE = ROOT / "src" / "towline" / "services" / "files"
CLIENT = ROOT / "src" / "towline" / "client"


def test_every_message_and_its_fields_are_on_the_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in [*CODE.glob("*.py"), CLIENT / "transfer.py"])
    said = set(re.findall(r'"t": "([\w-]+)"', text)) | {"fail", "gone"}
    heard = set(re.findall(r'case ((?:"[\w-]+"(?: \| )?)+):', text))
    assert {"plan", "want", "sent", "kept", "ticket"} <= said
    fields = set(re.findall(r'"(\w+)":', "".join(re.findall(r'\{"t": [^}]*\}', text)))) - {"t"}
    assert {"first", "covered", "upto"} <= fields
    rows = "".join(line for line in PAGE.splitlines() if line.startswith("| `")) + PAGE.split("### The course")[0]
    missing = [name for name in sorted(said | fields) if f"`{name}`" not in rows]
    assert not missing, f"the page does not say: {missing}"
    assert all(f"`{name}`" in PAGE for group in heard for name in re.findall(r"[\w-]+", group) if name in said)


def test_every_field_of_a_request_is_on_the_page() -> None:
    text = (CODE / "service.py").read_text(encoding="utf-8")
    read = set(re.findall(r'(?:header|channel\.header), "(\w+)"', text))
    assert {"share", "transfer", "open", "overwrite", "lanes"} <= read
    assert not [name for name in sorted(read) if f"`{name}`" not in PAGE]


def test_every_limit_of_a_transfer_is_on_the_page() -> None:
    found = set()
    for path in CODE.glob("*.py"):
        values = vars(import_module(f"towline.services.files.{path.stem}")).values()
        found |= {value.name for value in values if isinstance(value, Limit)}
    assert {"open_files", "pack_files"} <= found
    assert not [name for name in sorted(found - {"frame_body"}) if f"`{name}`" not in PAGE]


def test_the_example_is_one() -> None:
    """What is shown can be read by the code, and its digests are right."""
    example = PAGE.rsplit("```", 2)[1]
    bodies = [json.loads(body) for body in re.findall(r"^ {12}(\[\[.*?\]\])$", example, re.DOTALL | re.MULTILINE)]
    entries = decode_batch(json.dumps(bodies[0]).encode())
    assert [entry.path for entry in entries] == ["a.txt", "b.bin", "c.txt"]
    assert numbers_of(bodies[1]) == [0, 1]
    whole = {outcome.entry: outcome.digest for body in (bodies[4], bodies[5]) for outcome in outcomes(body)}
    assert whole == {
        1: blake3(bytes(69_999) + b"x").hexdigest(),
        2: blake3(b"there already\n").hexdigest(),
    }
    pack = bytes.fromhex(re.findall(r"DATA +([0-9a-f \n]{60,})\n→", example)[0])
    index, size, digest = struct.unpack(">QI32s", pack[:44])
    assert (index, size, digest, pack[44:]) == (0, 6, blake3(b"hello\n").digest(), b"hello\n")


def outcomes(body: object) -> list[Outcome]:
    return decode_outcomes(json.dumps(body).encode())
