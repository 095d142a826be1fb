"""What the terminal shows: progress and messages on stderr, answers on stdout."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # records bring numpy, which `graft --help` does not wait for
    from graftwork.records import Notify, Progress


def say(message: str = "") -> None:
    """A line for a person, on stdout."""
    print(message)


def note(message: str, *, quiet: bool = False) -> None:
    """A line beside the answer, on stderr."""
    if not quiet:
        print(message, file=sys.stderr)


def emit(value: Any) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def described(found: Mapping[str, Any]) -> str:
    """A mapping for a person: a line each, nested mappings indented, lists of mappings as tables."""
    lines = []
    width = max((len(key) for key in found), default=0) + 2
    for key, value in found.items():
        shown = key.replace("_", " ")
        if isinstance(value, Mapping):
            lines += [shown, *("  " + line for line in described(value).splitlines())]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            cells = [[_said(name, one) for name, one in row.items()] for row in value]
            lines += [shown, *("  " + line for line in table(list(value[0]), cells).splitlines())]
        else:
            lines.append(f"{shown:{width}}{_said(key, value)}")
    return "\n".join(lines)


def _said(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("bytes"):
        for exponent, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
            if value >= 10**exponent:
                return f"{value / 10**exponent:.1f} {unit}"
        return f"{value} bytes"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns; wide characters (Chinese) count two cells."""
    from rich.cells import cell_len

    cells = [list(head), *[list(row) for row in rows]]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, cells))


@contextmanager
def progress(quiet: bool) -> "Iterator[Notify]":
    """A Notify that draws one bar a stage with its rate and the time left, while in the block."""
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: dict[str, Any] = {}

    def notify(step: "Progress") -> None:
        if step.stage not in tasks:
            for other in tasks.values():
                bars.update(other, visible=False)
            tasks[step.stage] = bars.add_task(step.stage, total=step.total, rate="", note="")
        task = bars.tasks[bars.task_ids.index(tasks[step.stage])]
        rate = f"{task.speed:.0f} {step.unit}/s" if task.speed else ""
        bars.update(tasks[step.stage], completed=step.done, total=step.total, rate=rate, note=step.note)

    with bars:
        yield notify
