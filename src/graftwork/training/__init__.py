"""Training a torch network by epochs: plan, loop, loss, dealing of rows, checkpoints."""

from graftwork.training.answering import answered
from graftwork.training.augmentation import AUGMENTATIONS, Augment, Augmentation, warp, waves
from graftwork.training.balance import Balance, balanced
from graftwork.training.checkpoints import Checkpoint, Checkpoints
from graftwork.training.dealing import hold_out
from graftwork.training.distorting import distortion, mirrorable
from graftwork.training.feeding import Batches, Fed
from graftwork.training.loop import seeded, train
from graftwork.training.plan import Epoch, Layers, Plan, Training
from graftwork.training.views import views

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "Augmentation",
    "Balance",
    "Batches",
    "Checkpoint",
    "Checkpoints",
    "Epoch",
    "Fed",
    "Layers",
    "Plan",
    "Training",
    "answered",
    "balanced",
    "distortion",
    "hold_out",
    "mirrorable",
    "seeded",
    "train",
    "views",
    "warp",
    "waves",
]
