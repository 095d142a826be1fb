"""Seconds of `import graftwork` and of `graft --help`, each in fresh processes."""

import subprocess
import sys
from pathlib import Path

import common


def main() -> None:
    graft = str(Path(sys.executable).parent / "graft")
    commands = {"bare": ["-c", "pass"], "import": ["-c", "import graftwork"]}
    figures = {
        name: common.median(common.timed(lambda c=rest: subprocess.run([sys.executable, *c], check=True), 15))
        for name, rest in commands.items()
    }
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    figures["help"] = common.median(common.timed(lambda: subprocess.run([graft, "--help"], **quiet), 15))
    common.record("startup", figures, {"import": 0.3, "help": 0.3})


if __name__ == "__main__":
    main()
