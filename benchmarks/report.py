"""What was measured, as tables: on a terminal, and in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .bench import Result, Scenario

__all__ = ["Table", "extra", "formatted", "goals", "markdown", "print_table", "results_table", "span"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text.

    :ivar left: how many columns, from the first, are words and not numbers.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    notes: Sequence[str] = ()


def span(seconds: float) -> str:
    """Return seconds with a unit that fits."""
    if seconds >= 999.5:
        return f"{seconds:.0f} s"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _memory(size: float | None) -> str:
    return "–" if size is None else f"{size / _MIB:.1f}"


def _cpu(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3g}"


#: How extras are written, by the end of their names: what they are multiplied with, and the text. Others are seconds.
_EXTRAS = (
    ("idle_cpu", 100, "{:.2f} %"),
    ("memory_each", 1 / 1024, "{:.1f} KiB"),
    ("bytes_per_second", 1e-6, "{:.0f} MB/s"),
    ("per_second", 1, "{:.0f}"),
    ("outstanding", 1, "{:.0f}"),
    ("matches", 1, "{:.0f}"),
)


def extra(name: str, value: float) -> str:
    """Return the value of an extra with its unit."""
    for end, factor, text in _EXTRAS:
        if name.endswith(end):
            return text.format(value * factor)
    return span(value)


def results_table(scenario: Scenario, results: Sequence[Result], failed: Sequence[str] = ()) -> Table:
    """Return the table of a scenario's results."""
    repeated = any(len(result.runs) > 1 for result in results)
    several = any(result.operations > 1 for result in results)
    with_bytes = any(result.bytes for result in results)
    sides = any(result.client_cpu is not None for result in results)
    reference = next((result for result in results if result.contender == scenario.reference), None)
    head = ["", "median", *(["least–most"] if repeated else [])]
    head += ["each"] if several else []
    head += ["MB/s"] if with_bytes else []
    head += [f"× {scenario.reference}"] if reference else []
    head += ["CPU s, client", "server", "MiB, client", "server"] if sides else []
    rows = []
    notes = []
    for result in results:
        row = [result.contender, span(result.seconds)]
        row += (
            [f"{span(min(result.runs))}–{span(max(result.runs))}" if len(result.runs) > 1 else ""] if repeated else []
        )
        row += [span(result.each)] if several else []
        row += [_rate(result.bytes / result.seconds / 1e6)] if with_bytes else []
        row += [f"{result.seconds / reference.seconds:.2f}"] if reference else []
        if sides:
            row += [_cpu(result.client_cpu), _cpu(result.server_cpu)]
            row += [_memory(result.client_peak), _memory(result.server_peak)]
        rows.append(row)
        said = [result.note] if result.note else []
        if result.part < 1:
            said.append(f"extrapolated from {100 * result.part:.3g} % of the work")
        said += [f"{name.replace('_', ' ')} {extra(name, value)}" for name, value in result.extra.items()]
        if said:
            notes.append(f"{result.contender}: {', '.join(said)}")
    return Table(
        title=f"{scenario.name}: {scenario.title}",
        head=head,
        rows=rows,
        notes=[
            f"Equal: {scenario.equal}.",
            f"Not equal: {scenario.unequal}.",
            *notes,
            *(f"Not run: {text}" for text in failed),
        ],
    )


def formatted(value: float, unit: str) -> str:
    """Return the value of a goal with its unit."""
    match unit:
        case "s":
            return span(value)
        case "B":
            return f"{value / _MIB:.1f} MiB" if value >= _MIB else f"{value / 1024:.1f} KiB"
        case "%":
            return f"{100 * value:.2f} %"
        case "/s":
            return f"{value:.0f} /s"
        case "×":
            return f"{value:.2f} ×"
    return f"{value:g}"


def goals(scenarios: Sequence[Scenario], results: Mapping[str, Mapping[str, Result]]) -> Table:
    """Return the table of what was to be reached, and whether it was."""
    rows = []
    for scenario in scenarios:
        for goal in scenario.goals:
            value = goal.value(results.get(scenario.name, {}))
            word = "at least" if goal.at_least else "at most"
            limit = f"{word} {formatted(goal.limit, goal.unit)}"
            if value is None:
                rows.append([scenario.name, goal.text, limit, "–", "not measured"])
                continue
            verdict = "reached" if goal.reached(value) else "MISSED"
            rows.append([scenario.name, goal.text, limit, formatted(value, goal.unit), verdict])
    return Table(title="Goals", head=["scenario", "goal", "", "measured", ""], rows=rows, left=2)


def print_table(table: Table) -> None:
    """Print a table, with Rich where it is installed and there is a terminal."""
    if sys.stdout.isatty():
        try:
            _print_rich(table)
            return
        except ImportError:
            pass
    print("\n".join(_plain(table)))


def _print_rich(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=table.title, title_justify="left", title_style="bold")
    for number, name in enumerate(table.head):
        drawn.add_column(name, justify="left" if number < table.left else "right", overflow="fold")
    for row in table.rows:
        styles = {"MISSED": "bold red", "reached": "green"}
        drawn.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    console = Console()
    console.print(drawn)
    for note in table.notes:
        console.print(Text(f"  {note}", style="dim"))
    console.print()


def _plain(table: Table) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    yield table.title
    for row in (table.head, *table.rows):
        cells = (
            cell.ljust(width) if number < table.left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  " + "  ".join(cells).rstrip()
    yield from (f"  {note}" for note in table.notes)
    yield ""


def markdown(table: Table, *, picture: str = "") -> str:
    """Return a table in Markdown, under a heading and a picture."""
    lines = [f"## {table.title}", "", *([picture, ""] if picture else [])]
    lines.append("| " + " | ".join(table.head) + " |")
    lines.append("|" + "|".join("---" if number < table.left else "--:" for number in range(len(table.head))) + "|")
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    lines.append("")
    lines += [f"- {note}" for note in table.notes]
    if table.notes:
        lines.append("")
    return "\n".join(lines)
