"""What all commands share: the application, their common options, how errors become one line."""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from graftwork import __version__, console
from graftwork.errors import GraftworkError, RequestError

app = typer.Typer(
    name="graft",
    help="Reuse a pretrained model for a new task, and say honestly whether the transfer helped.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        console.say(f"graft {__version__}")
        raise typer.Exit


@app.callback()
def _graft(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a connection.")]
Data = Annotated[str, typer.Argument(help="A folder of class folders, a table, or such by split.")]
Artefact = Annotated[Path, typer.Argument(help="A folder NAME.graft.")]
Text = Annotated[str | None, typer.Option("--text", help="The table's column of texts.")]
File = Annotated[str | None, typer.Option("--file", help="The table's column of file paths.")]
Label = Annotated[str | None, typer.Option("--label", help="The table's column of labels.")]
Group = Annotated[str | None, typer.Option("--group", help="The column whose equal values stay together.")]
Split = Annotated[str | None, typer.Option("--split", help="The column naming train, validation or test.")]
Pooling = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        help="How a row's features are pooled. Pictures: pooled, cls, mean, flatten; texts: mean, cls, max; "
        "recordings: mean, meanstd, cls; word vectors: spread, mean, idf, sif; Keras: avg, max, flatten.",
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize", help="Pictures: crop, or fit to keep the whole picture; Keras also stretch, its default."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Everything random follows from it.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Errors as one line and an exit status: 1 the work failed, 2 the request was wrong."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except GraftworkError as error:
            _fail(str(error), error.exit_status, kwargs)
        except KeyboardInterrupt:
            _fail("interrupted; features computed so far are kept, run again to go on", 1, kwargs)
        except MemoryError:
            _fail("out of memory; close other programs or use a smaller source", 1, kwargs)
        except BrokenPipeError:
            # the reader of our output has gone (`graft predict ... | head`): nothing is wrong
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception as error:
            if os.environ.get("GRAFT_TRACEBACK"):
                raise
            _fail(_fault(error), 1, kwargs)

    return run


def _fault(error: Exception) -> str:
    """What is said of an error that no module foresaw: the disk's own, or a slip of ours."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return f"{error.filename or 'the disk'}: {error.strerror}; free space or set GRAFT_HOME"
    where = traceback.extract_tb(error.__traceback__)[-1]
    # a library's message may run over many lines
    said = " ".join(f"{type(error).__name__}: {error}".split())
    place = f"{Path(where.filename).name}:{where.lineno}"
    return f"a fault in Graftwork, not in your request: {said} ({place}); GRAFT_TRACEBACK=1 shows all"


def columns(
    text: str | None, file: str | None, label: str | None, group: str | None, split: str | None
) -> dict[str, Any]:
    return {"text": text, "file": file, "label": label, "group": group, "split": split}


def show(found: Any, json: bool) -> None:
    """A mapping, as JSON or for a person."""
    if json:
        console.emit(found)
    else:
        console.say(console.described(found))


def size(said: str) -> int:
    """Bytes, of a number with or without MB or GB."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    number = said.upper().rstrip("BKMGT ")
    unit = said.upper()[len(number) :].strip()
    try:
        found = int(float(number) * units[unit])
        if found < 0:
            raise ValueError("negative")
        return found
    except (ValueError, OverflowError, KeyError) as error:
        raise RequestError(f"{said!r} is no size; expected a number with MB or GB, such as 500MB") from error


def _fail(message: str, status: int, options: dict[str, Any]) -> None:
    if options.get("json"):
        console.emit({"error": {"message": message, "status": status}})
    else:
        print(f"graft: {message}", file=sys.stderr)
    raise typer.Exit(status)
