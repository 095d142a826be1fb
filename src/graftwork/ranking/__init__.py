"""Which source to start from: measured, with how sure that is."""

from graftwork.ranking.ranking import rank

__all__ = ["rank"]
