"""Where a pretrained model comes from: name, revision, files and their SHA-256, licence."""

from graftwork.sources.finding import available, choose, find, find_by_digest
from graftwork.sources.packaged import PACKAGED
from graftwork.sources.reading import read
from graftwork.sources.source import COMPACT, Source

__all__ = ["COMPACT", "PACKAGED", "Source", "available", "choose", "find", "find_by_digest", "read"]
