"""How well features tell labels apart, without fitting a head: scores, each against shuffled labels.

`separations(features, codes, groups, labellings)` is what ranking asks. Larger is better. A score says
little by itself where width exceeds rows; its null does: z is how many null deviations it stands above
shuffled labels, p the share of shufflings at least as good.
"""

from graftwork.transferability.scores import NAMES, Separation, separations, shufflings

__all__ = ["NAMES", "Separation", "separations", "shufflings"]
