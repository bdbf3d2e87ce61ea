"""Results to files that people read: JSON, Markdown tables, charts, and the marked blocks of the READMEs."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from typing import TYPE_CHECKING, Any

from bench.charts import chart
from bench.harness import short, tell
from bench.targets import judge
from bench.works import NAMES

if TYPE_CHECKING:
    from bench.harness import Bench

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "results")
ROOT = os.path.dirname(HERE)
_BLOCK = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)
_FULL = re.compile(r"\d{4}-\d\d-\d\d\.json")


def results_of(bench: Bench, machine: dict[str, object], names: list[str], seconds: float) -> dict[str, Any]:
    """What the results file holds (version 1)."""
    now = dt.datetime.now(dt.UTC)
    return {
        "v": 1, "date": now.isoformat(timespec="seconds"), "seconds": round(seconds), "works": names,
        "quick": bench.scale.quick, "rounds": bench.scale.rounds, "machine": machine, "rows": bench.results,
        "left_out": bench.left_out, "details": bench.details,
    }  # fmt: skip


def publish(results: dict[str, Any]) -> None:
    """Write the results file; a run of everything becomes what the READMEs show."""
    os.makedirs(RESULTS, exist_ok=True)
    whole = set(results["works"]) == set(NAMES) and not results["quick"]
    name = results["date"][:10] + ("" if whole else "-" + "-".join(results["works"]))
    path = os.path.join(RESULTS, f"{name}.json")
    with open(path, "w") as file:
        json.dump(results, file, indent=1, ensure_ascii=False)
        file.write("\n")
    tell(f"wrote {os.path.relpath(path)}")
    print(table(results))
    if whole:
        _show(results)


def again() -> int:
    """Write the READMEs' blocks and the charts from the newest file of a whole run."""
    names = sorted(name for name in os.listdir(RESULTS) if _FULL.fullmatch(name)) if os.path.isdir(RESULTS) else []
    if not names:
        tell("there is no results file of a whole run yet; `python -m bench` makes one")
        return 1
    with open(os.path.join(RESULTS, names[-1])) as file:
        _show(json.load(file))
    return 0


def table(results: dict[str, Any]) -> str:
    """Everything as Markdown: the machine, the targets, a table for each row, what was left out."""
    parts = [_machine(results), _targets(results)]
    for work in results["works"]:
        rows = [row for row in results["rows"] if row["work"] == work]
        if rows:
            parts += [f"### {work}", *(_row(row) for row in rows)]
    parts += _imports(results)
    if results["left_out"]:
        parts += ["### Left out", *[f"- {name}: {reason}" for name, reason in results["left_out"].items()]]
    return "\n\n".join(_joined(parts)) + "\n"


def _joined(parts: list[str]) -> list[str]:
    """List items belong together."""
    merged: list[str] = []
    for part in parts:
        if part.startswith("- ") and merged and merged[-1].startswith("- "):
            merged[-1] += "\n" + part
        else:
            merged.append(part)
    return merged


def _show(results: dict[str, Any]) -> None:
    """Charts, bench/README.md and README.md."""
    for work in results["works"]:
        rows = [row for row in results["rows"] if row["work"] == work]
        if rows:
            with open(os.path.join(RESULTS, f"{work}.svg"), "w") as file:
                file.write(chart(rows))
    _replace(os.path.join(HERE, "README.md"), _with_charts(results, "results"))
    _replace(os.path.join(ROOT, "README.md"), _summary(results))


def _replace(path: str, text: str) -> None:
    """Put `text` between the markers of a file, if it has them."""
    if not os.path.exists(path):
        return
    with open(path) as file:
        before = file.read()
    after = _BLOCK.sub(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", before)
    if after != before:
        with open(path, "w") as file:
            file.write(after)
        tell(f"wrote {os.path.relpath(path)}")


def _with_charts(results: dict[str, Any], folder: str) -> str:
    shown = [row["work"] for row in results["rows"]]
    text = table(results)
    for work in dict.fromkeys(shown):
        text = text.replace(f"### {work}\n", f"### {work}\n\n![{work}]({folder}/{work}.svg)\n")
    return text


def _summary(results: dict[str, Any]) -> str:
    """The README's section: targets, and the pictures of what most people ask about first."""
    shown = {row["work"] for row in results["rows"]}
    pictures = [f"![{work}](bench/results/{work}.svg)" for work in ("files", "messages") if work in shown]
    more = "All tables, the commands and what was done about what is missed: [bench/README.md](bench/README.md)."
    return "\n\n".join([_machine(results), *pictures, _targets(results), more])


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    virtual = "a virtual machine, " if machine["hypervisor"] == "yes" else ""
    command = "python -m bench" + (" --quick" if results["quick"] else "")
    if set(results["works"]) != set(NAMES):
        command += " " + " ".join(results["works"])
    others = f"{machine.get('others_percent', 0):.0f} % of the processors' time went to others meanwhile"
    versions = "; ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items() if version)
    return (
        f"Made by `{command}` on {results['date'][:10]} in {results['seconds'] / 60:.0f} min, commit "
        f"{machine['commit']}, medians of {results['rounds']} rounds, on {virtual}{machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, Linux {machine['kernel']}, "
        f"congestion control {machine['congestion_control']}, Python {machine['python']}, {machine['openssl']}; "
        f"load {machine['load_before']} before, {others}. Versions: {versions}."
    )


def _targets(results: dict[str, Any]) -> str:
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    for verdict in judge(results):
        if verdict.met is None and len(results["works"]) < len(NAMES):
            continue
        word = {True: "met", False: "**missed**", None: "–"}[verdict.met]
        lines.append(f"| {verdict.what} | {verdict.target} | {verdict.measured} | {word} |")
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    better = "more is better" if row["better"] == "higher" else "less is better"
    names = list(dict.fromkeys(name for each in row["contenders"] for name in each["extras"]))
    note = f" {row['note'][0].upper()}{row['note'][1:]}." if row["note"] else ""
    head = ["", row["unit"], "spread", "Towline is", *names, "who verifies"]
    lines = [f"**{row['case']}** ({row['unit']}, {better}).{note}", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 2) + "|---|"]
    for each in row["contenders"]:
        ratio = f"{each['ratio']:.2f} ×" if "ratio" in each and each["name"] != "towline" else ""
        extras = [short(each["extras"][name]) if name in each["extras"] else "" for name in names]
        spread = f"{short(each['least'])} – {short(each['most'])}"
        cells = [each["name"], short(each["median"]), spread, ratio, *extras, each["verifies"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _imports(results: dict[str, Any]) -> list[str]:
    parts = []
    for name, packages in results["details"].items():
        told = ", ".join(f"{package} {cost:.1f} ms" for package, cost in packages)
        parts.append(f"{name[0].upper()}{name[1:]} (own time by package, `-X importtime`): {told}.")
    return parts
