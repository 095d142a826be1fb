"""The database: tables, their migrations, and how to connect."""

from graftwork.service.database.connect import Database
from graftwork.service.database.migrate import migrate

__all__ = ["Database", "migrate"]
