"""The database: tables, their migrations, and how to connect."""

from graftwork.service.database.connect import Database

__all__ = ["Database"]
