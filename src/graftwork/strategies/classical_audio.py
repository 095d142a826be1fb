"""Recordings without pretrained weights: log-mel statistics under kernel ridge regression."""

from graftwork.backbones.logmel import BLOCKS
from graftwork.strategies.kernel_ridge import Recipe

AUDIO = Recipe(
    "log-mel statistics + kernel ridge",
    BLOCKS,
    {
        "timbre": {"timbre": 0.7, "movement": 0.3},
        "course": {"course": 1.0},
        "course and length": {"course": 0.9, "whole": 0.1},
        "timbre and course": {"timbre": 0.3, "movement": 0.1, "course": 0.6},
        "all": {"timbre": 0.4, "movement": 0.15, "course": 0.35, "whole": 0.1},
    },
)
