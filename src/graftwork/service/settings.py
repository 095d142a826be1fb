"""What a service is told when it starts; everything it keeps lies under one folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

MB = 1_000_000


@dataclass(frozen=True)
class Quotas:
    """The most that one owner may have; None for no bound. Stored with an owner, it overrides the default.

    bytes: of files, datasets and models. rows: of one dataset. jobs: not yet finished. requests: a minute.
    models: fitted or brought.
    """

    bytes: int | None = 10_000 * MB
    rows: int | None = 200_000
    jobs: int | None = 20
    requests: int | None = 60_000
    models: int | None = 10_000


@dataclass(frozen=True)
class Limits:
    """What no request may exceed, whoever makes it. Bytes, seconds.

    upload: one file. body: a request that is no upload. entries: of an archive. unpacked: of an archive.
    ratio: unpacked to packed bytes of one entry. columns, cell: of a table. depth: of JSON. items: inputs
    of one prediction. models: of one prediction. idle: a body that does not arrive. header: a request whose
    first line does not arrive. queue: inputs waiting for an answer. bodies: of all requests that are no
    uploads, in memory at a time.
    """

    upload: int = 2_000 * MB
    body: int = 32 * MB
    bodies: int = 1_000 * MB
    entries: int = 200_000
    unpacked: int = 8_000 * MB
    ratio: int = 200
    columns: int = 2_000
    cell: int = 1 * MB
    depth: int = 32
    items: int = 256
    models: int = 100
    idle: float = 20.0
    header: float = 10.0
    queue: int = 1_024
    connections: int = 1_000
    reading_bytes: int = 1_500 * MB
    reading_seconds: float = 10.0
    job_bytes: int = 12_000 * MB
    job_seconds: float = 6 * 3600.0


@dataclass(frozen=True)
class Settings:
    """root: holds artefacts to serve, and (in .graftwork) all that the service keeps.

    database: an SQLAlchemy URL; None for SQLite under root. memory: bytes, of heads and of backbones held.
    lease: seconds after which a silent worker's job is taken from it. address: where clients see a proxy that
    stands before the server, as https://graft.example.org; None for no proxy. link: make a one-time link
    whoever can sign in already.
    """

    root: Path
    host: str = "127.0.0.1"
    port: int = 8000
    address: str | None = None
    database: str | None = None
    workers: int = 1
    readers: int | None = None
    head_memory: int = 500 * MB
    backbone_memory: int = 4_000 * MB
    lease: float = 15.0
    drain: float = 30.0
    offline: bool = False
    quotas: Quotas = field(default_factory=Quotas)
    limits: Limits = field(default_factory=Limits)
    link: bool = False

    @property
    def home(self) -> Path:
        return self.root / ".graftwork"

    @property
    def url(self) -> str:
        """The database as SQLAlchemy wants it; postgresql:// means psycopg 3."""
        if self.database is None:
            return f"sqlite:///{quote(str(self.home / 'service.db'))}"
        return self.database.replace("postgresql://", "postgresql+psycopg://", 1)

    def uploads(self, owner: str) -> Path:
        """Files of an owner, each under its SHA-256: two owners never share one, so neither can tell."""
        return self.home / "uploads" / owner

    def dataset(self, dataset: str) -> Path:
        """What a dataset's files were unpacked to, and its corrections."""
        return self.home / "datasets" / dataset

    @property
    def artefacts(self) -> Path:
        """Artefacts fitted here or brought, each in a folder named by its digest."""
        return self.home / "artefacts"

    def run(self, job: str) -> Path:
        """The run folder of a job: its checkpoints."""
        return self.home / "runs" / job

    def private(self, owner: str) -> Path:
        """What follows from an owner's rows: stored features, remembered answers of baselines."""
        return self.home / "private" / owner


def to_json(settings: Settings) -> str:
    """One line, for a process that the service starts; it may hold the database's password."""
    return json.dumps(asdict(settings), default=str)


def from_json(said: str) -> Settings:
    """What `to_json` said."""
    found = json.loads(said)
    return Settings(
        **{
            **found,
            "root": Path(found["root"]),
            "quotas": Quotas(**found["quotas"]),
            "limits": Limits(**found["limits"]),
        }
    )
