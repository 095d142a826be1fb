"""Rows of the database -> the JSON of the API, and what requests must look like."""

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from graftwork.rows import Kind
from graftwork.service.database import tables
from graftwork.service.database.tables import TERMINAL, DatasetState, JobKind, JobState

Item = TypeVar("Item")
_KEPT = "\u200c\u200d"  # the joiners that Persian, Indic scripts and emoji are written with
_UNWANTED = ",/\\"  # of a model's name: several are named with commas, and files after it


def when(seconds: float | None) -> str | None:
    """Seconds since 1970 -> ISO 8601, UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain_name(said: str, longest: int = 255) -> str:
    """`said` without what acts unseen (control and bidirectional characters), on one line; may be empty."""
    kept = (
        one
        for one in unicodedata.normalize("NFC", said.replace("\n", " ").replace("\t", " "))
        if one in _KEPT or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )
    return "".join(kept).strip()[:longest].strip()


def _name(said: str) -> str:
    name = plain_name(said, 100)
    if not name:
        raise ValueError("a name without a visible character seen; expected up to 100 characters")
    return name


def _model_name(said: str) -> str:
    name = _name(said)
    if any(one in name for one in _UNWANTED):
        raise ValueError(f"the name {name!r} seen; expected one without comma and slash")
    return name


def model_name(said: str) -> str:
    """A name for a model made of a file's or a dataset's."""
    kept = "".join("-" if one in _UNWANTED else one for one in plain_name(said, 100))
    for suffix in (".zip", ".graft"):
        kept = kept.removesuffix(suffix)
    return kept or "model"


Name = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_name)]
ModelName = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_model_name)]
Id = Annotated[str, Field(min_length=1, max_length=80)]
Label = Annotated[str, Field(min_length=1, max_length=1_000)]
Source = Annotated[
    str,
    Field(
        # a name or a hub id; never a path of the server's
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*(/[A-Za-z0-9][A-Za-z0-9._@+-]*)?$",
        max_length=200,
    ),
]
Budget = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}[smh]?$", examples=["5m"])]
Setting = (
    Annotated[str, Field(max_length=1_000)]
    | Annotated[int, Field(ge=-(2**53), le=2**53)]
    | float
    | bool
    | None
)
Column = Annotated[str, Field(min_length=1, max_length=1_000)] | None


class Asked(BaseModel):
    """What a request's JSON holds: nothing else than what is listed."""

    model_config = ConfigDict(extra="forbid")


class Shown(BaseModel):
    """What an answer's JSON holds."""

    model_config = ConfigDict(extra="forbid")


class FileOf(Asked):
    """A file of a dataset. label: of its row, where files are labelled one by one."""

    file: Id
    label: Label | None = None


class Columns(Asked):
    """Names of a table's columns, where guessing would be a guess."""

    text: Column = None
    file: Column = None
    label: Column = None
    group: Column = None
    split: Column = None


class NewDataset(Asked):
    """One archive or table, several tables, or files with their labels."""

    files: list[FileOf] = Field(min_length=1, max_length=10_000)
    name: Name | None = None
    options: Columns = Columns()


class NewRow(Asked):
    """A correction: what the model should have answered for this text or uploaded file."""

    label: Label
    text: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None
    file: Id | None = None

    @model_validator(mode="after")
    def _one(self) -> "NewRow":
        if (self.text is None) == (self.file is None):
            raise ValueError("expected either text or file")
        return self


class NewFit(Asked):
    """Fit a model, as `graft fit` does. budget: such as 90s or 5m."""

    kind: Literal["fit"]
    dataset: Id
    name: ModelName | None = None
    source: Source = "auto"
    strategy: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")] = "probe"
    budget: Budget | None = None
    metric: Annotated[str, Field(max_length=40)] | None = None
    baselines: Literal["all", "classical", "none"] = "all"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    settings: dict[Annotated[str, Field(max_length=100)], Setting] = Field(
        default_factory=dict, max_length=50
    )


class NewRank(Asked):
    """Measure which source transfers best, as `graft rank` does."""

    kind: Literal["rank"]
    dataset: Id
    sources: Annotated[list[Source], Field(min_length=1, max_length=50)] | None = None
    budget: Budget | None = None


class NewImport(Asked):
    """Take in an artefact: an uploaded zip of NAME.graft."""

    kind: Literal["import"]
    file: Id
    name: ModelName | None = None


NewJob = Annotated[NewFit | NewRank | NewImport, Field(discriminator="kind")]


class Renamed(Asked):
    name: ModelName


class Page(Shown, Generic[Item]):
    """next_cursor: what `cursor` takes for the next page; null on the last."""

    items: list[Item]
    next_cursor: str | None


class File(Shown):
    id: str
    name: str
    media_type: str
    bytes: int
    sha256: str
    created: str


class Trouble(BaseModel):
    """Why it came to nothing."""

    model_config = ConfigDict(extra="allow")
    code: str
    detail: str


class Dataset(Shown):
    """inspection: as `graft inspect --json`, once it is ready; null in lists. corrections: rows added.

    files: what it was made of; none in lists, as there may be thousands."""

    id: str
    name: str
    state: DatasetState
    kind: Kind | None
    rows: int | None
    bytes: int
    files: list[dict[str, str | None]]
    options: dict[str, Any]
    corrections: int
    inspection: dict[str, Any] | None
    problem: Trouble | None
    job: str | None
    created: str


class Row(Shown):
    id: str
    dataset: str
    label: str
    text: str | None
    sha256: str | None
    created: str


class Job(Shown):
    """progress: {stage, done, total, unit, note} as last heard. result: as the command of that name prints
    with --json; null in lists. model: what a fit or an import gave."""

    id: str
    kind: JobKind
    state: JobState
    is_terminal: bool
    attempt: int
    request: dict[str, Any]
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    problem: Trouble | None
    dataset: str | None
    model: str | None
    created: str
    started: str | None
    finished: str | None


class Event(Shown):
    """kind: state, progress, curve, remark or score."""

    seq: int
    at: str
    kind: str
    data: dict[str, Any]


class Events(Shown):
    """next_after: what `after` takes for the next page. is_terminal: nothing will follow."""

    items: list[Event]
    next_after: int
    is_terminal: bool


class Model(Shown):
    """place: "service" where it was fitted or brought here, "root" where it lies in the folder served.

    digest: SHA-256 of its manifest.
    """

    id: str
    name: str
    place: Literal["service", "root"]
    kind: Kind
    labels: list[str]
    strategy: str
    source: str | None
    digest: str
    fingerprint: str
    summary: dict[str, Any]
    dataset: str | None
    job: str | None
    created: str


class ModelInFull(Model):
    """result: as `graft fit --json`. versions: of the packages it was fitted with."""

    result: dict[str, Any]
    settings: dict[str, Any]
    machine: str
    versions: dict[str, str]
    licence: str | None


class Backbone(Shown):
    """bytes: what its weights take in memory. last: seconds since it was last asked. adapters: how many
    low-rank changes of it are in memory, of as many tasks or more, which share it."""

    fingerprint: str
    source: str | None
    kind: Kind
    runtime: str
    precision: str
    width: int
    bytes: int
    tasks: int
    adapters: int
    rows: int
    last: float


class Backbones(Shown):
    items: list[Backbone]
    bytes: int


def file(row: tables.File) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "media_type": row.media_type,
        "bytes": row.bytes,
        "sha256": row.sha256,
        "created": when(row.created),
    }


def dataset(row: tables.Dataset, corrections: int, *, brief: bool = False) -> dict[str, Any]:
    """brief: as lists show it."""
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "kind": row.kind,
        "rows": row.rows,
        "bytes": row.bytes,
        "files": [] if brief else row.files,
        "options": row.options,
        "corrections": corrections,
        "inspection": None if brief else row.inspection,
        "problem": row.problem,
        "job": row.job_id,
        "created": when(row.created),
    }


def correction(row: tables.Correction) -> dict[str, Any]:
    return {
        "id": row.id,
        "dataset": row.dataset_id,
        "label": row.label,
        "text": row.text,
        "sha256": row.sha256,
        "created": when(row.created),
    }


def job(row: tables.Job, *, brief: bool = False) -> dict[str, Any]:
    """brief: as lists show it."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "is_terminal": row.state in TERMINAL,
        "attempt": row.attempt,
        "request": row.request,
        "progress": row.progress,
        "result": None if brief else row.result,
        "problem": row.problem,
        "dataset": row.dataset_id,
        "model": row.model_id,
        "created": when(row.created),
        "started": when(row.started),
        "finished": when(row.finished),
    }


def event(row: tables.Event) -> dict[str, Any]:
    return {"seq": row.seq, "at": when(row.at), "kind": row.kind, "data": row.data}
