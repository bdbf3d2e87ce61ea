"""Bar charts as SVG, drawn by hand: a panel for each row, a bar for each contender; readable on light and on dark."""

from __future__ import annotations

from html import escape
from typing import Any

from bench.harness import short

_WIDTH, _LABEL, _BAR, _STEP = 860, 270, 380, 24
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
.quiet { fill: #59636e; font-size: 12px } .own { fill: #0969da } .other { fill: #9aa4af } .spread { stroke: #59636e }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .quiet { fill: #9198a1 } .own { fill: #4493f8 } .other { fill: #656c76 }
.spread { stroke: #b7bdc8 }
}
</style>"""


def chart(rows: list[dict[str, Any]]) -> str:
    """One picture of several rows."""
    body: list[str] = []
    y = 10
    for row in rows:
        y = _panel(body, row, y)
    size = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, _STYLE, *body, "</svg>\n"])


def _panel(body: list[str], row: dict[str, Any], y: int) -> int:
    """Draw one row from `y` on; returns where the next one begins."""
    better = "more is better" if row["better"] == "higher" else "less is better"
    title = f'{escape(row["case"])}<tspan class="quiet" dx="8">{escape(row["unit"])}, {better}</tspan>'
    body.append(f'<text class="title" x="8" y="{y + 16}">{title}</text>')
    y += 28
    top = max(each["most"] for each in row["contenders"]) or 1.0
    for each in row["contenders"]:
        width, least, most = (max(_BAR * each[name] / top, 1.0) for name in ("median", "least", "most"))
        kind = "own" if each["name"].startswith("towline") else "other"
        middle = y + 9
        body.append(
            f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(each["name"])}</text>'
            f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="18" rx="2"/>'
            f'<line class="spread" x1="{_LABEL + least:.1f}" x2="{_LABEL + most:.1f}" y1="{middle}" y2="{middle}"/>'
            f'<text x="{_LABEL + most + 8:.1f}" y="{y + 13}">{short(each["median"])}{_ratio(each)}</text>'
        )
        y += _STEP
    return y + 14


def _ratio(each: dict[str, Any]) -> str:
    if each["name"] == "towline" or "ratio" not in each:
        return ""
    return f'<tspan class="quiet" dx="8">(towline is {each["ratio"]:.2g} ×)</tspan>'
