"""Which column of a table is the text, the file, the label, the group, the split."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from graftwork.datasets.folders import part_named
from graftwork.datasets.kinds import first_few, looks_like_file
from graftwork.datasets.tables import Table
from graftwork.errors import RequestError

Role = Literal["text", "file", "label", "group", "split"]

_USUAL: dict[Role, tuple[str, ...]] = {
    "text": ("text", "sentence", "content", "review", "message", "question", "document", "文本", "内容"),
    "file": ("file", "path", "filename", "file_name", "filepath", "file_path", "image", "image_path",
             "img", "picture", "photo", "audio", "audio_path", "recording", "wav", "图片", "音频"),
    "label": ("label", "class", "category", "target", "标签", "类别"),
    "group": ("group", "groups"),
    "split": ("split",),
}  # fmt: skip

_PROPOSED: dict[Role, tuple[str, ...]] = {
    "text": ("description", "subject", "comment", "feedback", "描述", "正文", "评论", "留言", "反馈", "标题"),
    "label": ("tag", "分类", "类型", "标注"),
}
"""Found in names too, but only to propose them to somebody who then says so."""


_LISTED, _LONG = 20, 60
"""Columns that a message names, and letters of each."""


class ColumnsUnclear(RequestError):
    """The columns do not say what they are for; `columns` are what there is to choose from."""

    code = "columns-unclear"

    def __init__(self, message: str, columns: Collection[str]) -> None:
        super().__init__(message)
        self.columns = list(columns)


@dataclass(frozen=True)
class Roles:
    """Names of the columns in use; exactly one of text and file is given."""

    text: str | None
    file: str | None
    label: str | None
    group: str | None
    split: str | None

    @property
    def content(self) -> str:
        name = self.file if self.text is None else self.text
        assert name is not None
        return name


@dataclass(frozen=True)
class Asked:
    """Column names as the user gave them; None: look for the usual names."""

    text: str | None = None
    file: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None


def choose(table: Table, asked: Asked, labelled: bool = True) -> Roles:
    """The role of each column: as given, else by its usual name, else by being the only one left.

    Raises RequestError, naming the columns, where a given one is missing or where more than one
    would do. With labelled=False no label is looked for.
    """
    if asked.text is not None and asked.file is not None:
        raise RequestError(
            f"--text {asked.text} and --file {asked.file} given; expected one of the two for now"
        )
    names = list(table.columns)
    given = {role: name for role, name in vars(asked).items() if name is not None}
    for role, name in given.items():
        if name not in names:
            raise ColumnsUnclear(
                f"{table.name} has no column {name!r} for --{role}; its columns: {_list(names)}", names
            )
    free = [name for name in names if name not in given.values()]
    group = _usual("group", free) if asked.group is None else asked.group
    split = _usual_split(table, free) if asked.split is None else asked.split
    label = _usual("label", free) if asked.label is None else asked.label
    if labelled and label is None:
        raise ColumnsUnclear(
            f"{table.name}: no column is named label or the like; say which one with --label; its columns: "
            f"{_list(names)}",
            names,
        )
    text, file = asked.text, asked.file
    if text is None and file is None:
        text, file = _content(table, [name for name in free if name not in (label, group, split)])
    return Roles(text, file, label, group, split)


def likely(names: Sequence[str]) -> dict[Role, str]:
    """The columns whose names hold a name of a label and of a text, such as 工单内容; usual names first."""
    found: dict[Role, str] = {}
    for role in ("label", "text"):
        for word in (*_USUAL[role], *_PROPOSED[role]):
            for name in names:
                if name not in found.values() and word in name.casefold():
                    found.setdefault(role, name)
    return found


def _usual(role: Role, names: Sequence[str]) -> str | None:
    """The column that bears a usual name of the role; the first usual name wins over the others."""
    found = [name for name in names if name.strip().casefold() in _USUAL[role]]
    if len(found) > 1:
        exact = [name for name in found if name.strip().casefold() == _USUAL[role][0]]
        if len(exact) != 1:
            raise ColumnsUnclear(
                f"columns {_list(found)} could each be the {role}; say which one with --{role}", names
            )
        return exact[0]
    return found[0] if found else None


def _usual_split(table: Table, names: Sequence[str]) -> str | None:
    """A column named split counts only where all it says are parts."""
    name = _usual("split", names)
    if name is None or all(part_named(str(value)) for value in set(table.columns[name]())):
        return name
    return None


def _content(table: Table, names: Sequence[str]) -> tuple[str | None, str | None]:
    """(text column, None) or (None, file column)."""
    text, file = _usual("text", names), _usual("file", names)
    if text is not None and file is not None:
        raise ColumnsUnclear(
            f"{table.name} has a text column {text!r} and a file column {file!r}; "
            f"say which one to learn from: --text {text} or --file {file}",
            list(table.columns),
        )
    if text is None and file is None:
        strings = [name for name in names if _holds_strings(table, name)]
        # numbers of tickets and their dates are strings in CSV and workbooks, and no texts
        likely = [name for name in strings if _holds_letters(table, name)] or strings
        if len(likely) != 1:
            which = f"columns {_list(likely)} could each be" if likely else "no column seems to be"
            raise ColumnsUnclear(
                f"{table.name}: {which} the text or the file; say it with --text or --file; its columns: "
                f"{_list(table.columns)}",
                list(table.columns),
            )
        text = likely[0]
    if file is not None:
        return None, file
    assert text is not None
    values = first_few(table.columns[text]())
    return (None, text) if values and all(map(looks_like_file, values)) else (text, None)


def _holds_strings(table: Table, name: str) -> bool:
    return any(isinstance(value, str | bytes | dict | PurePath) for value in first_few(table.columns[name]()))


def _holds_letters(table: Table, name: str) -> bool:
    return any(letter.isalpha() for value in first_few(table.columns[name]()) for letter in str(value))


def _list(names: Collection[str]) -> str:
    shown = ", ".join(repr(name[:_LONG]) for name in list(names)[:_LISTED])
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{shown}{more}" or "none"
