"""Server and workers killed (SIGKILL) at random moments under load, checked against the clients' ledger.

Clients upload files, make datasets of them and fit on those, without a pause; each create has an
Idempotency-Key and is asked again until it is acknowledged. At every moment the server, its workers, or all
processes at once are killed; a killed server is started again at once. At the end all that was acknowledged
must be there: files byte for byte, every job ended, none with two successes, no two jobs of one create.

`python benchmarks/serve_kills.py FOLDER [MOMENTS]` makes MOMENTS more of the 200 (50 by default) on a fresh
root, with its state in FOLDER, so that it can be run in slices; the record is of all slices so far.
"""

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import ColumnElement, func, select

import common
from graftwork import manifest
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Event, File, Job, Model
from graftwork.service.jobs import names
from graftwork.service.settings import Settings
from serve_common import operator_key

MOMENTS = 200
VICTIMS = ("server", "workers", "everything")
BETWEEN_S = (0.2, 5.0)
"""From one moment to the next, once the server answers, for every other moment."""
AT_WORK_S, WITHIN_S = 12.0, (0.0, 2.0)
"""For the others: how long a job under way is waited for, and then the moment."""
PATIENCE_S = 180.0


@dataclass
class Ledger:
    """What was acknowledged. files: id -> SHA-256; datasets, fits: id -> key of the create."""

    files: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    fits: dict[str, str] = field(default_factory=dict)
    asked_again: int = 0
    wrong: list[str] = field(default_factory=list)


class Client(threading.Thread):
    """One client. uploads: it only uploads; else it makes datasets and fits too."""

    def __init__(self, url: str, key: str, seed: int, uploads: bool) -> None:
        super().__init__(daemon=True)
        self.line = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20, trust_env=False
        )
        self.chance, self.uploads, self.seed = random.Random(seed), uploads, seed
        self.ledger, self.over, self.count = Ledger(), threading.Event(), 0

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self._upload() if self.uploads else self._fit()
            except Exception as error:
                self.ledger.wrong.append(repr(error))
                return

    def _upload(self) -> str:
        time.sleep(self.chance.uniform(0, 0.2))
        content = self.chance.randbytes(self.chance.choice((100, 10_000, 200_000))).hex().encode()
        return self._send("some.txt", content)

    def _fit(self) -> None:
        file = self._send("table.csv", _table(self.chance))
        wanted = {"name": f"data {self.count}", "files": [{"file": file}]}
        dataset, key = self._create("/v1/datasets", json=wanted)
        self.ledger.datasets[dataset["id"]] = key
        while (state := self._ask("GET", f"/v1/datasets/{dataset['id']}")["state"]) == "inspecting":
            if self.over.is_set():
                return
            time.sleep(0.1)
        if state != "ready":
            return  # its inspection was given up: see `_audited`
        asked = {"kind": "fit", "dataset": dataset["id"], "strategy": "classical", "baselines": "none"}
        job, key = self._create("/v1/jobs", json=asked)
        self.ledger.fits[job["id"]] = key
        time.sleep(self.chance.uniform(0, 2))

    def _send(self, name: str, content: bytes) -> str:
        file, _ = self._create("/v1/files", params={"name": name}, content=content)
        self.ledger.files[file["id"]] = sha256(content).hexdigest()
        return str(file["id"])

    def _create(self, path: str, **what: Any) -> tuple[dict[str, Any], str]:
        self.count += 1
        key = f"{self.seed}-{self.count}"
        return self._ask("POST", path, headers={"Idempotency-Key": key}, **what), key

    def _ask(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        """The answer, asked for until there is one."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                said = self.line.request(method, path, **what)
                if said.status_code < 300:
                    found: dict[str, Any] = said.json()
                    return found
                if said.status_code not in (429, 503):
                    raise AssertionError(f"{method} {path}: {said.status_code} {said.text[:300]}")
            except httpx.TransportError:
                self.ledger.asked_again += 1
            assert time.monotonic() < until, f"no answer to {method} {path}"
            time.sleep(0.1)


def _table(chance: random.Random) -> bytes:
    good, bad = ("lovely kind quick", "warm bright fine"), ("late rude broken", "cold dull lost")
    rows = [
        f"{chance.choice(words)} {chance.randrange(10**6)},{label}"
        for _ in range(15)
        for words, label in ((good, "praise"), (bad, "complaint"))
    ]
    return "\n".join(["text,label", *rows, ""]).encode()


class Server:
    """`graft serve` on one port, started again and again."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, (root.parent / f"{root.name}.log").open("ab")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.seconds = f"http://127.0.0.1:{self.port}", list[float]()

    def start(self) -> None:
        """Start it and wait until it answers."""
        graft = str(Path(sys.executable).parent / "graft")
        command = [graft, "serve", str(self.root), "--port", str(self.port), "--workers", "2", "--offline"]
        unbounded = ["--quota", "jobs=none", "--quota", "requests=none"]
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, *unbounded, "--json"], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, f"the server did not start; see {self.log.name}"
        self.seconds.append(time.perf_counter() - begun)

    def family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self, victim: str) -> list[psutil.Process]:
        """Kill at once; the processes that must soon be gone."""
        family = self.family()
        workers = [one for one in family if _is_worker(one)]
        doomed = {"server": [], "workers": workers, "everything": family}[victim]
        if victim != "workers":
            os.kill(self.process.pid, signal.SIGKILL)
        for one in doomed:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        if victim != "workers":
            self.process.wait()
        return workers if victim == "workers" else family

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(90)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "graftwork.service.jobs.worker" in process.cmdline()
    except psutil.Error:
        return False


def _is_whole(root: Path, aside: Path) -> bool:
    """SQLite's own check, on a copy with its journal, so that the server does the recovery itself."""
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for path in (root / ".graftwork").glob("service.db*"):
        shutil.copy(path, aside)
    with sqlite3.connect(aside / "service.db") as database:
        (said,) = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    return bool(said == "ok")


def one_round(folder: Path, moments: int, seed: int) -> dict[str, Any]:
    """`moments` kills on a fresh root; what was found wanting afterwards."""
    chance, root = random.Random(seed), folder / f"round-{seed}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    server = Server(root)
    server.start()
    key = operator_key(root)
    clients = [Client(server.url, key, 1000 * seed + n, uploads=n < 2) for n in range(5)]
    for client in clients:
        client.start()
    database = Database(Settings(root.resolve()).url)
    killed, left, broken, at_work = Counter[str](), 0, 0, 0
    for _ in range(moments):
        at_work += _moment(chance, database)
        victim = chance.choice(VICTIMS)
        killed[victim] += 1
        doomed = server.kill(victim)
        if victim == "everything":
            broken += not _is_whole(root, folder / "copy")
        if victim != "workers":
            server.start()
        left += len(psutil.wait_procs(doomed, timeout=15)[1])
        print(sum(killed.values()), victim, f"{server.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    for client in clients:
        client.over.set()
    for client in clients:
        client.join(PATIENCE_S)
    waited = _wait_for_jobs(database)
    audit = _audited(root, database, clients)
    database.close()
    status = server.stop()
    broken += not _is_whole(root, folder / "copy")
    return {
        "seed": seed,
        "killed": dict(killed),
        "killed_while_a_job_ran": at_work,
        **audit,
        "broken_databases": broken,
        "processes_left": left,
        "exit_status_at_the_end": status,
        "seconds_until_all_jobs_had_ended": round(waited, 1),
        "start_seconds": [round(one, 3) for one in server.seconds],
    }


def _moment(chance: random.Random, database: Database) -> bool:
    """Wait until it has come; whether a job was under way then."""
    if chance.random() < 0.5:
        time.sleep(chance.uniform(*BETWEEN_S))
    else:
        until = time.monotonic() + AT_WORK_S
        while not _is_at_work(database) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(chance.uniform(*WITHIN_S))
    return _is_at_work(database)


def _is_at_work(database: Database) -> bool:
    with database.read() as session:
        workers = session.scalars(select(Job.worker).where(Job.state == "running")).all()
    return any(worker is not None and not names.is_dead(worker) for worker in workers)


def _count(database: Database, which: ColumnElement[bool]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).where(which)) or 0


def _wait_for_jobs(database: Database) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE_S:
        if not _count(database, Job.state.not_in(TERMINAL)):
            break
        time.sleep(0.2)
    return time.monotonic() - begun


def _audited(root: Path, database: Database, clients: list[Client]) -> dict[str, Any]:
    """The ledger against the database and the disk."""
    settings = Settings(root.resolve())
    ledgers = [client.ledger for client in clients]
    with database.read() as session:
        files = {file.id: file for file in session.scalars(select(File))}
        jobs = {job.id: job for job in session.scalars(select(Job))}
        models = session.scalars(select(Model)).all()
        said = session.execute(select(Event.job_id, Event.data).where(Event.kind == "state")).all()
        gaps = session.execute(
            select(Event.job_id).group_by(Event.job_id).having(func.max(Event.seq) != func.count())
        ).all()
    successes = Counter(job for job, data in said if data["state"] == "succeeded")
    of = Counter(model.job_id for model in models)
    inspections = {job.dataset_id: job for job in jobs.values() if job.kind == "inspect"}
    acknowledged = {
        **{job: jobs.get(job) for one in ledgers for job in one.fits},
        **{dataset: inspections.get(dataset) for one in ledgers for dataset in one.datasets},
    }
    known = [job for job in acknowledged.values() if job is not None]
    lost_files = sum(
        not _is_there(settings, files.get(file), digest)
        for one in ledgers
        for file, digest in one.files.items()
    )
    fits = [job for job in jobs.values() if job.kind == "fit"]
    return {
        "acknowledged": {
            "files": sum(len(one.files) for one in ledgers),
            "datasets": sum(len(one.datasets) for one in ledgers),
            "fits": sum(len(one.fits) for one in ledgers),
        },
        "asked_again": sum(one.asked_again for one in ledgers),
        "lost_files": lost_files,
        "lost_jobs": sum(job is None for job in acknowledged.values()),
        "jobs_not_ended": sum(job.state not in TERMINAL for job in jobs.values()),
        "jobs": dict(Counter(job.state for job in known)),
        "failed": dict(Counter((job.problem or {}).get("code") for job in known if job.state == "failed")),
        "attempts_beyond_the_first": sum(max(job.attempt - 1, 0) for job in known),
        "succeeded_twice": sum(count > 1 for count in successes.values())
        + sum(count > 1 for count in of.values()),
        "fits_that_succeeded_without_one_model": sum(
            of[job.id] != (job.state == "succeeded") for job in fits
        ),
        "creates_done_twice": len(jobs) - len(acknowledged),
        "jobs_with_gaps_in_their_events": len(gaps),
        "damaged_artefacts": sum(not _is_sound(settings.artefacts / model.digest) for model in models),
        "wrong_answers": [said for one in ledgers for said in one.wrong],
    }


def _is_there(settings: Settings, file: File | None, digest: str) -> bool:
    if file is None or file.sha256 != digest:
        return False
    path = settings.uploads(file.owner_id) / digest
    return path.is_file() and sha256(path.read_bytes()).hexdigest() == digest


def _is_sound(folder: Path) -> bool:
    try:
        manifest.inspect(folder)
    except manifest.ArtefactError:
        return False
    return True


WANTED = (
    "lost_files", "lost_jobs", "jobs_not_ended", "succeeded_twice", "fits_that_succeeded_without_one_model",
    "creates_done_twice", "jobs_with_gaps_in_their_events", "damaged_artefacts", "broken_databases",
    "processes_left",
)  # fmt: skip
"""What there must be none of."""


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.json"
    rounds: list[dict[str, Any]] = json.loads(state.read_text()) if state.exists() else []
    done = sum(sum(one["killed"].values()) for one in rounds)
    more = min(int(sys.argv[2]) if len(sys.argv) > 2 else 50, MOMENTS - done)
    if more <= 0:
        raise SystemExit(f"all {MOMENTS} moments are done; give another folder to begin anew")
    os.environ["GRAFT_HOME"] = str(folder / "home")
    rounds.append(one_round(folder, more, seed=len(rounds)))
    state.write_text(json.dumps(rounds, indent=1))
    record(rounds)


def record(rounds: list[dict[str, Any]]) -> None:
    def total(name: str) -> dict[str, int]:
        return dict(sum((Counter(one[name]) for one in rounds), Counter[str]()))

    seconds = [second for one in rounds for second in one["start_seconds"]]
    figures = {
        "moments": sum(total("killed").values()),
        "killed": total("killed"),
        "killed_while_a_job_ran": sum(one["killed_while_a_job_ran"] for one in rounds),
        "acknowledged": total("acknowledged"),
        "asked_again": sum(one["asked_again"] for one in rounds),
        "jobs": total("jobs"),
        "failed": total("failed"),
        "attempts_beyond_the_first": sum(one["attempts_beyond_the_first"] for one in rounds),
        **{name: sum(one[name] for one in rounds) for name in WANTED},
        "wrong_answers": [said for one in rounds for said in one["wrong_answers"]],
        "seconds_to_start": {"median": common.median(seconds), "worst": max(seconds)},
        "rounds": [{name: one[name] for name in ("seed", "killed")} for one in rounds],
    }
    common.record("serve_kills", figures, dict.fromkeys(WANTED, 0))


if __name__ == "__main__":
    main()
