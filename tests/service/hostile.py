"""Files that strangers might send: a function each, giving the bytes. None is larger than a few megabytes."""

import io
import json
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

# Parts of honest files


def png(side: int = 16, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def zip_of(
    files: Mapping[str, bytes] | Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """An archive of these files, whatever they are called."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method  # ZipInfo() itself would tidy the name
            info.external_attr = 0o644 << 16
            opened.writestr(info, content)
    return buffer.getvalue()


def class_folders(per_class: int = 6, top: str = "") -> dict[str, bytes]:
    """Pictures of two classes, light and dark, by their names in an archive."""
    rng = np.random.default_rng(0)
    files = {}
    for label, level in (("dark", 40), ("light", 200)):
        for i in range(per_class):
            pixels = rng.integers(level - 30, level + 30, (28, 28, 3)).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            files[f"{top}{label}/{i}.png"] = buffer.getvalue()
    return files


# Archives


def zip_slip(name: str = "../../outside.txt") -> bytes:
    return zip_of({**class_folders(1), name: b"written where it should not be"})


def zip_symlink(target: str = "/etc/passwd") -> bytes:
    buffer = io.BytesIO(zip_of(class_folders(1)))
    with zipfile.ZipFile(buffer, "a") as opened:
        info = zipfile.ZipInfo("dark/link.png")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, target)
    return buffer.getvalue()


def zip_special() -> bytes:
    """A device node."""
    buffer = io.BytesIO(zip_of(class_folders(1)))
    with zipfile.ZipFile(buffer, "a") as opened:
        info = zipfile.ZipInfo("dark/zero.png")
        info.create_system, info.external_attr = 3, (stat.S_IFCHR | 0o666) << 16
        opened.writestr(info, b"")
    return buffer.getvalue()


def zip_bomb(size: int = 100_000_000) -> bytes:
    """One entry of `size` zero bytes: about a thousandth of it packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece, check, packed = bytes(1_000_000), 0, io.BytesIO()
    for _ in range(size // len(piece)):
        packed.write(packer.compress(piece))
        check = zlib.crc32(piece, check)
    packed.write(packer.flush())
    return _raw_zip([("dark/bomb.png", packed.getvalue(), check, size, 8, 0)])


def lying_sizes(declared: int = 10) -> bytes:
    """An entry that says `declared` bytes and unpacks to fifty million."""
    content = bytes(50_000_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    return _raw_zip([("dark/0.png", packed, zlib.crc32(content[:declared]), declared, 8, 0)])


def short_entry() -> bytes:
    """An entry that promises more than it holds."""
    return _raw_zip([("dark/0.png", b"abc", zlib.crc32(b"abc"), 1_000, 0, 0)], stored=3)


def overlapping(copies: int = 1_000) -> bytes:
    """Many entries that share the same bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = bytes(1_000_000)
    packed = packer.compress(content) + packer.flush()
    return _raw_zip(
        [(f"dark/{i}.png", packed, zlib.crc32(content), len(content), 8, 0) for i in range(copies)],
        shared=True,
    )


def encrypted() -> bytes:
    return _raw_zip([("dark/0.png", b"secret", 0, 6, 0, 1)])


def million_entries(count: int = 1_000_000) -> bytes:
    """A directory of `count` empty entries, in the large form that such counts need."""
    name = b"d/0"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name
    one = (
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0)
        + name
    )
    directory = one * count
    at, end = len(local), len(local) + len(directory)
    large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), at)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), at, 0)
    return local + directory + large + locator + last


def million_behind_a_lie() -> bytes:
    """The same in the small form, whose end says that there is one entry."""
    whole = million_entries(100_000)
    at = whole.rfind(b"PK\x06\x06")
    length = at - whole.find(b"PK\x01\x02")
    return whole[:at] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, length, at - length, 0)


def gbk_names() -> bytes:
    """Class folders whose names a Chinese Windows wrote, without a word about their encoding."""
    files = [(f"{label}/{i}.png".encode("gbk"), png(seed=i)) for label in ("猫咪", "小狗") for i in range(4)]
    return _raw_zip([(name, content, zlib.crc32(content), len(content), 0, 0) for name, content in files])


def nested(depth: int = 3) -> bytes:
    content = zip_of(class_folders(1))
    for _ in range(depth):
        content = zip_of({**class_folders(3), "dark/inner.zip": content})
    return content


def truncated_zip() -> bytes:
    whole = zip_of(class_folders(3))
    return whole[: len(whole) // 2]


def _raw_zip(
    entries: Sequence[tuple[str | bytes, bytes, int, int, int, int]],
    *,
    stored: int | None = None,
    shared: bool = False,
) -> bytes:
    """entries: (name, packed bytes, CRC, declared size, method, flags). stored: packed size to claim instead.

    shared: all entries point at the bytes of the first.
    """
    body, directory, offsets = io.BytesIO(), io.BytesIO(), []
    for name, packed, check, size, method, flags in entries:
        raw = name if isinstance(name, bytes) else name.encode("cp437")
        length = len(packed) if stored is None else stored
        offsets.append(offsets[0] if shared and offsets else body.tell())
        if not (shared and len(offsets) > 1):
            head = struct.pack(
                "<4s5H3L2H", b"PK\x03\x04", 20, flags, method, 0, 0, check, length, size, len(raw), 0
            )
            body.write(head + raw + packed)
        directory.write(
            struct.pack(
                "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, flags, method, 0, 0, check, length, size,
                len(raw), 0, 0, 0, 0, 0, offsets[-1],
            )
            + raw
        )  # fmt: skip
    count, listed, start = min(len(entries), 0xFFFF), directory.getvalue(), body.tell()
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(listed), start, 0)
    return body.getvalue() + listed + end


# Pictures


def png_bomb(side: int = 60_000) -> bytes:
    """A picture that says it has `side` x `side` pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))

    header = struct.pack(">2L5B", side, side, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def truncated_png() -> bytes:
    whole = png(64)
    return whole[: len(whole) // 2]


def web_page_named_jpg() -> bytes:
    return b"<!doctype html><script>alert(1)</script>"


def wav_that_lies(frames: int = 500_000_000) -> bytes:
    """A recording that says it is hours long and holds a second."""
    body = bytes(32_000)
    layout = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 2 * frames + 36)
        + b"WAVEfmt "
        + layout
        + b"data"
        + struct.pack("<I", 2 * frames)
        + body
    )


# What runs code when it is read


class _Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("a pickle was opened",)


def pickle_named_jpg(protocol: int = 4) -> bytes:
    return pickle.dumps(_Runs(), protocol)


def npy_with_objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Runs()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def torch_zip() -> bytes:
    return zip_of({"archive/data.pkl": pickle_named_jpg(), "archive/version": b"3\n"}, zipfile.ZIP_STORED)


# Tables


def csv_many_columns(count: int = 100_000) -> bytes:
    header = ",".join(f"column{i}" for i in range(count))
    return f"{header}\n{',' * (count - 1)}\n".encode()


def csv_with_nul() -> bytes:
    return b"text,label\ngood,a\nbad\0,b\n"


def csv_large_cell(size: int = 20_000_000) -> bytes:
    return b'text,label\nfine,a\n"' + b"x" * size + b'",b\n'


def csv_formulas() -> bytes:
    cells = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "plain", "words"]
    rows = [f'"{cell} number {i}",{"good" if i % 2 else "bad"}' for i in range(3) for cell in cells]
    return ("text,label\n" + "\n".join(rows) + "\n").encode()


def csv_one_class() -> bytes:
    return b"text,label\n" + b"".join(b"text %d,only\n" % i for i in range(20))


def csv_of_paths(*outside: str) -> bytes:
    rows = [f"{path},a" for path in outside] + ["images/0.png,a", "images/1.png,b"]
    return ("file,label\n" + "\n".join(rows) + "\n").encode()


def deep_json(depth: int = 200_000) -> bytes:
    return b'{"text": ' + b"[" * depth + b"]" * depth + b', "label": "a"}\n'


def json_with_nan() -> bytes:
    rows = [{"text": f"text {i}", "label": ["a", "b"][i % 2]} for i in range(10)]
    return (
        "\n".join(map(json.dumps, rows)).encode()
        + b'\n{"text": "more", "label": NaN}\n{"text": Infinity, "label": "a"}\n'
    )


def json_long_number() -> bytes:
    return b'{"text": ' + b"9" * 100_000 + b', "label": "a"}\n'


def parquet_bomb(rows: int = 20_000, size: int = 1_000_000) -> bytes:
    """A megabyte, said `rows` times in a few bytes each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"text": words, "label": pa.array(["a", "b"] * (rows // 2))}), buffer, store_schema=False
    )
    return buffer.getvalue()


def parquet_strange_metadata() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": [f"text {i}" for i in range(8)], "label": [0, 1] * 4})
    said = json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": ["only"]}}}})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": said}), buffer)
    return buffer.getvalue()


# Tensors


def huge_header_safetensors() -> bytes:
    """A header that says it has a hundred gigabytes."""
    return struct.pack("<Q", 100_000_000_000) + b"{}"


def overlapping_safetensors() -> bytes:
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(24)
