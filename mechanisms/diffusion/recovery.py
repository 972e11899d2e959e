"""Can a cause be recovered from the image at all? Anticausal prediction, and so guidance, assumes it.

Diff-SCM's second assumption (Sanchez & Tsaftaris 2022, section 3): the image holds enough to recover its
causes. Held-out figures say whether that holds, beside what guessing achieves.
"""

import warnings

from torch import Tensor

__all__ = ["recovery"]

_ENOUGH_ROWS = 100
"""Fewer held-out rows than this tell nothing."""


def recovery(name: str, guess: Tensor, truth: Tensor, *, categorical: bool) -> dict[str, float]:
    """Figures of one parent's predictor; warns where it is no better than guessing.

    Args:
        name: of the parent.
        guess: predicted from the image, (N, *event).
        truth: what it was, (N, *event).
        categorical: figures are accuracy and the share of the commonest category, else the mean absolute
            error and that of guessing the median.

    Returns:
        "<name> accuracy" or "<name> error", and "<name> chance".
    """
    if categorical:
        figure, chance = (guess == truth).double().mean().item(), truth.bincount().max().item() / len(truth)
        # Within two standard errors of guessing.
        useless = figure < chance + 2 * (chance * (1 - chance) / len(truth)) ** 0.5
    else:
        figure = (guess - truth).abs().mean().item()
        chance = (truth - truth.median(0).values).abs().mean().item()
        useless = figure > 0.95 * chance
    what = "accuracy" if categorical else "error"
    if useless and len(truth) >= _ENOUGH_ROWS:
        warnings.warn(
            f"Parent {name!r} is not recovered from the image: {what} {figure:.3g} on held-out rows, where "
            f"guessing gives {chance:.3g}. Guidance towards it will do little: train longer, or doubt it.",
            stacklevel=2,
        )
    return {f"{name} {what}": figure, f"{name} chance": chance}
