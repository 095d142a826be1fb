"""What the service knows, as tables. Times are seconds since 1970; JSON is plain."""

from typing import Any, ClassVar, Literal

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Scope = Literal["predict", "write", "admin"]
"""predict: list models and ask them. write: everything with what is the owner's own. admin: keys, owners,
usage of all as well."""
JobKind = Literal["inspect", "rank", "fit", "import"]
JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})
DatasetState = Literal["inspecting", "ready", "refused"]
OPERATOR = "operator"
"""The owner of the artefacts that lie in ROOT itself, and of the first key."""

_ID = String(40)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        int: BigInteger,
        float: Float,
    }


class Owner(Base):
    """Who owns files, datasets, jobs and models. secret: keys what is stored of the owner's rows (hex)."""

    __tablename__ = "owners"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    secret: Mapped[str] = mapped_column(String(64))
    quotas: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created: Mapped[float]


class Key(Base):
    """An API key: only its SHA-256 is kept. prefix: its first letters, by which a person knows it."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(10))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(12))
    created: Mapped[float]
    expires: Mapped[float | None]
    revoked: Mapped[float | None]


class Ticket(Base):
    """What opens the page: a one-time link, or the session of a browser; only its SHA-256 is kept."""

    __tablename__ = "tickets"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    what: Mapped[str] = mapped_column(String(10))  # link, session
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), index=True)
    key_id: Mapped[str | None] = mapped_column(_ID)  # a session ends with the key that opened it
    scope: Mapped[str] = mapped_column(String(10))
    csrf: Mapped[str] = mapped_column(String(64))
    created: Mapped[float]
    expires: Mapped[float]


class File(Base):
    """What was uploaded; its bytes lie under settings.uploads(owner) / sha256."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(100))
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    created: Mapped[float]


class Dataset(Base):
    """Labelled rows made of uploaded files. options: names of columns. inspection: as `graft inspect --json`.

    problem: why it was refused, as {code, detail}. bytes: unpacked, corrections included.
    """

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(12))
    files: Mapped[list[Any]]  # [{file, label or null}]: one archive or table, or files with their labels
    options: Mapped[dict[str, Any]]
    kind: Mapped[str | None] = mapped_column(String(10))
    rows: Mapped[int | None]
    bytes: Mapped[int]
    inspection: Mapped[dict[str, Any] | None]
    problem: Mapped[dict[str, Any] | None]
    job_id: Mapped[str | None] = mapped_column(_ID)
    created: Mapped[float]


class Correction(Base):
    """A row that a person labelled after the model had answered; part of the dataset's next fit."""

    __tablename__ = "corrections"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    dataset_id: Mapped[str] = mapped_column(_ID, ForeignKey("datasets.id"), index=True)
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), index=True)
    label: Mapped[str] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))  # of a file under the dataset's corrections/
    created: Mapped[float]


class Job(Base):
    """Work for a worker. attempt: raised by every claim; a worker writes only under the attempt it claimed.

    kills: attempts whose worker died. lease: until when the worker is believed alive. problem: {code,
    detail} of a failure. progress: {stage, done, total, unit, note} as last heard.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    state: Mapped[str] = mapped_column(String(12))
    request: Mapped[dict[str, Any]]
    dataset_id: Mapped[str | None] = mapped_column(_ID, index=True)
    model_id: Mapped[str | None] = mapped_column(_ID)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    kills: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str | None] = mapped_column(String(80))
    lease: Mapped[float | None]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    problem: Mapped[dict[str, Any] | None]
    created: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]
    __table_args__ = (Index("ix_jobs_state_created", "state", "created"),)


class Event(Base):
    """What happened in a job, in order. kind: state, progress, curve, remark, score."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[float]
    kind: Mapped[str] = mapped_column(String(12))
    data: Mapped[dict[str, Any]]


class Model(Base):
    """An artefact fitted here or brought. summary: {scores, metric, verdict, bytes, rows}.

    digest: of its manifest; its folder is settings.artefacts / digest, shared by models of equal content.
    """

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    digest: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    labels: Mapped[list[Any]]
    strategy: Mapped[str] = mapped_column(String(40))
    source: Mapped[str | None] = mapped_column(String(200))
    fingerprint: Mapped[str] = mapped_column(String(64))
    summary: Mapped[dict[str, Any]]
    dataset_id: Mapped[str | None] = mapped_column(_ID)
    job_id: Mapped[str | None] = mapped_column(_ID)
    created: Mapped[float]


class Answered(Base):
    """What a create answered under an Idempotency-Key. payload: SHA-256 of route and body."""

    __tablename__ = "answered"
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    payload: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    headers: Mapped[dict[str, Any]]
    body: Mapped[dict[str, Any]]
    created: Mapped[float]


class Usage(Base):
    """What an owner used on a day (UTC, as 2026-11-22)."""

    __tablename__ = "usage"
    owner_id: Mapped[str] = mapped_column(_ID, ForeignKey("owners.id"), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    requests: Mapped[int] = mapped_column(default=0)
    predictions: Mapped[int] = mapped_column(default=0)
    uploaded_bytes: Mapped[int] = mapped_column(default=0)
    jobs: Mapped[int] = mapped_column(default=0)
    job_seconds: Mapped[float] = mapped_column(default=0.0)
