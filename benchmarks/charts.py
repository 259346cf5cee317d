"""Bar charts as SVG: one bar for each contender, as long as its median, with a line from its least to its most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

from .bench import Result, Scenario
from .report import extra, span

__all__ = ["Bar", "bar_chart", "write_chart"]

_WIDTH = 860
_VALUES = 90
#: Width of a character of a label, on average and generously.
_CHARACTER = 7
_BAR = 16
_STEP = 24
_TOP = 44
_BOTTOM = 40

#: Ours, ours with others, others, and what is no implementation.
_OURS, _MIXED, _OTHERS, _LINE = "#2f6fb0", "#8db3d9", "#b0672f", "#8a8a8a"
_PEERS = ("DCMTK", "pynetdicom", "storesc", "echoscu", "findscu", "getscu", "movescu", "dcmqrscp", "Orthanc")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#ccc;stroke-width:1}.range{stroke:#333;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#555}.range{stroke:#ddd}}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar: its length, and the least and most of what it is the median of."""

    name: str
    value: float
    least: float
    most: float


class _Scale:
    """Places values on the axis, which is logarithmic when they differ much."""

    def __init__(self, least: float, most: float, start: int, unit: float) -> None:
        self.is_logarithmic = most / least > 40
        self.start = start
        self._unit = unit
        self._width = _WIDTH - start - _VALUES
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
        return self.start + share * self._width

    def ticks(self) -> list[float]:
        if self.is_logarithmic:
            first, last = round(math.log10(self._low)), round(math.log10(self._high))
            return [10.0**power for power in range(first, last + 1)]
        raw = self._high / self._unit / 5
        size = 10 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        return [step * number * self._unit for number in range(int(self._high / self._unit / step) + 1)]


def _colour(name: str) -> str:
    if name.startswith(("plain", "python3")):
        return _LINE
    if not any(peer in name for peer in _PEERS):
        return _OURS
    return _MIXED if "asyncdicom" in name else _OTHERS


def bar_chart(title: str, bars: Sequence[Bar], label: Callable[[float], str], unit: float = 1.0) -> str:
    """Return a chart as SVG.

    :param label: gives the text of a value.
    :param unit: what the steps of the axis are round multiples of.
    """
    values = [value for bar in bars for value in (bar.value, bar.least, bar.most)]
    labels = 16 + _CHARACTER * max(len(bar.name) for bar in bars)
    scale = _Scale(max(min(values), 1e-9), max(values), labels, unit)
    height = _TOP + _STEP * len(bars) + _BOTTOM
    bottom = height - _BOTTOM + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
    ]
    for tick in scale.ticks():
        x = scale.place(tick)
        lines.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{bottom}"/>')
        text = "0" if not tick else label(tick)
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    for number, bar in enumerate(bars):
        lines += _drawn(scale, bar, _TOP + _STEP * number, label)
    if scale.is_logarithmic:
        lines.append(f'<text x="8" y="{bottom + 16}">logarithmic</text>')
    return "\n".join([*lines, "</svg>", ""])


def _drawn(scale: _Scale, bar: Bar, top: float, label: Callable[[float], str]) -> list[str]:
    end = scale.place(bar.value)
    low, high = scale.place(bar.least), scale.place(bar.most)
    middle = top + _BAR / 2
    baseline = top + _BAR - 4
    return [
        f'<text x="{scale.start - 8}" y="{baseline}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect x="{scale.start}" y="{top}" width="{max(end - scale.start, 1):.1f}" height="{_BAR}" '
        f'fill="{_colour(bar.name)}"/>',
        f'<line class="range" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
        f'<text x="{max(high, end) + 6:.1f}" y="{baseline}">{label(bar.value)}</text>',
    ]


def _bars(scenario: Scenario, results: Sequence[Result]) -> list[Bar]:
    bars = []
    for result in results:
        name = result.contender + (" *" if result.part < 1 else "")
        if not scenario.charted:
            bars.append(Bar(name=name, value=result.seconds, least=min(result.runs), most=max(result.runs)))
        elif (value := result.extra.get(scenario.charted)) is not None:
            bars.append(Bar(name=name, value=value, least=value, most=value))
    return sorted(bars, key=lambda bar: bar.value) if scenario.reference and not scenario.charted else bars


def write_chart(folder: Path, scenario: Scenario, results: Sequence[Result]) -> Path | None:
    """Write the chart of a scenario to ``NAME.svg`` in a folder; ``None`` if there is nothing to draw."""
    bars = _bars(scenario, results)
    if not bars:
        return None
    title = scenario.title
    label: Callable[[float], str] = span
    if scenario.charted:
        title = f"{title}: {scenario.charted.replace('_', ' ')}"
        label = partial(extra, scenario.charted)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scenario.name}.svg"
    unit = 1024.0 if scenario.charted.endswith("memory_each") else 1.0
    path.write_text(bar_chart(title, bars, label, unit), encoding="utf-8")
    return path
