"""One digest for a whole dataset: which rows something was learnt from."""

import hashlib

from graftwork.errors import Unreadable
from graftwork.rows import UNLABELLED, Dataset


def dataset_digest(dataset: Dataset) -> str:
    """SHA-256 (hex) over (content, label, part) of all rows, whatever their order, names or paths.

    Rows that cannot be read count by their label and part.
    """
    keys = sorted(_row_key(dataset, i) for i in range(len(dataset)))
    return hashlib.sha256(b"".join(keys)).hexdigest()


def _row_key(dataset: Dataset, i: int) -> bytes:
    code = dataset.target.codes[i]
    # the sign keeps "no label" apart from a label that is the empty text
    label = b"" if code == UNLABELLED else b"=" + dataset.labels[code].encode("utf-8", "surrogatepass")
    try:
        content = dataset.rows.column.digest(i)
    except Unreadable:
        content = bytes(32)
    return hashlib.sha256(content + str(dataset.split.parts[i]).encode() + label).digest()
