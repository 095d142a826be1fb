"""What a dataset holds and what is wrong with it, and the same dataset made ready to learn from."""

from graftwork.datasets import dataset_digest
from graftwork.inspection.looking import inspect
from graftwork.inspection.preparing import prepare, readable
from graftwork.inspection.record import Inspection, Leak, Recordings, Repeats
from graftwork.inspection.saying import in_words

__all__ = [
    "Inspection",
    "Leak",
    "Recordings",
    "Repeats",
    "dataset_digest",
    "in_words",
    "inspect",
    "prepare",
    "readable",
]
