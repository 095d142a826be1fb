"""What the terminal shows: progress and messages on stderr, answers on stdout."""

import json
import sys
from collections.abc import Iterator, Sequence
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
    )
    console = Console(stderr=True)
    bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: dict[str, Any] = {}

    def notify(step: "Progress") -> None:
        if step.stage not in tasks:
            for other in tasks.values():
                bars.update(other, visible=False)
            tasks[step.stage] = bars.add_task(step.stage, total=step.total, rate="")
        task = bars.tasks[bars.task_ids.index(tasks[step.stage])]
        rate = f"{task.speed:.0f} {step.unit}/s" if task.speed else ""
        bars.update(tasks[step.stage], completed=step.done, total=step.total, rate=rate)

    with bars:
        yield notify
