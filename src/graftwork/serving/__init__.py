"""Many tasks on one backbone: artefacts opened on demand, inputs of all tasks in one batch. No HTTP here."""

from graftwork.serving.serving import Serving

__all__ = ["Serving"]
