"""Fits killed at random moments, then resumed: tensors and scores, bit for bit those of a fit left alone.

`python kill_resume.py FOLDER [COUNT]` makes COUNT more of the 50 kills (all by default), with its state in
FOLDER, so that it can be run in slices; after the last it writes its record. Every run starts from an empty
feature store; what is settled once a machine (converted networks, parity) is shared. Half of the runs write
a checkpoint every fifth of a second, half at the default interval. The learning curve is left out of the
comparison (it makes as many draws as its time allows), and so are timings.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # noqa: F401 (imported before the fork, so that each run starts at once)
import sklearn.linear_model  # noqa: F401
import torch  # noqa: F401
import transformers.models  # noqa: F401
from safetensors.numpy import load_file

import common
from graftwork import bench, cli, transfer  # noqa: F401

KILLS = 50
SETTLED = ("converted", "digests", "parity")
CURVE_S = 0.2
PICTURES = 20
"""A class and part, so that a run takes seconds."""
SOURCE = common.MODELS / "mobilenet_v1_0.25_128"
FITS = {
    "partial": ["epochs=8", "blocks=3", "batch=8"],
    "full": ["epochs=4", "batch=8"],
}


def prepare(folder: Path) -> None:
    """A few real photos by part and class."""
    for place in sorted((common.DATA / "ants_bees").glob("*/*")):
        target = folder / "pictures" / place.parent.name / place.name
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(place.iterdir())[:PICTURES]:
            shutil.copy(path, target)


def command(strategy: str, out: Path, *more: str) -> list[str]:
    chosen = [word for one in FITS[strategy] for word in ("--set", one)]
    return [
        "graft", "fit", str(out.parents[1] / "pictures"), "-o", str(out), "--source", str(SOURCE),
        "--strategy", strategy, *chosen, "--baselines", "none", "--seed", "3", "--quiet", "--json", *more,
    ]  # fmt: skip


def surroundings(folder: Path, every: str | None) -> dict[str, str]:
    """A home without features, beside what this machine has settled."""
    home = folder / "home"
    home.mkdir(parents=True)
    for name in SETTLED:
        (folder.parent / "settled" / name).mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(folder.parent / "settled" / name)
    said = {"GRAFT_HOME": str(home)}
    return said if every is None else {**said, "GRAFT_CHECKPOINT_S": every}


def begun(words: list[str], more: dict[str, str]) -> int:
    """The id of a process that runs the command line. It is forked after the imports, before any work."""
    process = os.fork()
    if process:
        return process
    os.environ.update(more)
    sys.argv = words
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = 1
    try:
        cli.main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os._exit(status)


def finished(process: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status == 0, status


def whole(folder: Path, strategy: str, every: str | None) -> tuple[float, dict[str, Any]]:
    """Seconds of a fit left alone, and what it ended with."""
    shutil.rmtree(folder, ignore_errors=True)
    more = surroundings(folder, every)
    start = time.perf_counter()
    finished(begun(command(strategy, folder / "m.graft"), more))
    seconds = time.perf_counter() - start
    return seconds, ended(folder / "m.graft")


def killed(
    folder: Path, strategy: str, every: str | None, moment: float
) -> tuple[dict[str, Any], str | None]:
    """What a fit ended with that was killed `moment` seconds after its start and then resumed.

    And what it had on disk when it was killed, None where it had ended by then.
    """
    shutil.rmtree(folder, ignore_errors=True)
    more, out = surroundings(folder, every), folder / "m.graft"
    process, start = begun(command(strategy, out), more), time.perf_counter()
    alive = True
    while alive and time.perf_counter() - start < moment:
        time.sleep(0.005)
        alive = os.waitpid(process, os.WNOHANG)[0] == 0
    if alive:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    run = out.with_name(f".{out.name}.run")
    state = "checkpoint" if list(run.glob("*.safetensors")) else "request" if run.exists() else "nothing yet"
    there = "the first answer" if out.exists() else "no answer"
    finished(begun(command(strategy, out, "--resume"), more))
    left = [path.name for path in folder.iterdir() if path.name not in ("m.graft", "home")]
    # a process killed while it writes leaves a folder of its own name; nothing else may be left
    assert all(name.startswith(".m.graft.") and name != run.name for name in left), left
    return ended(out), f"{state}, {there}" if alive else None


def ended(artefact: Path) -> dict[str, Any]:
    """Every tensor's bytes and every score of an artefact, as digests and plain JSON."""
    tensors = {
        f"{path.relative_to(artefact)}:{name}": hashlib.sha256(
            np.ascontiguousarray(value).tobytes()
        ).hexdigest()
        for path in sorted(artefact.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }
    manifest = json.loads((artefact / "manifest.json").read_text("utf-8"))
    result = manifest["result"]
    scores = {
        name: result[name] for name in ("scores", "classes", "verdict", "unknown_rate", "training_curve")
    }
    return {"tensors": tensors, "fingerprint": manifest["fingerprint"], **scores}


def main() -> None:
    folder = Path(sys.argv[1])
    state = folder / "state.json"
    done: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"whole": {}, "kills": []}
    prepare(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"
    bench.CURVE_SECONDS = CURVE_S
    draw = np.random.default_rng(0).uniform(size=KILLS)
    until = min(KILLS, len(done["kills"]) + (int(sys.argv[2]) if len(sys.argv) > 2 else KILLS))
    for number in range(len(done["kills"]), until):
        strategy = list(FITS)[number % len(FITS)]
        every = None if number // len(FITS) % 2 else "0.2"
        if strategy not in done["whole"]:
            whole(folder / "run", strategy, every)  # settles what is settled once a machine
            seconds, reference = whole(folder / "run", strategy, every)
            done["whole"][strategy] = {"seconds": seconds, "ended": reference}
        reference = done["whole"][strategy]
        moment = float(draw[number] * reference["seconds"])
        found, caught = killed(folder / "run", strategy, every, moment)
        equal = found == reference["ended"]
        done["kills"].append(
            {
                "strategy": strategy, "checkpoints every": every or "default", "moment": round(moment, 2),
                "of": round(reference["seconds"], 2), "killed with": caught, "equal": equal,
            }
        )  # fmt: skip
        print(number, done["kills"][-1], flush=True)
        if not equal:
            print([name for name in found if found[name] != reference["ended"][name]])
        state.write_text(json.dumps(done))
    if len(done["kills"]) == KILLS:
        record(done["kills"])


def record(kills: list[dict[str, Any]]) -> None:
    figures = {
        "kills": len(kills),
        "at work when killed": sum(one["killed with"] is not None for one in kills),
        "equal": sum(one["equal"] for one in kills),
        "moments": kills,
        "seed": 0,
    }
    common.record("kill_resume", figures, {"equal": KILLS})


if __name__ == "__main__":
    main()
