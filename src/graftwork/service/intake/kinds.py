"""What is never opened: files that run code, or may, when they are read."""

from pathlib import PurePath

from graftwork.service.problems import unsupported

_SUFFIXES = frozenset(
    ".pt .pth .ckpt .pkl .pickle .p .joblib .npy .npz .keras .h5 .hdf5 .bin .pb .tflite .msgpack .dill"
    " .mat .rds .rdata .exe .dll .so .dylib .jar .py .pyc .sh .bat .js".split()
)
_TABLES = "a table (.csv, .tsv, .xlsx, .parquet, .jsonl)"
EXPECTED = f"expected a picture, a recording, a text, {_TABLES} or a .zip of them"

_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x93NUMPY", "a NumPy array, which may hold pickled objects"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights)"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"\xca\xfe\xba\xbe", "a program"),
    (0, b"#!/", "a script"),
    (257, b"ustar", "a tar archive; pack a .zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; pack a .zip"),
    (0, b"Rar!\x1a\x07", "a RAR archive; pack a .zip"),
    (0, b"\x1f\x8b", "a gzip archive; pack a .zip"),
    (0, b"BZh", "a bzip2 archive; pack a .zip"),
    (0, b"\xfd7zXZ\x00", "an xz archive; pack a .zip"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive; pack a .zip"),
)
# what stands first in a zip that torch.save, NumPy or Keras wrote
_IN_ZIP = (b"/data.pkl", b"data.pkl", b".npy", b"model.weights.h5", b"metadata.json", b"/.format_version")

# protocols 0 and 1: a list, a mapping or an object to begin with
_OLD_PICKLES = (
    *(b"(lp", b"(dp", b"(ip", b"]q\x00", b"}q\x00", b"(cos\n", b"cos\n", b"cposix\n", b"cnt\n"),
    *(b"ccopy_reg\n", b"c__builtin__\n", b"cbuiltins\n", b"csubprocess\n"),
)


def refuse(name: str, head: bytes) -> None:
    """Raise a Problem (415) where a file is of a kind that is never opened, by its name or its first bytes.

    head: its first 512 bytes or more. Nothing is parsed.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in _SUFFIXES:
        raise unsupported(
            f"{_short(name)}: files of type {suffix} may run code when they are read and are never opened; "
            f"{EXPECTED}"
        )
    seen = _dangerous(head)
    if seen is not None:
        raise unsupported(f"{_short(name)} is {seen}; it is not opened: {EXPECTED}")


def _dangerous(head: bytes) -> str | None:
    for offset, mark, said in _MARKS:
        if head[offset:].startswith(mark):
            return said
    if _is_pickle(head):
        return "a pickle, which runs code when it is read"
    if head.startswith(b"PK\x03\x04"):
        length = int.from_bytes(head[26:28], "little")
        first = head[30 : 30 + length]
        if first.endswith(_IN_ZIP):
            return "what torch.save, NumPy or Keras writes, which may run code when it is read"
    return None


def _is_pickle(head: bytes) -> bool:
    """Protocols 2 to 5 begin with their number; 0 and 1 with an opcode that nothing else begins with."""
    if len(head) >= 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5):
        return True
    return head.startswith(_OLD_PICKLES)


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:40]}...{name[-30:]}")
