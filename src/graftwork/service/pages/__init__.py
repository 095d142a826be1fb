"""The page: rendered on the server, the same verbs as the API."""

from graftwork.service.pages.rendering import error_page
from graftwork.service.pages.routes import mount

__all__ = ["error_page", "mount"]
