"""Bar charts as SVG: one bar for each contender, as long as its median, with a line from its least to its most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .bench import Result, Scenario
from .report import span

__all__ = ["bar_chart", "write_chart"]

_WIDTH = 860
_LABELS = 300
_VALUES = 90
_BAR = 16
_STEP = 24
_TOP = 44
_BOTTOM = 40

#: Ours, others, and what is no implementation.
_OURS, _OTHERS, _LINE = "#2f6fb0", "#b0672f", "#8a8a8a"
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#ccc;stroke-width:1}.range{stroke:#333;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#555}.range{stroke:#ddd}}"
)


class _Scale:
    """Places seconds on the axis, which is logarithmic when they differ much."""

    def __init__(self, least: float, most: float) -> None:
        self.is_logarithmic = most / least > 40
        self._width = _WIDTH - _LABELS - _VALUES
        if self.is_logarithmic:
            self._low = 10 ** math.floor(math.log10(least))
            if self._low > least * 0.8:
                self._low /= 10
            self._high = 10 ** math.ceil(math.log10(most))
        else:
            self._low, self._high = 0.0, most * 1.05

    def place(self, value: float) -> float:
        if self.is_logarithmic:
            share = math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)
        else:
            share = value / self._high
        return _LABELS + share * self._width

    def ticks(self) -> list[float]:
        if self.is_logarithmic:
            first, last = round(math.log10(self._low)), round(math.log10(self._high))
            return [10.0**power for power in range(first, last + 1)]
        raw = self._high / 5
        size = 10 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        return [step * number for number in range(int(self._high / step) + 1)]


def _colour(name: str) -> str:
    if name.startswith(("plain", "python3")):
        return _LINE
    return _OURS if "asyncdicom" in name else _OTHERS


def bar_chart(title: str, results: Sequence[Result]) -> str:
    """Return a chart of the times of some results, as SVG."""
    times = [time for result in results for time in (*result.runs, result.seconds)]
    scale = _Scale(max(min(times), 1e-9), max(times))
    height = _TOP + _STEP * len(results) + _BOTTOM
    bottom = height - _BOTTOM + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
    ]
    for tick in scale.ticks():
        x = scale.place(tick)
        lines.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{bottom}"/>')
        label = "0" if not tick else span(tick)
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
    for number, result in enumerate(results):
        lines += _bar(scale, result, _TOP + _STEP * number)
    if scale.is_logarithmic:
        lines.append(f'<text x="8" y="{bottom + 16}">logarithmic</text>')
    return "\n".join([*lines, "</svg>", ""])


def _bar(scale: _Scale, result: Result, top: float) -> list[str]:
    start = _LABELS
    end = scale.place(result.seconds)
    low, high = scale.place(min(result.runs)), scale.place(max(result.runs))
    middle = top + _BAR / 2
    baseline = top + _BAR - 4
    label = result.contender + (" *" if result.part < 1 else "")
    return [
        f'<text x="{start - 8}" y="{baseline}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{start}" y="{top}" width="{max(end - start, 1):.1f}" height="{_BAR}" '
        f'fill="{_colour(result.contender)}"/>',
        f'<line class="range" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
        f'<text x="{max(high, end) + 6:.1f}" y="{baseline}">{span(result.seconds)}</text>',
    ]


def write_chart(folder: Path, scenario: Scenario, results: Sequence[Result]) -> Path:
    """Write the chart of a scenario to ``NAME.svg`` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scenario.name}.svg"
    ordered = sorted(results, key=lambda result: result.seconds) if scenario.reference else results
    path.write_text(bar_chart(scenario.title, ordered), encoding="utf-8")
    return path
