"""multipart/form-data read as it arrives: nothing is held that nobody asked for, nothing goes to disk."""

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from graftwork.service.problems import Problem, bad_request

MOST_HEADERS = 8_000
"""Bytes of the headers of one part."""
MOST_PARTS = 1_000
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what it warns of, the sender is told
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,50}/[a-z0-9!#$&^_.+-]{1,49}")


@dataclass(frozen=True)
class Part:
    """The beginning of one part. filename: None for a plain field."""

    name: str
    filename: str | None
    media_type: str | None


async def parts(request: Request) -> AsyncIterator[Part | bytes]:
    """Each Part, followed by its content in pieces, as the body comes in.

    Raises a Problem (422) where the body is no such form, or ends within it.
    """
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise bad_request("a multipart body without a boundary of 1 to 200 bytes seen; let the client set it")
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_part_data": reader.on_part_data,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_headers_finished": reader.on_headers_finished,
                "on_end": reader.on_end,
            },
        )
        async for chunk in request.stream():
            parser.write(chunk)
            for found in reader.take():
                yield found
        parser.finalize()
    except MultipartParseError as error:
        raise bad_request(
            f"the body is no multipart form ({error}); expected one as curl -F makes it"
        ) from error
    if not reader.ended:
        raise bad_request("the multipart form ends before its last boundary; was it cut short?")


class _Reader:
    """What the parser calls; keeps what was found until it is taken."""

    def __init__(self) -> None:
        self.ended = False
        self._found: list[Part | bytes] = []
        self._parts = 0
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._size = 0

    def take(self) -> list[Part | bytes]:
        found, self._found = self._found, []
        return found

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise bad_request(f"more than {MOST_PARTS} parts in a form seen; send fewer at once")
        self._headers, self._size = {}, 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def on_headers_finished(self) -> None:
        said = parse_options_header(self._headers.get(b"content-disposition"))[1]
        filename = said.get(b"filename")
        self._found.append(
            Part(
                said.get(b"name", b"").decode("utf-8", "replace"),
                None if filename is None else filename.decode("utf-8", "replace"),
                media_type(self._headers.get(b"content-type", b"").decode("latin-1")),
            )
        )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def on_end(self) -> None:
        self.ended = True

    def _grow(self, more: int) -> None:
        self._size += more
        if self._size > MOST_HEADERS:
            raise Problem(431, "headers-too-large", f"headers of a form's part exceed {MOST_HEADERS} bytes")


def media_type(said: str | None) -> str | None:
    """Such as image/jpeg, in small letters and without parameters; None where nothing sensible is said."""
    kind = (said or "").partition(";")[0].strip().lower()
    return kind if _TYPE.fullmatch(kind) else None
