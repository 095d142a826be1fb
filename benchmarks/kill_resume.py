"""Fits killed at random moments, then resumed: tensors and scores, bit for bit those of a fit left alone.

`python kill_resume.py FOLDER [COUNT]` makes COUNT more of the 50 kills (all by default), with its state in
FOLDER, so that it can be run in slices; after the last it writes its record. Every run starts from an empty
feature store; what is settled once a machine (converted networks, parity) is shared. Half of the runs write
a checkpoint every fifth of a second, half at the default interval. The learning curve is left out of the
comparison (it makes as many draws as its time allows), and so are timings.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import common

KILLS = 50
SETTLED = ("converted", "digests", "parity")
GRAFT = [sys.executable, "-c", "from graftwork.cli import main; main()"]
FITS = {
    "partial": ["ants_bees", "mobilenet_v1_0.25_128", ["epochs=6", "blocks=3"]],
    "full": ["ants_bees", "mobilenet_v1_0.25_128", ["epochs=2"]],
}


def command(strategy: str, out: Path, *more: str) -> list[str]:
    data, source, settings = FITS[strategy]
    chosen = [word for one in settings for word in ("--set", one)]
    return [
        *GRAFT, "fit", str(common.DATA / data), "-o", str(out), "--source", str(common.MODELS / source),
        "--strategy", strategy, *chosen, "--baselines", "none", "--seed", "3", "--quiet", "--json", *more,
    ]  # fmt: skip


def environment(folder: Path, every: str | None) -> dict[str, str]:
    """A home without features, beside what this machine has settled."""
    home = folder / "home"
    home.mkdir(parents=True)
    for name in SETTLED:
        (folder.parent / "settled" / name).mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(folder.parent / "settled" / name)
    said = {**os.environ, "GRAFT_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return said if every is None else {**said, "GRAFT_CHECKPOINT_S": every}


def whole(folder: Path, strategy: str, every: str | None) -> tuple[float, dict[str, Any]]:
    """Seconds of a fit left alone, and what it ended with."""
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.perf_counter()
    subprocess.run(
        command(strategy, folder / "m.graft"),
        env=environment(folder, every),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - begun
    found = ended(folder / "m.graft")
    shutil.rmtree(folder)
    return seconds, found


def killed(folder: Path, strategy: str, every: str | None, moment: float) -> tuple[dict[str, Any], bool]:
    """What a fit ended with that was killed `moment` seconds after its start and then resumed; and whether
    it was at work when it was killed."""
    shutil.rmtree(folder, ignore_errors=True)
    surroundings = environment(folder, every)
    out = folder / "m.graft"
    process = subprocess.Popen(
        command(strategy, out), env=surroundings, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    was_killed = process.returncode != 0
    subprocess.run(
        command(strategy, out, "--resume"), env=surroundings, check=True, stdout=subprocess.DEVNULL
    )
    left = [path.name for path in folder.iterdir() if path.name not in ("m.graft", "home")]
    found = ended(out)
    assert not left, f"left behind: {left}"
    shutil.rmtree(folder)
    return found, was_killed


def ended(artefact: Path) -> dict[str, Any]:
    """Every tensor's bytes and every score of an artefact, as digests and plain JSON."""
    import hashlib

    from safetensors.numpy import load_file

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
        found, was_killed = killed(folder / "run", strategy, every, moment)
        equal = found == reference["ended"]
        done["kills"].append(
            {
                "strategy": strategy, "checkpoints every": every or "default", "moment": round(moment, 2),
                "of": round(reference["seconds"], 2), "killed": was_killed, "equal": equal,
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
        "at work when killed": sum(one["killed"] for one in kills),
        "equal": sum(one["equal"] for one in kills),
        "moments": kills,
        "seed": 0,
    }
    common.record("kill_resume", figures, {"equal": KILLS})


if __name__ == "__main__":
    main()
