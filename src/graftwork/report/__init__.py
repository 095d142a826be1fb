"""Result -> one self-contained HTML file."""

from graftwork.report.render import render

__all__ = ["render"]
