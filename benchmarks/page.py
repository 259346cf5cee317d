"""The page of the documentation, ``docs/benchmarks.md``: how it was measured, and what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .report import Table, markdown

__all__ = ["write_page"]

_METHOD = """\
Anyone can repeat this, with the peers that are installed:

```console
$ python -m benchmarks --json results.jsonl --charts docs/benchmarks --markdown docs/benchmarks.md
```

`--list` names the scenarios, `--scenario` picks some, `--quick` shows in a minute or two that they work; `--render
results.jsonl` makes the tables and charts again without measuring.

## How it is measured

- Server and client are processes of their own, on one machine, over the loopback interface. All contenders of a scenario
  run in turn, once each, and that is repeated; what is shown is the median, with the least and the most.
- Files are in a memory-backed folder, so that no disk is measured. Every run starts with a fresh server and an empty
  folder, and what arrived is counted.
- Our clients, pynetdicom's and the plain socket's are running, associated and warm when the clock starts. DCMTK's clients,
  and the commands of ours, are programs: they are timed whole, and what an empty run of the same program takes in the same
  minutes (start-up, association, one small instance or a query without matches, release) is subtracted.
- DCMTK runs with `TCP_NODELAY=1`, which turns Nagle's algorithm off, unless *stock* is written.
- Who is slow does a part of the work, and its times are multiplied; such bars have an asterisk.
- CPU seconds are those of all threads and children. Memory is the high-water mark of the resident set above what was
  resident when the clock started (`VmHWM` of Linux); of servers that fork it is not known (–).
- The *plain socket* is the physical line: the same bytes through a socket to a file, with blocking calls and an octet back
  for each instance.
- Every safety of asyncdicom is on: limits, deadlines, checks of what the peer sends, temporary files that are renamed.
"""


def write_page(path: Path, about: str, goals: Table, sections: Sequence[tuple[Table, Path | None]]) -> None:
    """Write the page; what ``notes.md`` in a folder of its name says of the goals is put behind them.

    :param about: the machine, and who took part.
    :param goals: what was to be reached.
    :param sections: the table of each scenario, and its chart.
    """
    parts = [f"# Benchmarks\n\n{about}\n", _METHOD]
    if goals.rows:
        parts.append(markdown(goals))
    notes = path.with_suffix("") / "notes.md"
    if notes.is_file():
        parts.append(notes.read_text(encoding="utf-8"))
    for table, chart in sections:
        picture = f"![{table.title}]({os.path.relpath(chart, path.parent)})" if chart else ""
        parts.append(markdown(table, picture=picture))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")
