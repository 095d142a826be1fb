"""Result or Ranking -> one self-contained HTML file."""

from graftwork.report.render import render, render_ranking

__all__ = ["render", "render_ranking"]
