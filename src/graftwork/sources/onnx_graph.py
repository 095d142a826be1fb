"""What an ONNX file says of itself, read from its bytes: no runtime, no weight is loaded, nothing is run.

An ONNX file is one protobuf message (https://onnx.ai/onnx/repo-docs/IR.html). Only the few fields that
are wanted are walked to, over a memory map; the numbers of fields are those of onnx.proto.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from graftwork.errors import ArtefactError, RequestError
from graftwork.signatures import looks_like

STANDARD = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft")
"""Domains whose operators the runtime brings itself."""
_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    10: "float16",
    11: "float64",
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Tensor:
    """An input or output. dtype: numpy's name, "" where it is none that is known. shape: None for an
    axis of any length."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name} {self.dtype or 'of unknown type'} ({axes})"


@dataclass(frozen=True)
class Node:
    """One operation."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """inputs: those that a caller must give. external: files beside the model, relative to its folder,
    that hold part of the weights. constants: names of the weights."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...] = field(repr=False)
    external: tuple[str, ...]
    constants: frozenset[str] = field(repr=False)


@dataclass
class _Found:
    """What the walk has gathered, subgraphs included."""

    nodes: list[Node] = field(default_factory=list)
    operators: dict[tuple[str, str], None] = field(default_factory=dict)
    external: dict[str, None] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)


def read_graph(path: Path) -> Graph:
    """The graph in the file.

    Raises ArtefactError where it is no ONNX file, is truncated, or names weights outside its folder;
    RequestError where it needs operators that only a library of its own could run.
    """
    with _mapped(path) as data:
        try:
            return _graph(path, data)
        except (IndexError, UnicodeDecodeError) as error:
            raise ArtefactError(f"{path} is truncated or damaged; fetch or export it again") from error


def _graph(path: Path, data: Any) -> Graph:
    model = _Message(data, 0, len(data))
    fields = {number for number, _ in model.fields()}
    if not {1, 7} <= fields:  # ir_version and graph
        raise ArtefactError(f"{path} is no ONNX file: it holds no graph; export it again")
    graph = model.message(7)
    found = _Found()
    _walk(graph, found, top=True)
    local = {(_text(one, 10), _text(one, 1)) for one in model.messages(25)}
    for one in model.messages(25):
        _walk_nodes(one.messages(7), found, top=False)
    strangers = [one for one in found.operators if one[0] not in STANDARD and one not in local]
    if strangers:
        domain, operator = strangers[0]
        raise RequestError(
            f"{path} uses the operator {operator!r} of the domain {domain!r}, which only a library of its "
            "own can run; expected standard operators: export it without custom ones"
        )
    for name in found.external:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise ArtefactError(f"{path} keeps weights outside its folder ({name!r}); export it again")
    given = [_tensor(one) for one in graph.messages(11)]
    return Graph(
        tuple(one for one in given if one.name not in found.constants),
        tuple(_tensor(one) for one in graph.messages(12)),
        tuple(found.nodes),
        tuple(found.external),
        frozenset(found.constants),
    )


@contextmanager
def _mapped(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if head.startswith(_POINTER):
                raise ArtefactError(f"{path} is only a Git LFS pointer to the model; try: git lfs pull")
            if not head:
                raise ArtefactError(f"{path} is empty (0 bytes); fetch or export it again")
            if head[0] >> 3 not in range(1, 26) or head.lstrip()[:1] in b"<{":
                raise ArtefactError(f"{path} is no ONNX file (it looks like {looks_like(head)})")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror or error})") from error


class _Message:
    """A protobuf message in data[start:stop]. IndexError: it does not end where it says."""

    def __init__(self, data: Any, start: int, stop: int) -> None:
        self._data, self._start, self._stop = data, start, stop

    def fields(self) -> Iterator[tuple[int, Any]]:
        """(number, value) in order: a whole number, or (start, stop) of bytes, which are not read."""
        at = self._start
        while at < self._stop:
            key, at = self._varint(at)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, at = self._varint(at)
                yield number, value
                continue
            if wire == _BYTES:
                length, at = self._varint(at)
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
            else:
                raise IndexError(f"wire type {wire}")
            if at + length > self._stop or not number:
                raise IndexError("a field ends after its message")
            yield number, (at, at + length)
            at += length

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if at >= self._stop or shift > 63:
                raise IndexError("a number ends after its message")
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7

    def messages(self, number: int) -> list["_Message"]:
        """The messages under a number; IndexError where it holds something else."""
        return [_Message(self._data, *_span(value)) for found, value in self.fields() if found == number]

    def message(self, number: int) -> "_Message":
        return self.messages(number)[-1]

    def texts(self, number: int) -> list[str]:
        spans = [_span(value) for found, value in self.fields() if found == number]
        return [bytes(self._data[start:stop]).decode("utf-8") for start, stop in spans]

    def number(self, number: int) -> int:
        """0 where it is absent, as protobuf has it."""
        value = next((value for found, value in self.fields() if found == number), 0)
        return value if isinstance(value, int) else 0


def _span(value: Any) -> tuple[int, int]:
    if not isinstance(value, tuple):
        raise IndexError("a number where bytes should be")
    return value


def _text(message: _Message, number: int) -> str:
    return next(iter(message.texts(number)), "")


def _walk(graph: _Message, found: _Found, *, top: bool) -> None:
    for tensor in graph.messages(5):
        if top:
            found.constants.add(_text(tensor, 8))
        _note_external(tensor, found)
    _walk_nodes(graph.messages(1), found, top=top)


def _walk_nodes(nodes: list[_Message], found: _Found, *, top: bool) -> None:
    for node in nodes:
        operator, domain = _text(node, 4), _text(node, 7)
        found.operators[domain, operator] = None
        if top:
            found.nodes.append(Node(operator, domain, tuple(node.texts(1)), tuple(node.texts(2))))
        for attribute in node.messages(5):
            for tensor in attribute.messages(5):
                _note_external(tensor, found)
            for inner in [*attribute.messages(6), *attribute.messages(11)]:
                _walk(inner, found, top=False)


def _note_external(tensor: _Message, found: _Found) -> None:
    if tensor.number(14) == _EXTERNAL:
        entries = {_text(entry, 1): _text(entry, 2) for entry in tensor.messages(13)}
        found.external[entries.get("location", "")] = None


def _tensor(message: _Message) -> Tensor:
    kinds = [one for kind in message.messages(2) for one in kind.messages(1)]
    if not kinds:
        return Tensor(_text(message, 1), "", ())
    shapes = kinds[0].messages(2)
    axes = [axis.number(1) for shape in shapes for axis in shape.messages(1)]
    shape = tuple(axis if axis > 0 else None for axis in axes)
    return Tensor(_text(message, 1), _TYPES.get(kinds[0].number(1), ""), shape)
