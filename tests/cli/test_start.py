"""What a short command does not load: each of these was found to cost a millisecond or more at its start.

A list and not a time: whoever needs one of them on this way takes it off the list, and knows the price.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import kit

_NOT_TO_LIST = {
    "aiohappyeyeballs": "one address needs no race",
    "blake3": "nothing is transferred",
    "cryptography.hazmat.primitives.serialization": "the key's file is as we wrote it",
    "cryptography.x509": "certificates are compared by their digest",
    "ctypes": "nothing is renamed",
    "difflib": "nothing was mistyped",
    "encodings.idna": "the address is literal",
    "ipaddress": "no invite is read",
    "random": "there is no waiting between attempts",
    "rich": "there is nothing to draw",
    "shutil": "help is not asked for",
    "sqlite3": "there is no database",
    "textual": "there is no screen",
    "tomllib": "no group is named",
    "towline.client.transfer": "nothing is transferred",
    "towline.lab": "nothing is recorded",
    "towline.node": "this is a client",
    "towline.store": "there is no database",
}
_PROBE = """
import sys
from towline.cli.main import main
status = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("start")
    with kit.running_node(folder, "--share", f"src={folder}") as node:
        node.join(folder / "ann", "ann", "home", "--can", "read,run")
        yield folder / "ann"


@pytest.mark.parametrize("words", [["ls", "home:"], ["ls", "home:src"], ["run", "home", "--", "true"]])
def test_a_short_command_loads_what_it_needs(home: Path, words: list[str]) -> None:
    probe = [sys.executable, "-c", _PROBE, *words]
    done = subprocess.run(
        probe, env=kit.environment(home), capture_output=True, text=True, timeout=kit.DEADLINE, check=True
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {"towline.client.line", "ssl"} <= loaded
    assert not {name: why for name, why in _NOT_TO_LIST.items() if name in loaded}


def test_the_version_loads_neither_loop_nor_tls() -> None:
    done = subprocess.run([sys.executable, "-c", _PROBE, "--version"], capture_output=True, text=True, check=True)
    assert not {"asyncio", "ssl", "socket", "argparse", "json"} & set(done.stderr.split())
