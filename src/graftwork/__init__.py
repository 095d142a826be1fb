"""Graftwork: reuse a pretrained model for a new task."""
