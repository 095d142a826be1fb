"""The command line: parse, call, print. `graft COMMAND --help` documents each command."""

import os
import sys
import warnings
from typing import Any

from graftwork import console

# isort: off
# --help lists commands in the order of their registration
from graftwork.cli import tasks, rank, sources, serve, machine

# isort: on
from graftwork.cli.app import app

__all__ = ["app", "machine", "main", "rank", "serve", "sources", "tasks"]


def main() -> None:
    """The entry point of `graft`."""
    if "--offline" in sys.argv:
        # read by the hub's client when it is first imported, so set before anything is
        os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.showwarning = _show_warning
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        # typer keeps its parser's exceptions private: they are known by what they can do
        if not hasattr(error, "format_message"):
            raise
        status = _misused(error)
    sys.exit(status if isinstance(status, int) else 0)


def _misused(error: Any) -> int:
    """A command line that cannot be parsed: one line, as for every other wrong request."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    said = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    message = f"{said}; try: {context.command_path if context else 'graft'} --help"
    if "--json" in sys.argv:
        console.emit({"error": {"message": message, "status": 2}})
    else:
        print(f"graft: {message}", file=sys.stderr)
    return 2


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings as one line, each once; a library's are for its developers."""
    if category.__module__.startswith("graftwork") and str(message) not in _warned:
        _warned.add(str(message))
        console.note(f"graft: {message}", quiet="--quiet" in sys.argv)


_warned: set[str] = set()
