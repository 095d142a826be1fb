"""Pictures without pretrained weights: gradients, colours and pixels under kernel ridge regression."""

from graftwork.backbones.descriptor import BLOCKS
from graftwork.strategies.kernel_ridge import Recipe

IMAGES = Recipe(
    "descriptors + kernel ridge",
    BLOCKS,
    {
        "gradients": {"gradients": 0.5, "outlines": 0.5},
        "pixels": {"pixels": 1.0},
        "gradients and pixels": {"gradients": 0.4, "outlines": 0.4, "pixels": 0.2},
        "gradients and colours": {"gradients": 0.4, "outlines": 0.4, "colours": 0.2},
        "all": {"gradients": 0.3, "outlines": 0.3, "colours": 0.2, "pixels": 0.2},
    },
)
