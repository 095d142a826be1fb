"""Workbooks of a few cells, made by hand: .xlsx, .ods and .xls as programs of spreadsheets write them."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Cell = str | int | float | bool | None
Cells = Sequence[Sequence[Cell]]

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_STYLES = (
    f'<styleSheet xmlns="{_MAIN}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/>'
    '<xf numFmtId="20"/><xf numFmtId="46"/></cellXfs></styleSheet>'
)
DATE, MOMENT, CLOCK, DURATION = 1, 2, 3, 4
"""Styles for `raw` cells."""


def xlsx(
    sheets: Mapping[str, Cells | str], shared: Sequence[str] = (), hidden: Sequence[str] = (), **more: bytes
) -> bytes:
    """sheets: cells by rows, or what stands in the sheet's XML. more: further parts of the package."""

    def state(name: str) -> str:
        return "hidden" if name in hidden else "visible"

    parts = [f"worksheets/sheet{i}" for i in range(1, len(sheets) + 1)]
    kinds = [*["worksheet"] * len(parts), "sharedStrings", "styles"]
    related = "".join(
        f'<Relationship Id="r{i}" Type="{_OFFICE}/{kind}" Target="{part}.xml"/>'
        for i, (part, kind) in enumerate(zip([*parts, "sharedStrings", "styles"], kinds, strict=True))
    )
    listed = "".join(
        f'<sheet name="{escape(name)}" sheetId="{i + 1}" state="{state(name)}" r:id="r{i}"/>'
        for i, name in enumerate(sheets)
    )
    strings = "".join(f"<si><t>{escape(text)}</t></si>" for text in shared)
    return packed(
        {
            "[Content_Types].xml": f'<Types xmlns="{_PACKAGE[:-13]}content-types"/>',
            "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="r" '
            f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">'
            f"<sheets>{listed}</sheets></workbook>",
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}">{related}</Relationships>',
            "xl/sharedStrings.xml": f'<sst xmlns="{_MAIN}">{strings}</sst>',
            "xl/styles.xml": _STYLES,
            **{
                f"xl/{part}.xml": f'<worksheet xmlns="{_MAIN}"><sheetData>'
                f"{cells if isinstance(cells, str) else _rows(cells)}</sheetData></worksheet>"
                for part, cells in zip(parts, sheets.values(), strict=True)
            },
            **more,
        }
    )


def packed(parts: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def raw(value: str, kind: str = "n", style: int = 0, before: str = "") -> str:
    """A cell as the XML has it, in the place after the last."""
    return f'<c t="{kind}" s="{style}">{before}<v>{escape(value)}</v></c>'


def _rows(cells: Cells) -> str:
    return "".join(
        f'<row r="{i}">{"".join(_cell(f"{_letters(j)}{i}", cell) for j, cell in enumerate(row))}</row>'
        for i, row in enumerate(cells, start=1)
    )


def _letters(column: int) -> str:
    high, low = divmod(column, 26)
    return (_letters(high - 1) if high else "") + chr(ord("A") + low)


def _cell(at: str, cell: Cell) -> str:
    if cell is None:
        return f'<c r="{at}" s="1"/>'
    if isinstance(cell, bool):
        return f'<c r="{at}" t="b"><v>{int(cell)}</v></c>'
    if isinstance(cell, str):
        return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(cell)}</t></is></c>'
    return f'<c r="{at}"><v>{cell!r}</v></c>'


def ods(cells: Cells) -> bytes:
    """One sheet; texts and numbers."""
    rows = "".join(
        f"<table:table-row>{''.join(_open_cell(cell) for cell in row)}</table:table-row>" for row in cells
    )
    names = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "table", "text")
    )
    return packed(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "META-INF/manifest.xml": "<m:manifest "
            'xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>',
            "content.xml": f"<office:document-content{names}><office:body><office:spreadsheet>"
            f'<table:table table:name="S">{rows}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        }
    )


def _open_cell(cell: Cell) -> str:
    if cell is None:
        return "<table:table-cell/>"
    said = escape(str(cell))
    kind = "string" if isinstance(cell, str) else f'float" office:value="{cell}'
    return f'<table:table-cell office:value-type="{kind}"><text:p>{said}</text:p></table:table-cell>'


def xls(cells: Cells) -> bytes:
    """One sheet of texts and numbers, as Excel 97 wrote them."""
    body = b"".join(
        _record(0x0204, struct.pack("<3HHB", i, j, 0, len(cell), 1) + cell.encode("utf-16-le"))
        if isinstance(cell, str)
        else _record(0x0203, struct.pack("<3Hd", i, j, 0, float(cell or 0)))
        for i, row in enumerate(cells)
        for j, cell in enumerate(row)
    )
    book, sheet = (_record(0x0809, struct.pack("<4H8x", 0x0600, kind, 0, 0)) for kind in (0x0005, 0x0010))
    end = _record(0x000A, b"")
    named = struct.pack("<LHBB", len(book) + 4 + 9 + len(end), 0, 1, 0) + b"S"
    return ole("Workbook", book + _record(0x0085, named) + end + sheet + body + end)


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<2H", kind, len(content)) + content


def ole(name: str, stream: bytes) -> bytes:
    """A compound file with one stream."""
    stream = stream.ljust(max(4096, -len(stream) // 512 * -512), b"\0")
    sectors = len(stream) // 512
    chain = [*range(1, sectors), 0xFFFFFFFE, 0xFFFFFFFE, 0xFFFFFFFD]
    table = struct.pack(f"<{len(chain)}L", *chain).ljust(512, b"\xff")
    assert len(table) == 512, "more than one sector of sectors"
    head = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16)
    head += struct.pack(
        "<5H6x9L", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, sectors, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0
    )
    head += struct.pack("<L", sectors + 1).ljust(436, b"\xff")
    return (
        head
        + stream
        + _entry("Root Entry", 5, 0xFFFFFFFE, 0, child=1)
        + _entry(name, 2, 0, len(stream))
        + bytes(256)
        + table
    )


def _entry(name: str, kind: int, start: int, size: int, child: int = 0xFFFFFFFF) -> bytes:
    said = name.encode("utf-16-le")
    links = struct.pack("<3L", 0xFFFFFFFF, 0xFFFFFFFF, child)
    return (
        said.ljust(64, b"\0")
        + struct.pack("<H2B", len(said) + 2, kind, 1)
        + links
        + bytes(36)
        + struct.pack("<LQ", start, size)
    )
