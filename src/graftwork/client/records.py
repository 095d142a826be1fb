"""What the service says, as records; those of what can be acted on know their client."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graftwork.client.transport import Refused
from graftwork.errors import WorkError

if TYPE_CHECKING:
    from graftwork.client.client import Client

Record = TypeVar("Record")
_NOT_ASKED = frozenset("internal-error killed-its-worker too-long too-much-memory work-failed".split())
"""Codes of jobs that failed for nothing that was wrong with their data or settings."""


def record(kind: type[Record], said: Mapping[str, Any], **more: Any) -> Record:
    """A record of what was said; what a newer service says beside it is left out."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]  # every record is a dataclass
    return kind(**{name: value for name, value in said.items() if name in known}, **more)


@dataclass(frozen=True)
class Answer:
    """What a model says of one input; with `error` in place of all else where it could not be read."""

    input: str
    label: str | None = None
    probability: float | None = None
    unknown: bool | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class File:
    id: str
    name: str
    media_type: str
    bytes: int
    sha256: str
    created: str


@dataclass(frozen=True)
class Event:
    """What happened in a job. kind: state, progress, curve, remark or score."""

    seq: int
    at: str
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """state: inspecting, ready or refused. inspection: as `graft inspect --json`."""

    id: str
    name: str
    state: str
    kind: str | None
    rows: int | None
    bytes: int
    corrections: int
    inspection: Mapping[str, Any] | None
    problem: Mapping[str, Any] | None
    job: str | None
    created: str
    client: "Client" = field(repr=False, compare=False)

    def correct(self, label: str, *, text: str | None = None, file: str | Path | None = None) -> None:
        """Add a row that you labelled; the next fit learns from it."""
        uploaded = None if file is None else self.client.upload(file).id
        said = {"label": label, "text": text, "file": uploaded}
        self.client.send("POST", f"/v1/datasets/{self.id}/rows", json=said)

    def delete(self) -> None:
        self.client.send("DELETE", f"/v1/datasets/{self.id}")


@dataclass(frozen=True)
class Job:
    """As it was when asked for. state: queued, running, cancelling, succeeded, failed or cancelled."""

    id: str
    kind: str
    state: str
    is_terminal: bool
    progress: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    problem: Mapping[str, Any] | None
    dataset: str | None
    model: str | None
    created: str
    started: str | None
    finished: str | None
    client: "Client" = field(repr=False, compare=False)

    def events(self, after: int = 0) -> Iterator[Event]:
        """Everything that happens in it, as it happens, until it has ended."""
        return self.client.events(self.id, after)

    def wait(self, notify: Callable[[Event], None] = lambda event: None) -> "Job":
        """The job once it has succeeded. Raises RequestError where its data or settings were wrong,
        WorkError where it failed otherwise or was cancelled."""
        for event in self.events():
            notify(event)
        ended = self.client.job(self.id)
        if ended.state == "succeeded":
            return ended
        problem = ended.problem or {"detail": f"the job {self.id} is {ended.state}"}
        if ended.state == "failed" and problem.get("code") not in _NOT_ASKED:
            raise Refused(problem, 422)
        raise WorkError(str(problem.get("detail")))

    def cancel(self) -> "Job":
        return self.client.job_of(self.client.send("POST", f"/v1/jobs/{self.id}/cancel"))


@dataclass(frozen=True)
class Model:
    """A model that can be asked. summary: its scores and verdict, where it was fitted by the service."""

    id: str
    name: str
    place: str
    kind: str
    labels: Sequence[str]
    strategy: str
    source: str | None
    digest: str
    summary: Mapping[str, Any]
    dataset: str | None
    job: str | None
    created: str
    client: "Client" = field(repr=False, compare=False)

    def predict(self, inputs: Sequence[str | Path | bytes], *, top: int | None = None) -> list[Answer]:
        return self.client.predict(self.id, inputs, top=top)

    def delete(self) -> None:
        self.client.send("DELETE", f"/v1/models/{self.id}")

    def download(self, folder: str | Path = ".") -> Path:
        """Its artefact as `folder`/NAME.graft, which `graftwork.Model.load` takes."""
        return self.client.download(self.id, folder)
