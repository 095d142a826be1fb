"""The client itself: the verbs of Graftwork, done by a service."""

import json
import mimetypes
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, overload
from urllib.parse import quote

from graftwork.client.records import Answer, Dataset, Event, File, Job, Model, record
from graftwork.client.transport import Refused, Transport, retry_after
from graftwork.errors import RequestError, WorkError

if TYPE_CHECKING:
    import httpx

PATIENCE_S = 60.0
"""How long a request is tried again while the service is busy, starting or out of reach."""
_AT_ONCE = 200
_BYTES_AT_ONCE = 16_000_000


class Client:
    """A service and whom it knows you as; safe to use from several threads, and in a `with`.

    url: of `graft serve`. key: an API key; None takes GRAFT_KEY of the environment. What cannot be reached
    or is busy is tried again for `patience` seconds; whatever creates something is sent with a key of its
    own, so that trying again never creates it twice.

    Raises RequestError (`Refused`, with a code) where a request was wrong, Busy where a quota or queue is
    full, WorkError where the service failed or cannot be reached.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = PATIENCE_S,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        self._transport = Transport(url, key, timeout, patience, transport)
        self._send = self._transport.send
        self._kinds: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.http.close()

    def upload(self, file: str | Path | bytes, name: str | None = None) -> File:
        """Upload one file, given as a path or its content."""
        if isinstance(file, bytes):
            said = self._send("POST", "/v1/files", params={"name": name or "file"}, content=lambda: file)
            return record(File, said)
        path = Path(file).expanduser()
        if not path.is_file():
            raise RequestError(f"no file at {path}; expected a file to upload")
        said = self._send(
            "POST",
            "/v1/files",
            params={"name": name or path.name},
            content=lambda: _pieces(path),
            headers={"Content-Length": str(path.stat().st_size), "Content-Type": _media_type(path.name)},
        )
        return record(File, said)

    def files(self) -> Iterator[File]:
        return (record(File, one) for one in self._transport.pages("/v1/files"))

    def delete_file(self, file: str) -> None:
        self._send("DELETE", f"/v1/files/{file}")

    def dataset(
        self,
        data: str | Path | File | Sequence[tuple[str | Path, str]],
        *,
        name: str | None = None,
        text: str | None = None,
        file: str | None = None,
        label: str | None = None,
        group: str | None = None,
        split: str | None = None,
        wait: bool = True,
    ) -> Dataset:
        """A dataset made of a table, a zip or a folder of class folders, or of (path, label) pairs.

        text, file, label, group, split: names of a table's columns. wait: until it was inspected; raises
        RequestError where it was refused.
        """
        parts: list[dict[str, str | None]]
        if isinstance(data, File):
            parts = [{"file": data.id, "label": None}]
        elif isinstance(data, str | Path):
            path = Path(data).expanduser()
            parts = [{"file": (self._upload_folder(path) if path.is_dir() else self.upload(path)).id}]
            name = name or path.resolve().stem
        else:
            parts = [{"file": self.upload(path).id, "label": said} for path, said in data]
        columns = {"text": text, "file": file, "label": label, "group": group, "split": split}
        asked = {"name": name, "files": parts, "options": {k: v for k, v in columns.items() if v is not None}}
        made = self._dataset(self._send("POST", "/v1/datasets", json=asked))
        if not wait:
            return made
        if made.job is not None:
            self.job_of(self._send("GET", f"/v1/jobs/{made.job}")).wait()
        made = self.get_dataset(made.id)
        if made.state == "refused":
            raise Refused(made.problem or {}, 422)
        return made

    def get_dataset(self, dataset: str) -> Dataset:
        return self._dataset(self._send("GET", f"/v1/datasets/{dataset}"))

    def datasets(self) -> Iterator[Dataset]:
        return (self._dataset(one) for one in self._transport.pages("/v1/datasets"))

    def fit(
        self,
        dataset: str | Dataset,
        *,
        name: str | None = None,
        source: str = "auto",
        strategy: str = "probe",
        budget: str | None = None,
        metric: str | None = None,
        baselines: str = "all",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> Job:
        """Queue a fit, as `graft fit`; `wait` on what it returns."""
        asked = {
            "kind": "fit",
            "dataset": _id(dataset),
            "name": name,
            "source": source,
            "strategy": strategy,
            "budget": budget,
            "metric": metric,
            "baselines": baselines,
            "seed": seed,
            "settings": dict(settings or {}),
        }
        return self.job_of(self._send("POST", "/v1/jobs", json=asked))

    def rank(
        self, dataset: str | Dataset, *, sources: Sequence[str] | None = None, budget: str | None = None
    ) -> Job:
        """Queue a ranking of sources, as `graft rank`; its result is in the job that `wait` returns."""
        said = None if sources is None else list(sources)
        asked = {"kind": "rank", "dataset": _id(dataset), "sources": said, "budget": budget}
        return self.job_of(self._send("POST", "/v1/jobs", json=asked))

    def bring(self, artefact: str | Path, name: str | None = None) -> Job:
        """Queue the import of an artefact, a folder NAME.graft or a zip of it."""
        path = Path(artefact).expanduser()
        uploaded = self._upload_folder(path, path.name) if path.is_dir() else self.upload(path)
        asked = {"kind": "import", "file": uploaded.id, "name": name or path.name.split(".graft")[0]}
        return self.job_of(self._send("POST", "/v1/jobs", json=asked))

    def job(self, job: str) -> Job:
        return self.job_of(self._send("GET", f"/v1/jobs/{job}"))

    def jobs(self) -> Iterator[Job]:
        return (self.job_of(one) for one in self._transport.pages("/v1/jobs"))

    def events(self, job: str, after: int = 0) -> Iterator[Event]:
        """As they happen, until the job has ended; a stream that breaks is taken up where it broke."""
        while True:
            found = self._send("GET", f"/v1/jobs/{job}/events", params={"after": after})
            for one in found["items"]:
                after = one["seq"]
                yield record(Event, one)
            if found["is_terminal"]:
                return
            for event in self._listen(job, after):
                after = event.seq
                yield event

    def models(self) -> Iterator[Model]:
        return (record(Model, one, client=self) for one in self._transport.pages("/v1/models"))

    def model(self, model: str) -> Model:
        """By its id or its name."""
        if "/" in model:  # the name of one in a folder of the server's
            found = next((one for one in self.models() if one.name == model), None)
            if found is None:
                raise Refused({"code": "not-found", "detail": f"no model {model!r} here; list yours"}, 404)
            return found
        return record(Model, self._send("GET", f"/v1/models/{quote(model, safe='')}"), client=self)

    @overload
    def predict(
        self, model: str, inputs: Sequence[str | Path | bytes], *, top: int | None = None
    ) -> list[Answer]: ...
    @overload
    def predict(
        self,
        model: list[str] | tuple[str, ...],
        inputs: Sequence[str | Path | bytes],
        *,
        top: int | None = None,
    ) -> dict[str, list[Answer]]: ...
    def predict(
        self,
        model: str | list[str] | tuple[str, ...],
        inputs: Sequence[str | Path | bytes],
        *,
        top: int | None = None,
    ) -> list[Answer] | dict[str, list[Answer]]:
        """Answers in the order of `inputs`: texts, or paths or contents of pictures or recordings.

        Several models are asked at once, and answer by name. top: how many probabilities of each answer.
        """
        if isinstance(inputs, str | bytes | Path):
            raise RequestError(
                f"one {type(inputs).__name__} seen; expected a list of inputs: put it in brackets"
            )
        models = [model] if isinstance(model, str) else list(model)
        found: dict[str, list[Answer]] = {name: [] for name in models}
        for batch in _batches([self._input(one, models[0]) for one in inputs]):
            for name, answers in zip(models, self._predict(models, batch, top), strict=True):
                found[name].extend(answers)
        return found[model] if isinstance(model, str) else found

    def download(self, model: str, folder: str | Path = ".") -> Path:
        """A model's artefact as `folder`/NAME.graft, which `graftwork.Model.load` takes.

        Raises RequestError where that is there already.
        """
        target = Path(folder).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as file:
            named = self.model(model).id if "/" in model else model  # a path has no place for such a name
            self._transport.patiently(
                lambda: self._fetch(f"/v1/models/{quote(named, safe='')}/artefact", file)
            )
            with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory(dir=target) as aside:
                made = target / archive.namelist()[0].partition("/")[0]
                if made.exists():  # two artefacts in one folder would be none
                    raise RequestError(f"{made} is there already; remove it, or choose another folder")
                archive.extractall(aside)
                return (Path(aside) / made.name).rename(made)

    def usage(self) -> dict[str, Any]:
        """What you have, what you may have, and what you used on each day."""
        return dict(self._send("GET", "/v1/usage"))

    def keys(self) -> list[dict[str, Any]]:
        """Your API keys, without the keys themselves."""
        return list(self._transport.pages("/v1/keys"))

    def new_key(self, name: str, scope: str = "predict") -> dict[str, Any]:
        """A key of yours with that scope; the answer is the only place where it is ever shown."""
        made = dict(self._send("POST", "/v1/keys", json={"name": name, "scope": scope}))
        if made.get("key") is None:  # the first answer was lost on its way, and with it the key
            self.revoke_key(made["id"])
            return self.new_key(name, scope)
        return made

    def revoke_key(self, key: str) -> None:
        self._send("DELETE", f"/v1/keys/{key}")

    def send(self, method: str, path: str, **parts: Any) -> Any:
        """Ask anything else of the API: the JSON of its answer; parts: as httpx takes them."""
        return self._send(method, path, **parts)

    def job_of(self, said: Mapping[str, Any]) -> Job:
        return record(Job, said, client=self)

    def _dataset(self, said: Mapping[str, Any]) -> Dataset:
        return record(Dataset, said, client=self)

    def _upload_folder(self, folder: Path, within: str = "") -> File:
        """A folder as one zip; within: the folder in the zip that its files go to."""
        with tempfile.NamedTemporaryFile(suffix=".zip") as packed:
            # strict: files older than 1980 are refused
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
                for path in sorted(one for one in folder.rglob("*") if one.is_file()):
                    archive.write(path, Path(within) / path.relative_to(folder))
            packed.flush()
            return self.upload(Path(packed.name), f"{folder.resolve().name}.zip")

    def _listen(self, job: str, after: int) -> Iterator[Event]:
        """One stream of events, until it ends, breaks or is refused, as where too many are open."""
        import httpx

        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with self._transport.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: ") and answer.status_code == 200:
                        yield record(Event, json.loads(line.removeprefix("data: ")))
                if not answer.is_success:
                    time.sleep(min(retry_after(answer), 5.0))
        except httpx.TransportError:
            return  # whoever listens asks again, and is told if nothing is there any more

    def _input(self, one: str | Path | bytes, model: str) -> str | tuple[str, bytes]:
        """A text, or (name, content): a str is a text to a model of texts, and a path to any other."""
        if isinstance(one, bytes):
            return "input", one
        if isinstance(one, str):
            if model not in self._kinds:
                self._kinds[model] = self.model(model).kind
            if self._kinds[model] == "text":
                return one
        if not isinstance(one, str | Path):
            raise RequestError(
                f"an input of type {type(one).__name__} seen; expected a text, a path or bytes"
            )
        path = Path(one).expanduser()
        try:
            return path.name, path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path} cannot be read ({error.strerror}); expected a file") from error

    def _predict(
        self, models: Sequence[str], batch: Sequence[str | tuple[str, bytes]], top: int | None
    ) -> list[list[Answer]]:
        asked: dict[str, Any] = {"models": list(models)} | ({} if top is None else {"top": top})
        if all(isinstance(one, str) for one in batch):
            parts: dict[str, Any] = {"json": {**asked, "inputs": list(batch)}}
        else:
            forms = [("input", (None, one) if isinstance(one, str) else one) for one in batch]
            named = [("models", (None, name)) for name in models]
            parts = {"files": [*named, *forms], "params": {} if top is None else {"top": top}}
        try:
            said = self._send("POST", "/v1/predict", **parts)
        except Refused as problem:
            if problem.code != "unreadable-input":
                raise
            name = batch[0] if isinstance(batch[0], str) else batch[0][0]
            return [[Answer(name, error=str(problem))] for _ in models]
        try:
            return [[record(Answer, one) for one in each["answers"]] for each in said["answers"]]
        except (KeyError, TypeError) as error:
            raise WorkError(
                f"{self._transport.url} answered in a form that is not understood; is it graft serve, and of "
                "this version?"
            ) from error

    def _fetch(self, path: str, file: IO[bytes]) -> "httpx.Response":
        """GET into `file`, from its beginning."""
        file.seek(0)
        file.truncate()
        with self._transport.http.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
            for piece in answer.iter_bytes() if answer.is_success else ():
                file.write(piece)
            return answer


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(1_000_000):
                yield piece
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}); expected a file to upload") from error


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _id(dataset: str | Dataset) -> str:
    return dataset if isinstance(dataset, str) else dataset.id


def _batches(inputs: Sequence[str | tuple[str, bytes]]) -> Iterator[list[str | tuple[str, bytes]]]:
    """Inputs in order, as many at once as a request may hold."""
    batch: list[str | tuple[str, bytes]] = []
    held = 0
    for one in inputs:
        size = 4 * len(one) if isinstance(one, str) else len(one[1])
        if batch and (len(batch) == _AT_ONCE or held + size > _BYTES_AT_ONCE):
            yield batch
            batch, held = [], 0
        batch.append(one)
        held += size
    if batch:
        yield batch
