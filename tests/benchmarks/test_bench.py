"""Turns, ratios, verdicts, reports; processes that hide are found and ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bench import report
from bench.charts import chart
from bench.harness import HIGHER, LOWER, Bench, Case, Contender, NotThereYet, Sample, Scale, with_ratios
from bench.processes import Failed
from bench.targets import judge
from bench.works import NAMES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench() -> Bench:
    made = Bench.__new__(Bench)  # without the processes: this one must not become the reaper of its orphans
    made.scale = Scale(quick=True, rounds=3)
    made.say = lambda text: None
    made.results, made.left_out, made.details = [], {}, {}
    return made


def test_contenders_take_turns_and_the_first_round_is_thrown_away(bench: Bench) -> None:
    turns: list[str] = []
    values = {"towline": iter([100.0, 1.0, 9.0, 2.0]), "other": iter([100.0, 4.0, 4.0, 4.0])}

    def contender(name: str) -> Contender:
        def work() -> Sample:
            turns.append(name)
            return Sample(next(values[name]), {"extra": 7.0})

        return Contender(name, work)

    bench.measure(Case("work", "row", "s", LOWER, [contender("towline"), contender("other")]))
    assert turns == ["towline", "other"] * 4
    ours, theirs = bench.results[0]["contenders"]
    assert (ours["median"], ours["least"], ours["most"], ours["extras"]) == (2.0, 1.0, 9.0, {"extra": 7.0})
    assert theirs["ratio"] == 2.0  # half the time is twice as good


@pytest.mark.parametrize("error", [NotThereYet("tow run"), Failed("it broke"), OSError("gone")])
def test_who_fails_is_named_and_left_out(bench: Bench, error: Exception) -> None:
    def fails() -> Sample:
        raise error

    contenders = [Contender("towline", fails), Contender("other", lambda: Sample(5.0))]
    bench.measure(Case("work", "row", "s", LOWER, contenders))
    assert [row["name"] for row in bench.results[0]["contenders"]] == ["other"]
    assert "ratio" not in bench.results[0]["contenders"][0]
    assert str(error) in bench.left_out["work: row: towline"]


def test_ratio_of_rates() -> None:
    rows = with_ratios([{"name": "towline", "median": 30.0}, {"name": "other", "median": 10.0}], HIGHER)
    assert rows[1]["ratio"] == 3.0


def _results(ours: float) -> dict[str, object]:
    rows = with_ratios(
        [
            {
                "name": name,
                "median": value,
                "least": value,
                "most": value,
                "extras": {"server CPU s": 1.0},
                "verifies": "<nobody>",
            }
            for name, value in (("towline", ours), ("scp (aes128-gcm)", 100.0))
        ],
        HIGHER,
    )
    row = {"work": "files", "case": "1 GiB get & <more>", "key": "files/large get", "unit": "MB/s", "better": HIGHER,
           "rounds": 5, "note": "", "contenders": rows}  # fmt: skip
    machine = {"hypervisor": "no", "processor": "p", "cores": 2, "memory_gib": 1, "system": "s", "kernel": "6.1",
               "congestion_control": "cubic", "python": "3.11", "openssl": "o", "commit": "c",
               "load_before": 0.1}  # fmt: skip
    return {"v": 1, "date": "2026-01-02T03:04:05+00:00", "seconds": 60, "works": ["files"], "quick": False,
            "rounds": 5, "machine": machine, "rows": [row], "left_out": {"nginx": "not installed"},
            "details": {}}  # fmt: skip


@pytest.mark.parametrize(("ours", "met"), [(200.0, True), (199.0, False)])
def test_a_target_is_met_or_missed(ours: float, met: bool) -> None:
    first = judge(_results(ours))[0]
    assert (first.what, first.met) == ("1 GiB get, verified", met)
    assert all(verdict.met is None for verdict in judge(_results(ours))[1:6])


def test_tables_and_pictures() -> None:
    results = _results(200.0)
    text = report.table(results)
    assert "| 1 GiB get, verified | ≥ 2 × scp (aes128-gcm) | 2.00 × | met |" in text
    assert "- nginx: not installed" in text
    picture = ET.fromstring(chart(results["rows"]))  # type: ignore[arg-type]
    assert "1 GiB get & <more>" in "".join(picture.itertext())


def test_a_marked_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    report._replace(str(page), "new\n")
    assert page.read_text() == "before\n<!-- bench -->\n\nnew\n\n<!-- /bench -->\nafter\n"


def test_every_work_has_the_same_doors() -> None:
    for name in NAMES:
        text = (ROOT / "bench" / "works" / f"{name}.py").read_text()
        assert "\nSUMMARY = " in text
        assert "\ndef run(bench: Bench) -> None:" in text


def test_a_process_that_forked_away_is_found_and_ended() -> None:
    """In a process of its own, because it becomes the reaper of all orphans below it."""
    script = (
        "import json, os, sys\n"
        "from bench.processes import Processes, descendants\n"
        "processes = Processes()\n"
        "processes.run(['sh', '-c', 'setsid sh -c \"trap : TERM; echo up; sleep 60 & wait; wait\" >&2 &'])\n"
        "hidden = descendants(os.getpid())\n"
        "left = processes.end_all()\n"
        "print(json.dumps([len(hidden), left, descendants(os.getpid())]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert done.returncode == 0, done.stderr
    hidden, left, after = json.loads(done.stdout)
    assert hidden >= 1
    assert (left, after) == ([], [])


def test_an_unknown_work_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"], capture_output=True, text=True, cwd=ROOT, timeout=30
    )
    assert done.returncode == 2
    assert "nonsense" in done.stderr
